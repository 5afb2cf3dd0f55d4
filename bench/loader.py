"""How fast one core loads GTA5's pairs for training: the published loader's way, ours, and ours from the cache.

    python bench/loader.py --json     # the last line is one JSON object
    python bench/loader.py --write    # also writes the section of bench/RESULTS.md

The built-in generator draws the pairs at GTA5's size, 1914x1052, and saves them as GTA5's are (RGB and palette PNG,
2.8 MB per pair) in a temporary folder; they are the same in every run. All three ways read every pair in turn, in one
process and one thread, and resize it to 1280x720. Files and cache are in the system's page cache, so that the processor
is measured and not the disk. The table compares medians over all pairs and rounds, of the wall-clock time and of the
processor time, which other programs on the machine disturb less. The published way gives a normalised float image; ours
gives uint8, which the network normalises on its device. Before anything is timed, all three are compared bit for bit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from bench import results
from bench.results import device
from dataset import GTA5
from dataset.builtin.domains import GAME
from dataset.builtin.write import draw_example
from dataset.cache import Cache
from dataset.classes import CITYSCAPES_IDS, IGNORE
from model.networks.deeplab import INPUTS
from utils.options import config

WAYS = ("published", "uncached", "cached")
TRAIN_IDS = {i: int(CITYSCAPES_IDS[i]) for i in range(256) if CITYSCAPES_IDS[i] != IGNORE}
MEAN = np.array(INPUTS["caffe"]["mean"], np.float32)
Float = npt.NDArray[np.float32]


def published(image_path: Path, label_path: Path, size: tuple[int, int]) -> tuple[Float, Float]:
    """As the released readers load a pair: image [3, H, W], BGR minus mean, and label [H, W], both float32."""
    image = Image.open(image_path).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    label = Image.open(label_path).resize(size, Image.Resampling.NEAREST)
    pixels = np.asarray(image, np.float32)
    ids = np.asarray(label, np.float32)
    train_ids = IGNORE * np.ones(ids.shape, np.float32)
    for label_id, train_id in TRAIN_IDS.items():
        train_ids[ids == label_id] = train_id
    pixels = pixels[:, :, ::-1] - MEAN
    return pixels.transpose((2, 0, 1)).copy(), train_ids.copy()


def draw_pairs(root: Path, pairs: int, native: tuple[int, int]) -> None:
    """Write `images/` and `labels/` as GTA5 has them."""
    palette = np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes()
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(pairs):
        image, ids = draw_example(GAME, native, (0, 0, number))
        Image.fromarray(image).save(root / "images" / f"{number:05d}.png")
        label = Image.fromarray(ids)
        label.putpalette(palette)
        label.save(root / "labels" / f"{number:05d}.png")


def check(ways: dict[str, Callable[[int], Any]], pairs: int) -> None:
    """Raises RuntimeError if the three ways differ in a single bit."""
    for number in range(pairs):
        image, label = ways["published"](number)
        for name in ("uncached", "cached"):
            sample = ways[name](number)
            pixels = sample["image"].flip(0).numpy().astype(np.float32) - MEAN[:, None, None]
            if not np.array_equal(pixels, image) or not np.array_equal(sample["label"].numpy(), label):
                raise RuntimeError(f"pair {number}: {name} differs from the published way")


def measure(root: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Pairs per second of each way, and the ratios."""
    data, size = root / "data", tuple(arguments.size)
    draw_pairs(data, arguments.pairs, arguments.native)
    plain, cached = GTA5(data, size=size), GTA5(data, size=size, cache=Cache(root / "cache"))
    paths = [(plain.image_path(name), plain.label_path(name)) for name in plain.names]
    ways: dict[str, Callable[[int], Any]] = {
        "published": lambda number: published(*paths[number], size),
        "uncached": lambda number: plain[number],
        "cached": lambda number: cached[number],
    }
    time.sleep(max(0.0, 2.5 - (time.time() - paths[-1][1].stat().st_mtime)))  # younger files are hashed every time
    filled = [_timed(cached.__getitem__, number)[0] for number in range(arguments.pairs)]
    check(ways, arguments.pairs)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for turn in range(arguments.rounds):
        for number in range(arguments.pairs):
            first = (turn + number) % len(WAYS)
            for name in WAYS[first:] + WAYS[:first]:
                seconds[name].append(_timed(ways[name], number))
    wall, cpu = ({name: statistics.median(t[clock] for t in seconds[name]) for name in WAYS} for clock in (0, 1))
    return {
        "uncached_speedup": wall["published"] / wall["uncached"],
        "cached_speedup": wall["published"] / wall["cached"],
        "uncached_cpu_speedup": cpu["published"] / cpu["uncached"],
        "cached_cpu_speedup": cpu["published"] / cpu["cached"],
        **{f"{name}_pairs_per_s": 1 / wall[name] for name in WAYS},
        **{f"{name}_cpu_pairs_per_s": 1 / cpu[name] for name in WAYS},
        "filling_pairs_per_s": 1 / statistics.median(filled),
        "mb_per_pair": sum(path.stat().st_size for pair in paths for path in pair) / len(paths) / 1e6,
    }


def _timed(load: Callable[[int], Any], number: int) -> tuple[float, float]:
    """Wall-clock and processor time in seconds."""
    began = time.perf_counter(), time.process_time()
    load(number)
    return time.perf_counter() - began[0], time.process_time() - began[1]


def table(result: dict[str, Any]) -> list[str]:
    names = {
        "published": "published way: PIL, float32, a mask for every class",
        "uncached": "without cache",
        "cached": "from the cache (`--cache`)",
    }
    native, size = ("x".join(map(str, result[key])) for key in ("native", "size"))
    lines = [
        f"{result['pairs']} pairs of {native}, {result['mb_per_pair']:.1f} MB of PNG each, resized to {size}; one "
        f"thread, {result['rounds']} rounds; all three ways give the same bits. Filling the cache runs at "
        f"{result['filling_pairs_per_s']:.1f} pairs/s.",
        "",
        "| | pairs/s | times the published way | pairs/s of CPU time | times the published way |",
        "|---|---|---|---|---|",
    ]
    for way, name in names.items():
        wall, cpu = result.get(f"{way}_speedup", 1.0), result.get(f"{way}_cpu_speedup", 1.0)
        lines.append(
            f"| {name} | {result[f'{way}_pairs_per_s']:.1f} | {wall:.2f} | {result[f'{way}_cpu_pairs_per_s']:.1f} "
            f"| {cpu:.2f} |"
        )
    return lines


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = results.parser(__doc__)
    parser.add_argument("--pairs", type=int, default=3, help="number of different pairs [3]")
    parser.add_argument("--rounds", type=int, default=15, help="times that each way reads all pairs [15]")
    parser.add_argument("--native", type=int, nargs=2, default=(1914, 1052), metavar=("W", "H"), help="[1914 1052]")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 720), metavar=("W", "H"), help="[1280 720]")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    arguments = parse(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as root:
        result = measure(Path(root), arguments)
    result |= {"pairs": arguments.pairs, "rounds": arguments.rounds, "device": device()}
    result |= {"native": list(arguments.native), "size": list(arguments.size)}
    results.report("loader", argv, arguments, result, table(result))


if __name__ == "__main__":
    config.run(lambda: main(sys.argv[1:]))
