"""Scoring saved masks at 2048x1024 on one core: the published way, cityscapesScripts' own evaluation, and ours.

    python bench/iou.py             # the last line is one JSON object
    python bench/iou.py --write     # also the section of bench/RESULTS.md

Label maps are street scenes of the built-in generator; predictions are the same maps, randomly distorted. Both are PNG
files as Pillow writes them by default. The published way uses Pillow, a loop over the ids on a float copy, and a
bincount. cityscapesScripts runs its Python path, or its C path if the installed package has it (the releases on PyPI do
not contain its source). The script checks that all three give the same counts. `speedup` compares the medians of
wall-clock time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

import cv2
import numpy as np
import numpy.typing as npt
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from PIL import Image

from bench import results
from bench.results import device
from bench.timing import interleaved, one_thread
from dataset import Cityscapes
from dataset.builtin.domains import CAMERA
from dataset.builtin.write import draw_example
from dataset.classes import CITYSCAPES, CITYSCAPES_IDS, IGNORE
from dataset.reading import read_ids
from utils.options import config
from utils.prediction.saved_masks import count_pairs, counter

Files = tuple[Path, Path, Path]
"""Ground truth in label ids, prediction in train ids, prediction in label ids."""
Matrix = npt.NDArray[np.int64]
LABEL_IDS = [int(np.argmax(c == CITYSCAPES_IDS)) for c in range(CITYSCAPES.num_classes)]


def generate(folder: Path, number: int, size: tuple[int, int]) -> list[Files]:
    width, height = size
    y, x = np.mgrid[:height, :width]
    found = []
    for i in range(number):
        _, truth = draw_example(CAMERA, size, (0, i))
        waves = np.random.default_rng(i).normal(size=(2, height // 16 + 1, width // 16 + 1)).astype(np.float32)
        dx, dy = (
            (0.01 * width * cv2.resize(wave, size, interpolation=cv2.INTER_CUBIC)).astype(np.int64) for wave in waves
        )
        bent = truth[np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1)]
        bent[CITYSCAPES_IDS[bent] == IGNORE] = LABEL_IDS[0]  # a network predicts classes only
        files = folder / f"{i}_truth.png", folder / f"{i}_train_ids.png", folder / f"{i}_label_ids.png"
        for path, ids in zip(files, (truth, CITYSCAPES_IDS[bent], bent), strict=True):
            Image.fromarray(ids).save(path)
        found.append(files)
    return found


def published(files: Sequence[Files]) -> Matrix:
    n = CITYSCAPES.num_classes
    total = np.zeros((n, n), np.int64)
    for truth_file, prediction_file, _ in files:
        ids, prediction = np.array(Image.open(truth_file)), np.array(Image.open(prediction_file))
        truth = ids.astype(float)
        for label_id in range(34):
            truth[ids == label_id] = CITYSCAPES_IDS[label_id]
        a, b = truth.astype(np.int64).ravel(), prediction.ravel()
        valid = (a >= 0) & (a < n)
        total += np.bincount(n * a[valid] + b[valid], minlength=n * n).reshape(n, n)
    return total


def cityscapes_scripts(files: Sequence[Files]) -> Matrix:
    official.args.evalInstLevelScore = False
    total = official.generateMatrix(official.args)
    for truth, _, prediction in files:
        official.evaluatePair(str(prediction), str(truth), total, {}, {}, official.args)
    return total.astype(np.int64)[np.ix_(LABEL_IDS, LABEL_IDS)]


def ours(files: Sequence[Files], workers: int = 1) -> Matrix:
    count = counter(Cityscapes, CITYSCAPES, truth_ids="label", predicted_ids="train")
    pairs = [(truth, prediction) for truth, prediction, _ in files]
    return np.sum([seen.by_class for seen in count_pairs(count.seen, pairs, workers)], axis=0)[:, :-1]


def decode(files: Sequence[Files]) -> None:
    for truth, prediction, _ in files:
        read_ids(truth)
        read_ids(prediction)


def decode_with_pillow(files: Sequence[Files]) -> None:
    for truth, prediction, _ in files:
        np.array(Image.open(truth))
        np.array(Image.open(prediction))


WAYS = {
    "published": published,
    "cityscapesscripts": cityscapes_scripts,
    "ours": ours,
    "decoding": decode,
    "decoding_pillow": decode_with_pillow,
}
TITLES = {
    "published": "published way",
    "cityscapesscripts": "cityscapesScripts ({} path)",
    "ours": "ours",
    "decoding": "only decoding, our decoder",
    "decoding_pillow": "only decoding, Pillow",
}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    one_thread()
    with tempfile.TemporaryDirectory() as folder:
        files = generate(Path(folder), arguments.pairs, arguments.size)
        expected = published(files)
        for way in (cityscapes_scripts, ours):
            if not np.array_equal(way(files), expected):
                raise RuntimeError(f"{way.__name__} counts otherwise than the published way")
        times = interleaved({name: partial(way, files) for name, way in WAYS.items()}, arguments.rounds)
        many = files * max(1, 48 // len(files))
        seconds = []
        for workers in (1, arguments.workers):
            began = time.perf_counter()
            ours(many, workers)
            seconds.append(time.perf_counter() - began)
    wall, cpu = ({name: t[clock] / len(files) for name, t in times.items()} for clock in (0, 1))
    return {
        "speedup": wall["published"] / wall["ours"],
        "speedup_cityscapesscripts": wall["cityscapesscripts"] / wall["ours"],
        "cpu_speedup": cpu["published"] / cpu["ours"],
        "cpu_speedup_cityscapesscripts": cpu["cityscapesscripts"] / cpu["ours"],
        "pairs_per_s": {name: 1 / value for name, value in wall.items()},
        "cpu_ms_per_pair": {name: 1000 * value for name, value in cpu.items()},
        "workers": arguments.workers,
        "workers_speedup": seconds[0] / seconds[1],
        "cityscapesscripts_path": "C" if official.CSUPPORT else "Python",
        "size": list(arguments.size),
        "device": device(),
    }


def table(r: dict[str, Any]) -> list[str]:
    lines = [
        f"Pairs of {r['size'][0]}x{r['size'][1]} on one core; medians, taken in turns; all ways give the same counts. "
        f"With {r['workers']} processes on {r['workers']} or fewer free cores, ours is {r['workers_speedup']:.2f} "
        "times as fast as with one.",
        "",
        "| way | pairs/s | CPU ms per pair | times that ours is faster, wall | CPU |",
        "|---|---|---|---|---|",
    ]
    for name, title in TITLES.items():
        rate, cpu = r["pairs_per_s"], r["cpu_ms_per_pair"]
        lines.append(
            f"| {title.format(r['cityscapesscripts_path'])} | {rate[name]:.1f} | {cpu[name]:.1f} "
            f"| {rate['ours'] / rate[name]:.2f} | {cpu[name] / cpu['ours']:.2f} |"
        )
    return [
        *lines,
        "",
        f"cityscapesScripts decodes with Pillow: even if its counting took no time, compiled or not, it would need "
        f"{cpu['decoding_pillow'] / cpu['ours']:.1f} times our CPU time.",
    ]


def main(argv: Sequence[str]) -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--pairs", type=int, default=6, help="generated pairs of files [6]")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each way [5]")
    parser.add_argument("--workers", type=int, default=2, help="processes to compare with one [2]")
    parser.set_defaults(size=(2048, 1024))
    arguments = parser.parse_args(argv)
    result = measure(arguments)
    results.report("iou", argv, arguments, result, table(result))


if __name__ == "__main__":
    config.run(lambda: main(sys.argv[1:]))
