"""Twin of `model.terms.isia`: one pair of classes, instances or pixels at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Centroids = dict[int, Tensor]  # by class id, only classes that are present


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """0.5 + 0.5 cos(a, b), with cos = 0 for a zero vector."""
    a, b = a.double(), b.double()
    if not a.any() or not b.any():
        return torch.full((), 0.5, dtype=torch.float64)
    return 0.5 + 0.5 * (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())


def mean(values: list[Tensor]) -> Tensor:
    """The mean, or 0 for an empty list."""
    total = torch.zeros((), dtype=torch.float64)
    for value in values:
        total = total + value
    return total / max(len(values), 1)


def intra_class_aggregation(present: Centroids, ready: Centroids) -> Tensor:
    return mean([(x - ready[c].double()).abs().sum() / len(x) for c, x in present.items() if c in ready])


def inter_class_separation(present: Centroids, ready: Centroids) -> Tensor:
    across = [similarity(x, s) for c, x in present.items() for other, s in ready.items() if other != c]
    within = [similarity(x, y) for c, x in present.items() for other, y in present.items() if other != c]
    return mean(across) + mean(within)


def isia(present: Centroids, ready: Centroids) -> Tensor:
    return intra_class_aggregation(present, ready) + inter_class_separation(present, ready)


def released_gap(stuff: Centroids, things: dict[int, list[Tensor]], num_prototype: int) -> Tensor:
    """stuff: accepted and ready centroids; things: instances of the ready thing classes."""
    total = torch.zeros((), dtype=torch.float64)
    for x in stuff.values():
        for instances in things.values():
            for instance in instances:
                total = total + similarity(x, instance) * 10 * num_prototype / len(x) / len(instances)
    return total


def released_same(source: list[list[list[float]]], target: list[list[list[float]]], feature_dim: int) -> float:
    """Logits [C][h][w] of both domains: L1 between their soft-max maps, over D."""

    def softmax(scores: list[float]) -> list[float]:
        exponentials = [math.exp(score - max(scores)) for score in scores]
        return [e / sum(exponentials) for e in exponentials]

    total = 0.0
    for y in range(len(target[0])):
        for x in range(len(target[0][0])):
            p = softmax([plane[y][x] for plane in source])
            q = softmax([plane[y][x] for plane in target])
            total += sum(abs(a - b) for a, b in zip(p, q))
    return total / feature_dim
