"""The remaining time of a run."""

from __future__ import annotations

import logging
from datetime import datetime

import pytest

from utils.reporting.cost import Cost


def test_the_line_says_when_the_run_ends():
    cost = Cost(start=0, steps=1000, images=8, domains=2, disk=12_300_000, free=45_600_000_000)
    assert cost._line({"step": 60, "iterations_per_s": 2.0}, datetime(2026, 1, 2, 23, 55)) == (
        "ahead: 940 steps of 8 images of each domain, 32 images per second; ends in 0:07:50, at 2026-01-03 00:02, "
        "plus the time for scores and pictures; checkpoints take 12.3 MB of 45.6 GB that are free"
    )


@pytest.mark.parametrize(("start", "told_at"), [(0, [60]), (40, [100]), (180, [])])
def test_it_is_told_once_after_the_first_steps(caplog, start, told_at):
    caplog.set_level(logging.INFO, logger="bafft")
    cost = Cost(start=start, steps=200, images=4, domains=1, disk=1, free=2)
    told = []
    for step in range(start + 20, 201, 20):
        cost.record({"step": step, "miou": 0.5})
        before = len(caplog.records)
        cost.record({"step": step, "iterations_per_s": 1.0})
        told += [step] * (len(caplog.records) - before)
    assert told == told_at
