"""Settings of the whole process: Ctrl-C, idle threads, freed memory, cuDNN, TF32, determinism, seeds.

Every script imports this module before all others, and a script that runs a network calls `set_up` once, before it
builds anything.
"""

from __future__ import annotations

import utils.system.ctrl_c  # noqa: F401 - first of all

import ctypes
import os
import platform
import random
import sys
from importlib.util import find_spec
from typing import Protocol

# Read when torch starts. Idle threads that spin make all other processes many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if find_spec("torch") is None:  # stands for all that requirements.txt names
    print(
        f"error: {sys.executable or 'this Python'} has no torch, expected the environment of `make setup`: run "
        "`make setup` and `source .venv/bin/activate`, then this command again",
        file=sys.stderr,
    )
    sys.exit(2)


_LARGEST_KEPT = 32 * 2**20  # bytes of a block: the largest that glibc can be told to keep
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # what mallopt(3) sets


def keep_freed_memory() -> None:
    """Keep freed blocks of up to 32 MiB for the next tensors, instead of returning them to the system (glibc).

    On a CPU, an iteration otherwise fetches thousands of pages again (bench/freed_memory.py). Does nothing with another
    C library, or where the user has settings of malloc in the environment.
    """
    given = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and not given:
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


keep_freed_memory()


SYSTEMS = ("linux", "darwin")
"""Values of `sys.platform` on which the project is meant to run; it is tested on Linux."""


def system_note(name: str = sys.platform) -> str | None:
    """A line to print at the start on a system that is not supported; None on the others."""
    if name in SYSTEMS:
        return None
    return (
        f"note: {platform.system()} is not supported, expected Linux (tested) or macOS (not tested); what follows may "
        "fail: on Windows, use WSL 2"
    )


class Settings(Protocol):
    """The options that concern the machine (`utils.options.table.Options`)."""

    @property
    def random_seed(self) -> int: ...
    @property
    def deterministic(self) -> bool: ...
    @property
    def autotune(self) -> bool: ...
    @property
    def tf32(self) -> bool: ...


def set_up(settings: Settings) -> None:
    """Apply `--autotune`, `--tf32` and `--deterministic` to this process, and seed all its random generators.

    With `--deterministic`, every operation computes the same bits each time; torch names in a warning the few GPU
    operations that have no such form. TF32 concerns only convolutions: matrix products of float32 tensors never use it.
    """
    import torch

    torch.backends.cudnn.benchmark = settings.autotune and not settings.deterministic
    torch.backends.cudnn.allow_tf32 = settings.tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    seed_everything(settings.random_seed)


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
