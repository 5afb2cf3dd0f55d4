"""Ctrl-C in the first moments of a script, while it still imports."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tests.processes import ROOT
from utils.system import ctrl_c

MODULES = ("utils.report", "utils.states", "dataset.builtin", "dataset.check")
DELAYS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
ENDING = (0, 2, -signal.SIGINT)  # 0, 2: it had ended; while Python exits, the signal has its default action
# Arguments with which a script soon ends by itself.
ARGUMENTS = {"train_step1.py": ["--continue-train", "--snapshot-dir", "nowhere"], "demo.py": ["--help"]}
NOWHERE = ["nowhere", "nowhere"]
ENTRIES = [[name, *ARGUMENTS.get(name, NOWHERE)] for name in ctrl_c.SCRIPTS]
ENTRIES += [["-m", name, *NOWHERE] for name in MODULES]


def interrupted(command: list[str], delay: float) -> tuple[int, list[str]]:
    """Start Python and send SIGINT some seconds after it has imported the module; returns exit code and stderr."""
    started = subprocess.Popen(
        [sys.executable, "-X", "importtime", *command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stderr is not None
    for line in started.stderr:
        if line.rstrip().endswith(" utils.system.ctrl_c"):
            break
    time.sleep(delay)
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=60)
    return started.returncode, [line for line in errors.splitlines() if not line.startswith("import time:")]


def check(code: int, errors: list[str], delay: float) -> None:
    assert code == 130 or (delay >= 0.1 and code in ENDING), errors
    assert len(errors) <= 1, errors
    assert code != 130 or errors[0].startswith("SIGINT: stopped")


@pytest.mark.parametrize("number", range(len(ENTRIES)), ids=[" ".join(entry[:2]) for entry in ENTRIES])
def test_ctrl_c_in_the_first_moments_gives_one_line(number):
    """Each script is interrupted at another moment; one that has ended by then has refused its arguments in a line."""
    delay = DELAYS[number % len(DELAYS)]
    check(*interrupted(ENTRIES[number], delay), delay)


@pytest.mark.parametrize("delay", DELAYS)
def test_ctrl_c_at_any_moment_of_a_training_script(delay):
    check(*interrupted(["train_step1.py", "--help-all"], delay), delay)


def test_all_scripts_are_known():
    entries = {path.name for path in ROOT.glob("*.py") if "config.run(main)" in path.read_text(encoding="utf-8")}
    assert entries == set(ctrl_c.SCRIPTS)


PROGRAM = "import sys; sys.modules['__main__'].__file__ = {path!r}; import utils.system.machine, signal; {then}"


@pytest.mark.parametrize("name", ["mine.py", "tests/mine.py", "bench/soak.py", "../mine.py"])
def test_a_program_of_a_user_keeps_pythons_handling(name):
    then = "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler; assert sys.excepthook is before"
    program = "import sys; before = sys.excepthook; " + PROGRAM.format(path=str(ROOT / name), then=then)
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60).returncode == 0


@pytest.mark.parametrize("name", ["predict.py", "utils/report/__main__.py", "dataset/check/__main__.py"])
def test_a_signal_that_is_ignored_stays_so(name):
    then = "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN; import os; os.kill(os.getpid(), signal.SIGINT)"
    program = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    program += PROGRAM.format(path=str(ROOT / name), then=then)
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60).returncode == 0


def test_an_error_while_importing_is_still_shown():
    hook = "import utils.system.ctrl_c as c; sys.excepthook = c._end_quietly; raise ValueError('x')"
    program = PROGRAM.format(path=str(ROOT / "mine.py"), then=hook)
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "Traceback" in ended.stderr
    program = program.replace("ValueError('x')", "KeyboardInterrupt")
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (130, "SIGINT: stopped\n")
