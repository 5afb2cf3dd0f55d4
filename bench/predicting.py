"""How long a prediction takes: from the pixels of an image to the labels of all its pixels, as `predict.py` makes it.

    python bench/predicting.py --write    # bench/RESULTS.md

Every image has 1280x720 pixels; reading and writing files is not counted. Weights are random, which changes no time.
On a CPU, with one thread. Medians of `--rounds` rounds that take all networks in turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

import numpy as np
import torch

from bench import results
from bench.timing import interleaved, one_thread
from model.networks.deeplab import DeepLab, build_segmenter
from model.networks.high_resolution import HighResolution
from utils.options import config
from utils.prediction.any_size import Predictor

Size = tuple[int, int]
NATIVE = (1280, 720)


@dataclass(frozen=True)
class Network:
    """size: width and height of the images that it reads; crops: with high-resolution crops, which read them twice as
    large as the network was told."""

    backbone: str
    size: Size
    output_stride: int = 8
    crops: bool = False

    @property
    def title(self) -> str:
        width, height = self.size
        return f"{self.backbone}, {width}x{height}, stride {self.output_stride}{', crops' if self.crops else ''}"

    def predictor(self, device: str, amp: str) -> Predictor:
        kind = HighResolution if self.crops else DeepLab
        segmenter = build_segmenter(self.backbone, output_stride=self.output_stride, kind=kind)
        return Predictor(segmenter.to(device).eval(), self.size, amp=amp)


NETWORKS = (
    Network("mobilenet_v2", (320, 176), 16),
    Network("mobilenet_v2", (640, 360), 16),
    Network("mobilenet_v2", (1280, 720), 16, crops=True),
    Network("resnet101", (1024, 512)),
)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    one_thread()
    on_gpu = torch.cuda.is_available() and not arguments.cpu
    pixels = np.random.default_rng(0).integers(0, 256, (NATIVE[1], NATIVE[0], 3), np.uint8)
    torch.manual_seed(0)

    def predict(predictor: Predictor) -> None:
        predictor([predictor.prepare(pixels)])

    predictors = {network.title: network.predictor("cuda" if on_gpu else "cpu", arguments.amp) for network in NETWORKS}
    times = interleaved({title: partial(predict, made) for title, made in predictors.items()}, arguments.rounds)
    return {
        "ms": {title: 1000 * wall for title, (wall, _) in times.items()},
        "cpu_ms": {title: 1000 * cpu for title, (_, cpu) in times.items()},
        "amp": arguments.amp,
        "rounds": arguments.rounds,
        "device": results.device(cpu=not on_gpu),
    }


def table(result: dict[str, Any]) -> list[str]:
    where = f"`--amp {result['amp']}`{', one thread' if result['device'].startswith('CPU') else ''}"
    return [
        f"An image of {NATIVE[0]}x{NATIVE[1]}, one at a time, {where}; medians of {result['rounds']} rounds, taken in "
        "turns.",
        "",
        "| network and size of its input | ms | CPU ms | images per second |",
        "|---|---|---|---|",
        *(
            f"| {title} | {ms:.0f} | {result['cpu_ms'][title]:.0f} | {1000 / ms:.1f} |"
            for title, ms in result["ms"].items()
        ),
    ]


def main(argv: Sequence[str]) -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each network [5]")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--amp", default="off", choices=("off", "bf16", "fp16"), help="precision [off]")
    arguments = parser.parse_args(argv)
    result = measure(arguments)
    results.report("predicting", argv, arguments, result, table(result))


if __name__ == "__main__":
    config.run(lambda: main(sys.argv[1:]))
