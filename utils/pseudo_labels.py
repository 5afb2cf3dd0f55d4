"""Pseudo-labels in two passes with memory that does not grow with the number of images (paper: self-training).

Pass one predicts every image, keeps its label (8 bit) and confidence (16 bit) on disk and counts the confidences of
each class; the counts give the thresholds; pass two writes the masks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from model.transfer import to_host
from utils.checkpoint import staged, write_image

LEVELS = 65536  # steps of a 16-bit confidence; a threshold is exact within 1 / 65535
CAP = 0.9
PORTION = 0.5


def confidence(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Label and confidence of logits [1, C, h, w] at `size` (H, W): soft-max first, then up-sampled (released).

    Returns uint8 [H, W] and the confidence as an int32 multiple of 1/65535 [H, W].
    """
    probabilities = torch.nn.functional.interpolate(logits.softmax(1), size=size, mode="bilinear", align_corners=True)
    best, label = probabilities[0].max(0)
    return label.to(torch.uint8), (best * (LEVELS - 1)).round().to(torch.int32)


class Histogram:
    """Counts of 16-bit confidences for each of `num_classes` predicted classes."""

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, LEVELS), dtype=np.int64)

    def add(self, label: npt.NDArray[np.uint8], level: npt.NDArray[np.uint16]) -> None:
        bins = label.ravel().astype(np.int64) * LEVELS + level.ravel()
        self.counts += np.bincount(bins, minlength=self.counts.size).reshape(self.counts.shape)

    def thresholds(self, portion: float = PORTION, cap: float = CAP) -> npt.NDArray[np.float64]:
        """[C]: element number round(portion * n) (half to even, from 0) of the n ascending confidences, at most `cap`;
        0 for a class that was never predicted."""
        result = np.zeros(len(self.counts))
        for c, counts in enumerate(self.counts):
            total = counts.cumsum()
            if total[-1]:
                position = min(round(portion * int(total[-1])), int(total[-1]) - 1)
                result[c] = min(int(np.searchsorted(total, position, side="right")) / (LEVELS - 1), cap)
        return result


def write_pseudo_labels(
    predictions: Iterable[tuple[str, Tensor, Tensor]], num_classes: int, folder: Path, ignore_label: int = 255
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Threshold per class over all predictions, then write `folder`/KEY.png of train ids and `ignore_label`.

    predictions: key, label and level (from `confidence`) of every image. On disk meanwhile: 3 bytes a pixel, in
    `folder`, removed also on failure; the masks appear there once all are made. Returns thresholds [C], pixels kept
    [C] and pixels predicted [C].
    """
    histogram = Histogram(num_classes)
    with staged(folder) as masks, tempfile.TemporaryDirectory(dir=masks) as scratch:
        keys: list[str] = []
        for key, label, level in predictions:
            arrays = to_host(label), to_host(level).astype(np.uint16)
            histogram.add(*arrays)
            np.savez(Path(scratch) / f"{len(keys)}.npz", label=arrays[0], level=arrays[1])
            keys.append(key)
        thresholds = histogram.thresholds()
        for number, key in enumerate(keys):
            with np.load(Path(scratch) / f"{number}.npz") as arrays_on_disk:
                label, level = arrays_on_disk["label"], arrays_on_disk["level"]
            label[level / (LEVELS - 1) < thresholds[label]] = ignore_label
            write_image(masks / f"{key}.png", Image.fromarray(label))
    levels = np.arange(LEVELS) / (LEVELS - 1)
    kept = np.where(levels[None] >= thresholds[:, None], histogram.counts, 0).sum(1)
    return thresholds, kept, histogram.counts.sum(1)
