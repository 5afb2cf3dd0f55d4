"""The optimisers and their learning rates."""

from __future__ import annotations

import pytest
import torch

from model.methods.optimizers import poly, segmenter_optimizer
from model.networks.deeplab import build_segmenter
from utils.options import config
from utils.training.optimizers import set_rates, take_over


@pytest.mark.parametrize(
    ("step", "total", "power", "warmup", "factor"),
    [
        (0, 100, 0.9, 0, 1.0),
        (50, 100, 0.9, 0, 0.5**0.9),
        (99, 100, 0.9, 0, 0.01**0.9),
        (50, 100, 0.0, 0, 1.0),
        (0, 100, 1.0, 10, 0.1),
        (9, 100, 1.0, 10, 0.91),
        (10, 100, 1.0, 10, 0.9),
    ],
)
def test_poly_decay_and_warmup(step, total, power, warmup, factor):
    options = config.resolve("step1", {"num_steps": total, "power": power, "warmup_steps": warmup})
    assert poly(step, options) == pytest.approx(factor)


def test_three_steps_of_adamw_equal_the_published_rule():
    torch.manual_seed(0)
    network = build_segmenter("tiny", 19, width=0.25)
    given = {"optimizer": "adamw", "learning_rate": 1e-2, "backbone_lr_mult": 0.5, "weight_decay": 0.1}
    optimizer = segmenter_optimizer(network, config.resolve("step1", given))
    set_rates([optimizer], 1.0)
    backbone, classifier = (group["params"] for group in optimizer.param_groups)
    for parameters, rate in ((backbone, 5e-3), (classifier, 0.1)):
        weight = parameters[0]
        expected = weight.detach().double()
        mean = square = torch.zeros_like(expected)
        for step in range(1, 4):
            gradient = torch.randn_like(weight)
            weight.grad = gradient.clone()
            optimizer.step()
            mean = 0.9 * mean + 0.1 * gradient.double()
            square = 0.999 * square + 0.001 * gradient.double() ** 2
            move = (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
            expected = expected * (1 - rate * 0.1) - rate * move
        torch.testing.assert_close(weight.detach(), expected.float(), rtol=1e-5, atol=1e-6)
        weight.grad = None


@pytest.mark.parametrize(("before", "now"), [("sgd", "adamw"), ("adamw", "sgd")])
def test_the_state_of_another_optimizer_is_refused(before, now):
    network = build_segmenter("tiny", 19, width=0.25)
    old, new = (segmenter_optimizer(network, config.resolve("step1", {"optimizer": name})) for name in (before, now))
    take_over(segmenter_optimizer(network, config.resolve("step1", {"optimizer": before})), old.state_dict())
    kept = new.state_dict()
    with pytest.raises(ValueError, match=f"--optimizer {before}"):
        take_over(new, old.state_dict())
    assert new.state_dict()["param_groups"] == kept["param_groups"]
