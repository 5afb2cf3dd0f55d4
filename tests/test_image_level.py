"""`--image-level` in both training scripts: it has an effect, resumes bit for bit, and works in several processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.messages import says
from tests.processes import run_in_two
from tests.scripts import STEP1, STEP2, call, differences, exit_code, losses, state, training_state

FOLDERS = {"step1": STEP1, "step2": STEP2}
SETTINGS = ("--num-steps", "4", "--save-pred-every", "2", "--learning-rate", "0.02")
LAB = ("--image-level", "lab", "--image-level-share", "0.5")
FDA = ("--image-level", "fda", "--fda-beta", "0.05")


@pytest.mark.parametrize("level", [LAB, FDA, (*LAB, "--amp", "bf16")], ids=["lab", "fda", "bf16"])
@pytest.mark.parametrize("script", ["step1", "step2"])
def test_stopped_and_resumed_equals_never_stopped(after_stage1, script, level):
    call(script, *SETTINGS, *level, "--snapshot-dir", "whole")
    call(script, *SETTINGS, *level, "--num-steps-stop", "2", "--overwrite")
    call(script, *SETTINGS, *level, "--continue-train")
    assert differences(training_state(Path("whole")), training_state(FOLDERS[script])) == []
    assert losses(Path("whole")) == losses(FOLDERS[script])


@pytest.mark.parametrize("script", ["step1", "step2"])
def test_it_acts_on_the_restyled_share_alone(after_stage1, script):
    """A share of 0 trains as without an image level, bit for bit; other shares do not."""
    for name, level in (
        ("plain", ()),
        ("none", ("--image-level", "lab", "--image-level-share", "0")),
        ("all", LAB[:2]),
    ):
        call(script, "--num-steps", "1", *level, "--snapshot-dir", name)
    networks = [state(Path(name))["segmenter"] for name in ("plain", "none", "all")]
    assert differences(networks[0], networks[1]) == [] and differences(networks[0], networks[2])


def test_two_processes_resume_bit_for_bit(run_folder):
    settings = ("step1", *SETTINGS, *LAB, "--cpu")
    whole, half, rest = (("--snapshot-dir", "whole"), ("--num-steps-stop", "2"), ("--continue-train",))
    for code, _, error in run_in_two((*settings, *whole), (*settings, *half), (*settings, *rest)):
        assert code == 0, error
    assert differences(training_state(Path("whole")), training_state(STEP1)) == []


@pytest.mark.parametrize("level", ["lab", "fda"])
def test_source_only_refuses_it(run_folder, capsys, level):
    assert exit_code("step1", "--source-only", "--image-level", level) == 2
    error = capsys.readouterr().err
    assert says(error, f"--source-only ... without a target, ... --image-level {level}") and error.count("\n") == 1


def test_another_level_is_named_on_resuming(run_folder, capsys):
    call("step1", *SETTINGS, "--num-steps-stop", "2")
    call("step1", *SETTINGS, "--image-level", "lab", "--continue-train")
    assert says(capsys.readouterr().out, "changed ... --image-level none -> lab")
