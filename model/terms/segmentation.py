"""Logits at image size: soft-max maps and the cross-entropy, which keeps no map of that size."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model.networks.upsampling import upsample

# Pixels of a strip, all images together: 19 float32 maps of 2^15 are 2.4 MiB, near a CPU's cache. A GPU wants few large
# kernels instead.
_STRIP = {"cpu": 2**15, "cuda": 2**18}


def probabilities(logits: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Soft-max [B, C, H, W] of the up-sampled logits [B, C, h, w], in float32 also of half-precision ones.

    Channels last in memory, which is faster for both passes of the up-sampling and for a discriminator's convolutions.
    """
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    up = upsample(exact.contiguous(memory_format=torch.channels_last), size)
    return up.permute(0, 2, 3, 1).softmax(3).permute(0, 3, 1, 2)


def segmentation_loss(logits: Tensor, labels: Tensor, ignore_label: int = 255) -> Tensor:
    """Cross-entropy per image, over its valid pixels, then the mean over images; an image without one gives 0.

    logits: [B, C, h, w], up-sampled here to the labels [B, H, W], integer train ids or `ignore_label`. Value and
    gradient are computed together, strip by strip, so that nothing of C x H x W is kept.
    """
    valid = (labels != ignore_label).sum((1, 2), keepdim=True)
    return _StripwiseCrossEntropy.apply(logits, labels, 1 / valid.clamp_min(1) / len(labels), ignore_label)


def weighted_segmentation_loss(logits: Tensor, labels: Tensor, weights: Tensor, ignore_label: int = 255) -> Tensor:
    """Sum of weight times cross-entropy over the valid pixels, over the number of **all** pixels (DACS, DAFormer).

    logits: [B, C, h, w], up-sampled here to the labels [B, H, W], integer train ids or `ignore_label`; weights: of at
    least 0, of a shape that broadcasts to [B, H, W], without gradient. An ignored pixel counts in the denominator only.
    """
    return _StripwiseCrossEntropy.apply(logits, labels, weights.detach().float() / labels.numel(), ignore_label)


class _StripwiseCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, weight: Tensor, ignore_label: int) -> Tensor:
        """weight: of every pixel in the sum, of a shape that broadcasts to that of the labels."""
        with torch.autocast(logits.device.type, enabled=False):
            small = logits.float()
            height, width = labels.shape[1:]
            rows, columns = (_interpolation(*n, small) for n in zip(small.shape[2:], (height, width)))
            wide = small @ columns.T
            valid = labels != ignore_label
            weight = weight.expand(labels.shape)
            loss, gradient = small.new_zeros(()), torch.zeros_like(wide)
            step = max(1, _STRIP.get(small.device.type, 2**18) // (len(labels) * width))
            for top in range(0, height, step):
                near = _rows_between(top, min(top + step, height) - 1, height, small.shape[2])
                strip = rows[top : top + step, near]
                log_p = (strip @ wide[:, :, near]).log_softmax(1)
                label, counted, share = (maps[:, None, top : top + step] for maps in (labels, valid, weight))
                label = label.where(counted, 0).long()
                scale = counted * share
                loss = loss - (log_p.gather(1, label) * scale).sum()
                if ctx.needs_input_grad[0]:
                    difference = log_p.exp_().scatter_add_(1, label, log_p.new_full((), -1.0).expand_as(label))
                    gradient[:, :, near] += strip.T @ difference.mul_(scale)
            ctx.save_for_backward(gradient @ columns if ctx.needs_input_grad[0] else None)
        ctx.dtype = logits.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        # Scaled first: unscaled, most of it lies below the smallest number of float16.
        return (ctx.saved_tensors[0] * gradient).to(ctx.dtype), None, None, None


def _interpolation(size_in: int, size_out: int, like: Tensor) -> Tensor:
    """[size_out, size_in]: bilinear interpolation along one side (align_corners=True) as a matrix."""
    identity = torch.eye(size_in, dtype=like.dtype, device=like.device)
    return F.interpolate(identity[None], size=size_out, mode="linear", align_corners=True)[0].T


def _rows_between(first: int, last: int, height: int, rows: int) -> slice:
    """The input rows that the output rows `first` to `last` of `height` are made of, and at most one more a side."""
    scale = (rows - 1) / max(height - 1, 1)
    return slice(max(int(first * scale) - 1, 0), int(last * scale) + 3)
