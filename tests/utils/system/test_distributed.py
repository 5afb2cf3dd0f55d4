"""Two processes do what one process does with batches of twice the size; if one fails, both end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.reading import image_names
from tests.messages import says
from tests.processes import ROOT, Call, run_in_two, start_two
from tests.scripts import COMMON, PSEUDO, SOURCE, STEP1, TARGET, call, differences, mask, state, steps
from utils.states import checkpoint
from utils.system import distributed
from utils.system.errors import UserError
from utils.training.meter import Meter

# Frozen BatchNorm, because batch statistics see one image in one case and two in the other.
TRAIN = ("--bn", "frozen", "--learning-rate", "1e-4", "--random-mirror", "--random-scale", "--overwrite", "--cpu")
TERMS = {"step1": {"seg", "adv_target", "adv_feat", "adv_cls", "adv_ins", "adv_cate"}}
TERMS["step2"] = TERMS["step1"] | {"pseudo"}


def make_start(script: str, path: Path) -> None:
    """A checkpoint whose predictions hold many classes, and whose memory is ready for all of them.

    A classifier of centre taps alone also gives the mean of pixels of a class that class.
    """
    call(script, "--num-steps-stop", "1", "--snapshot-dir", "start", "--overwrite")
    made = state(Path("start"))
    random = torch.Generator().manual_seed(0)
    for name, values in made["segmenter"].items():
        if name.startswith("layer6") and name.endswith("weight"):
            values.zero_()[..., 1:2, 1:2].normal_(0, 0.5, generator=random)
    for buffer in made["state"]["memory"].values():
        buffer["entries"].uniform_(0, 2, generator=random)
        buffer["count"] += buffer["entries"].shape[1] + 1
    checkpoint.save(path, made)


def rows(output: str, step: int) -> int:
    """How many rows the console shows for a step of stage 1."""
    return len(re.findall(rf" step1 +{step} +[\d.]+ +[\d.]", output))


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).abs().max())


def check_equal_but_for_rounding(script: str) -> None:
    one, two = Path(f"one-{script}"), Path(f"two-{script}")
    for alone, both in zip(steps(one), steps(two), strict=True):
        assert alone.keys() == both.keys() >= TERMS[script]
        for name in alone.keys() - set(Meter.RATES):
            assert both[name] == pytest.approx(alone[name], rel=1e-4), name
            assert alone[name] > 0, f"{name} takes no part"
    began, alone, both = checkpoint.read(f"{script}.pth"), state(one), state(two)
    for name, values in alone["segmenter"].items():
        moved = distance(values, began["segmenter"][name])
        assert moved > 0 or not name.startswith(("conv1.", "layers."))
        assert distance(values, both["segmenter"][name]) <= 1e-3 * moved, name
    # Adam's steps are nearly signs, so rounding decides where a gradient is small; mean gradients are compared instead.
    means = [run["optimizer"]["discriminator"]["state"] for run in (alone, both)]
    assert means[0].keys() == means[1].keys() and len(means[0]) > 10
    for number, parameter in means[0].items():
        gradient = parameter["exp_avg"]
        assert gradient.any() and distance(gradient, means[1][number]["exp_avg"]) <= 0.05 * float(gradient.abs().max())
    for kind, buffer in alone["state"]["memory"].items():
        assert buffer["count"].tolist() == both["state"]["memory"][kind]["count"].tolist()
        assert torch.allclose(buffer["entries"], both["state"]["memory"][kind]["entries"], rtol=1e-4, atol=1e-5)
    assert (alone["state"]["memory"]["things"]["count"] > began["state"]["memory"]["things"]["count"]).any()
    assert (alone["state"]["memory"]["stuff"]["count"] > began["state"]["memory"]["stuff"]["count"]).any()


def prediction_calls(root: str) -> list[Call]:
    """Three images for two processes; two for two; and two in one batch, so that one process has nothing to do."""
    weights = ("--restore-from", str(STEP1 / "last.pth"), "--cpu")
    pseudo = ("pseudo", "--data-list-target", "three.txt", "--batch-size", "2", "--ssl-target-dir", f"{root}/labels")
    scores = ("evaluate", "--save", f"{root}/masks", "--json", f"{root}/scores.json")
    batch = ("evaluate", "--save", "none", "--json", f"{root}/batch.json", "--batch-size", "2")
    return [(*arguments, *weights) for arguments in (pseudo, scores, batch)]


def check_equal_files(one: Path, two: Path) -> None:
    alone, both = (
        {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (one, two)
    )
    assert len(alone) == (3 + 1) + 2 * 2 + 2 and alone == both  # the thresholds lie beside the pseudo-labels


def test_two_processes_equal_one_and_resume_exactly(after_stage1):
    ignored = next(PSEUDO.glob("*.png"))  # one process's loss is 0 where the other's is not
    Image.fromarray(np.full_like(mask(ignored), 255)).save(ignored)
    Path("three.txt").write_text("\n".join(image_names(TARGET / "leftImg8bit/train")[:3]))
    for script in ("step1", "step2"):
        make_start(script, Path(f"{script}.pth"))
    jobs = [(script, *TRAIN, "--num-steps", "4", "--continue-train", f"{script}.pth") for script in ("step1", "step2")]
    batches = ("step1", "--num-steps", "2", "--batch-size", "1", "--bn", "shared", "--learning-rate", "0.02", "--cpu")
    ended = run_in_two(
        *((*job, "--batch-size", "1", "--snapshot-dir", f"two-{job[0]}") for job in jobs),
        (*batches, "--snapshot-dir", "whole"),
        (*batches, "--snapshot-dir", "half", "--num-steps-stop", "1"),
        (*batches, "--snapshot-dir", "half", "--continue-train"),
        *prediction_calls("two"),
    )
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert rows(ended[0][1], 4) == 1 and ended[1][1:] == ("", "")
    for job in jobs:
        call(*job, "--snapshot-dir", f"one-{job[0]}")
        check_equal_but_for_rounding(job[0])
    whole, resumed = state(Path("whole")), state(Path("half"))
    assert len(whole["rng_of_others"]) == 1
    assert differences(whole | {"options": 0}, resumed | {"options": 0}) == []
    for arguments in prediction_calls("one"):
        call(*arguments)
    check_equal_files(Path("one"), Path("two"))


def test_torchrun_starts_a_script_in_as_many_processes_as_it_is_told(run_folder):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [*COMMON["step1"], "--batch-size", "1", "--num-steps", "2", "--cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*torchrun, str(ROOT / "train_step1.py"), *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert rows(ended.stdout, 2) == 1
    assert state(STEP1)["step"] == 2 and len(state(STEP1)["rng_of_others"]) == 1


def test_an_error_in_one_process_ends_both_with_one_line(run_folder, benchmark_root):
    # The fourth image of the first epoch is the second one that the second process reads.
    order = np.random.default_rng([1234, 0]).permutation(6)
    images = run_folder / "spoilt"
    images.mkdir()
    for path in (benchmark_root / SOURCE.name).iterdir():
        (images / path.name).symlink_to(path)
    (images / "images").unlink()
    (images / "images").mkdir()
    for number, path in enumerate(sorted((benchmark_root / SOURCE.name / "images").iterdir())):
        copy = images / "images" / path.name
        content = path.read_bytes()
        copy.write_bytes(content[: len(content) // 2] if number == order[3] else content)
    arguments = ("--batch-size", "1", "--random-seed", "1234", "--data-dir", str(images), "--cpu")
    (code, out, error), (code_of_other, *said_by_other) = run_in_two(("step1", *arguments))
    assert (code, code_of_other) == (2, 2)
    assert error == "" and rows(out, 1) == 1 and rows(out, 2) == 0
    assert said_by_other[1].startswith(f"error: {images}/images/0000{order[3] + 1}.png: corrupt or unreadable image")
    assert said_by_other[0] == "" and said_by_other[1].count("\n") == 1
    assert f"step 1 is saved in {STEP1}/last.pth" in said_by_other[1]
    assert state(STEP1)["step"] == 1 and len(state(STEP1)["rng_of_others"]) == 1


def test_a_signal_to_one_process_stops_both_at_the_same_step_with_a_checkpoint(run_folder):
    def stop_one(processes: list[subprocess.Popen[str]]) -> None:
        while not (STEP1 / "last.pth").exists() and processes[1].poll() is None:
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGTERM)

    endless = ("step1", "--batch-size", "1", "--num-steps", "100000", "--save-pred-every", "1", "--cpu")
    (code, out, said), (code_of_other, out_of_other, said_by_other) = run_in_two(endless, meanwhile=stop_one)
    assert (code, code_of_other) == (143, 143)
    step = state(STEP1)["step"]
    lines = (said + said_by_other).splitlines()
    assert len(lines) == 1 and says(lines[0], f"SIGTERM: step {step} ... saved in {STEP1}/last.pth; ")
    assert rows(out, step) == 1 and out_of_other == ""


SLOW_DISK = """
import os, signal, time, torch
from tests.scripts import call
from utils.options import config
from utils.states import checkpoint
from utils.training.trainer import Trainer
save, make_step = checkpoint.save, Trainer.step
def slow_save(path, state):
    time.sleep(2)
    save(path, state)
