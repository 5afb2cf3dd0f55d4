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
def labels_by_image(logits: Tensor, size: torch.Size | tuple[int, ...], threshold: float) -> PseudoLabels:
    """Labels of all pixels; an image weighs as much as its share of sure pixels, above the threshold (DACS).

    logits: [B, C, h, w] of the teacher, up-sampled here to `size`; threshold: of the largest soft-max value.
    """
    confidence, labels = probabilities(logits, size).max(1)
    sure = confidence > threshold
    return PseudoLabels(labels.to(torch.uint8), sure, sure.float().mean((1, 2)))


@torch.no_grad()
def labels_by_class(
    logits: Tensor,
    size: torch.Size | tuple[int, ...],
    thresholds: ClassThresholds,
    ignore_label: int = 255,
    *,
    learn: bool = True,
) -> PseudoLabels:
    """Labels of the pixels that are sure for their class, all others ignored; every image weighs 1 (our choice).

    Arguments as of `labels_by_image`. learn: the thresholds take in these predictions first.
    """
    confidence, labels = probabilities(logits, size).max(1)
    if learn:
        thresholds.update(labels, confidence)
    sure = thresholds.sure(labels, confidence)
    return PseudoLabels(labels.where(sure, ignore_label).to(torch.uint8), sure, confidence.new_ones(len(labels)))


def without_borders(labels: Tensor, top: float, bottom: float, ignore_label: int = 255) -> Tensor:
    """Pseudo-labels [B, H, W] with the top and the bottom rows ignored, both given as shares of the height.

    In Cityscapes, these rows show the edge of the rectified image and the bonnet of the car (DAFormer).
    """
    height = labels.shape[1]
    first, last = round(top * height), height - round(bottom * height)
    if first == 0 and last == height:
        return labels
    inner = torch.arange(height, device=labels.device)
    return labels.where(((inner >= first) & (inner < last))[:, None], ignore_label)
