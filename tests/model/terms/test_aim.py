"""The AIM weights in all forms, against loops and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.terms.aim import aim_weights
from model.terms.choices import AIM_FORMS
from model.terms.matching import instance_matching, stuff_matching
from tests.twins import aim as twin
from tests.twins import matching
from tests.twins.cases import assert_gradient, assert_value

STUFF, THINGS = torch.tensor([1.0, 100.0, 3.0]), torch.tensor([[2.0, 6.0], [100.0, 100.0]])
STUFF_MATCHED, THINGS_MATCHED = torch.tensor([True, False, True]), torch.tensor([[True, True], [False, False]])


def by_hand(form: str, beta: float = 1.0) -> tuple[list[float], list[float]]:
    stuff, things = aim_weights(STUFF, STUFF_MATCHED, THINGS, THINGS_MATCHED, form, beta)
    return stuff[STUFF_MATCHED].tolist(), things[THINGS_MATCHED].tolist()


def test_none_weighs_everything_alike() -> None:
    assert by_hand("none", 10.0) == ([1.0, 1.0], [1.0, 1.0])


def test_released_is_the_distance_times_beta_for_instances() -> None:
    assert by_hand("released", 10.0) == ([1.0, 3.0], [20.0, 60.0])


def test_paper_is_the_distance_over_the_mean_of_all_matched_regions() -> None:
    stuff, things = by_hand("paper", 10.0)
    assert stuff == pytest.approx([1 / 3, 1.0]) and things == pytest.approx([2 / 3, 2.0])


def test_paper_weights_have_mean_one() -> None:
    stuff, things = by_hand("paper")
    assert sum(stuff + things) / 4 == pytest.approx(1.0)


def test_paper_is_one_where_all_distances_are_zero_or_nothing_is_matched() -> None:
    zero = aim_weights(0 * STUFF, STUFF_MATCHED, 0 * THINGS, THINGS_MATCHED, "paper")
    nothing = aim_weights(STUFF, torch.zeros_like(STUFF_MATCHED), THINGS, torch.zeros_like(THINGS_MATCHED), "paper")
    for stuff, things in (zero, nothing):
        assert (stuff == 1).all() and (things == 1).all()


def test_only_the_released_weight_has_a_gradient() -> None:
    distance = torch.tensor([2.0, 3.0], requires_grad=True)
    everyone, nobody = torch.ones(2, dtype=torch.bool), torch.zeros(0, 0, dtype=torch.bool)
    for form in AIM_FORMS:
        weight, _ = aim_weights(distance, everyone, torch.zeros(0, 0), nobody, form)
        assert weight.requires_grad == (form == "released")
    (gradient,) = torch.autograd.grad(stuff_matching(distance, everyone, distance), distance)
    assert gradient.tolist() == [4.0, 6.0]  # the gradient of d^2


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'other'.*none.*paper.*released"):
        aim_weights(STUFF, STUFF_MATCHED, THINGS, THINGS_MATCHED, "other")


def weighted_losses(stuff: Tensor, s_matched: Tensor, things: Tensor, t_matched: Tensor, form: str) -> Tensor:
    stuff_weight, things_weight = aim_weights(stuff, s_matched, things, t_matched, form, 10.0)
    return stuff_matching(stuff, s_matched, stuff_weight) + 3 * instance_matching(things, t_matched, things_weight)


@pytest.mark.parametrize("form", AIM_FORMS)
@pytest.mark.parametrize(("stuff_number", "things_number", "regions"), [(8, 11, 10), (1, 0, 0), (0, 1, 1), (3, 4, 2)])
@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
def test_weighted_losses_equal_the_twin(
    form: str, stuff_number: int, things_number: int, regions: int, scale: float
) -> None:
    g = torch.Generator().manual_seed(stuff_number)
    stuff = (scale * torch.rand(stuff_number, generator=g)).requires_grad_()
    things = (scale * torch.rand(things_number, regions, generator=g)).requires_grad_()
    s_matched = torch.rand(stuff_number, generator=g) < 0.7
    t_matched = torch.arange(regions)[None] < torch.randint(regions + 1, (things_number, 1), generator=g)
    ours = weighted_losses(stuff, s_matched, things, t_matched, form)
    gradients = torch.autograd.grad(ours, (stuff, things))

    exact_stuff = stuff.detach().double().requires_grad_()
    exact_things = things.detach().double().requires_grad_()
    s = {c: exact_stuff[c] for c in range(stuff_number) if s_matched[c]}
    t = {c: [exact_things[c, r] for r in range(regions) if t_matched[c, r]] for c in range(things_number)}
    s_weight, t_weight = twin.weights(s, t, form, 10.0)
    expected = matching.stuff_matching(s, s_weight) + 3 * matching.instance_matching(t, t_weight)
    assert_value(ours, expected)
    for gradient, leaf in zip(gradients, (exact_stuff, exact_things)):
        wanted = None
        if expected.requires_grad:
            (wanted,) = torch.autograd.grad(expected, leaf, allow_unused=True, retain_graph=True)
        if leaf.numel():
            assert_gradient(gradient, torch.zeros_like(leaf) if wanted is None else wanted)
