"""The last line of `make setup`, from invented findings and from invented packages and tools."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.processes import ROOT
from utils.system.installation import GET_STARTED, Gpu, Torch, Torchvision, describe, find_gpu

WORKS, CPU = Torchvision("0.28.0"), Torch("2.13.0+cpu")
CUDA = Torch("2.15.0+cu130", built_for="CUDA 13.0", fault="The NVIDIA driver on your system is too old")
H100 = Gpu("NVIDIA H100", driver=True)


def line(torch: Torch, torchvision: Torchvision = WORKS, gpu: Gpu | None = None, visible: str | None = None) -> str:
    said = describe(".venv", torch, torchvision, gpu, visible)
    assert "\n" not in said and "None" not in said
    return said


def test_all_works_on_a_gpu():
    said = line(Torch("2.15.0+cu130", built_for="CUDA 13.0", device="NVIDIA H100"), gpu=H100)
    python = ".".join(map(str, sys.version_info[:3]))
    assert said == (
        f"Ready in .venv: Python {python}, torch 2.15.0+cu130 on NVIDIA H100 with CUDA 13.0, torchvision 0.28.0"
    )


@pytest.mark.parametrize("found", [CPU, CUDA])
def test_without_a_gpu_nothing_is_to_be_done(found):
    said = line(found)
    assert said.startswith("Ready in .venv: ") and said.endswith(
        "on the CPU, torchvision 0.28.0. No NVIDIA GPU was found"
    )


@pytest.mark.parametrize(
    ("found", "gpu", "visible", "advice"),
    [
        (CPU, H100, None, "a build for the CPU; run `make setup TORCH=cuda`"),
        (CPU, H100, "", "a build for the CPU; run `make setup TORCH=cuda`"),
        (CUDA, H100, "-1", "CUDA_VISIBLE_DEVICES='-1' hides it"),
        (CUDA, Gpu("NVIDIA GPU at PCI 0", driver=False), None, "`nvidia-smi`"),
        (CUDA, H100, "0", "driver on your system is too old; this torch needs a driver and a GPU for CUDA 13.0"),
    ],
)
def test_a_gpu_that_is_not_used_has_its_reason_and_a_remedy(found, gpu, visible, advice):
    said = line(found, gpu=gpu, visible=visible)
    assert said.startswith("Ready in .venv: ") and "on the CPU" in said
    assert f"The GPU ({gpu.name}) is not used:" in said and advice in said


def test_torchvision_that_is_missing_or_does_not_import():
    broken = line(CPU, Torchvision("0.28.0", "operator torchvision::nms does not exist"))
    assert "torchvision 0.28.0 does not import beside this torch" in broken and GET_STARTED in broken
    assert line(CPU, Torchvision(None)).endswith("torchvision is not installed; only one test uses it, and skips")


def test_torch_that_is_missing_or_does_not_import():
    assert line(Torch(None)).startswith("Not ready: ") and "`make setup`" in line(Torch(None))
    broken = line(Torch("2.15.0", imports=False, fault="libcudart.so.13: cannot open"))
    assert broken.startswith("Not ready: torch 2.15.0") and "libcudart" in broken and GET_STARTED in broken


def pci_device(folder: Path, name: str, vendor: str, kind: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "vendor").write_text(f"{vendor}\n")
    (folder / name / "class").write_text(f"{kind}\n")


def tool(folder: Path, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "nvidia-smi").chmod(0o755)


def test_a_gpu_is_found_by_the_driver_or_on_the_bus(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    bus = tmp_path / "devices"
    assert find_gpu(bus) is None
    pci_device(bus, "0000:00:02.0", "0x8086", "0x030000")  # another vendor's GPU
    pci_device(bus, "0000:01:00.1", "0x10de", "0x040300")  # the audio device of an HDMI port
    assert find_gpu(bus) is None
    pci_device(bus, "0000:01:00.0", "0x10de", "0x030200")
    without_driver = Gpu("NVIDIA GPU at PCI 0000:01:00.0", driver=False)
    assert find_gpu(bus) == without_driver
    tool(tmp_path / "bin", "echo 'NVIDIA-SMI has failed'; exit 9")
    assert find_gpu(bus) == without_driver
    tool(tmp_path / "bin", "echo NVIDIA H100; echo NVIDIA A100")
    assert find_gpu(bus) == H100


def package(folder: Path, name: str, version: str, code: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)
    (folder / f"{name}-{version}.dist-info").mkdir()
    (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments, "-m", "utils.system.installation"]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )


VERSION = "class version: cuda, hip = {cuda!r}, None\n"
NO_KERNEL = (
    f"__version__ = '2.15.0+cu130'\n{VERSION.format(cuda='13.0')}"
    "class cuda:\n    init = lambda: None\n"
    "def ones(*_, device):\n    raise RuntimeError('CUDA error: no kernel image is available. More\\nlines')\n"
)


@pytest.mark.parametrize(
    ("code", "ending", "parts"),
    [
        (f"__version__ = '2.15.0+cpu'\n{VERSION.format(cuda=None)}", 0, ("2.15.0+cpu on the CPU", "TORCH=cuda")),
        (NO_KERNEL, 0, ("2.15.0+cu130 on the CPU", "no kernel image is available; ", "CUDA 13.0")),
        ("raise OSError('libcudart.so.13: cannot open')", 1, ("Not ready: torch 2.15.0", "libcudart.so.13")),
    ],
)
def test_made_up_packages_are_really_tried(tmp_path, code, ending, parts):
    tool(tmp_path / "bin", "echo NVIDIA H100")
    package(tmp_path, "torch", "2.15.0", code)
    package(tmp_path, "torchvision", "0.29.2", "raise RuntimeError('operator torchvision::nms does not exist')")
    search = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(tmp_path)}
    ended = run(ENV=".venv", CUDA_VISIBLE_DEVICES="0", **search)
    assert (ended.returncode, ended.stderr) == (ending, "")
    (said,) = ended.stdout.splitlines()
    assert all(part in said for part in parts)
    assert ending or "torchvision 0.29.2 does not import" in said


def test_an_environment_without_torch_is_not_ready():
    ended = run("-S", ENV="elsewhere")
    assert ended.returncode == 1 and ended.stdout.startswith("Not ready: elsewhere") and ended.stderr == ""


def test_this_environment_is_ready():
    ended = run(ENV=".venv")
    assert ended.returncode == 0, ended.stderr
    (said,) = ended.stdout.splitlines()
    assert said.startswith("Ready in .venv: ") and f"torch {torch.__version__} on " in said and "torchvision" in said
