"""Cutting aerial originals into tiles with one worker and with several.

    python bench/prepare_aerial.py             # the last line is one JSON object
    python bench/prepare_aerial.py --write     # also the section of bench/RESULTS.md

The originals are like Inria's: uncompressed TIFF, smooth ground with noise, masks {0, 255} of houses. Each round cuts
all of them into a new folder, including reading and encoding. Every number of workers must give the same manifest.
`speedup` compares the medians of wall-clock time; it means something only if the cores are free.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

import cv2
import numpy as np
from PIL import Image

from bench import results
from bench.results import device
from bench.timing import interleaved, one_thread
from dataset.aerial_downloads import KINDS, find_originals
from dataset.aerial_tiles import Settings, prepare
from utils.options import config


def generate(folder: Path, number: int, side: int) -> None:
    """`number` originals of `side` x `side` pixels, in the layout of Inria's download."""
    images, masks = folder / "train/images", folder / "train/gt"
    for path in (images, masks):
        path.mkdir(parents=True)
    for i in range(6, number + 6):  # the first five validate
        rng = np.random.default_rng(i)
        ground = cv2.resize(rng.uniform(40, 200, (side // 50 + 2, side // 50 + 2, 3)), (side, side))
        houses = cv2.resize((rng.random((side // 40 + 1, side // 40 + 1)) < 0.2).astype(np.uint8), (side, side))
        pixels = ground + 40 * houses[:, :, None] + rng.normal(0, 6, (side, side, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(images / f"city{i}.tif")
        Image.fromarray(255 * houses).save(masks / f"city{i}.tif")


def cut(download: Path, out: Path, workers: int) -> dict[str, Any]:
    """Cut all originals into a new folder `out`; returns the manifest."""
    shutil.rmtree(out, ignore_errors=True)
    originals, _ = find_originals(KINDS["iaild"], download)
    return prepare(originals, Settings("iaild", blank_min=0), out, workers=workers)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    one_thread()
    numbers = (1, arguments.workers)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        download, out = Path(folder) / "download", Path(folder) / "tiles"
        generate(download, arguments.images, arguments.side)
        first, other = (cut(download, out, workers) for workers in numbers)
        if first != other:
            raise RuntimeError(f"{arguments.workers} workers cut other tiles than one")
        times = interleaved(
            {str(workers): partial(cut, download, out, workers) for workers in numbers}, arguments.rounds
        )
    seconds = {name: wall / arguments.images for name, (wall, _) in times.items()}
    return {
        "speedup": seconds["1"] / seconds[str(arguments.workers)],
        "s_per_image": seconds,
        "cpu_s_per_image": {name: cpu / arguments.images for name, (_, cpu) in times.items()},
        "workers": arguments.workers,
        "images": arguments.images,
        "side": arguments.side,
        "tiles": first["counts"]["tiles"],
        "rounds": arguments.rounds,
        "device": device(),
    }


def table(r: dict[str, Any]) -> list[str]:
    lines = [
        f"{r['images']} originals of {r['side']}x{r['side']}, {r['tiles']} tiles of 512x512; medians of {r['rounds']} "
        "rounds, taken in turns; the manifests are identical.",
        "",
        "| `--workers` | s per original | CPU s per original | times one worker |",
        "|---|---|---|---|",
    ]
    for name, seconds in r["s_per_image"].items():
        ratio = r["s_per_image"]["1"] / seconds
        lines.append(f"| {name} | {seconds:.2f} | {r['cpu_s_per_image'][name]:.2f} | {ratio:.2f} |")
    return lines


def main(argv: Sequence[str]) -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--images", type=int, default=8, help="generated originals [8]")
    parser.add_argument("--side", type=int, default=2500, help="pixels of a side [2500]")
    parser.add_argument("--workers", type=int, default=2, help="workers to compare with one [2]")
    parser.add_argument("--rounds", type=int, default=3, help="of each number of workers, that count [3]")
    parser.add_argument("--folder", help="where to put temporary files (default: the system's)")
    arguments = parser.parse_args(argv)
    result = measure(arguments)
    results.report("prepare_aerial", argv, arguments, result, table(result))


if __name__ == "__main__":
    config.run(lambda: main(sys.argv[1:]))
