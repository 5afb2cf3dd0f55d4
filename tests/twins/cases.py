"""Random inputs for the terms, and the comparison with a twin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from model.terms.memory import Classify, SourceMemory, correct_labels
from model.terms.regions import ClassSplit, LabelMaps
from tests.twins.memory import Classifier, Memory

SIZES = [  # a shape: images, classes, height, width
    (1, 2, 1, 1),
    (2, 5, 1, 9),
    (3, 3, 8, 1),
    (1, 19, 17, 33),
    (4, 7, 9, 12),
    (2, 19, 11, 20),
]


def split_of(num_classes: int) -> ClassSplit:
    """Even ids are stuff, odd ids things."""
    return ClassSplit(num_classes, tuple(range(0, num_classes, 2)), tuple(range(1, num_classes, 2)))


def blobs(generator: torch.Generator, num_classes: int, height: int, width: int, absent: bool = True) -> Tensor:
    """A label map [height, width] of patches with ragged borders and specks, without every fourth class."""
    coarse = torch.rand(1, num_classes, -(-height // 4), -(-width // 4), generator=generator)
    scores = F.interpolate(coarse, size=(height, width), mode="nearest")[0]
    scores = scores + 0.45 * torch.rand(num_classes, height, width, generator=generator)
    if absent and num_classes > 3:
        scores[3::4] = -1
    return scores.argmax(0)


@dataclass
class Case:
    """Features [B, D, h, w], class maps [B, h, w], logits for them, labels of which some differ, a classifier."""

    split: ClassSplit
    features: Tensor
    prediction: Tensor
    logits: Tensor
    labels: Tensor
    weight: Tensor
    bias: Tensor

    @property
    def classify(self) -> Classify:
        return partial(F.linear, weight=self.weight, bias=self.bias)

    @property
    def classifier(self) -> Classifier:
        return Classifier(self.weight, self.bias)

    def correct(self, images: slice = slice(None)) -> LabelMaps:
        """The inputs of a source memory's update."""
        return LabelMaps(correct_labels(self.logits[images], self.labels[images]))

    def memories(self, num_prototype: int) -> tuple[SourceMemory, Memory]:
        """Our memory and the twin's, both empty."""
        dim = self.features.shape[1]
        return SourceMemory(self.split, dim, num_prototype), Memory(self.split, dim, num_prototype)


def random_case(
    seed: int, batch: int, num_classes: int, height: int, width: int, dim: int = 6, noise: float = 1.2
) -> Case:
    """Non-negative features around one prototype per class; the classifier knows the prototypes and accepts most."""
    g = torch.Generator().manual_seed(seed)
    prototypes = torch.rand(num_classes, dim, generator=g) * 2
    maps = torch.stack([blobs(g, num_classes, height, width) for _ in range(batch)])
    features = prototypes[maps].permute(0, 3, 1, 2) + noise * torch.randn(batch, dim, height, width, generator=g)
    scores = torch.rand(batch, num_classes, height, width, generator=g)
    logits = scores + F.one_hot(maps, num_classes).permute(0, 3, 1, 2)
    labels = maps.clone()
    labels[torch.rand(maps.shape, generator=g) < 0.1] = 255
    wrong = torch.rand(maps.shape, generator=g) < 0.1
    labels[wrong] = torch.randint(num_classes, maps.shape, generator=g)[wrong]
    weight = 2 * prototypes
    bias = -prototypes.square().sum(1)
    return Case(split_of(num_classes), features.relu().contiguous(), maps, logits, labels, weight, bias)


def copy_into(ours: SourceMemory, twin: Memory) -> None:
    """Give our memory the twin's slots and counts."""
    for ids, buffers in ((twin.split.stuff, ours.stuff), (twin.split.things, ours.things)):
        for row, c in enumerate(ids):
            buffers.entries[row] = torch.stack(twin.rings[c].slots).float()
            buffers.count[row] = twin.rings[c].count


def fill_memories(ours: SourceMemory, twin: Memory, seed: int, writes: dict[int, int] | None = None) -> None:
    """Write random vectors to both; `writes` gives the number per class, by default one more than there are slots."""
    g = torch.Generator().manual_seed(seed)
    for c, ring in twin.rings.items():
        number = len(ring.slots) + 1 if writes is None else writes[c]
        for _ in range(number):
            ring.write(2 * torch.rand(twin.dim, generator=g))
    copy_into(ours, twin)


def assert_gradient(ours: Tensor, twin: Tensor, tolerance: float = 1e-4) -> None:
    """Check that they are equal within `tolerance` times the gradient's largest entry."""
    assert torch.isfinite(ours).all()
    scale = max(twin.abs().max().item(), 1e-12)
    assert (ours.double() - twin).abs().max().item() <= tolerance * scale


def assert_value(ours: Tensor | float, twin: Tensor | float, tolerance: float = 1e-5) -> None:
    """Check that the relative difference is at most `tolerance`, and 0 where the twin is 0 (or underflows float32)."""
    a, b = (float(x.detach()) if isinstance(x, Tensor) else x for x in (ours, twin))
    assert abs(a - b) <= max(tolerance * abs(b), 1e-38 if b else 0), (a, b)
