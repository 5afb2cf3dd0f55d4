"""Gradient shares: the norms by hand, and that measuring them does not change the training state."""

from __future__ import annotations

import pytest
import torch

from model.methods.bafft import SelfTraining
from model.methods.base import Step
from model.methods.gradients import GradientShares
from model.methods.plus import Plus
from model.networks.deeplab import build_segmenter
from tests.methods import method_of
from tests.model.methods.test_plus import OPTIONS, batches
from tests.twins.cases import split_of


def test_norms_and_shares_by_hand() -> None:
    a, b, c = (torch.nn.Parameter(torch.tensor(values)) for values in ([1.0, 2.0], [3.0], [5.0]))
    frozen = torch.nn.Parameter(torch.ones(1), requires_grad=False)
    shares = GradientShares([a, b, c, frozen], every=2)
    losses: dict[str, torch.Tensor] = {}
    for step in (1, 2):
        shares.start(step)
        shares.measure("seg", 3 * a.sum() + 4 * b.sum(), losses)
        shares.measure("mix", 0.5 * a[0] * b[0], losses)
        assert bool(losses) == (step == 2)
    assert losses["grad_seg"].item() == pytest.approx((9 + 9 + 16) ** 0.5)
    assert losses["grad_mix"].item() == pytest.approx((1.5**2 + 0.5**2) ** 0.5 / 34**0.5)
    assert a.grad is None


def test_without_a_gradient_of_the_source_every_share_is_0() -> None:
    a = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    shares, losses = GradientShares([a], every=1), dict[str, torch.Tensor]()
    shares.start(0)
    shares.measure("seg", 0 * a.sum(), losses)
    shares.measure("mix", a.sum(), losses)
    assert (losses["grad_seg"].item(), losses["grad_mix"].item()) == (0, 0)


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("kind", [SelfTraining, Plus])
def test_a_measured_step_is_the_same_to_the_last_bit(kind: type[SelfTraining], recomputed: bool) -> None:
    def run(every: int) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
        torch.manual_seed(0)
        given = {**OPTIONS, "method": "plus" if kind is Plus else "paper", "log_gradients": every}
        given |= {f"lambda_{name}": 0.1 for name in ("adv_target", "adv_cls", "adv_cate", "pseudo")}
        method = method_of(build_segmenter("tiny", 5), split_of(5), kind, **given)
        method.segmenter.checkpoint_activations = recomputed
        method.set_training_mode()
        source, target = batches()
        target["label"] = torch.ones(2, 33, 48, dtype=torch.uint8)
        losses = {}
        for step in (0, 1):
            losses = method.iteration(source, target, lambda loss, _: loss.backward(), Step(step, step))
            for optimizer in method.optimizers.values():
                optimizer.step()
            method.after_step(step)
        return losses, list(method.networks.state_dict().values())

    plain, measured = run(0), run(1)
    for one, other in zip(plain[1], measured[1], strict=True):
        assert torch.equal(one, other)
    shares = {name.removeprefix("grad_"): value for name, value in measured[0].items() if name.startswith("grad_")}
    further = {"mix", "masked"} if kind is Plus else {"adv_feat", "adv_ins"}
    assert shares.keys() == {"seg", "adv_target", "adv_cls", "adv_cate", "pseudo"} | further
    assert all(value > 0 for name, value in shares.items() if name in ("seg", "adv_target", "pseudo", "mix", "masked"))
    assert plain[0].keys() == measured[0].keys() - {f"grad_{name}" for name in shares}
