"""What each way to the image level costs: `lab` and `fda` per image, CycleGAN per step and per image that it restyles.

    python bench/image_level.py --write    # bench/RESULTS.md

All times are processor seconds of one thread: medians of `--rounds` rounds that take all ways in turn, so that other
programs disturb them little. The last line is one JSON object.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

import torch

from bench import results
from bench.timing import interleaved, one_thread
from model.methods.base import Batch, Step
from model.methods.cyclegan import CycleGAN
from model.terms.image_level import fda, lab
from utils.prediction.restyling import restyle

Size = tuple[int, int]
# The columns of the table.
IN_TRAINING, STEP, APPLY = (
    "per source image in training",
    "per step of `restyle_source.py train`",
    "per image of `restyle_source.py apply`",
)


def batch(size: Size) -> Batch:
    return {"image": torch.randint(256, (1, 3, size[1], size[0]), dtype=torch.uint8)}


def cyclegan(crop: Size, width: float) -> CycleGAN:
    rates = {"learning_rate": 2e-4, "learning_rate_D": 2e-4, "num_steps": 10**6}
    weights = {"lambda_cycle": 10.0, "lambda_identity": 5.0, "lambda_semantic": 1.0}
    widths = {"generator_width": width, "discriminator_width": width}
    return CycleGAN(SimpleNamespace(crop=crop, **rates, **weights, **widths))


def step(method: CycleGAN, size: Size) -> None:
    """A step as the trainer makes it, without reading images."""
    for optimizer in method.optimizers.values():
        optimizer.zero_grad(set_to_none=True)

    def backward(loss: torch.Tensor, player: str) -> None:
        groups = method.optimizers[player].param_groups
        loss.backward(inputs=[parameter for group in groups for parameter in group["params"]])

    method.iteration(batch(size), batch(size), backward, Step(0))
    for optimizer in method.optimizers.values():
        optimizer.step()


def title(width: float) -> str:
    return "CycleGAN, all channels" if width == 1 else f"CycleGAN, width {width:g}"


def costs(size: Size, crop: Size, widths: Sequence[float]) -> dict[str, dict[str, Callable[[], Any]]]:
    """What is timed, by way and then by column of the table."""
    source, target = batch(size)["image"], batch(size)["image"]
    found: dict[str, dict[str, Callable[[], Any]]] = {
        "`lab`": {IN_TRAINING: partial(lab, source, target)},
        "`fda`": {IN_TRAINING: partial(fda, source, target, 0.01)},
    }
    for width in widths:
        method = cyclegan(crop, width)
        found[title(width)] = {STEP: partial(step, method, crop), APPLY: partial(restyle, method.to_target, source)}
    return found


def measure(size: Size, crop: Size, widths: Sequence[float], rounds: int) -> dict[str, Any]:
    ways = costs(size, crop, widths)
    flat = {(way, column): run for way, columns in ways.items() for column, run in columns.items()}
    times = interleaved(flat, rounds)
    seconds = {way: {column: round(times[way, column][1], 4) for column in columns} for way, columns in ways.items()}
    return {"size": list(size), "crop": list(crop), "rounds": rounds, "processor_s": seconds}


def table(result: dict[str, Any]) -> list[str]:
    size, crop = ("x".join(map(str, result[key])) for key in ("size", "crop"))
    columns = (IN_TRAINING, STEP, APPLY)
    lines = [
        f"Processor seconds of one thread for images of {size} and crops of {crop}; medians of {result['rounds']} "
        "rounds, taken in turns.",
        "",
        f"| way | {' | '.join(columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for way, seconds in result["processor_s"].items():
        cells = (f"{seconds[column]:.3g}" if column in seconds else "–" for column in columns)
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--size", default="512,256", help="W,H of the images [%(default)s]")
    parser.add_argument("--crop", default="256,128", help="W,H of the crops that CycleGAN learns from [%(default)s]")
    parser.add_argument("--widths", default="1,0.5,0.25", help="factors on its channels [%(default)s]")
    parser.add_argument("--rounds", type=int, default=5, help="[%(default)s]")
    argv = sys.argv[1:] if argv is None else argv
    given = parser.parse_args(argv)
    size, crop = (tuple(map(int, text.split(","))) for text in (given.size, given.crop))
    one_thread()
    torch.manual_seed(0)
    widths = [float(text) for text in given.widths.split(",")]
    result = measure((size[0], size[1]), (crop[0], crop[1]), widths, given.rounds)
    results.report("image_level", argv, given, result, table(result))


if __name__ == "__main__":
    main()
