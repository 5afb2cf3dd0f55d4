"""Predicting and scoring a labelled data set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset.base import SegmentationDataset
from dataset.classes import colorize
from dataset.skip import LeavingOut
from model.deeplab import DeepLab
from model.segmentation import upsample
from model.transfer import to_host
from utils.checkpoint import staged, write_image
from utils.errors import UserError
from utils.metrics import ConfusionMatrix
from utils.skipped import Skipped

AMP_DTYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def in_order(dataset: SegmentationDataset, num_workers: int, pin_memory: bool) -> DataLoader[dict[str, Any]]:
    """The samples of a data set one by one, in order, as they come (labels may differ in size)."""
    return DataLoader(
        LeavingOut(dataset) if dataset.skip_bad else dataset,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else a loader draws from the state that training goes on with
    )


@torch.inference_mode()
def predict(
    segmenter: DeepLab,
    dataset: SegmentationDataset,
    *,
    amp: str = "off",
    num_workers: int = 0,
    desc: str = "predict",
    skipped: Skipped | None = None,
) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Logits [1, C, h, w] (float32) of every image in turn, in eval mode, beside its sample.

    Of a data set with `skip_bad`, bad images are left out and named to `skipped`; UserError where all are bad.
    """
    device = segmenter.input_mean.device
    dtype = AMP_DTYPES[amp]
    samples = in_order(dataset, num_workers, pin_memory=device.type == "cuda")
    training, found = segmenter.training, False
    bad = Skipped() if skipped is None else skipped
    segmenter.eval()
    try:
        for sample in tqdm(samples, desc=desc, disable=None, leave=False):
            if "skipped" in sample:
                bad.add([sample["skipped"]])
                continue
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                _, logits = segmenter(sample["image"][None].to(device, non_blocking=True))
            yield sample, logits.float()
            found = True
        if not found:
            raise UserError(f"{dataset.root}: none of the {len(dataset)} images can be read; {bad.reasons[-1]}")
    finally:
        segmenter.train(training)


def evaluate(
    segmenter: DeepLab,
    dataset: SegmentationDataset,
    *,
    amp: str = "off",
    num_workers: int = 0,
    save: Path | None = None,
    skipped: Skipped | None = None,
) -> ConfusionMatrix:
    """Confusion matrix over a whole data set with labels at their native size.

    Logits are up-sampled (bilinear, align_corners=True) to the label, then argmax. save: folder for the masks, as
    `KEY.png` (train ids) and `KEY_color.png`; they appear there once all are made.
    """
    table = dataset.table
    scores = ConfusionMatrix(table.num_classes, dataset.ignore_label)
    with nullcontext() if save is None else staged(save) as masks:
        # `predict` is closed before the caller goes on, so that the network is back in its mode.
        samples = predict(segmenter, dataset, amp=amp, num_workers=num_workers, desc="evaluate", skipped=skipped)
        for sample, logits in samples:
            prediction = upsample(logits, sample["label"].shape).argmax(1)[0]
            scores.update(prediction, sample["label"].to(prediction.device))
            if masks is not None:
                mask = to_host(prediction.to(torch.uint8))
                key = dataset.key(sample["name"])
                write_image(masks / f"{key}.png", Image.fromarray(mask))
                write_image(masks / f"{key}_color.png", colorize(mask, table, dataset.ignore_label))
    return scores
