"""What an optimisation gains: a full training iteration with it, compared with one in the plain form.

    python bench/economy.py            # ResNet-101 at 320x180 / 256x128, and the built-in network at 256x128
    python bench/economy.py --write    # also the section of bench/RESULTS.md

An iteration is that of the Trainer, in the worst case that bench/iteration.py forces. Both forms take turns in one
process, on one thread, and the medians of their processor time are compared, which other programs disturb little. Peak
memory is measured in one process per form. An optimisation that gains less than 3 % of time and of memory on both
networks is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

from torch import Tensor, nn

from bench import iteration
from bench.iteration import Case
from bench.results import write_section
from bench.timing import RETURNING_MEMORY, in_new_process, one_thread, peak_mib
from model.methods import bafft
from utils.options import config

NETWORKS = {
    "resnet101": ("--backbone", "resnet101", "--source-size", "320,180", "--target-size", "256,128"),
    "built-in": ("--preset", "builtin", "--backbone", "tiny", "--source-size", "256,128", "--target-size", "256,128"),
}


def two_passes(discriminator: nn.Module, maps: Tensor) -> tuple[Tensor, Tensor]:
    """The plain form of `shared_scores`: a forward pass for the segmenter and one for the discriminator."""
    return discriminator(maps), discriminator(maps.detach())


# By name: what puts the plain form in its place.
PIECES = {"one discriminator pass for both players": lambda: patch.object(bafft, "shared_scores", two_passes)}


def arguments_of(network: str) -> argparse.Namespace:
    return iteration.parse([*NETWORKS[network], "--cpu"])


def processor_seconds(network: str, piece: str, rounds: int) -> tuple[float, float]:
    """Medians with the piece and with the plain form."""
    case, seconds = Case(arguments_of(network), ("full",)), {True: list[float](), False: list[float]()}
    for number in range(rounds + 1):
        for clever in (True, False) if number % 2 else (False, True):
            seconds[clever].append(_iterate(case, piece, clever))
    return statistics.median(seconds[True][1:]), statistics.median(seconds[False][1:])


def _iterate(case: Case, piece: str, clever: bool) -> float:
    if clever:
        return case.iterate("full")[1]
    with PIECES[piece]():
        return case.iterate("full")[1]


def peak_of(network: str, piece: str, clever: bool) -> float:
    """Peak memory of a new process after two iterations. It comes before this process builds anything."""
    arguments = ("--peak-of", network, piece, "yes" if clever else "no")
    environment = os.environ | RETURNING_MEMORY
    return float(in_new_process(__file__, *arguments, environment=environment))


def table(rounds: int) -> list[str]:
    lines = [
        f"Medians of {rounds} iterations of each form, taken in turns on one thread.",
        "",
        "| piece | network | CPU s, with | plain | gain | peak MiB, with | plain | gain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    cases = [(piece, network) for piece in PIECES for network in NETWORKS]
    of_peaks = {case: [peak_of(case[1], case[0], clever) for clever in (True, False)] for case in cases}
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
    parser.add_argument("--peak-of", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    one_thread()
    if arguments.peak_of:
        network, piece, clever = arguments.peak_of
        case = Case(arguments_of(network), ("full",))
        for _ in range(2):  # the optimisers' states come with the first step
            _iterate(case, piece, clever == "yes")
        print(json.dumps(peak_mib(case.device)))
        return
    lines = table(arguments.rounds)
    if arguments.write:
        write_section("economy", " ".join(["python bench/economy.py", *argv]), lines)


if __name__ == "__main__":
    config.run(lambda: main(sys.argv[1:]))
