"""What an optimisation gains: a full training iteration with it, compared with one in the plain form.

    python bench/economy.py            # ResNet-101 at 320x180 / 256x128, and the built-in network at 256x128
    python bench/economy.py --write    # also the section of bench/RESULTS.md

An iteration is that of the Trainer, in the worst case that bench/iteration.py forces. Both forms take turns on one
thread, and the medians of their processor time are compared, which other programs disturb little. They run in one
process or, where a form is a setting of the whole process, in a new process each time. Peak memory is measured in one
process per form. An optimisation that gains less than 3 % of time and of memory on both networks is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

from torch import Tensor, nn

from bench import iteration
from bench.iteration import Case
from bench.results import write_section
from bench.timing import one_thread
from model.methods import bafft
from utils.options import config

RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**17)}  # the environment in which glibc returns freed memory at once

NETWORKS = {
    "resnet101": ("--backbone", "resnet101", "--source-size", "320,180", "--target-size", "256,128"),
    "built-in": ("--preset", "builtin", "--backbone", "tiny", "--source-size", "256,128", "--target-size", "256,128"),
}


def two_passes(discriminator: nn.Module, maps: Tensor) -> tuple[Tensor, Tensor]:
    """The plain form of `shared_scores`: a forward pass for the segmenter and one for the discriminator."""
    return discriminator(maps), discriminator(maps.detach())


@dataclass(frozen=True)
class Piece:
    """An optimisation. plain: puts the plain form in its place. environment: that of a process of the plain form, where
    the form is a setting of the whole process."""

    plain: Callable[[], AbstractContextManager[object]] = nullcontext
    environment: Mapping[str, str] = field(default_factory=dict)


PIECES = {
    "one discriminator pass for both players": Piece(lambda: patch.object(bafft, "shared_scores", two_passes)),
    # Any setting of malloc keeps ours away; this one is glibc's default.
    "freed memory is kept": Piece(environment={"GLIBC_TUNABLES": "glibc.malloc.mmap_max=65536"}),
}


def arguments_of(network: str) -> argparse.Namespace:
    return iteration.parse([*NETWORKS[network], "--cpu"])


def processor_seconds(network: str, piece: str, rounds: int) -> tuple[float, float]:
    """Medians with the piece and with the plain form."""
    seconds = {True: list[float](), False: list[float]()}
    case = None if PIECES[piece].environment else Case(arguments_of(network), ("full",))
    for number in range(rounds + 1):
        for clever in (True, False) if number % 2 else (False, True):
            seconds[clever].append(
                measured(network, piece, clever)["seconds"] if case is None else _iterate(case, piece, clever)
            )
    return statistics.median(seconds[True][1:]), statistics.median(seconds[False][1:])


def _iterate(case: Case, piece: str, clever: bool) -> float:
    with nullcontext() if clever else PIECES[piece].plain():
        return case.iterate("full")[1]


def measured(network: str, piece: str, clever: bool, environment: Mapping[str, str] | None = None) -> dict[str, float]:
    """Of a new process: its peak memory in MiB, and the processor seconds of its last iteration."""
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", network, piece, "yes" if clever else "no"]
    environment = {**os.environ, **({} if clever else PIECES[piece].environment), **(environment or {})}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def peak_mib(network: str, piece: str, clever: bool) -> float:
    """Unless the piece is about that, freed memory goes back to the system at once (glibc)."""
    return measured(network, piece, clever, {} if PIECES[piece].environment else RETURN_MEMORY)["peak_mib"]


def table(rounds: int) -> list[str]:
    lines = [
        f"Medians of {rounds} iterations of each form, taken in turns on one thread.",
        "",
        "| piece | network | CPU s, with | plain | gain | peak MiB, with | plain | gain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    cases = [(piece, network) for piece in PIECES for network in NETWORKS]
    # A child's ru_maxrss starts from what its parent occupies, so the children run before the parent builds anything.
    of_peaks = {case: [peak_mib(case[1], case[0], clever) for clever in (True, False)] for case in cases}
    for (piece, network), peaks in of_peaks.items():
        seconds = processor_seconds(network, piece, rounds)
        row = [f"{seconds[0]:.3f}", f"{seconds[1]:.3f}", _gain(*seconds)]
        row += [f"{peaks[0]:.0f}", f"{peaks[1]:.0f}", _gain(*peaks)]
        lines.append(" | ".join(["", piece, network, *row, ""]).strip())
        print(lines[-1], flush=True)
    return lines


def _gain(clever: float, plain: float) -> str:
    return f"{100 * (1 - clever / plain):.1f} %"


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write the section of bench/RESULTS.md")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    one_thread()
    if arguments.measure:
        network, piece, clever = arguments.measure
        case = Case(arguments_of(network), ("full",))
        seconds = [_iterate(case, piece, clever == "yes") for _ in range(3)]  # the optimisers start with the first
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(json.dumps({"seconds": seconds[-1], "peak_mib": peak}))
        return
    lines = table(arguments.rounds)
    if arguments.write:
        write_section("economy", " ".join(["python bench/economy.py", *argv]), lines)


if __name__ == "__main__":
    config.run(lambda: main(sys.argv[1:]))
