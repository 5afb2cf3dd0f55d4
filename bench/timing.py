"""Ways of doing the same, timed side by side."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import cv2
import torch

from utils.reporting import notes

Way = TypeVar("Way", bound=Hashable)

RETURNING_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
"""A variable with which glibc returns freed memory at once. Otherwise, what a process keeps for later changes its peak
by 3 % between runs."""


def peak_mib(device: torch.device) -> int:
    """Peak memory so far of what torch has allocated on a GPU, or of this process if the device is a CPU.

    A child of this process would start from what this one occupies, so children are measured before it builds anything.
    """
    peaks = notes.peak_memory(device)
    return peaks.get("gpu_memory_mb", peaks["memory_mb"])


def one_thread() -> None:
    """All libraries on one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def in_new_process(script: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """The JSON that a bench prints as its last line. script: its file; environment: all variables, by default those of
    this process."""
    command = [sys.executable, os.path.abspath(script), *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def interleaved(ways: Mapping[Way, Callable[[], Any]], rounds: int) -> dict[Way, tuple[float, float]]:
    """Medians of (wall-clock, processor) seconds of every way over `rounds`, taken in turns, after one round more.

    Processor time is of all threads; other programs on the machine disturb it less.
    """
    times: dict[Way, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in ways if number % 2 else reversed(list(ways)):
            began = time.perf_counter(), time.process_time()
            ways[name]()
            times[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return {
        name: (statistics.median(t[0] for t in found[1:]), statistics.median(t[1] for t in found[1:]))
        for name, found in times.items()
    }
