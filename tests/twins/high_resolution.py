"""Twin of the fusion of high-resolution crops: point by point, in plain Python numbers."""

from __future__ import annotations

import math

from torch import Tensor


def fused(context: Tensor, attention: Tensor, details: list[tuple[Tensor, int, int]]) -> list[list[list[float]]]:
    """One image's fused logits [C][2 n - 1][2 m - 1].

    context: logits [C, n, m]; attention: the same shape, before its sigmoid; details: the logits [C, n, m] of
    each window, and the row and the column of the fused map where its first point lies.
    """
    classes, height, width = context.shape
    trust = attention.double().sigmoid()
    result = []
    for c in range(classes):
        rows = []
        for y in range(2 * height - 1):
            row = []
            for x in range(2 * width - 1):
                whole, share = between(context[c], y / 2, x / 2), between(trust[c], y / 2, x / 2)
                seen = [
                    float(detail[c, y - top, x - left])
                    for detail, top, left in details
                    if 0 <= y - top < height and 0 <= x - left < width
                ]
                row.append((1 - share) * whole + share * sum(seen) / len(seen) if seen else whole)
            rows.append(row)
        result.append(rows)
    return result


def between(values: Tensor, y: float, x: float) -> float:
    """The value at a place between the points of a map [n, m], bilinear."""
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, values.shape[0] - 1), min(left + 1, values.shape[1] - 1)
    down, across = y - top, x - left
    upper = (1 - across) * float(values[top, left]) + across * float(values[top, right])
    lower = (1 - across) * float(values[bottom, left]) + across * float(values[bottom, right])
    return (1 - down) * upper + down * lower
