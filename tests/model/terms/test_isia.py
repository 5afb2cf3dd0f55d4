"""ISIA as in the paper and the released forms, against loops and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.terms.isia import (
    inter_class_separation,
    intra_class_aggregation,
    isia,
    released_gap,
    released_same,
    similarity,
)
from tests.twins import isia as twin
from tests.twins.cases import assert_gradient, assert_value


def flags(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


# ---------------------------------------------------------------- paper


def test_aggregation_by_hand() -> None:
    target = torch.tensor([[1.0, 2.0], [5.0, 5.0], [0.0, 4.0]])
    source = torch.tensor([[2.0, 0.0], [9.0, 9.0], [0.0, 2.0]])
    # classes 0 and 2: (1 + 2) / 2 and (0 + 2) / 2
    assert intra_class_aggregation(target, flags(1, 1, 1), source, flags(1, 0, 1)) == 1.25


def test_separation_by_hand() -> None:
    target = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    source = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 5.0]])
    # to ready source classes 0 and 1: (0,1) 1, (1,0) 1, (2,0) 0.5, (2,1) 0; among targets: 0.5, 0, 0.5, each twice
    separation = inter_class_separation(target, flags(1, 1, 1), source, flags(1, 1, 0))
    assert separation.item() == pytest.approx(2.5 / 4 + 1 / 3)


def test_similarity_of_a_zero_vector_is_a_half_without_gradient() -> None:
    a = torch.zeros(1, 4, requires_grad=True)
    value = similarity(a, torch.rand(3, 4))
    assert value.tolist() == [[0.5, 0.5, 0.5]]
    (gradient,) = torch.autograd.grad(value.sum(), a)
    assert not gradient.any()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_similarity_does_not_depend_on_length(scale: float) -> None:
    a, b = torch.randn(3, 5), torch.randn(4, 5)
    torch.testing.assert_close(similarity(scale * a, b), similarity(a, b))


def paper_twin(target: Tensor, present: Tensor, source: Tensor, ready: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient."""
    exact = target.detach().double().requires_grad_()
    classes = range(len(target))
    value = twin.isia({c: exact[c] for c in classes if present[c]}, {c: source[c] for c in classes if ready[c]})
    if not value.requires_grad:
        return value, torch.zeros_like(exact)
    (gradient,) = torch.autograd.grad(value, exact, allow_unused=True)
    return value, torch.zeros_like(exact) if gradient is None else gradient


@pytest.mark.parametrize(("classes", "dim"), [(2, 1), (2, 512), (5, 3), (12, 320), (19, 64), (19, 2048)])
@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("signed", [False, True])
def test_isia_equals_the_twin(classes: int, dim: int, share: float, signed: bool) -> None:
    g = torch.Generator().manual_seed(classes + dim)
    target, source = torch.randn(classes, dim, generator=g), torch.randn(classes, dim, generator=g)
    if not signed:
        target, source = target.relu(), source.relu()
    present, ready = torch.rand(classes, generator=g) < share, torch.rand(classes, generator=g) < share
    target.requires_grad_()
    ours = isia(target, present, source, ready)
    (gradient,) = torch.autograd.grad(ours, target)
    expected, wanted = paper_twin(target, present, source, ready)
    assert_value(ours, expected)
    if dim > 1:  # in one dimension a cosine is a sign: its exact gradient is 0, and ours is rounding
        assert_gradient(gradient, wanted)
    else:
        torch.testing.assert_close(gradient.double(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("present", "ready"),
    [
        (flags(0, 0, 0), flags(1, 1, 1)),  # the target has no class
        (flags(0, 0, 0), flags(0, 0, 0)),
        (flags(0, 1, 0), flags(0, 0, 0)),  # a single class and an empty memory
    ],
)
def test_empty_means_are_zero_with_gradient_zero(present: Tensor, ready: Tensor) -> None:
    target = torch.rand(3, 4, requires_grad=True)
    loss = isia(target, present, torch.rand(3, 4), ready)
    (gradient,) = torch.autograd.grad(loss, target)
    assert loss == 0 and not gradient.any()


def test_zero_features_give_a_finite_loss_and_gradient() -> None:
    target = torch.zeros(4, 6, requires_grad=True)
    source = torch.rand(4, 6)
    ours = isia(target, flags(1, 1, 0, 1), source, flags(1, 0, 1, 1))
    (gradient,) = torch.autograd.grad(ours, target)
    expected, wanted = paper_twin(target, flags(1, 1, 0, 1), source, flags(1, 0, 1, 1))
    assert_value(ours, expected)
    assert_gradient(gradient, wanted)


def test_equal_directions_are_most_similar_and_not_pushed() -> None:
    """If all cosines are 1, the exact gradient is 0, and ours is rounding."""
    direction = torch.rand(16, generator=torch.Generator().manual_seed(0))
    target = (torch.arange(1.0, 5.0)[:, None] * direction).requires_grad_()
    everything = flags(1, 1, 1, 1)
    separation = inter_class_separation(target, everything, direction.expand(4, 16), everything)
    (gradient,) = torch.autograd.grad(separation, target)
    assert separation.item() == pytest.approx(2.0) and gradient.abs().max() < 1e-6


# ---------------------------------------------------------------- released


def test_gap_by_hand() -> None:
    stuff = torch.tensor([[1.0, 0.0], [7.0, 7.0]])
    instances = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [3.0, 3.0]]])
    gap = released_gap(stuff, flags(1, 0), instances, torch.tensor([[True, True], [True, False]]), 3)
    # ((1 + 0.5) / 2 + 0 / 1) * 10 * 3 / 2
    assert gap.item() == pytest.approx(11.25)


