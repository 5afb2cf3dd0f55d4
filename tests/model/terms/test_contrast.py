"""Pixel contrast against a slow twin and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from model.terms.contrast import pixel_contrast
from tests.twins import plus
from tests.twins.cases import assert_value, random_case


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_twin_and_its_gradient_the_numerical_one(seed: int) -> None:
    case = random_case(seed, 2, 5, 4, 6)
    g = torch.Generator().manual_seed(seed)
    source, ready = torch.rand(5, 6, generator=g), [True, seed != 1, True, False, True]
    labels = case.labels.clone()
    if seed == 2:
        labels[0] = 255
    features = (case.features + 0.1).requires_grad_()
    found = pixel_contrast(features, labels, source, torch.tensor(ready))
    assert_value(found, plus.pixel_contrast(features.detach(), labels, source, ready, 0.1))
    (gradient,) = torch.autograd.grad(found, features)
    step = 1e-3 * torch.randn(features.shape, generator=g)
    ahead, behind = (plus.pixel_contrast(features.detach() + s * step, labels, source, ready, 0.1) for s in (0.5, -0.5))
    assert float((gradient * step).sum()) == pytest.approx(ahead - behind, rel=0.02, abs=1e-6)


def test_by_hand() -> None:
    features = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1)
    source = torch.tensor([[1.0, 0.0], [0.0, 5.0], [0.0, 0.0]])
    found = pixel_contrast(features, torch.zeros(1, 1, 1), source, torch.tensor([True, True, False]), 1.0)
    assert found.item() == pytest.approx(math.log(1 + math.exp(-1)))


@pytest.mark.parametrize("ready", [False, True])
def test_without_a_pixel_that_takes_part_loss_and_gradient_are_zero(ready: bool) -> None:
    features = torch.zeros(2, 4, 3, 3, requires_grad=True)
    labels = torch.full((2, 3, 3), 255 if ready else 0)
    loss = pixel_contrast(features, labels, torch.zeros(3, 4), torch.full((3,), ready))
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss == 0 and not gradient.any()
