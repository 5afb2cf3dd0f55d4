"""What each way to the image level costs: `lab` and `fda` per image, CycleGAN per step and per image that it restyles.

    python bench/image_level.py --json result/image_level.json

All times are processor seconds of one thread: medians of `--rounds` rounds that take all ways in turn, so that other
programs disturb them little. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

import torch

from bench.results import device
from bench.timing import interleaved, one_thread
from model.methods.base import Batch, Step
from model.methods.cyclegan import CycleGAN
from model.terms.image_level import fda, lab
from utils.prediction.restyling import restyle
from utils.system.files import write_json

Size = tuple[int, int]


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


def ways(size: Size, crop: Size, widths: Sequence[float]) -> dict[str, Callable[[], Any]]:
    source, target = batch(size)["image"], batch(size)["image"]
    found: dict[str, Callable[[], Any]] = {
        "lab, an image": lambda: lab(source, target),
        "fda, an image": lambda: fda(source, target, 0.01),
    }
    for width in widths:
        method = cyclegan(crop, width)
        found[f"CycleGAN width {width:g}, a step"] = partial(step, method, crop)
        found[f"CycleGAN width {width:g}, an image"] = partial(restyle, method.to_target, source)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="512,256", help="W,H of the images [%(default)s]")
    parser.add_argument("--crop", default="256,128", help="W,H of the crops that CycleGAN learns from [%(default)s]")
    parser.add_argument("--widths", default="1,0.5,0.25", help="factors on its channels [%(default)s]")
    parser.add_argument("--rounds", type=int, default=5, help="[%(default)s]")
    parser.add_argument("--json", type=Path, help="file for the result")
    given = parser.parse_args(argv)
    size, crop = (tuple(map(int, text.split(","))) for text in (given.size, given.crop))
    one_thread()
    torch.manual_seed(0)
    widths = [float(text) for text in given.widths.split(",")]
    times = interleaved(ways((size[0], size[1]), (crop[0], crop[1]), widths), given.rounds)
    result = {
        "size": list(size),
        "crop": list(crop),
        "rounds": given.rounds,
        "device": device(),
        "processor_s": {name: round(found[1], 4) for name, found in times.items()},
    }
    for name, seconds in result["processor_s"].items():
        print(f"{name:32s} {seconds:9.3f} s")
    print(json.dumps(result))
    if given.json:
        write_json(given.json, result)


if __name__ == "__main__":
    main()
