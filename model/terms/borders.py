"""What of an image shows nothing to learn from: the border that pads a shrunk image, and rows at its edges."""

from __future__ import annotations

import torch
from torch import Tensor

BORDER_COLOUR = (123, 117, 104)
"""RGB of the border that pads a shrunk image, `dataset.augment.PAD_COLOUR`."""


def visible(images: Tensor) -> Tensor:
    """Which pixels are not in a border: bool [B, 1, H, W] of RGB images [B, 3, H, W].

    The border is what lies outside of the smallest box around all pixels of another colour than `BORDER_COLOUR`. An
    image that has only this colour has no border.
    """
    other = torch.stack([channel != value for channel, value in zip(images.unbind(1), BORDER_COLOUR, strict=True)])
    rows, columns = (_from_first_to_last(other.any(0).any(side)) for side in (2, 1))
    box = rows[:, None, :, None] & columns[:, None, None, :]
    return box | ~box.any(3, keepdim=True).any(2, keepdim=True)


def without_rows(labels: Tensor, top: float, bottom: float, ignore_label: int = 255) -> Tensor:
    """Pseudo-labels [B, H, W] with the top and the bottom rows ignored, both given as shares of the height.

    In Cityscapes, these rows show the edge of the rectified image and the bonnet of the car (DAFormer).
    """
    height = labels.shape[1]
    first, last = round(top * height), height - round(bottom * height)
    if first == 0 and last == height:
        return labels
    inner = torch.arange(height, device=labels.device)
    return labels.where(((inner >= first) & (inner < last))[:, None], ignore_label)


def _from_first_to_last(line: Tensor) -> Tensor:
    """True from the first to the last True of each row of a bool tensor [B, N]."""
    return (line.cumsum(1) > 0) & (line.flip(1).cumsum(1).flip(1) > 0)
