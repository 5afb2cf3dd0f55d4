"""Twin of `model.terms.memory`: labels are resized pixel by pixel, vectors are checked and written one by one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from model.terms.regions import ClassSplit
from tests.twins.regions import Features, Labels


class Classifier:
    """logits = W x + b, class by class in float64."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight.detach().double(), bias.detach().double()

    def says(self, vector: Tensor) -> int:
        """The class of the largest logit; the first one if several are equal."""
        logits = [float((row * vector.detach()).sum() + b) for row, b in zip(self.weight, self.bias)]
        return logits.index(max(logits))


def resized(labels: Labels, height: int, width: int) -> Labels:
    """Nearest neighbour as F.interpolate rounds it: the pixel floor(i * in / out), computed in float32."""

    def index(i: int, size_in: int, size_out: int) -> int:
        return min(int(np.float32(i) * (np.float32(size_in) / np.float32(size_out))), size_in - 1)

    rows, columns = len(labels), len(labels[0])
    return [[labels[index(y, rows, height)][index(x, columns, width)] for x in range(width)] for y in range(height)]


def correct_labels(logits: Tensor, labels: Tensor) -> Labels:
    """Labels of one image at feature size, 255 where the prediction differs: logits [C, h, w], labels [H, W]."""
    _, height, width = logits.shape
    small = resized(labels.tolist(), height, width)
    predicted = logits.argmax(0).tolist()
    return [[a if a == b else 255 for a, b in zip(*rows)] for rows in zip(small, predicted)]


class Ring:
    """A ring buffer, written one vector at a time."""

    def __init__(self, size: int, dim: int) -> None:
        self.slots = [torch.zeros(dim, dtype=torch.float64) for _ in range(size)]
        self.count = 0

    def write(self, vector: Tensor) -> None:
        self.slots[self.count % len(self.slots)] = vector.detach().double().clone()
        self.count += 1

    @property
    def ready(self) -> bool:
        return self.count > len(self.slots)

    def mean(self) -> Tensor:
        total = torch.zeros_like(self.slots[0])
        for slot in self.slots:
            total = total + slot
        return total / len(self.slots)


class Memory:
    """A ring of K slots for every stuff class and of 10 K for every thing class, by class id."""

    def __init__(self, split: ClassSplit, dim: int, num_prototype: int) -> None:
        self.split, self.dim, self.num_prototype = split, dim, num_prototype
        self.rings = {c: Ring(num_prototype, dim) for c in split.stuff}
        self.rings |= {c: Ring(10 * num_prototype, dim) for c in split.things}

    def update(self, features: Tensor, logits: Tensor, labels: Tensor, classifier: Classifier) -> None:
        for image, scores, label in zip(features, logits, labels):
            pixels, right = Features(image), correct_labels(scores, label)
            for c in self.split.stuff:
                centroid = pixels.centroid(right, c)
                if centroid is not None and classifier.says(centroid) == c:
                    self.rings[c].write(centroid)
            for c in self.split.things:
                for instance in pixels.instances(right, c):
                    if classifier.says(instance) == c:
                        self.rings[c].write(instance)
