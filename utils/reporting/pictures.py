"""From tensors to pictures: uint8 RGB arrays [H, W, 3] for sinks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataset.base import SegmentationDataset
from dataset.classes import IGNORE, ClassTable
from model.networks.deeplab import DeepLab
from model.networks.upsampling import best_class
from model.terms.thresholds import CAP
from utils.reporting.passes import passes
from utils.reporting.sinks import Picture
from utils.system.transfer import to_host

Labels = Tensor | npt.NDArray[Any]
WIDEST = 640  # pixels of a picture, enough for a screen
GAP = 4  # pixels between the pictures of a grid
EXAMPLES = 4


def image(pixels: Tensor) -> Picture:
    """A picture of an image: uint8 RGB [3, H, W]."""
    return np.ascontiguousarray(to_host(pixels.permute(1, 2, 0)).astype(np.uint8))


def colours(labels: Labels, table: ClassTable) -> Picture:
    """Train ids [H, W] in the colours of the class table; every other value is black."""
    ids = to_host(labels) if isinstance(labels, Tensor) else labels
    lookup = np.zeros((256, 3), np.uint8)
    lookup[: table.num_classes] = table.palette
    return lookup[ids.astype(np.uint8)]


def overlay(picture: Picture, labels: Labels, table: ClassTable, share: float = 0.5) -> Picture:
    """The picture [H, W, 3] with the colours of its labels [H, W] over it, which make up `share` of the result; pixels
    without a class do not change."""
    ids = to_host(labels) if isinstance(labels, Tensor) else labels
    mixed = ((1 - share) * picture + share * colours(ids, table)).round().astype(np.uint8)
    return np.where((ids < table.num_classes)[..., None], mixed, picture)


def confidence_map(confidence: Tensor | npt.NDArray[np.floating]) -> Picture:
    """Confidences [H, W] from 0 (dark violet) to 1 (yellow), by the colour map viridis."""
    values = to_host(confidence) if isinstance(confidence, Tensor) else confidence
    levels = (np.clip(values.astype(np.float64), 0, 1) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1])


def picture(panel: Tensor, table: ClassTable) -> Picture:
    """A picture of a tensor, according to its type: an RGB image (uint8 [3, H, W]), labels (any integers [H, W]) or
    confidences from 0 to 1 (floating point [H, W]); for a batch of these, a row of pictures. Each is at most `WIDEST`
    pixels wide.

    Raises ValueError for any other shape or type.
    """
    if panel.dtype == torch.uint8 and panel.ndim == 4 and panel.shape[1] == 3:
        return grid([picture(one, table) for one in panel], columns=len(panel))
    if panel.dtype == torch.uint8 and panel.ndim == 3 and panel.shape[0] == 3 and panel.shape[1] > 3:
        return reduced(image(panel))
    if panel.ndim == 3:
        return grid([picture(one, table) for one in panel], columns=len(panel))
    if panel.ndim == 2 and panel.is_floating_point():
        return reduced(confidence_map(panel))
    if panel.ndim == 2 and panel.dtype != torch.bool:
        return reduced(colours(panel, table), smooth=False)
    raise ValueError(f"a panel of shape {tuple(panel.shape)} and type {panel.dtype}: not an image, labels, confidences")


def reduced(pixels: Picture, widest: int = WIDEST, *, smooth: bool = True) -> Picture:
    """The picture, reduced if it is wider than `widest`; smooth: by averaging, otherwise by the nearest pixels."""
    height, width = pixels.shape[:2]
    if width <= widest:
        return pixels
    size = (widest, max(1, round(height * widest / width)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if smooth else cv2.INTER_NEAREST_EXACT).astype(
        np.uint8
    )


def grid(pictures: Sequence[Picture], columns: int) -> Picture:
    """Pictures row by row, `columns` in each, on white with a gap between them; all in cells of the largest size.

    Raises ValueError if there are none.
    """
    if not pictures:
        raise ValueError("a grid of no pictures")
    height, width = (max(one.shape[axis] for one in pictures) for axis in (0, 1))
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for number, one in enumerate(pictures):
        y, x = (number // columns) * (height + GAP), (number % columns) * (width + GAP)
        sheet[y : y + one.shape[0], x : x + one.shape[1]] = one
    return sheet


@torch.inference_mode()
def examples(
    segmenter: DeepLab,
    dataset: SegmentationDataset,
    *,
    thresholds: npt.NDArray[np.floating] | None = None,
    amp: str = "off",
    truth: bool = True,
    count: int = EXAMPLES,
) -> Iterator[tuple[str, Picture]]:
    """Pictures of `count` images, spread evenly over a data set, with names such as "example 1/prediction".

    For each image: image, prediction, overlay, confidence, pseudo-label and, if there is a label, truth. thresholds:
    the lowest confidence [C] of a pseudo-label by class (default: `CAP` for all). truth: False for a data set whose
    labels are not the truth.
    """
    table = dataset.table
    limits = np.full(table.num_classes, CAP) if thresholds is None else thresholds
    for number, (sample, _, logits) in enumerate(passes(segmenter, dataset, count, amp), start=1):
        pixels = sample["image"]
        best, label = (to_host(values[0]) for values in best_class([logits.softmax(1)], tuple(pixels.shape[1:])))
        shown = {
            "image": image(pixels),
            "prediction": colours(label, table),
            "overlay": overlay(image(pixels), label, table),
            "pseudo-label": colours(np.where(best >= limits[label], label, IGNORE), table),
            "confidence": confidence_map(best),
        }
        if truth and "label" in sample:
            labels = np.asarray(sample["label"]).astype(np.uint8)
            size = (label.shape[1], label.shape[0])
            shown["truth"] = colours(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), table)
        smooth = ("image", "overlay", "confidence")
        for name, whole in shown.items():
            yield f"example {number}/{name}", reduced(whole, smooth=name in smooth)
