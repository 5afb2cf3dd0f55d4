"""Learning rates of the optimisers."""

from __future__ import annotations

import pytest

from model.methods.optimizers import poly
from utils.options import config


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
