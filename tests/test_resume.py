"""A run that was stopped and resumed equals an uninterrupted one bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from dataset import GTA5, base
from tests.messages import says
from tests.scripts import STEP1, STEP2, call, differences, exit_code, losses, state, steps, training_state
from utils.states import checkpoint
from utils.training.trainer import Trainer

HALF, ALL = "2", "4"
# Everything random is on, and the rates are so high that the memory fills and all terms take part.
SETTINGS = (
    *("--num-steps", ALL, "--learning-rate", "0.02", "--num-prototype", "1", "--save-pred-every", HALF),
    *("--random-mirror", "--random-scale", "--random-jitter", "--select-on-target-labels"),
)
FOLDERS = {"step1": STEP1, "step2": STEP2}


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("script", ["step1", "step2"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_stopped_and_resumed_equals_never_stopped(after_stage1, script, workers, optimizer):
    settings = (*SETTINGS, "--num-workers", workers, "--optimizer", optimizer, "--weight-decay", "0.01")
    call(script, *settings, "--snapshot-dir", "whole")
    call(script, *settings, "--num-steps-stop", HALF, "--overwrite")
    assert state(FOLDERS[script])["step"] == int(HALF)
    call(script, *settings, "--continue-train")
    whole, resumed = training_state(Path("whole")), training_state(FOLDERS[script])
    parts = {"segmenter", "networks", "state", "optimizer", "scalers", "step", "best", "rng"}
    assert parts < whole.keys()
    assert whole["state"]["memory"]["stuff"]["count"].sum() > 0
    assert differences(whole, resumed) == []
    assert losses(Path("whole")) == losses(FOLDERS[script])


@pytest.mark.parametrize("script", ["step1", "step2"])
def test_a_named_checkpoint_is_resumed_into_another_folder(after_stage1, script):
    call(script, *SETTINGS, "--snapshot-dir", "whole")
    call(script, *SETTINGS, "--snapshot-dir", "half", "--num-steps-stop", HALF)
    checkpoint.save(Path("half/last.pth"), state(Path("half")) | {"best": 1.0})  # a score that no step reaches
    call(script, *SETTINGS, "--snapshot-dir", "rest", "--continue-train", "half/last.pth")
    whole, rest = training_state(Path("whole")), training_state(Path("rest"))
    assert differences(whole | {"best": 0}, rest | {"best": 0}) == []
    assert state(Path("rest"), "best.pth")["best"] == rest["best"] < 1  # the best one of its own folder
    assert state(Path("half"))["step"] == int(HALF)
    assert [record["step"] for record in steps(Path("rest"))] == [3, 4]


def test_resuming_with_iter_size_goes_on_with_the_next_images(run_folder):
    settings = (*SETTINGS, "--iter-size", "2", "--batch-size", "1")
    call("step1", *settings, "--snapshot-dir", "whole")
    call("step1", *settings, "--num-steps-stop", HALF)
    call("step1", *settings, "--continue-train")
    assert differences(training_state(Path("whole")), training_state(STEP1)) == []


@pytest.fixture
def drawn(monkeypatch) -> list[int]:
    """A list of the positions of the source samples in the order in which they are read."""
    numbers: list[int] = []
    get = GTA5.__getitem__

    def noted(self, item):
        if isinstance(self, GTA5):
            numbers.append(item[1])
        return get(self, item)

    monkeypatch.setattr(base.SegmentationDataset, "__getitem__", noted)
    return numbers


def test_with_another_batch_size_the_next_images_follow(run_folder, drawn):
    call("step1", *SETTINGS, "--num-steps-stop", HALF)  # batches of two
    assert drawn == [0, 1, 2, 3] and state(STEP1)["drawn"] == 4
    drawn.clear()
    changed = (*SETTINGS, "--batch-size", "1", "--iter-size", "3")
    call("step1", *changed, "--num-steps-stop", "3", "--continue-train")
    assert drawn == [4, 5, 6] and state(STEP1)["drawn"] == 7
    drawn.clear()
    call("step1", *SETTINGS, "--continue-train")
    assert drawn == [7, 8] and state(STEP1)["drawn"] == 9


def test_a_checkpoint_without_the_number_of_images_drawn_counts_batches_of_now(run_folder, drawn):
    call("step1", *SETTINGS, "--num-steps-stop", HALF)
    old = {key: value for key, value in state(STEP1).items() if key != "drawn"}
    checkpoint.save(STEP1 / "last.pth", old)
    drawn.clear()
    call("step1", *SETTINGS, "--continue-train")
    assert drawn == [4, 5, 6, 7] and state(STEP1)["drawn"] == 8


def test_source_only_resumes(run_folder):
    settings = (*SETTINGS, "--source-only")
    call("step1", *settings, "--snapshot-dir", "whole")
    call("step1", *settings, "--snapshot-dir", "half", "--num-steps-stop", HALF)
    call("step1", *settings, "--snapshot-dir", "half", "--continue-train")
    assert differences(training_state(Path("whole")), training_state(Path("half"))) == []


def test_a_killed_run_goes_on_from_its_last_checkpoint_without_double_log_lines(run_folder):
    call("step1", *SETTINGS, "--snapshot-dir", "whole")
    call("step1", *SETTINGS, "--num-steps-stop", HALF)
    with open(STEP1 / "log.jsonl", "a", encoding="utf-8") as log:
        log.write('{"step": 3, "seg": 9.9}\n{"step": 4, "se')  # logged after the checkpoint; cut off
    call("step1", *SETTINGS, "--continue-train")
    assert losses(STEP1) == losses(Path("whole"))


def test_resuming_needs_no_weights_of_the_stage_before_and_takes_the_checkpoints_network(after_stage1):
    call("step2", *SETTINGS, "--num-steps-stop", HALF, "--aspp-branches", "2")
    shutil.rmtree(STEP1)
    call("step2", *SETTINGS, "--continue-train")
    assert state(STEP2)["step"] == int(ALL)


def test_a_finished_run_resumes_to_itself(run_folder):
    call("step1", *SETTINGS)
    before = training_state(STEP1)
    call("step1", *SETTINGS, "--continue-train")
    assert differences(before, training_state(STEP1)) == []


def test_a_finished_run_keeps_its_files_whatever_options_are_given(run_folder, capsys):
    call("step1", *SETTINGS)
    before = {path: path.read_bytes() for path in sorted(STEP1.rglob("*.*"))}
    capsys.readouterr()
    call("step1", *SETTINGS, "--continue-train", "--learning-rate", "0.5")
    assert says(capsys.readouterr().out, "attention: ... last.pth is already at step ... give a larger --num-steps")
    assert {path: path.read_bytes() for path in sorted(STEP1.rglob("*.*"))} == before


@pytest.mark.parametrize("folder", ["new/run", "run"])
def test_a_checkpoint_at_the_stop_leaves_nothing_to_do_for_any_other_file(run_folder, capsys, folder):
    call("step1", "--num-steps", "2", "--save-pred-every", "1", "--snapshot-dir", "run")
    before = {path: path.read_bytes() for path in sorted(run_folder.rglob("*.*"))}
    arguments = ("--num-steps", "3", "--snapshot-dir", folder, "--continue-train", "run/step_00000001.pth")
    assert exit_code("step1", *arguments, "--num-steps-stop", "1") == 2
    error = capsys.readouterr().err
    assert says(error, "--continue-train: run/step_00000001.pth ... step 1, ... before step 1")
    assert error.count("\n") == 1
    assert {path: path.read_bytes() for path in sorted(run_folder.rglob("*.*"))} == before and not Path("new").exists()
    call("step1", *arguments, "--num-steps-stop", "2")
    assert state(Path(folder))["step"] == 2


def test_the_best_checkpoints_of_steps_that_are_trained_again_are_removed(run_folder):
    settings = (*SETTINGS, "--save-pred-every", "1", "--keep-last", "4", "--select-by", "infomax")
    call("step1", *settings)
    for name in ("best.pth", "selected.pth"):  # as if the last step had been the best
        checkpoint.save(STEP1 / name, state(STEP1))
    again = ("--continue-train", str(checkpoint.step_file(STEP1, 2)), "--num-steps-stop", "3")
    call("step1", *settings, *again)
    assert [state(STEP1, name)["step"] for name in ("last.pth", "best.pth", "selected.pth")] == [3, 3, 3]
    call("step1", *settings, "--continue-train")
    assert state(STEP1)["step"] == 4 and state(STEP1, "best.pth")["step"] in (3, 4)


def test_another_label_free_score_does_not_compete_with_the_one_before(run_folder):
    call("step1", *SETTINGS, "--num-steps-stop", HALF, "--select-by", "snd")  # up to log(100), above all agreements
    assert state(STEP1, "selected.pth")["selected"] > 1
    call("step1", *SETTINGS, "--continue-train", "--select-by", "agreement")
    selected = state(STEP1, "selected.pth")
    assert selected["step"] > int(HALF) and selected["selected_by"] == "agreement" and selected["selected"] <= 1


def test_a_run_that_is_killed_after_it_has_gone_back_goes_on_from_there(run_folder, monkeypatch):
    settings = (*SETTINGS, "--save-pred-every", "1", "--keep-last", "4")
    call("step1", *settings)
    checkpoint.save(STEP1 / "best.pth", state(STEP1))  # as if the last step had been the best

    def killed(_):
        raise SystemError

    with monkeypatch.context() as patch, pytest.raises(SystemError):
        patch.setattr(Trainer, "step", killed)
        call("step1", *settings, "--continue-train", str(checkpoint.step_file(STEP1, 2)))
    assert state(STEP1)["step"] == 2 and not (STEP1 / "best.pth").exists()
    call("step1", *settings, "--continue-train")
    assert [record["step"] for record in steps(STEP1)] == [1, 2, 3, 4]
    assert state(STEP1, "best.pth")["step"] in (3, 4)


def test_rates_of_the_command_line_hold_for_the_resumed_part_and_the_change_is_said(run_folder, capsys):
    call("step1", *SETTINGS, "--num-steps-stop", HALF)
    changed = ("--learning-rate", "0.5", "--momentum", "0.3", "--power", "0")
    call("step1", *SETTINGS, *changed, "--continue-train")
    group = state(STEP1)["optimizer"]["segmenter"]["param_groups"][0]
    assert (group["lr"], group["momentum"]) == (0.5, 0.3)
    said = capsys.readouterr().out
    for line in ("--learning-rate 0.02 -> 0.5", "--momentum 0.9 -> 0.3", "--power 0.9 -> 0.0"):
        assert f"changed since that checkpoint: {line}" in said


def test_restore_from_takes_weights_only(run_folder):
    call("step1", *SETTINGS)
    start = ("--restore-from", str(STEP1 / "last.pth"), "--snapshot-dir", "new")
    call("step1", *SETTINGS, *start, "--num-steps-stop", "1")
    new = state(Path("new"))
    assert new["step"] == 1
    assert new["state"]["memory"]["stuff"]["count"].max() <= 2  # of one iteration with two images
    assert all(s["step"] == 1 for s in new["optimizer"]["discriminator"]["state"].values())
    assert not torch.equal(new["segmenter"]["conv1.weight"], state(STEP1)["segmenter"]["conv1.weight"])


@pytest.mark.parametrize("extra", [[], ["--continue-train", "other/last.pth"]], ids=["anew", "from another run"])
def test_an_existing_run_is_not_written_over(run_folder, capsys, extra):
    call("step1", "--num-steps", "1")
    call("step1", "--num-steps", "2", "--num-steps-stop", "1", "--snapshot-dir", "other")
    before = {path: path.read_bytes() for path in STEP1.iterdir()}
    assert exit_code("step1", "--num-steps", "2", *extra) == 2
    assert capsys.readouterr().err.startswith(f"error: --snapshot-dir: found {STEP1}/last.pth")
    assert {path: path.read_bytes() for path in STEP1.iterdir()} == before
    call("step1", "--num-steps", "2", "--overwrite", *extra)
    assert state(STEP1)["step"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--num-prototype", "2"], "--continue-train: snapshots/builtin/step1/last.pth does not fit (memory"),
        (["--lambda-adv-feat", "0"], "--continue-train: snapshots/builtin/step1/last.pth does not fit ("),
        (["--discriminator-width", "0.5"], "--continue-train: snapshots/builtin/step1/last.pth does not fit ("),
        (["--optimizer", "adamw", "--learning-rate", "0.01", "--weight-decay", "0"],
         "--continue-train: snapshots/builtin/step1/last.pth does not fit (trained with --optimizer sgd)"),
        (["--num-classes", "13"], "num_classes 19, ... 13"),
        (["--backbone", "resnet18"],
         "--backbone: found resnet18, ... snapshots/builtin/step1/last.pth ... with tiny"),
    ],
)  # fmt: skip
def test_a_state_of_other_options_is_refused(run_folder, capsys, arguments, said):
    call("step1", "--num-steps", "2", "--num-steps-stop", "1")
    before = {path: path.read_bytes() for path in STEP1.iterdir()}
    capsys.readouterr()
    assert exit_code("step1", "--num-steps", "2", "--continue-train", *arguments) == 2
    printed, error = capsys.readouterr()
    assert says(error, said) and error.count("\n") == 1
    assert "does not fit" not in said or f"changed since that checkpoint: {arguments[0]} " in printed
    assert {path: path.read_bytes() for path in STEP1.iterdir()} == before
