"""Up-sampling and argmax of 19 x 1024 x 2048 logits: the published way and ours.

    python bench/evaluation.py             # the last line is one JSON object
    python bench/evaluation.py --write     # also the section of bench/RESULTS.md

The published way up-samples the whole volume, copies it to the CPU, transposes it and takes the argmax there. Ours
(`model.networks.upsampling.best_class`) works class by class and copies only the label map. The label maps must be
identical. `speedup` compares the medians of wall-clock time; on a CPU, with one thread.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bench import results
from bench.results import device
from bench.timing import interleaved, one_thread
from model.networks.upsampling import best_class
from utils.options import config
from utils.system.transfer import to_host


def published(logits: Tensor, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    volume = nn.Upsample(size=size, mode="bilinear", align_corners=True)(logits)
    return np.argmax(volume.cpu().data[0].numpy().transpose(1, 2, 0), axis=2)


def ours(logits: Tensor, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    return to_host(best_class([logits], size)[1][0])


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    one_thread()
    size = arguments.size
    where = "cuda" if torch.cuda.is_available() and not arguments.cpu else "cpu"
    torch.manual_seed(0)
    logits = 3 * torch.randn(1, arguments.classes, size[0] // 16 + 1, size[1] // 16 + 1, device=where)
    with torch.inference_mode():
        times = interleaved(
            {"published": lambda: published(logits, size), "ours": lambda: ours(logits, size)}, arguments.rounds
        )
        different = int((published(logits, size) != ours(logits, size)).sum())
    if different:
        raise RuntimeError(f"{different} pixels differ")
    return {
        "speedup": times["published"][0] / times["ours"][0],
        "cpu_speedup": times["published"][1] / times["ours"][1],
        "published_ms": 1000 * times["published"][0],
        "ours_ms": 1000 * times["ours"][0],
        "published_cpu_ms": 1000 * times["published"][1],
        "ours_cpu_ms": 1000 * times["ours"][1],
        "identical": True,
        "classes": arguments.classes,
        "size": list(size),
        "device": device(cpu=where == "cpu"),
    }


def table(r: dict[str, Any]) -> list[str]:
    return [
        f"Logits of {r['classes']} x {r['size'][0]} x {r['size'][1]}; medians, taken in turns; the label maps are "
        "identical.",
        "",
        "| way | ms | CPU ms |",
        "|---|---|---|",
        f"| published | {r['published_ms']:.0f} | {r['published_cpu_ms']:.0f} |",
        f"| ours | {r['ours_ms']:.0f} | {r['ours_cpu_ms']:.0f} |",
        f"| ratio | {r['speedup']:.2f} | {r['cpu_speedup']:.2f} |",
    ]


def main(argv: Sequence[str]) -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="measured rounds of each way [21]")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.set_defaults(size=(1024, 2048), classes=19)
    arguments = parser.parse_args(argv)
    result = measure(arguments)
    results.report("evaluation", argv, arguments, result, table(result))


if __name__ == "__main__":
    config.run(lambda: main(sys.argv[1:]))
