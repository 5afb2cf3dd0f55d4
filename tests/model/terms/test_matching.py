"""Stuff and instance matching against loops, and by hand."""

from __future__ import annotations

import pytest
import torch

from model.terms.matching import instance_matching, nearest_distance, stuff_matching
from tests.twins import matching as twin
from tests.twins.cases import assert_gradient, assert_value


def test_distance_by_hand_and_its_gradient_goes_to_the_winner_only() -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]], requires_grad=True)
    entries = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [2.0, 2.0, 3.0, 0.0], [9.0, 9.0, 9.0, 9.0]]], requires_grad=True)
    distance = nearest_distance(x, entries)
    assert distance.tolist() == [[1.25]]  # (1 + 0 + 0 + 4) / 4
    distance.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[[-0.25, 0.0, 0.0, 0.25]]]
    assert entries.grad is None


@pytest.mark.parametrize(
    ("classes", "regions", "slots", "dim"),
    [(1, 1, 1, 1), (8, 1, 50, 64), (11, 10, 500, 8), (3, 4, 7, 2048), (5, 3, 20, 512)],
)
def test_distances_equal_the_twin(classes: int, regions: int, slots: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(dim)
    x = (3 * torch.rand(classes, regions, dim, generator=generator)).requires_grad_()
    entries = 3 * torch.rand(classes, slots, dim, generator=generator)
    direction = torch.randn(classes, regions, generator=generator)
    ours = nearest_distance(x, entries)
    (gradient,) = torch.autograd.grad((ours * direction).sum(), x)

    exact = x.detach().double().requires_grad_()
    expected = torch.stack([torch.stack([twin.distance(v, list(m)) for v in row]) for row, m in zip(exact, entries)])
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=0)
    (wanted,) = torch.autograd.grad((expected * direction).sum(), exact)
    assert_gradient(gradient, wanted)


def test_a_vector_that_is_a_slot_has_distance_and_gradient_zero() -> None:
    entries = torch.rand(2, 5, 7)
    x = entries[:, 3:4].clone().requires_grad_()
    distance = nearest_distance(x, entries)
    assert not distance.any()
    (gradient,) = torch.autograd.grad(distance.sum(), x)
    assert not gradient.any()


@pytest.mark.parametrize(("classes", "regions"), [(0, 1), (0, 0), (3, 0)])
def test_no_region_has_no_distance(classes: int, regions: int) -> None:
    assert nearest_distance(torch.rand(classes, regions, 4), torch.rand(classes, 6, 4)).shape == (classes, regions)


def test_stuff_matching_by_hand() -> None:
    distance, weight = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3.0, 5.0, 0.5])
    assert stuff_matching(distance, torch.tensor([True, False, True]), weight) == 5.0


def test_instance_matching_by_hand_takes_the_mean_of_a_class_and_the_sum_over_classes() -> None:
    distance = torch.tensor([[1.0, 2.0, 9.0], [4.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    weight = torch.tensor([[1.0, 2.0, 9.0], [0.5, 9.0, 9.0], [9.0, 9.0, 9.0]])
    matched = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    assert instance_matching(distance, matched, weight) == (1 + 4) / 2 + 2


@pytest.mark.parametrize(("classes", "regions"), [(1, 1), (8, 3), (11, 10)])
def test_sums_equal_the_twin(classes: int, regions: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    distance = torch.rand(classes, regions, generator=generator)
    weight = torch.rand(classes, regions, generator=generator)
    number = torch.randint(regions + 1, (classes,), generator=generator)
    matched = torch.arange(regions)[None] < number[:, None]
    lists = {c: list(distance[c].double()[matched[c]]) for c in range(classes)}
    weights = {c: list(weight[c].double()[matched[c]]) for c in range(classes)}
    assert_value(instance_matching(distance, matched, weight), twin.instance_matching(lists, weights))
    first = {c: ds[0] for c, ds in lists.items() if ds}
    assert_value(
        stuff_matching(distance[:, 0], matched[:, 0], weight[:, 0]),
        twin.stuff_matching(first, {c: weights[c][0] for c in first}),
    )


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_nothing_matched_is_zero_with_gradient_zero_whatever_stands_there(bad: float) -> None:
    distance = torch.full((3, 2), bad, requires_grad=True)
    nobody = torch.zeros(3, 2, dtype=torch.bool)
    loss = instance_matching(distance, nobody, torch.ones(3, 2))
    loss = loss + stuff_matching(distance[:, 0], nobody[:, 0], torch.ones(3))
    (gradient,) = torch.autograd.grad(loss, distance)
    assert loss == 0 and not gradient.any()
