"""Evaluation with plain loops: up-sample every class's logits, take the largest, count, divide."""

from __future__ import annotations

from torch import Tensor

from tests.twins.segmentation import upsample

Confusion = list[list[int]]


def confusion(images: list[tuple[Tensor, list[list[int]]]], num_classes: int, ignore_label: int = 255) -> Confusion:
    """Pixel counts [truth][prediction] from logits [C, h, w] and labels [H][W]."""
    counts = [[0] * num_classes for _ in range(num_classes)]
    for logits, label in images:
        height, width = len(label), len(label[0])
        planes = [upsample(plane, height, width) for plane in logits.double().tolist()]
        for y in range(height):
            for x in range(width):
                scores = [plane[y][x] for plane in planes]
                if label[y][x] != ignore_label:
                    counts[label[y][x]][scores.index(max(scores))] += 1
    return counts


def iou(counts: Confusion) -> list[float | None]:
    """Intersection over union of every class; None for a class in neither truth nor prediction."""
    result: list[float | None] = []
    for c in range(len(counts)):
        union = sum(counts[c]) + sum(row[c] for row in counts) - counts[c][c]
        result.append(counts[c][c] / union if union else None)
    return result
