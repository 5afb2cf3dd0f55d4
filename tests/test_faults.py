"""Runs that are stopped, and resumed: by signals, kills, full disks, damaged files and numbers that are not finite."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest
import torch

from dataset.sampler import EndlessSampler
from model.methods.bafft import Alignment
from tests.messages import says
from tests.scripts import (
    COMMON,
    PSEUDO,
    SOURCE,
    STEP1,
    STEP2,
    call,
    differences,
    exit_code,
    losses,
    state,
    training_state,
)
from utils.prediction import evaluation
from utils.states.__main__ import main as check_files
from utils.system import files, lock
from utils.training import run as loop
from utils.training import scoring
from utils.training import trainer as engine

ROOT = Path(__file__).resolve().parents[1]
ALL = 6
# Log lines, checkpoints and the interruptions below fall on different steps.
SETTINGS = (
    *("--num-steps", str(ALL), "--learning-rate", "0.02", "--num-prototype", "1", "--save-pred-every", "2"),
    *("--random-mirror", "--random-jitter", "--select-on-target-labels", "--log-every", "3"),
    *("--input-size", "64,32", "--input-size-target", "64,32"),
)
FOLDERS = {"step1": STEP1, "step2": STEP2}
WHOLE = Path("whole")


def same(a: Path, b: Path) -> None:
    """Check that two folders hold the same run: states, best score and log."""
    for name in ("last.pth", "best.pth"):
        assert differences(training_state(a, name), training_state(b, name)) == []
    assert losses(a) == losses(b)
    names = [{path.name for path in folder.iterdir() if not path.name.startswith("step_")} for folder in (a, b)]
    assert names[0] == names[1] == {"last.pth", "best.pth", "config.json", "log.jsonl"}


def at_step(monkeypatch, step: int, action) -> None:
    """Call `action` in the middle of the iteration that makes `step`."""
    make_step = engine.Trainer.step

    def patched(trainer):
        if trainer.steps + 1 == step:
            action()
        return make_step(trainer)

    monkeypatch.setattr(engine.Trainer, "step", patched)


@pytest.mark.parametrize(
    ("script", "number", "code", "workers", "step"),
    [
        ("step1", signal.SIGTERM, 143, "1", 5),  # between checkpoints, in the middle of a mean of the log
        ("step1", signal.SIGHUP, 129, "0", 5),  # a lost connection
        ("step2", signal.SIGINT, 130, "0", 4),  # on a checkpoint, whose score is left to the resumed run
    ],
)
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    after_stage1, monkeypatch, capsys, script, number, code, workers, step
):
    settings = (*SETTINGS, "--num-workers", workers)
    folder = FOLDERS[script]
    call(script, *settings, "--snapshot-dir", "whole")
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        assert exit_code(script, *settings, "--overwrite") == code
    said = capsys.readouterr().err
    name = signal.Signals(number).name
    assert says(said, f"{name}: step {step} ... saved in {folder}/last.pth;") and said.count("\n") == 1
    assert all(flag in said for flag in ("--continue-train", "--overwrite", "--restore-from"))
    assert state(folder)["step"] == step
    assert not (folder / lock.NAME).exists()
    call(script, *settings, "--continue-train")
    same(WHOLE, folder)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_data_that_cannot_be_read_half_way_lose_no_step(run_folder, benchmark_root, monkeypatch, capsys, workers):
    """If a file breaks during a run whose checkpoints are far apart, the steps made so far are saved."""
    copy = run_folder / "source"
    shutil.copytree(benchmark_root / SOURCE.name, copy)
    settings = ("--num-steps", "5", "--select-on-target-labels", "--num-workers", workers, "--data-dir", str(copy))
    call("step1", *settings, "--snapshot-dir", "whole")
    drawn = [index for batch in islice(EndlessSampler(6, 2, 1234), 3) for index, _ in batch]
    broken = sorted((copy / "images").iterdir())[drawn[5]]  # the third step is the first to read it
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    assert exit_code("step1", *settings) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {broken}: ") and said.count("\n") == 1
    assert f"step 2 is saved in {STEP1}/last.pth" in said
    assert state(STEP1)["step"] == 2
    broken.write_bytes(content)
    call("step1", *settings, "--continue-train")
    same(WHOLE, STEP1)


def test_a_signal_while_scoring_does_not_wait(run_folder, monkeypatch, capsys):
    call("step1", *SETTINGS, "--snapshot-dir", "whole")

    def evaluate(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on scoring")

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "evaluate", evaluate)
        assert exit_code("step1", *SETTINGS) == 143
    assert "step 2 is saved in" in capsys.readouterr().err
    call("step1", *SETTINGS, "--continue-train")
    same(WHOLE, STEP1)


class PowerCut(BaseException):
    """An exception that nothing catches; the files are left as by a kill."""


@pytest.mark.parametrize("count", range(1, 12))
def test_after_a_kill_before_any_change_of_a_file_the_run_goes_on_as_if_nothing_had_been(
    run_folder, monkeypatch, whole_run, count
):
    """Every file of a run appears by a rename; the process ends just before each rename around two checkpoints."""
    replace, renames = os.replace, []

    def cut(source, target):
        renames.append(target)
        if len(renames) == count + 2:  # the renames after configuration and log
            raise PowerCut
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(os, "replace", cut)
        call("step1", *SETTINGS)
    again = ["--continue-train"] if (STEP1 / "last.pth").exists() else ["--overwrite"]
    call("step1", *SETTINGS, *again)
    same(whole_run, STEP1)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory, benchmark_root) -> Path:
    """The folder of a run that was never stopped; tests must not change it."""
    root = tmp_path_factory.mktemp("whole")
    data = ("--data-dir", str(benchmark_root / SOURCE.name), "--data-dir-target", str(benchmark_root / "Cityscapes"))
    call("step1", *SETTINGS, *data, "--snapshot-dir", str(root / "run"))
    return root / "run"


# Forks runs of stage 1, which saves the imports: reads arguments, prints the process id, then the exit status.
SERVER = """
import json, os, sys, torch
from tests.scripts import call
torch.set_num_threads(1)
for line in sys.stdin:
    process = os.fork()
    if process == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        call("step1", *json.loads(line))
        os._exit(0)
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