def step(trainer):
    losses = make_step(trainer)
    if trainer.steps == 3:
        SPOIL
    return losses
checkpoint.save, Trainer.step = slow_save, step
arguments = ("--batch-size", "1", "--num-steps", "5", "--log-every", "4", "--cpu")
config.run(lambda: call("step1", *arguments))
"""


@pytest.mark.parametrize(
    ("spoil", "code", "name", "step"),
    [
        ("os.kill(os.getpid(), signal.SIGTERM) if os.environ['RANK'] == '1' else None", 143, "last.pth", 3),
        ("next(trainer.method.segmenter.parameters()).data[0, 0, 0, 0] = torch.nan", 2, "nonfinite.pth", 2),
    ],
    ids=["signal", "not finite"],
)
def test_a_process_that_ends_waits_until_the_first_one_has_saved(run_folder, spoil, code, name, step):
    """A large checkpoint takes longer to write than the others need to notice that a process has ended."""
    ended = start_two(["-c", SLOW_DISK.replace("SPOIL", spoil)])
    assert [status for status, _, _ in ended] == [code, code], ended
    assert state(STEP1, name)["step"] == step
    assert not list(STEP1.glob(".*.tmp"))


def test_if_one_process_runs_out_of_memory_all_end_with_its_code():
    ended = start_two(
        [
            "-c",
            """
