"""Settings of the whole process: some are made before torch starts, the others by one call in a script."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.processes import ROOT
from tests.scripts import call
from utils.options import config
from utils.options.table import Options
from utils.system import machine

# Runs a module up to its first import of torch, and prints how OpenMP's idle threads will wait from then on.
PROBE = """
import os, runpy, sys

class AtTorch:
    def find_spec(name, *_):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"))
            sys.stdout.flush()
            os._exit(0)

sys.meta_path.insert(0, AtTorch)
sys.path.insert(0, os.getcwd())
entry = sys.argv[1]
(runpy.run_path if entry.endswith(".py") else runpy.run_module)(entry, run_name="entry")
"""
ENTRIES = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.py"), *ROOT.glob("bench/*.py"))
    if "__main__" in path.read_text(encoding="utf-8")
)
MODULES = ("dataset.check.__main__", "dataset.builtin.__main__", "utils.report.__main__", "utils.states.__main__")


@pytest.mark.parametrize("entry", [*ENTRIES, *MODULES])
def test_idle_threads_are_to_sleep_before_torch_starts(entry):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", PROBE, entry]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout in ("passive\n", "")  # nothing is set, because torch is not used


# The same without torch and the packages that come with it, as outside the environment of `make setup`.
HIDDEN = """
import runpy, sys

for name in ("torch", "numpy", "cv2", "PIL", "tqdm", "yaml"):
    sys.modules[name] = None
sys.path.insert(0, "")
entry = sys.argv[1]
sys.argv = [entry, "--help"]
(runpy.run_path if entry.endswith(".py") else runpy.run_module)(entry, run_name="__main__")
"""
SCRIPTS = sorted(entry for entry in ENTRIES if "/" not in entry)


@pytest.mark.parametrize("entry", [*SCRIPTS, *MODULES])
def test_a_script_without_torch_says_in_one_line_what_to_do(entry):
    command = [sys.executable, "-c", HIDDEN, entry]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ") and "`make setup`" in line and "`source .venv/bin/activate`" in line


def test_there_are_entries():
    assert len(ENTRIES) > 15 and "Generate_Pseudo_Label.py" in ENTRIES and "bench/train_speed.py" in ENTRIES


# Makes and frees the same tensors again and again, and prints how many pages of memory that fetched from the system.
FETCHED = """
import resource, torch, utils.system.machine

torch.set_num_threads(1)

def fetched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        maps = [torch.ones(2**20) for _ in range(20)]
        del maps
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

fetched()
print(fetched())
"""
ONCE = 20 * 2**22 // os.sysconf("SC_PAGE_SIZE")  # pages of the tensors


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="a setting of glibc")
@pytest.mark.parametrize("variable", [None, "MALLOC_TOP_PAD_", "GLIBC_TUNABLES"])
def test_freed_memory_is_kept_unless_the_user_has_settings_of_malloc(variable):
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name and "GLIBC" not in name}
    if variable is not None:
        environment[variable] = "0" if variable == "MALLOC_TOP_PAD_" else "glibc.malloc.mmap_max=65536"
    command = [sys.executable, "-c", FETCHED]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    pages = int(ended.stdout)
    assert pages < ONCE / 10 if variable is None else pages > 4 * ONCE


@pytest.mark.parametrize(
    ("arguments", "benchmark", "tf32", "deterministic"),
    [
        ((), True, True, False),
        (("--no-autotune",), False, True, False),
        (("--no-tf32",), True, False, False),
        (("--deterministic",), False, True, True),
    ],
)
def test_options_become_settings_of_torch(arguments, benchmark, tf32, deterministic):
    machine.set_up(config.parse("step1", arguments)[0])
    assert torch.backends.cudnn.benchmark == benchmark
    assert torch.backends.cudnn.allow_tf32 == tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert torch.are_deterministic_algorithms_enabled() == deterministic


def test_all_generators_are_seeded():
    drawn = []
    for seed in (5, 5, 6):
        machine.seed_everything(seed)
        drawn.append((float(torch.rand(())), float(np.random.rand())))
    assert drawn[0] == drawn[1] and drawn[1][0] != drawn[2][0] and drawn[1][1] != drawn[2][1]


SETTING_UP = {"pseudo": "Generate_Pseudo_Label", "evaluate": "evaluate_cityscapes"}


@pytest.mark.parametrize("script", ["step1", "pseudo", "step2", "evaluate"])
def test_every_script_that_runs_a_network_sets_the_machine_up_once(after_stage1, monkeypatch, script):
    seen: list[Options] = []
    monkeypatch.setattr(sys.modules[SETTING_UP.get(script, "utils.training.stage")], "set_up", seen.append)
    weights = [] if script in ("step1", "step2") else ["--restore-from", str(Path("snapshots/builtin/step1/last.pth"))]
    call(script, "--no-tf32", *weights, *(["--overwrite"] if script == "step1" else []))
    assert [options.tf32 for options in seen] == [False]
