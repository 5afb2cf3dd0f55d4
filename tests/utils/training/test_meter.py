"""Means of the losses, and the shares of the time."""

from __future__ import annotations

import math
import time

import torch

from utils.training.finite import all_finite
from utils.training.meter import Meter


def test_meter_gives_the_mean_of_each_term_over_the_steps_that_had_it():
    meter = Meter()
    meter.start(10)
    meter.add({"seg": torch.tensor(1.0)})
    meter.add({"seg": torch.tensor(2.0), "cls": torch.tensor(5.0)})
    means, rates = meter.flush(12)
    assert means == {"seg": 1.5, "cls": 5.0}
    assert rates["iterations_per_s"] > 0 and rates["data_wait"] == 0
    meter.add({"seg": torch.tensor(7.0)})
    assert meter.flush(13)[0] == {"seg": 7.0}


def test_meter_tells_the_share_of_time_that_went_on_waiting(monkeypatch):
    times = iter([0.0, 2.0, 5.0, 5.5, 8.0, 11.0, 11.0, 13.0, 13.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    meter = Meter()
    for _ in range(2):  # from 2 to 5, and from 5.5 to 8
        with meter.waiting():
            pass
    meter.add({"seg": torch.tensor(1.0)})
    assert meter.flush(22)[1] == {"iterations_per_s": 2.0, "data_wait": 0.5}
    meter.add({"seg": torch.tensor(1.0)})
    assert meter.flush(23)[1] == {"iterations_per_s": 0.5, "data_wait": 0}


def test_a_meter_goes_on_from_its_state():
    whole, first, second = Meter(), Meter(), Meter()
    values = [torch.tensor(value) for value in (0.1, 0.2, 0.7)]
    for value in values:
        whole.add({"seg": value})
    first.add({"seg": values[0]})
    state = first.state_dict()
    first.add({"seg": values[1]})  # the state is a copy
    second.load_state_dict(state, torch.device("cpu"))
    for value in values[1:]:
        second.add({"seg": value})
    assert second.flush(3)[0] == whole.flush(3)[0]


def test_under_a_gradient_scaler_an_overflow_is_left_out_of_the_mean():
    overflown = torch.tensor(torch.inf)
    meter, exact = Meter(overflows=True), Meter()
    for value in (torch.tensor(1.0), overflown, torch.tensor(2.0), torch.tensor(torch.nan)):
        meter.add({"seg": value, "adv": overflown})
        exact.add({"seg": value})
    assert all_finite(meter.sums.values()) and not all_finite(exact.sums.values())
    again = Meter(overflows=True)
    again.load_state_dict(meter.state_dict(), torch.device("cpu"))
    for found in (meter, again):
        assert found.flush(4)[0] == {"seg": 1.5, "adv": None}
    assert math.isnan(exact.flush(4)[0]["seg"] or 0)
