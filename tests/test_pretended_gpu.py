"""Without a GPU, the tests that need one run on a pretended GPU: devices, waits and types, but not speed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

import tests.pretended_gpu
from tests.processes import ROOT


@pytest.mark.optional
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("c++") is None, reason="needs Linux and a C++ compiler")
@pytest.mark.skipif(torch.version.cuda is not None, reason="needs a CPU build of PyTorch")
@pytest.mark.timeout(600)
def test_what_needs_a_gpu_passes_on_a_pretended_one(tmp_path):
    backend = tests.pretended_gpu.build(tmp_path)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-p",
        "tests.pretended_gpu.plugin",
        "-p",
        "no:cacheprovider",
    ]
    command += ["--numprocesses=0", f"--basetemp={tmp_path / 'tests'}"]
    environment = os.environ | {"LD_PRELOAD": str(backend), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= 17, done.stdout[-1_000:]
