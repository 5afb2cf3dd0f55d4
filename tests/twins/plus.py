"""Twins of the terms of `--method plus`: pixel by pixel, in plain Python numbers."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor


def teacher(student: list[list[float]], ema: float) -> list[float]:
    """The teacher's weights after the student had these weights, given as one list per step."""
    average = [0.0] * len(student[0])
    for step, weights in enumerate(student):
        keep = min(1 - 1 / (step + 1), ema)
        average = [keep * a + (1 - keep) * w for a, w in zip(average, weights)]
    return average


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, ignore_label: int = 255) -> float:
    """The mean over all pixels of weight * -log soft-max, with ignored pixels counted as 0; logits at label size."""
    total = 0.0
    batch, height, width = labels.shape
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                c = int(labels[b, y, x])
                if c == ignore_label:
                    continue
                scores = logits[b, :, y, x].double().tolist()
                total += float(weights[b, y, x]) * (math.log(sum(math.exp(s) for s in scores)) - scores[c])
    return total / (batch * height * width)


def colour_jitter(image: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """Colour jitter: one change after the other, pixel by pixel, on float RGB [3, H, W]; clamped at the end."""
    pixels = [tuple((1 + brightness) * float(v) for v in image[:, y, x]) for y, x in np.ndindex(image.shape[1:])]
    mean = sum(_grey(pixel) for pixel in pixels) / len(pixels)
    pixels = [tuple(mean + (1 + contrast) * (v - mean) for v in pixel) for pixel in pixels]
    pixels = [tuple(_grey(p) + (1 + saturation) * (v - _grey(p)) for v in p) for p in pixels]
    turned = []
    for red, green, blue in pixels:
        y = 0.299 * red + 0.587 * green + 0.114 * blue
        i = 0.5959 * red - 0.2746 * green - 0.3213 * blue
        q = 0.2115 * red - 0.5227 * green + 0.3112 * blue
        angle = math.atan2(q, i) + 2 * math.pi * hue
        length = math.hypot(i, q)
        wanted = np.array([y, length * math.cos(angle), length * math.sin(angle)])
        to_yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
        turned.append(np.linalg.solve(to_yiq, wanted))
    return np.clip(np.array(turned).T.reshape(image.shape), 0, 255)


def _grey(pixel: tuple[float, ...]) -> float:
    return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]


def gaussian_blur(plane: np.ndarray, sigma: float) -> np.ndarray:
    """Blur of one plane [H, W]: every pixel is a weighted mean of its neighbours; the edges are mirrored."""
    height, width = plane.shape
    radius = min(math.ceil(3 * sigma), height - 1, width - 1)
    weights = [math.exp(-(d**2) / (2 * sigma**2)) for d in range(-radius, radius + 1)]
    result = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        for dy in range(-radius, radius + 1):
            for dx in range(-radius, radius + 1):
                share = weights[dy + radius] * weights[dx + radius] / sum(weights) ** 2
                result[y, x] += share * plane[_mirrored(y + dy, height), _mirrored(x + dx, width)]
    return result


def _mirrored(i: int, side: int) -> int:
    i = abs(i)
    return i if i < side else 2 * (side - 1) - i


def pixel_contrast(features: Tensor, labels: Tensor, source: Tensor, ready: list[bool], temperature: float) -> float:
    total = 0.0
    batch, _, height, width = features.shape
    for b in range(batch):
        losses = []
        for y in range(height):
            for x in range(width):
                c = int(labels[b, y, x])
                if c >= len(source) or not ready[c]:
                    continue
                pixel = features[b, :, y, x].double().tolist()
                scores = {k: _cosine(pixel, s) / temperature for k, s in enumerate(source.tolist()) if ready[k]}
                losses.append(math.log(sum(math.exp(s) for s in scores.values())) - scores[c])
        total += sum(losses) / len(losses) if losses else 0.0
    return total / batch


def _cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
