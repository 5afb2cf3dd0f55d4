"""The losses of CycleGAN and of CyCADA, by hand."""

from __future__ import annotations

import pytest
import torch

from model.terms.translation import discriminator_loss, distance, generator_loss, least_squares, semantic_loss


def test_least_squares_by_hand() -> None:
    scores = torch.tensor([[0.5, 1.0], [2.0, -1.0]])
    assert least_squares(scores, real=True).item() == (0.25 + 0 + 1 + 4) / 4
    assert least_squares(scores, real=False).item() == (0.25 + 1 + 4 + 1) / 4


def test_both_players_by_hand() -> None:
    real, restyled = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.5, -0.5]]]])
    assert generator_loss(restyled).item() == (0.25 + 2.25) / 2
    assert discriminator_loss(real, restyled).item() == ((0 + 1) / 2 + (0.25 + 0.25) / 2) / 2


def test_a_generator_is_drawn_to_one_and_a_discriminator_apart() -> None:
    scores = torch.tensor([0.25], requires_grad=True)
    (up,) = torch.autograd.grad(generator_loss(scores), scores)
    assert up.item() == 2 * (0.25 - 1)
    real = torch.tensor([0.25], requires_grad=True)
    gradients = torch.autograd.grad(discriminator_loss(real, scores), (real, scores))
    assert [g.item() for g in gradients] == [0.25 - 1, 0.25]


def test_distance_by_hand() -> None:
    assert distance(torch.tensor([1.0, -1.0]), torch.tensor([0.5, 1.0])).item() == (0.5 + 2) / 2


def test_scores_in_half_precision_are_judged_in_full() -> None:
    scores = torch.tensor([300.0, 300.0], dtype=torch.float16)
    assert least_squares(scores, real=False).item() == pytest.approx(90_000)  # beyond the range of float16


def test_semantic_loss_by_hand() -> None:
    """Before restyling the classes are 1 and 0; after it, their probabilities are 3/4 and 1/2."""
    before = torch.tensor([[[[0.0, 2.0]], [[1.0, -3.0]]]], requires_grad=True)
    after = torch.tensor([[[[1.0, 2.0]], [[3.0, 2.0]]]]).log().requires_grad_()
    loss = semantic_loss(before, after)
    assert loss.item() == pytest.approx((torch.tensor([4 / 3, 2.0]).log().mean()).item())
    gradient = torch.autograd.grad(loss, (before, after), allow_unused=True)
    assert gradient[0] is None and gradient[1] is not None
