"""Up-sampled maps: all classes at once, or one class at a time, so that full-size maps of all classes are not held."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(logits: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Logits [B, C, h, w] to [B, C, H, W]: bilinear, align_corners=True."""
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=True)


def exact(logits: Tensor) -> Tensor:
    """The same in float32, or in their own type if it is more exact."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def at_size(logits: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """Logits [B, C, h, w] at a size; from that of the features, all but those of high-resolution crops have it already,
    and of theirs every second point is taken."""
    return logits if logits.shape[2:] == size else upsample(logits, size)


def best_class(maps: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The largest value and its class at `size` (H, W), as the argmax over the up-sampled mean of `maps` gives them.

    maps: each [B, C, h, w], C at most 255, any h and w. Returns values [B, H, W] and labels uint8 [B, H, W]; if classes
    are equal, the first one.
    """
    best = _plane(maps, 0, size)
    label = torch.zeros_like(best, dtype=torch.uint8)
    won = torch.empty_like(label)  # reused for all classes: on a CPU, new memory costs more than the comparison
    for c in range(1, maps[0].shape[1]):
        plane = _plane(maps, c, size)
        torch.gt(plane, best, out=won.view(torch.bool))
        torch.maximum(best, plane, out=best)
        torch.maximum(label, won.mul_(c), out=label)  # c is above all classes so far
        del plane  # the next one takes its memory
    return best, label


def _plane(maps: Sequence[Tensor], c: int, size: Sequence[int]) -> Tensor:
    first, *others = (upsample(m[:, c : c + 1], tuple(size))[:, 0] for m in maps)
    for other in others:
        first += other
    return first / len(maps) if others else first