def test_ten_kills_at_random_moments_change_nothing(run_folder):
    """SIGKILL, in runs with reading processes and with a checkpoint and a score in every step."""
    settings = [*SETTINGS, "--num-steps", "4", "--save-pred-every", "1", "--num-workers", "1"]
    moments = random.Random(0)
    ended: list[int] = []
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    ) as server:
        asked, answers = server.stdin, server.stdout
        assert asked is not None and answers is not None

        def run(*arguments: str, seconds: float | None = None) -> int:
            asked.write(json.dumps([*settings, *arguments]) + "\n")
            asked.flush()
            process = int(answers.readline())
            if seconds is not None:
                time.sleep(seconds)
                with suppress(ProcessLookupError):  # it had finished
                    os.kill(process, signal.SIGKILL)
            return int(answers.readline())

        began = time.monotonic()
        assert run("--snapshot-dir", "whole") == 0
        longest = time.monotonic() - began
        while ended.count(-signal.SIGKILL) < 10:
            anew = not (STEP1 / "last.pth").exists() or ended[-1:] == [0]  # not saved yet, or finished
            arguments = ["--overwrite"] if anew else ["--continue-train"]
            ended.append(run(*arguments, seconds=moments.uniform(0.1, 0.8) * longest))
            assert ended[-1] in (0, -signal.SIGKILL)
        assert run("--continue-train" if (STEP1 / "last.pth").exists() else "--overwrite") == 0
        asked.close()
    same(WHOLE, STEP1)


