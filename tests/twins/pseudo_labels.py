"""Twin of `utils.prediction.pseudo_labels`: all confidences in one list, sorted."""

from __future__ import annotations

Image = tuple[list[list[int]], list[list[float]]]  # label and confidence


def thresholds(images: list[Image], num_classes: int) -> list[float]:
    """Element number round(0.5 n) of the n ascending confidences of every class, at most 0.9; 0 if there is none."""
    result = []
    for c in range(num_classes):
        values = sorted(
            value
            for labels, confidences in images
            for label_row, value_row in zip(labels, confidences)
            for label, value in zip(label_row, value_row)
            if label == c
        )
        result.append(min(values[round(0.5 * len(values))], 0.9) if values else 0.0)
    return result


def pseudo_label(image: Image, limits: list[float]) -> list[list[int]]:
    labels, confidences = image
    return [
        [label if value >= limits[label] else 255 for label, value in zip(label_row, value_row)]
        for label_row, value_row in zip(labels, confidences)
    ]
