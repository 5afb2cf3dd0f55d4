"""What works in this environment, in one line: `python -m utils.system.installation`, the end of `make setup`.

Nothing here imports torch at the top: the line is also printed where torch is missing or does not import.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

GET_STARTED = "https://pytorch.org/get-started/locally"
PCI_DEVICES = Path("/sys/bus/pci/devices")
_NVIDIA, _DISPLAY = "0x10de", "0x03"  # PCI: the vendor, and the class under which all GPUs lie


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU of this machine. driver: whether NVIDIA's driver answers for it."""

    name: str
    driver: bool


@dataclass(frozen=True)
class Torch:
    """What importing torch and trying its GPU showed.

    version: as installed; None if torch is not installed. built_for: "CUDA 13.0", say; None for a build for the CPU.
    device: the GPU's name if a convolution ran on it. fault: why torch does not import (`imports` is False), or why a
    build for a GPU cannot use it.
    """

    version: str | None
    imports: bool = True
    built_for: str | None = None
    device: str | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Torchvision:
    """version: as installed; None if it is not. fault: why it does not import."""

    version: str | None
    fault: str | None = None


def find_gpu(devices: Path = PCI_DEVICES) -> Gpu | None:
    """The first NVIDIA GPU, by the driver's own tool or else on the PCI bus; None if there is none."""
    tool = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    if tool:
        command = [tool, "--query-gpu=name", "--format=csv,noheader"]
        try:
            listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired):
            pass
        else:
            if listed.returncode == 0 and listed.stdout.strip():
                return Gpu(listed.stdout.splitlines()[0].strip(), driver=True)
    for device in sorted(devices.glob("*")):
        try:
            vendor, kind = ((device / name).read_text(encoding="ascii").strip() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor == _NVIDIA and kind.startswith(_DISPLAY):
            return Gpu(f"NVIDIA GPU at PCI {device.name}", driver=False)
    return None


def installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _first_sentence(error: BaseException) -> str:
    """The beginning of an error's message, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(". ")[0].rstrip(".")[:160]


def try_torch() -> Torch:
    """Import torch and, if it is built for CUDA, run a small convolution on the first GPU that it sees."""
    version = installed_version("torch")
    if version is None:
        return Torch(None)
    try:
        torch = import_module("torch")
    except (ImportError, OSError, RuntimeError) as error:
        return Torch(version, imports=False, fault=_first_sentence(error))
    version, built_for = str(torch.__version__), None
    if torch.version.cuda:
        built_for = f"CUDA {torch.version.cuda}"
    elif torch.version.hip:  # AMD's; the rest of torch calls it cuda as well
        built_for = f"ROCm {torch.version.hip}"
    else:
        return Torch(version)
    try:
        torch.cuda.init()  # unlike is_available, this says why it fails
        ones = torch.ones(1, 1, 8, 8, device="cuda")
        torch.nn.functional.conv2d(ones, ones).sum().item()
        return Torch(version, built_for=built_for, device=torch.cuda.get_device_name())
    except (RuntimeError, AssertionError) as error:
        return Torch(version, built_for=built_for, fault=_first_sentence(error))


def try_torchvision() -> Torchvision:
    version = installed_version("torchvision")
    if version is None:
        return Torchvision(None)
    try:
        import_module("torchvision")
    except (ImportError, OSError, RuntimeError) as error:
        return Torchvision(version, _first_sentence(error))
    return Torchvision(version)


def describe(environment: str, torch: Torch, torchvision: Torchvision, gpu: Gpu | None, visible: str | None) -> str:
    """The line: what works, then what does not and what to do about it.

    environment: how the user calls it. visible: the variable CUDA_VISIBLE_DEVICES; None if it is not set.
    """
    python = f"Python {platform.python_version()}"
    if torch.version is None:
        return f"Not ready: {environment} ({python}) has no torch; run `make setup`"
    if not torch.imports:
        return (
            f"Not ready: torch {torch.version} in {environment} ({python}) does not import ({torch.fault}): install "
            f"the build for this machine, {GET_STARTED}"
        )
    runs_on = f"on {torch.device} with {torch.built_for}" if torch.device else "on the CPU"
    parts = [f"Ready in {environment}: {python}, torch {torch.version} {runs_on}"]
    if torch.device is None:
        parts.append(_why_no_gpu(torch, gpu, visible))
    if torchvision.version is None:
        parts.append("torchvision is not installed; only one test uses it, and skips")
    elif torchvision.fault:
        parts.append(
            f"torchvision {torchvision.version} does not import beside this torch; only one test uses it, and skips; "
            f"to mend it, install the build for your torch: {GET_STARTED}"
        )
    else:
        parts[0] += f", torchvision {torchvision.version}"
    return ". ".join(parts)


def _why_no_gpu(torch: Torch, gpu: Gpu | None, visible: str | None) -> str:
    if gpu is None:
        return "No NVIDIA GPU was found"
    found = f"The GPU ({gpu.name}) is not used:"
    if torch.built_for is None:
        return f"{found} this torch is a build for the CPU; run `make setup TORCH=cuda`"
    if visible is not None and visible.strip() in ("", "-1"):
        return f"{found} CUDA_VISIBLE_DEVICES={visible!r} hides it; unset that variable"
    if not gpu.driver:
        return f"{found} NVIDIA's driver does not answer; install or start it, until `nvidia-smi` lists the GPU"
    return (
        f"{found} {torch.fault}; this torch needs a driver and a GPU for {torch.built_for}: update the driver, or "
        f"install another build: {GET_STARTED}"
    )


def main() -> None:
    """Print the line. Exit code 1 if torch cannot be used at all."""
    torch, torchvision = try_torch(), try_torchvision()
    environment = os.environ.get("ENV") or sys.prefix
    print(describe(environment, torch, torchvision, find_gpu(), os.environ.get("CUDA_VISIBLE_DEVICES")))
    if torch.version is None or not torch.imports:
        sys.exit(1)


if __name__ == "__main__":
    main()
