"""Masked consistency: the student must predict for hidden blocks what the teacher sees in the whole image (MIC)."""

from __future__ import annotations

import torch
from torch import Tensor

HIDDEN_COLOUR = (123, 117, 104)
"""RGB of hidden pixels: the mean colour, which the networks' normalisation takes to about zero."""


def hide_blocks(images: Tensor, block: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Images with square blocks of `block` pixels hidden, each with the probability `ratio`; uint8 RGB [B, 3, H, W].

    The random numbers come from `generator`, on the CPU. Blocks at the right and the bottom may be cut off.
    """
    batch, _, height, width = images.shape
    blocks = torch.rand(batch, 1, -(-height // block), -(-width // block), generator=generator) < ratio
    hidden = blocks.to(images.device, non_blocking=True).repeat_interleave(block, 2).repeat_interleave(block, 3)
    colour = torch.tensor(HIDDEN_COLOUR, dtype=images.dtype).view(3, 1, 1).to(images.device, non_blocking=True)
    return torch.where(hidden[:, :, :height, :width], colour, images)
