"""The mean teacher: a moving average of the student's weights, and the pseudo-labels that it gives the student."""

from __future__ import annotations

import copy
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from model.terms.segmentation import probabilities
from model.terms.thresholds import ClassThresholds

Network = TypeVar("Network", bound=nn.Module)


def teacher_of(student: Network) -> Network:
    """A copy of the student that no gradient reaches."""
    return copy.deepcopy(student).requires_grad_(False)


def averaging(step: int, ema: float) -> float:
    """The share of itself that the teacher keeps after step t, counted from 0: min(1 - 1 / (t + 1), `ema`) (DACS)."""
    return min(1 - 1 / (step + 1), ema)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, keep: float) -> None:
    """Parameters become `keep` * teacher + (1 - `keep`) * student; buffers are copied.

    keep: from 0, which copies the student, to 1.
    """
    # On a GPU, one or two kernels for all parameters instead of one for each.
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - keep)
    for own, given in zip(teacher.buffers(), student.buffers(), strict=True):
        own.copy_(given)


class PseudoLabels(NamedTuple):
    """What the teacher says of target images.

    labels: uint8 [B, H, W]; sure: bool [B, H, W], the labels that can be trusted; quality: float32 [B], the weight of
    each image.
    """

    labels: Tensor
    sure: Tensor
    quality: Tensor


@torch.no_grad()
def labels_by_image(logits: Tensor, shown: Tensor, threshold: float, ignore_label: int = 255) -> PseudoLabels:
    """Labels of all pixels; an image weighs as much as its share of sure pixels, above the threshold (DACS).

    logits: [B, C, h, w] of the teacher, up-sampled here to the size of `shown`; shown: bool [B, H, W], false in a
    border, which is ignored and does not count; threshold: of the largest soft-max value.
    """
    confidence, labels = probabilities(logits, shown.shape[1:]).max(1)
    sure = shown & (confidence > threshold)
    quality = sure.sum((1, 2)) / shown.sum((1, 2))
    return PseudoLabels(labels.where(shown, ignore_label).to(torch.uint8), sure, quality)


@torch.no_grad()
def labels_by_class(
    logits: Tensor,
    shown: Tensor,
    thresholds: ClassThresholds,
    ignore_label: int = 255,
    *,
    learn: bool = True,
) -> PseudoLabels:
    """Labels of the pixels that are sure for their class, all others ignored; every image weighs 1 (our choice).

    Arguments as of `labels_by_image`. learn: the thresholds take in these predictions first.
    """
    confidence, labels = probabilities(logits, shown.shape[1:]).max(1)
    if learn:
        thresholds.update(labels, confidence, shown)
    sure = shown & thresholds.sure(labels, confidence)
    return PseudoLabels(labels.where(sure, ignore_label).to(torch.uint8), sure, confidence.new_ones(len(labels)))
