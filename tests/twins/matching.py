"""Twin of `model.terms.matching`: one distance at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def distance(x: Tensor, slots: list[Tensor]) -> Tensor:
    """The minimum over the slots m of ||x - m||_1 / D; only the nearest slot gives a gradient."""
    best = None
    for slot in slots:
        candidate = (x - slot.double()).abs().sum() / len(x)
        if best is None or candidate.item() < best.item():
            best = candidate
    assert best is not None
    return best


def stuff_matching(distances: dict[int, Tensor], weights: dict[int, Tensor]) -> Tensor:
    """Sum of a(x_c) d(x_c) over the matched stuff classes c."""
    total = torch.zeros((), dtype=torch.float64)
    for c in distances:
        total = total + weights[c] * distances[c]
    return total


def instance_matching(distances: dict[int, list[Tensor]], weights: dict[int, list[Tensor]]) -> Tensor:
    """Sum over thing classes of the sum over their n instances of a(x_i) d(x_i) / n."""
    total = torch.zeros((), dtype=torch.float64)
    for c in distances:
        for d, a in zip(distances[c], weights[c]):
            total = total + a * d / len(distances[c])
    return total
