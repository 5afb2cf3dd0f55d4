"""Predicting and scoring a labelled data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset.base import SegmentationDataset
from dataset.classes import LabelMap, colorize
from dataset.skip import LeavingOut
from model.networks.batchnorm import evaluating
from model.networks.deeplab import DeepLab
from model.networks.upsampling import best_class
from utils.prediction.metrics import ConfusionMatrix
from utils.system import distributed
from utils.system.background import Background
from utils.system.errors import UserError
from utils.system.files import staged, write_image
from utils.system.interrupt import shielded
from utils.system.precision import AMP_DTYPES
from utils.system.skipped import Skipped
from utils.system.transfer import to_host


class Group(NamedTuple):
    """Samples of a data set without their images, and the images of those that have one, uint8 [B, 3, H, W]; None if
    none of them has one."""

    samples: list[dict[str, Any]]
    images: Tensor | None


def grouped(samples: list[dict[str, Any]]) -> Group:
    """Stack the images in the process that reads the samples, so that the stack is pinned and sent to the device.
    Labels, which may differ in size, are not stacked."""
    images = [sample.pop("image") for sample in samples if "image" in sample]
    return Group(samples, torch.stack(images) if images else None)


def in_order(
    dataset: SegmentationDataset, num_workers: int, pin_memory: bool, batch_size: int, indices: Sequence[int]
) -> DataLoader[Any]:
    """The samples of a data set in the order of `indices`, as `Group`s."""
    return DataLoader(
        LeavingOut(dataset) if dataset.skip_bad else dataset,
        batch_size=batch_size,
        sampler=indices,
        collate_fn=grouped,
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # otherwise, a loader would draw from the random state of training
    )


@dataclass(frozen=True)
class Variants:
    """Versions of every image over which a prediction is the mean soft-max (our choice): scales, each also mirrored."""

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False


@torch.inference_mode()
def maps(segmenter: DeepLab, images: Tensor, variants: Variants = Variants(), amp: str = "off") -> list[Tensor]:
    """What a segmenter predicts for a batch in eval mode; afterwards, each layer returns to its own mode.

    images: uint8 RGB [B, 3, H, W] on the segmenter's device. Returns float32 maps [B, C, h, w]: the logits if there is
    one version of the images, else soft-max maps, one per scale. `best_class(maps, (height, width))` is the label map
    at any size.
    """
    dtype = AMP_DTYPES[amp]
    with evaluating(segmenter), torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
        if variants == Variants():
            return [segmenter(images)[1].float()]
        return [_mean_over_mirrored(segmenter, images, scale, variants.flip) for scale in variants.scales]


def _mean_over_mirrored(segmenter: DeepLab, images: Tensor, scale: float, flip: bool) -> Tensor:
    """Soft-max maps of the images at a scale; with `flip`, the mean of these and of those of the mirrored images."""
    scaled = images
    if scale != 1:
        size = [round(side * scale) for side in images.shape[2:]]
        scaled = F.interpolate(segmenter.normalise(images), size=size, mode="bilinear", antialias=True)
    probabilities = segmenter(scaled)[1].float().softmax(1)
    if not flip:
        return probabilities
    return (probabilities + segmenter(scaled.flip(3))[1].float().softmax(1).flip(3)) / 2


@torch.inference_mode()
def predict(
    segmenter: DeepLab,
    dataset: SegmentationDataset,
    *,
    amp: str = "off",
    num_workers: int = 0,
    batch_size: int = 1,
    variants: Variants = Variants(),
    indices: Sequence[int] | None = None,
    desc: str = "predict",
    skipped: Skipped | None = None,
) -> Iterator[tuple[dict[str, Any], list[Tensor]]]:
    """Each sample in turn (or those of `indices`), without its image, and its `maps` [1, C, h, w].

    If the data set has `skip_bad`, bad images are left out and reported to `skipped`; raises UserError if no image is
    good. Several processes (`utils.system.distributed`) call this together, each with its own `indices`.
    """
    device = segmenter.input_mean.device
    chosen = range(len(dataset)) if indices is None else indices
    numbers = iter(chosen)
    batches = in_order(dataset, num_workers, device.type == "cuda", batch_size, chosen)
    found = False
    bad = Skipped() if skipped is None else skipped
    reasons: list[tuple[int, str]] = []
    with tqdm(total=len(chosen), desc=desc, disable=distributed.no_bar(), leave=False) as bar:
        for group, images in shielded(batches):
            new = [(n, sample["skipped"]) for sample, n in zip(group, numbers) if "skipped" in sample]
            reasons += new
            if distributed.size() == 1:
                bad.add(reason for _, reason in new)
            if images is not None:
                predicted = maps(segmenter, images.to(device, non_blocking=True), variants, amp)
                found = True
            for number, sample in enumerate(sample for sample in group if "skipped" not in sample):
                yield sample, [m[number : number + 1] for m in predicted]
            bar.update(len(group))
    everywhere = distributed.objects((found, reasons))
    bad.add(reason for _, reason in sorted(chain(*(others for _, others in everywhere))))
    if bad.reasons and not any(found for found, _ in everywhere):
        raise UserError(f"{dataset.root}: none of the {len(dataset)} images can be read; {bad.reasons[-1]}")


def evaluate(
    segmenter: DeepLab,
    dataset: SegmentationDataset,
    *,
    amp: str = "off",
    num_workers: int = 0,
    batch_size: int = 1,
    variants: Variants = Variants(),
    save: Path | None = None,
    save_ids: LabelMap | None = None,
    skipped: Skipped | None = None,
) -> ConfusionMatrix:
    """Confusion matrix over the images of a data set that have labels, at the labels' size.

    Logits are up-sampled (bilinear, align_corners=True) to the image's native size (for the score, to the label's size
    if that differs). Then argmax is computed class by class on the device, where the matrix is too.

    save: folder for the masks of all images, written in the background; they appear there when all are made. They are
    called `KEY.png` and hold train ids, with `KEY_color.png` beside each. With the lookup [256] `save_ids` they hold
    what it maps train ids to, without coloured masks: the official evaluation of Cityscapes accepts one file per image.
    If there are several processes, each predicts some of the batches, and all return the same matrix.
    """
    own, scores = (ConfusionMatrix(dataset.table.num_classes, dataset.ignore_label) for _ in range(2))
    with nullcontext() if save is None else staged(save) as masks:
        with Background() as background:
            for sample, maps in predict(
                segmenter,
                dataset,
                amp=amp,
                num_workers=num_workers,
                batch_size=batch_size,
                variants=variants,
                indices=list(chain(*distributed.share(whole_batches(len(dataset), batch_size)))),
                desc="evaluate",
                skipped=skipped,
            ):
                width, height = sample["size"]
                prediction = best_class(maps, (height, width))[1][0]
                if "label" in sample:
                    label = sample["label"].to(prediction.device, non_blocking=True)
                    same = label.shape == prediction.shape
                    own.update(prediction if same else best_class(maps, label.shape)[1][0], label)
                    own.images += 1
                if masks is not None:
                    stem = masks / dataset.key(sample["name"])
                    background.run(_write_prediction, dataset, stem, to_host(prediction), save_ids)
        scores.images = sum(distributed.objects(own.images))
        scores.add(distributed.total(np.column_stack([own.matrix, own.no_class])))
    return scores


def whole_batches(number: int, batch_size: int) -> list[range]:
    """The numbers from 0, one range per batch, grouped as one process would do it, because another grouping rounds
    differently."""
    return [range(first, min(first + batch_size, number)) for first in range(0, number, batch_size)]


def _write_prediction(dataset: SegmentationDataset, stem: Path, mask: LabelMap, ids: LabelMap | None) -> None:
    write_image(stem.with_name(f"{stem.name}.png"), Image.fromarray(mask if ids is None else ids[mask]))
    if ids is None:
        write_image(stem.with_name(f"{stem.name}_color.png"), colorize(mask, dataset.table, dataset.ignore_label))