from utils.options import config
from utils.system import distributed
def main():
    distributed.start(cpu=True)
    if distributed.rank():
        raise MemoryError("Unable to allocate 9 GiB")
    distributed.barrier()
config.run(main)
""",
        ]
    )
    assert [(code, error.count("out of memory")) for code, _, error in ended] == [(2, 0), (2, 1)], ended


def test_machines_that_were_given_different_things_are_told_which(monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 2)
    given = {"--batch-size": 1, "weights": "0.5", "step": 0}
    held = [("gpu01", given), ("gpu02", given | {"--batch-size": 2, "weights": "0.25"})]
    monkeypatch.setattr(distributed, "objects", lambda value: held)
    message = "--batch-size, weights: found other values in process 1 on gpu02 than in process 0 on gpu01"
    with pytest.raises(UserError, match=message):
        distributed.check_equal(lambda: given)
    held[1] = ("gpu02", dict(given))
    distributed.check_equal(lambda: given)


def code_in_two(code: str) -> list[str]:
    """What each process prints."""
    ended = start_two(["-c", "import torch\nfrom utils.system import distributed\n" + code], timeout=60)
    assert [status for status, _, _ in ended] == [0, 0], ended
    return [output for _, output, _ in ended]


def test_gradients_are_averaged_and_one_that_some_processes_lack_is_an_error():
    said = code_in_two("""
a, b, rest = (torch.tensor([1.0, 2.0], requires_grad=True) for _ in range(3))
with distributed.session():
    distributed.start(cpu=True)
    factor, buffer = ((3, 4.0), (9, 8.0))[distributed.rank()]
    (factor * a + 5 * b).sum().backward()
    buffer = torch.tensor([buffer])
    distributed.average_gradients([a, b, rest], [buffer])
    print([tensor.tolist() for tensor in (a.grad, b.grad, buffer)], rest.grad)
    if distributed.rank():
        rest.sum().backward()
    try:
        distributed.average_gradients([a, b, rest])
    except RuntimeError as error:
        print(error)
""")
    for number, (own, line) in enumerate(zip((2, 3), said, strict=True)):
        values, error, _ = line.split("\n")
        assert values == "[[6.0, 6.0], [5.0, 5.0], [6.0]] None"
        assert f"process {number}: {own} of 3" in error


def test_the_signals_of_schedulers_are_left_alone_and_the_one_in_use_harms_nobody():
    said = code_in_two("""
import os, signal, time
before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGURG)}
with distributed.session():
    distributed.start(cpu=True)
    assert all(signal.getsignal(number) == before[number] for number in (signal.SIGUSR1, signal.SIGUSR2))
    os.kill(os.getpid(), signal.SIGURG)
    time.sleep(0.1)
assert {number: signal.getsignal(number) for number in before} == before
print("unharmed")
""")
    assert said == ["unharmed\n"] * 2


def test_an_error_that_nobody_expected_stands_in_the_report_of_torchrun(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text(
        "from utils.options import config\nfrom utils.system import distributed\n"
        "def main():\n"
        "    distributed.start(cpu=True)\n"
        "    distributed.barrier() if distributed.rank() == 0 else {}['a key that is missing']\n"
        "    distributed.barrier()\n"
        "config.run(main)\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([*torchrun, str(script)], env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    report = ended.stderr.partition("Root Cause")[2]
    assert "rank      : 1" in report and "KeyError: 'a key that is missing'" in report
