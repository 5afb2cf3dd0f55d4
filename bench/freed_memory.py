"""What it gains on a CPU to keep freed memory for the next iteration (`utils.system.machine.keep_freed_memory`).

    python bench/freed_memory.py --write    # bench/RESULTS.md

Iterations of the Trainer on one thread, at the batch size of the preset. Each measurement is a new process, because
malloc is set up once; processes with and without the setting take turns. Medians of the processor time of the last
iterations, of the pages that these fetched from the system, and of the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

from bench import results
from bench.timing import in_new_process, one_thread, peak_mib
from utils.options import config

# glibc's own behaviour: a setting of malloc keeps ours away, and this one, at its default, changes nothing.
PLAIN = {"GLIBC_TUNABLES": "glibc.malloc.arena_test=8"}
ITERATIONS = 4  # of a process; the first two, in which buffers and optimisers come into being, are not counted

NETWORKS: dict[str, dict[str, Any]] = {
    "built-in network, 256x128, batch 4": {"preset": "builtin"},
    "MobileNetV2, 320x240, batch 2": {
        "preset": "own_images",
        "method": "paper",
        "restore_from": "none",
        "input_size": (320, 240),
        "input_size_target": (320, 240),
    },
    "ResNet-101, 320x180 and 256x128, batch 1": {
        "restore_from": "none",
        "input_size": (320, 180),
        "input_size_target": (256, 128),
    },
}


def measure_here(network: str) -> dict[str, float]:
    """In this process: processor seconds and fetched pages of an iteration of stage 1, and peak memory in MiB."""
    import resource  # not on Windows

    from bench.train_speed import Case

    one_thread()
    case = Case(1, {"cpu": True, **NETWORKS[network]})
    found = []
    for _ in range(ITERATIONS):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        seconds = case.timed()[1]
        found.append((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))
    seconds, pages = (statistics.median(values) for values in zip(*found[2:], strict=True))
    return {"seconds": seconds, "pages": pages, "peak_mib": peak_mib(case.device)}


def measure(network: str, environment: dict[str, str]) -> dict[str, float]:
    """The same in a new process, with these variables added to an environment without settings of malloc."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    return in_new_process(__file__, "--measure", network, environment=inherited | environment)


def compared(rounds: int) -> dict[str, dict[str, list[float]]]:
    """By network and quantity: the medians with the setting and without it."""
    found = {}
    for network in NETWORKS:
        kept, plain = [], []
        for _ in range(rounds):
            kept.append(measure(network, {}))
            plain.append(measure(network, PLAIN))
        found[network] = {
            name: [statistics.median(measured[name] for measured in form) for form in (kept, plain)] for name in kept[0]
        }
    return found


def table(found: dict[str, dict[str, list[float]]], rounds: int) -> list[str]:
    lines = [
        f"An iteration of stage 1 on one thread; medians of {rounds} processes of each kind, which took turns.",
        "",
        "| network | CPU s, kept | returned | gain | pages fetched, kept | returned | peak MiB, kept | returned |",
        "|---" * 8 + "|",
    ]
    for network, measured in found.items():
        (kept, plain), pages, peak = measured["seconds"], measured["pages"], measured["peak_mib"]
        lines.append(
            f"| {network} | {kept:.3f} | {plain:.3f} | {100 * (1 - kept / plain):.0f} % | {pages[0]:.0f} | "
            f"{pages[1]:.0f} | {peak[0]:.0f} | {peak[1]:.0f} |"
        )
    return lines


def main(argv: Sequence[str]) -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind [5]")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.measure:
        print(json.dumps(measure_here(arguments.measure)))
        return
    found = compared(arguments.rounds)
    results.report("freed_memory", argv, arguments, found, table(found, arguments.rounds))


if __name__ == "__main__":
    config.run(lambda: main(sys.argv[1:]))
