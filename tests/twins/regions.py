"""Twin of `model.terms.regions`: flood fill and sums, pixel by pixel, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

Pixel = tuple[int, int]
Labels = list[list[int]]


def components(labels: Labels, c: int) -> list[list[Pixel]]:
    """The 8-connected components of class c, in raster order of their first pixel."""
    height, width = len(labels), len(labels[0])
    seen: set[Pixel] = set()
    found = []
    for y in range(height):
        for x in range(width):
            if labels[y][x] != c or (y, x) in seen:
                continue
            seen.add((y, x))
            component, waiting = [], [(y, x)]
            while waiting:
                v, u = waiting.pop()
                component.append((v, u))
                for near in [(v + dv, u + du) for dv in (-1, 0, 1) for du in (-1, 0, 1)]:
                    inside = 0 <= near[0] < height and 0 <= near[1] < width
                    if inside and near not in seen and labels[near[0]][near[1]] == c:
                        seen.add(near)
                        waiting.append(near)
            found.append(component)
    return found


def largest_components(labels: Labels, c: int, limit: int = 10) -> list[list[Pixel]]:
    """The `limit` largest components of class c; equal ones stay in raster order (sort is stable)."""
    return sorted(components(labels, c), key=len, reverse=True)[:limit]


def pixels_of(labels: Labels, c: int) -> list[Pixel]:
    return [(y, x) for y, row in enumerate(labels) for x, label in enumerate(row) if label == c]


class Features:
    """One image's features [D, h, w] as a list of float64 vectors; gradients flow back to `tensor`."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach().double().requires_grad_()
        self.dim, _, self.width = tensor.shape
        self._vectors = self.tensor.flatten(1).unbind(1)

    def mean(self, pixels: list[Pixel]) -> Tensor:
        """Mean over pixels, summed one by one."""
        total = torch.zeros(self.dim, dtype=torch.float64)
        for y, x in pixels:
            total = total + self._vectors[y * self.width + x]
        return total / len(pixels)

    def centroid(self, labels: Labels, c: int) -> Tensor | None:
        """Mean over the pixels of class c; None if there are none."""
        pixels = pixels_of(labels, c)
        return self.mean(pixels) if pixels else None

    def instances(self, labels: Labels, c: int) -> list[Tensor]:
        return [self.mean(component) for component in largest_components(labels, c)]

    def gradient(self, loss: Tensor) -> Tensor:
        """Gradient of `loss` with respect to the features [D, h, w]; zeros if it does not depend on them."""
        if not loss.requires_grad:
            return torch.zeros_like(self.tensor)
        (gradient,) = torch.autograd.grad(loss, self.tensor, allow_unused=True, retain_graph=True)
        return torch.zeros_like(self.tensor) if gradient is None else gradient
