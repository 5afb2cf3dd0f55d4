"""The scripts on a GPU (`pytest -m gpu`), and that the waits which other such tests look for are noticed there."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.processes import run_in_two
from tests.scripts import MASKS, PSEUDO, STEP1, STEP2, call, mask, steps
from utils.training.meter import Meter

pytestmark = pytest.mark.gpu


def test_a_mixture_of_devices_is_an_error_and_a_wait_is_seen():
    on_gpu = torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError, match="same device"):
        on_gpu + torch.ones(3)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            on_gpu.sum().item()
            on_gpu[on_gpu > 0]
            torch.ones(3).to("cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum("synchroniz" in str(warning.message) for warning in caught) >= 3


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_the_scripts_in_order(run_folder, amp):
    call("step1", "--amp", amp)
    call("pseudo", "--amp", amp)
    call("step2", "--amp", amp, "--checkpoint-activations")
    for script, folder, terms in (
        ("step1", STEP1, {"adv_target", "adv_cls", "adv_cate"}),
        ("step2", STEP2, {"adv_target", "pseudo"}),
    ):
        lines = steps(folder)
        assert len(lines) == 3 and terms <= lines[-1].keys(), script
        assert all(math.isfinite(value) for line in lines for name, value in line.items()), script
    assert len(list(PSEUDO.glob("*.png"))) == 4
    call("evaluate", "--amp", amp, "--flip", "--scales", "0.75,1")
    call("iou", "data/builtin/Cityscapes/gtFine/val", str(MASKS))


def test_predictions_are_those_of_the_cpu(run_folder):
    call("step1")
    scores, masks = [], []
    for folder, where in (("gpu", ()), ("cpu", ("--cpu",))):
        call(
            "evaluate", "--restore-from", str(STEP1 / "last.pth"), "--save", folder, "--json", f"{folder}.json", *where
        )
        scores.append(json.loads(Path(f"{folder}.json").read_text())["confusion"])
        masks.append([mask(path) for path in sorted(Path(folder).glob("*_leftImg8bit.png"))])
    assert len(masks[0]) == 2
    assert np.mean([a != b for a, b in zip(*masks)]) < 0.01
    assert np.abs(np.subtract(*scores)).sum() < 0.02 * np.sum(scores[1])


def test_a_run_goes_on_where_it_stopped(run_folder):
    call("step1", "--deterministic", "--snapshot-dir", "whole")
    call("step1", "--deterministic", "--snapshot-dir", "parts", "--num-steps-stop", "2")
    call("step1", "--deterministic", "--snapshot-dir", "parts", "--continue-train")
    for line, again in zip(steps(Path("whole")), steps(Path("parts")), strict=True):
        for name in line.keys() - set(Meter.RATES):
            assert again[name] == pytest.approx(line[name], rel=1e-3), name


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("bn", [("--bn", "frozen"), ("--sync-bn",)], ids=" ".join)
def test_two_gpus_give_the_losses_of_one_with_both_images(run_folder, bn):
    call("step1", *bn, "--snapshot-dir", "one", "--batch-size", "2")
    ended = run_in_two(("step1", *bn, "--snapshot-dir", "two", "--batch-size", "1"))
    assert [code for code, _, _ in ended] == [0, 0], ended
    for line, again in zip(steps(Path("one")), steps(Path("two")), strict=True):
        for name in line.keys() - set(Meter.RATES):
            assert again[name] == pytest.approx(line[name], rel=1e-2, abs=1e-4), name
