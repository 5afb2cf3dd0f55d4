"""Systems other than Linux: the modules and signals that Windows and macOS lack are hidden."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts import STEP1
from utils.system import machine

HIDDEN = """
import os, signal, sys
sys.path.insert(0, {root!r})
for name in ("fcntl", "resource"):
    sys.modules[name] = None
for name in {signals!r}:
    delattr(signal, name)
import train_step1
from tests.scripts import COMMON
from utils.options import config
from utils.system import machine
note = machine.system_note
machine.system_note = lambda: note("win32")
config.run(lambda: train_step1.main([*COMMON["step1"], "--num-workers", "1", "--num-steps", "1"]))
"""


@pytest.mark.parametrize("signals", [("sigwaitinfo",), ("pthread_sigmask", "sigwaitinfo", "sigwait")])
def test_training_without_the_modules_and_signals_of_linux(run_folder, signals):
    code = HIDDEN.format(root=str(Path(__file__).parents[1]), signals=signals)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert len([line for line in ran.stderr.splitlines() if line.startswith("note: ")]) == 1
    assert (STEP1 / "last.pth").is_file()
    assert sorted(path.name for path in STEP1.iterdir() if path.name.startswith(".")) == []


def test_only_an_unsupported_system_gets_a_line():
    assert machine.system_note("linux") is machine.system_note("darwin") is None
    line = machine.system_note("win32")
    assert line is not None and "expected Linux" in line and "\n" not in line
