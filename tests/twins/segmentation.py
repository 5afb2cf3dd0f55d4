"""Twin of the cross-entropies and of the up-sampling of `model.methods.bafft`, pixel by pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def segmentation_loss(logits: Tensor, labels: Tensor, ignore_label: int = 255) -> tuple[float, Tensor]:
    """Value and gradient: mean over images of the mean over valid pixels of -log softmax (0 without valid pixels)."""
    gradient = torch.zeros(logits.shape, dtype=torch.float64)
    total, batch = 0.0, len(logits)
    for b in range(batch):
        scores, label = logits[b].double().permute(1, 2, 0).tolist(), labels[b].tolist()
        valid = [(y, x) for y, row in enumerate(label) for x, c in enumerate(row) if c != ignore_label]
        for y, x in valid:
            top = max(scores[y][x])
            exponentials = [math.exp(s - top) for s in scores[y][x]]
            log_sum = top + math.log(sum(exponentials))
            total += (log_sum - scores[y][x][label[y][x]]) / len(valid) / batch
            for c, e in enumerate(exponentials):
                wanted = 1.0 if c == label[y][x] else 0.0
                gradient[b, c, y, x] = (e / sum(exponentials) - wanted) / len(valid) / batch
    return total, gradient


def upsample(plane: list[list[float]], height: int, width: int) -> list[list[float]]:
    """Bilinear up-sampling that maps corner pixels to corner pixels (align_corners=True)."""

    def neighbours(i: int, size_in: int, size_out: int) -> tuple[int, int, float]:
        position = i * (size_in - 1) / (size_out - 1) if size_out > 1 else 0.0
        low = min(int(position), size_in - 1)
        return low, min(low + 1, size_in - 1), position - low

    result = []
    for y in range(height):
        y0, y1, fy = neighbours(y, len(plane), height)
        row = []
        for x in range(width):
            x0, x1, fx = neighbours(x, len(plane[0]), width)
            top = plane[y0][x0] * (1 - fx) + plane[y0][x1] * fx
            bottom = plane[y1][x0] * (1 - fx) + plane[y1][x1] * fx
            row.append(top * (1 - fy) + bottom * fy)
        result.append(row)
    return result
