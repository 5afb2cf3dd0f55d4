"""The adversarial losses of both players against loops, and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from model.networks.discriminator import OutputDiscriminator
from model.terms.adversarial import SOURCE, TARGET, discriminator_loss, domain_loss, segmenter_loss, shared_scores
from tests.twins import adversarial as twin
from tests.twins.cases import assert_gradient, assert_value


def test_an_undecided_discriminator_costs_both_players_log_two() -> None:
    scores = torch.zeros(2, 1, 3, 4)
    assert segmenter_loss(scores).item() == pytest.approx(math.log(2))
    assert discriminator_loss(scores, scores).item() == pytest.approx(math.log(2))


def test_source_is_zero_and_target_is_one() -> None:
    says_source, says_target = torch.full((1, 1, 1, 1), -20.0), torch.full((1, 1, 1, 1), 20.0)
    assert discriminator_loss(says_source, says_target) < 1e-6
    assert discriminator_loss(says_target, says_source).item() == pytest.approx(20.0)
    assert segmenter_loss(says_source) < 1e-6 and segmenter_loss(says_target).item() == pytest.approx(20.0)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 4, 8), (4, 1, 3, 5)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0, 300.0])
@pytest.mark.parametrize("domain", [SOURCE, TARGET])
def test_losses_and_gradients_equal_the_twin(shape: tuple[int, ...], scale: float, domain: float) -> None:
    scores = (scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    ours = domain_loss(scores, domain)
    (gradient,) = torch.autograd.grad(ours, scores)
    assert_value(ours, twin.domain_loss(scores.detach(), int(domain)))
    assert_gradient(gradient, twin.domain_gradient(scores.detach(), int(domain)))


def test_the_players_losses_are_made_of_the_twins() -> None:
    g = torch.Generator().manual_seed(1)
    source, target = torch.randn(2, 1, 3, 4, generator=g), torch.randn(2, 1, 2, 2, generator=g)
    assert_value(segmenter_loss(target), twin.domain_loss(target, 0))
    assert_value(discriminator_loss(source, target), (twin.domain_loss(source, 0) + twin.domain_loss(target, 1)) / 2)


def test_low_precision_scores_are_judged_in_float32_under_autocast() -> None:
    scores = torch.randn(1, 1, 4, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = segmenter_loss(scores)
    assert loss.dtype == torch.float32
    assert_value(loss, twin.domain_loss(scores, 0))


def test_shared_scores_give_each_player_its_own_gradient_of_one_forward_pass() -> None:
    torch.manual_seed(0)
    discriminator, passes = OutputDiscriminator(3, 0.1), []
    discriminator.register_forward_hook(lambda *_: passes.append(1))
    logits = torch.randn(2, 3, 32, 64, requires_grad=True)
    for_segmenter, for_discriminator = shared_scores(discriminator, logits.softmax(1))
    assert len(passes) == 1 and torch.equal(for_segmenter, for_discriminator)
    (0.3 * segmenter_loss(for_segmenter)).backward()
    assert all(p.grad is None for p in discriminator.parameters())
    assert logits.grad is not None
    gradient = logits.grad.clone()
    domain_loss(for_discriminator, TARGET).backward()
    assert torch.equal(logits.grad, gradient)

    parameters = list(discriminator.parameters())
    scores = discriminator(logits.softmax(1))
    (wanted,) = torch.autograd.grad(0.3 * segmenter_loss(scores), logits, retain_graph=True)
    torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-9)
    for p, expected in zip(parameters, torch.autograd.grad(domain_loss(scores, TARGET), parameters)):
        torch.testing.assert_close(p.grad, expected, rtol=1e-6, atol=1e-9)