def test_ctrl_c_in_a_terminal_prints_one_line_though_all_processes_get_it(run_folder):
    command = [
        sys.executable,
        str(ROOT / "train_step1.py"),
        *COMMON["step1"],
        "--num-steps",
        "100000",
        "--num-workers",
        "2",
    ]
    process = subprocess.Popen(
        [*command, "--save-pred-every", "90000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(r" step1 +2 ", line):
            os.killpg(process.pid, signal.SIGINT)
            break
    _, said = process.communicate(timeout=200)
    assert process.returncode == 130
    step = state(STEP1)["step"]
    assert says(said, f"SIGINT: step {step} ... saved in {STEP1}/last.pth;") and said.count("\n") == 1


def test_two_runs_in_one_folder(run_folder, capsys):
    call("step1", *SETTINGS, "--num-steps-stop", "2")
    before = {path.name: path.read_bytes() for path in STEP1.iterdir()}
    with lock.held(STEP1):
        assert exit_code("step1", *SETTINGS, "--continue-train") == 2
    said = f"error: {STEP1}: in use by another run (process {os.getpid()} on {socket.gethostname()});"
    assert capsys.readouterr().err.startswith(said)
    assert {path.name: path.read_bytes() for path in STEP1.iterdir()} == before


def test_two_runs_that_make_pseudo_labels_in_one_folder(after_stage1, monkeypatch, capsys):
    """The second one starts while the first one predicts: it is refused, and the first one loses nothing."""
    codes, predict = [], evaluation.predict

    def second_run_first(*given, **options):
        monkeypatch.setattr(evaluation, "predict", predict)
        codes.append(exit_code("pseudo", "--ssl-target-dir", "labels"))
        yield from predict(*given, **options)

    monkeypatch.setattr(evaluation, "predict", second_run_first)
    call("pseudo", "--ssl-target-dir", "labels")
    assert codes == [2] and capsys.readouterr().err.startswith("error: labels: in use by another run (process ")
    labels = {path.name: path.read_bytes() for path in Path("labels").iterdir()}
    assert labels == {path.name: path.read_bytes() for path in PSEUDO.iterdir()}


@pytest.mark.parametrize(("number", "kept"), [("0", []), ("1", [6]), ("3", [4, 5, 6])])
def test_the_last_checkpoints_are_kept_by_step(run_folder, number, kept):
    call("step1", *SETTINGS, "--save-pred-every", "1", "--keep-last", number)
    assert sorted(path.name for path in STEP1.glob("step_*")) == [f"step_{step:08d}.pth" for step in kept]
    assert [state(STEP1, f"step_{step:08d}.pth")["step"] for step in kept] == kept


def test_a_damaged_checkpoint_is_recognised_and_going_on_from_the_one_before_it_loses_nothing(run_folder, capsys):
    call("step1", *SETTINGS, "--snapshot-dir", "whole")
    call("step1", *SETTINGS)
    with open(STEP1 / "last.pth", "r+b") as file:  # the newest numbered checkpoint is the same file
        file.seek(50_000)
        byte = file.read(1)[0]
        file.seek(50_000)
        file.write(bytes([byte ^ 4]))
    assert exit_code("step1", *SETTINGS, "--continue-train") == 2
    said = capsys.readouterr().err
    assert says(said, "last.pth: ... damaged: wrong checksum of ")
    offered = re.findall(r"\S+step_\d+\.pth", said)
    assert offered == [f"{STEP1}/step_00000004.pth"]
    call("step1", *SETTINGS, "--continue-train", offered[0])
    same(WHOLE, STEP1)


def test_a_full_disk_leaves_the_last_good_checkpoint_and_says_how_much_was_needed(run_folder, capsys):
    call("step1", *SETTINGS, "--num-steps-stop", "2")
    before = training_state(STEP1)
    size = (STEP1 / "last.pth").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        assert exit_code("step1", *SETTINGS, "--continue-train") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    found = re.match(
        rf"error: {STEP1}/last\.pth: cannot be written \(File too large; ([\d.]+) MB needed, \S+ [MG]B", said
    )
    assert found and float(found[1]) * 1e6 == pytest.approx(size, rel=0.1)
    assert differences(before, training_state(STEP1)) == []
    assert sorted(path.name for path in STEP1.iterdir()) == [
        "best.pth", "config.json", "last.pth", "log.jsonl", "step_00000002.pth",
    ]  # fmt: skip
    call("step1", *SETTINGS, "--continue-train")
    assert state(STEP1)["step"] == ALL


def break_gradient(monkeypatch, step: int) -> None:
    backward = engine.Trainer._backward

    def patched(trainer, loss, player):
        backward(trainer, loss, player)
        if trainer.steps + 1 == step:
            trainer.method.segmenter.conv1.weight.grad[0, 0, 0, 0] = torch.inf

    monkeypatch.setattr(engine.Trainer, "_backward", patched)


def break_loss(monkeypatch, step: int) -> None:
    iteration = Alignment.iteration

    def patched(method, source, target, backward, now):
        factor = torch.nan if now.number + 1 == step else 1.0

        def spoilt(loss, player):
            backward(loss * factor if player == "segmenter" else loss, player)

        losses = iteration(method, source, target, spoilt, now)
        return losses | {"adv_target": losses["adv_target"] * factor}

    monkeypatch.setattr(Alignment, "iteration", patched)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [(break_loss, "adv_target not finite"), (break_gradient, "gradient of segmenter.conv1.weight not finite")],
)
def test_a_number_that_is_none_stops_the_run_with_all_that_repeats_it(run_folder, monkeypatch, capsys, spoil, what):
    settings = (*SETTINGS, "--save-pred-every", "3", "--overwrite")
    call("step1", *settings, "--num-steps-stop", "4", "--snapshot-dir", "good")
    with monkeypatch.context() as patch:
        spoil(patch, 5)
        assert exit_code("step1", *settings) == 2
        said = capsys.readouterr().err
        path = STEP1 / "nonfinite.pth"
        assert state(STEP1)["step"] == 3
        assert exit_code("step1", *settings, "--continue-train", str(path)) == 2
        assert capsys.readouterr().err == said
    assert said.count("\n") == 1 and said.startswith("error: step 5: ")
    assert what in re.sub(r" \(seg .*?\)", "", said)
    assert re.search(r"\(seg [\d.]+, adv_target (nan|[\d.]+), ", said)
    names = [f"{n:05d}.png" for n in range(1, 7)]
    drawn = next(iter(EndlessSampler(6, 2, 1234, start=8)))
    assert f"images: source {names[drawn[0][0]]} {names[drawn[1][0]]}, target " in said
    assert f"the last good checkpoint is {STEP1}/last.pth" in said
    logging = ("score_due", "best", "shares", "meter", "logged")  # the good run logs and scores its last step
    good = {key: value for key, value in training_state(Path("good")).items() if key not in logging}
    before = training_state(STEP1, "nonfinite.pth")
    assert differences(good, {key: before[key] for key in good}) == []
    call("step1", *settings, "--continue-train", str(path))  # the cause is removed
    assert state(STEP1)["step"] == ALL


def test_deterministic_runs_of_one_seed_have_one_hash(run_folder, capsys):
    settings = ("--num-steps", "2", "--random-jitter", "--num-workers", "1")

    def run(folder: str, *arguments: str) -> str:
        try:
            call("step1", *settings, "--deterministic", "--snapshot-dir", folder, *arguments)
            assert torch.are_deterministic_algorithms_enabled()
        finally:
            torch.use_deterministic_algorithms(False)
        found = re.findall(r"sha256 of its content: ([0-9a-f]{64})", capsys.readouterr().out)
        check_files([f"{folder}/last.pth"])
        assert capsys.readouterr().out == f"{found[0]}  step1  step 2  {folder}/last.pth\n"
        return found[0]

    first = run("a")
    assert run("b") == first
    assert run("c", "--random-seed", "7") != first


def test_nothing_is_fetched_from_a_network(run_folder, monkeypatch, capsys):
    def refuse(*_, **__):
        pytest.fail("asked for a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    call("step1", "--num-steps", "1")
    assert exit_code("step1", "--overwrite", "--restore-from", "https://example.org/weights.pth") == 2
    said = "error: --restore-from: https://example.org/weights.pth: nothing is downloaded"
    assert capsys.readouterr().err.startswith(said)


def test_scratch_folders_of_killed_processes_go_when_the_folder_is_next_written(tmp_path, monkeypatch):
    old, new = tmp_path / ".partial-old", tmp_path / ".partial-new"
    for path in (old, new):
        path.mkdir()
        (path / "mask.png").touch()
    os.utime(old, (0, 0))
    with files.staged(tmp_path) as scratch:
        os.utime(scratch, (0, 0))
        with files.staged(tmp_path):  # another process, which must not remove this one's folder
            assert scratch.is_dir()
        (scratch / "1.png").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".partial-new", "1.png"]


def test_the_exit_code_of_a_stop_before_anything_was_written(run_folder, monkeypatch, capsys):
    monkeypatch.setattr(loop.Run, "_resume", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert exit_code("step1") == 143
    said = capsys.readouterr().err
    assert says(said, "SIGTERM: stopped; ... half-written\n") and said.count("\n") == 1
    assert not STEP1.exists()
