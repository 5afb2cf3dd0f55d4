"""Stuff matching and instance matching: pull target means to their nearest source memory slot (paper: L_cls, L_ins)."""

from __future__ import annotations

import torch
from torch import Tensor


def nearest_distance(vectors: Tensor, entries: Tensor) -> Tensor:
    """d(x, M) = min over the slots m of M of ||x - m||_1 / D.

    vectors: [N, M, D]; entries: [N, S, D], the buffer of each of the N classes. Returns [N, M]; the gradient goes
    through `vectors` for the winning slot only. The winner is found without a graph.
    """
    with torch.no_grad():
        slot = torch.cdist(vectors.detach(), entries, p=1).argmin(2)
        winner = entries.gather(1, slot[..., None].expand(*slot.shape, entries.shape[2]))
    return (vectors - winner).abs().mean(2)


def stuff_matching(distance: Tensor, matched: Tensor, weight: Tensor) -> Tensor:
    """L_cls of one image: sum over the matched stuff classes of a(x_c) d(x_c, M_c); arguments [N], `matched` bool."""
    return (weight * distance).where(matched, 0).sum()


def instance_matching(distance: Tensor, matched: Tensor, weight: Tensor) -> Tensor:
    """L_ins of one image: sum over thing classes of the mean over their instances of a(x_i) d(x_i, M_c).

    All arguments [T, R], `matched` bool; a class without an instance adds nothing.
    """
    per_class = (weight * distance).where(matched, 0).sum(1)
    return (per_class / matched.sum(1).clamp_min(1)).sum()
