"""The image level inside a method: what the segmenter learns from, and what the panels show."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from model.methods.bafft import Alignment, SelfTraining
from model.methods.base import Batch, Step
from model.networks.deeplab import build_segmenter
from model.terms.image_level import ImageLevel
from model.terms.regions import ClassSplit
from tests.methods import OFF, method_of

STEP = Step(3, 17)


def batches() -> tuple[Batch, Batch]:
    g = torch.Generator().manual_seed(0)
    source = torch.randint(256, (3, 3, 40, 48), generator=g, dtype=torch.uint8)
    target = torch.randint(120, (2, 3, 32, 56), generator=g, dtype=torch.uint8)
    label = torch.randint(4, (3, 40, 48), generator=g, dtype=torch.uint8)
    pseudo = torch.randint(4, (2, 32, 56), generator=g, dtype=torch.uint8)
    return {"image": source, "label": label}, {"image": target, "label": pseudo}


def method(kind: type[Alignment], **options: Any) -> Alignment:
    torch.manual_seed(0)
    segmenter = build_segmenter("tiny", 4, width=0.25)
    return method_of(segmenter, ClassSplit(4, (0, 1), (2, 3)), kind, **options)


def seen(made: Alignment, source: Batch, target: Batch) -> list[Tensor]:
    """The images of both passes of an iteration."""
    images: list[Tensor] = []
    made.segmenter.register_forward_pre_hook(lambda _, inputs: images.append(inputs[0]))
    made.iteration(source, target, lambda loss, player: None, STEP)
    return images


@pytest.mark.parametrize("kind", [Alignment, SelfTraining])
@pytest.mark.parametrize(("level", "share", "beta"), [("lab", 1.0, 0.01), ("lab", 0.5, 0.01), ("fda", 0.6, 0.1)])
def test_the_segmenter_learns_from_the_restyled_batch(kind, level, share, beta) -> None:
    source, target = batches()
    given = source["image"].clone()
    found = seen(method(kind, image_level=level, image_level_share=share, fda_beta=beta), source, target)
    wanted = ImageLevel(level, share, beta)(given, target["image"], STEP.generator())
    assert torch.equal(found[0], wanted) and not torch.equal(found[0], given)
    assert torch.equal(found[1], target["image"]) and torch.equal(source["image"], given)


@pytest.mark.parametrize("kind", [Alignment, SelfTraining])
def test_without_it_the_batch_is_as_it_was(kind) -> None:
    source, target = batches()
    assert seen(method(kind), source, target)[0] is source["image"]


def test_the_panels_show_the_first_restyled_image_its_style_and_the_result() -> None:
    source, target = batches()
    shown = 0
    for seed in range(6):
        made, step = method(Alignment, image_level="lab", image_level_share=0.2, **OFF), Step(0, seed)
        with torch.no_grad():
            panels = made.panels(source, target, step)
        styles = made.image_level.styles(3, 2, step.generator())
        first = next((number for number, style in enumerate(styles) if style is not None), None)
        assert ("image level/result" in panels) == (first is not None)
        if first is not None:
            shown += 1
            results = made.image_level(source["image"], target["image"], step.generator())
            style = styles[first]
            assert style is not None
            assert torch.equal(panels["image level/source"], source["image"][first])
            assert torch.equal(panels["image level style"], target["image"][style])
            assert torch.equal(panels["image level/result"], results[first])
    assert 0 < shown < 6