@pytest.mark.parametrize(
    ("stuff", "things", "regions", "dim"), [(8, 11, 10, 64), (1, 1, 1, 2), (3, 0, 0, 4), (0, 2, 3, 4)]
)
def test_gap_equals_the_twin(stuff: int, things: int, regions: int, dim: int) -> None:
    g = torch.Generator().manual_seed(dim)
    x = torch.rand(stuff, dim, generator=g, requires_grad=True)
    y = torch.rand(things, regions, dim, generator=g, requires_grad=True)
    x_matched = torch.rand(stuff, generator=g) < 0.7
    y_matched = torch.arange(regions)[None] < torch.randint(regions + 1, (things, 1), generator=g)
    ours = released_gap(x, x_matched, y, y_matched, 5)
    gradients = torch.autograd.grad(ours, (x, y))

    exact_x, exact_y = x.detach().double().requires_grad_(), y.detach().double().requires_grad_()
    expected = twin.released_gap(
        {c: exact_x[c] for c in range(stuff) if x_matched[c]},
        {c: [exact_y[c, r] for r in range(regions) if y_matched[c, r]] for c in range(things)},
        5,
    )
    assert_value(ours, expected)
    if expected.requires_grad:
        wanted = torch.autograd.grad(expected, (exact_x, exact_y))
        for gradient, reference in zip(gradients, wanted):
            assert_gradient(gradient, reference)


def test_a_class_pooled_to_zeros_counts_half_in_the_gap_without_gradient() -> None:
    x = torch.zeros(1, 4, requires_grad=True)
    gap = released_gap(x, flags(1), torch.rand(1, 1, 4), torch.tensor([[True]]), 1)
    (gradient,) = torch.autograd.grad(gap, x)
    assert gap.item() == pytest.approx(0.5 * 10 / 4) and not gradient.any()


@pytest.mark.parametrize(("classes", "height", "width"), [(2, 1, 1), (19, 7, 5), (5, 9, 17)])
def test_same_equals_the_twin(classes: int, height: int, width: int) -> None:
    g = torch.Generator().manual_seed(classes)
    source = 3 * torch.randn(classes, height, width, generator=g)
    target = 3 * torch.randn(classes, height, width, generator=g)
    assert_value(released_same(source, target, 2048), twin.released_same(source.tolist(), target.tolist(), 2048))


def test_same_has_the_gradient_of_its_definition_in_both_domains() -> None:
    g = torch.Generator().manual_seed(0)
    source, target = (torch.randn(4, 3, 2, generator=g, requires_grad=True) for _ in range(2))
    gradients = torch.autograd.grad(released_same(source, target, 7), (source, target))
    step = 1e-5
    for leaf, gradient in zip((source, target), gradients):
        wanted = torch.zeros(leaf.shape, dtype=torch.float64)
        for i in range(leaf.numel()):
            values = []
            for sign in (1, -1):
                moved = leaf.detach().double().clone()
                moved.view(-1)[i] += sign * step
                pair = (moved, target) if leaf is source else (source, moved)
                values.append(twin.released_same(pair[0].tolist(), pair[1].tolist(), 7))
            wanted.view(-1)[i] = (values[0] - values[1]) / (2 * step)
        assert_gradient(gradient, wanted)


def test_same_is_zero_for_equal_maps_and_resizes_the_source_to_the_target() -> None:
    logits = torch.randn(3, 4, 5)
    assert released_same(logits, logits, 8) == 0
    flat = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    assert released_same(flat.expand(3, 2, 9), flat.expand(3, 4, 5), 8).item() == pytest.approx(0, abs=1e-6)
