"""Logits at image size: soft-max maps and the cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.networks.high_resolution import Detail
from model.networks.upsampling import exact, upsample


def probabilities(logits: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Soft-max [B, C, H, W] of the up-sampled logits [B, C, h, w], in float32 even if the logits have half precision.

    The memory format is channels last, which is faster for both passes of the up-sampling and for a discriminator's
    convolutions.
    """
    return _at_size(logits, size).softmax(3).permute(0, 3, 1, 2)


def segmentation_loss(
    logits: Tensor,
    labels: Tensor,
    ignore_label: int = 255,
    detail: Detail | None = None,
    class_weights: Tensor | None = None,
    image_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy per image, over its valid pixels, then the mean over images; an image without valid pixels gives 0.

    logits: [B, C, h, w], up-sampled here to the labels [B, H, W], integer train ids or `ignore_label`. Computed in
    float32 even if the logits have half precision. detail: adds its weight times the same loss of its logits on the
    labels of its window. class_weights: [C] float32, factors on the cross-entropy of the pixels of each class, which do
    not change the number that the sum is divided by; image_weights: [B] float32, factors on that of each image.
    """
    valid = (labels != ignore_label).sum((1, 2), keepdim=True)
    weight = 1 / valid.clamp_min(1) / len(labels)
    if image_weights is not None:
        weight = weight * image_weights[:, None, None]
    loss = _weighted_sum(logits, labels, weight, ignore_label, class_weights)
    if detail is None or not detail.weight:
        return loss
    label = detail.window.of(labels)
    own = segmentation_loss(detail.logits, label, ignore_label, None, class_weights, image_weights)
    return loss + detail.weight * own


def weighted_segmentation_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, ignore_label: int = 255, detail: Detail | None = None
) -> Tensor:
    """Sum of weight times cross-entropy over valid pixels, divided by the number of **all** pixels (DACS, DAFormer).

    logits: [B, C, h, w], up-sampled here to the labels [B, H, W], integer train ids or `ignore_label`; weights: at
    least 0, of a shape that broadcasts to [B, H, W], without gradient. Ignored pixels count only in the denominator.
    detail: as in `segmentation_loss`.
    """
    loss = _weighted_sum(logits, labels, weights.detach().float() / labels.numel(), ignore_label)
    if detail is None or not detail.weight:
        return loss
    label, weight = detail.window.of(labels), detail.window.of(weights.expand(labels.shape))
    return loss + detail.weight * weighted_segmentation_loss(detail.logits, label, weight, ignore_label)


def _weighted_sum(
    logits: Tensor, labels: Tensor, weight: Tensor, ignore_label: int, class_weights: Tensor | None = None
) -> Tensor:
    """Sum of weight times cross-entropy. weight: its shape broadcasts to that of the labels."""
    with torch.autocast(logits.device.type, enabled=False):
        # Flattened to a list, which is deterministic on a GPU too.
        pixels = _at_size(logits, labels.shape[1:]).flatten(0, 2)
        if class_weights is not None:
            class_weights = class_weights.to(pixels.dtype)
        each = F.cross_entropy(
            pixels, labels.flatten().long(), class_weights, ignore_index=ignore_label, reduction="none"
        )
        return (each.view(labels.shape) * weight).sum()


def _at_size(logits: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Up-sampled logits [B, H, W, C] in float32, or in their own type if it is more exact."""
    logits = exact(logits).contiguous(memory_format=torch.channels_last)
    return upsample(logits, size).permute(0, 2, 3, 1)
