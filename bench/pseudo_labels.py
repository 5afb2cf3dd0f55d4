"""Pseudo-labels of 2,975 images of 1024x512, without the network: memory and time of the published way and of ours.

    python bench/pseudo_labels.py             # the last line is one JSON object
    python bench/pseudo_labels.py --write     # also the section of bench/RESULTS.md

Labels and confidences are generated, as smooth as those of a network. `peak_above_base_gib` is the peak memory of the
whole run minus the memory before it. The published way (all labels and confidences stacked in float64, one sort per
class, a loop over the classes for every mask, Pillow) takes 16 bytes per pixel, so the two ways are compared on fewer
images; `speedup` compares the medians of wall-clock time of those rounds. Both go from confidences to files on disk.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from bench import results
from bench.results import device
from bench.timing import interleaved, one_thread, peak_mib
from model.networks.upsampling import best_class
from utils.options import config
from utils.prediction.pseudo_labels import BYTES, LEVELS, Prediction, write_pseudo_labels

CLASSES = 19
Maps = list[tuple[Tensor, Tensor]]
"""Label uint8 and confidence float32 [H, W] of a few images, which stand for all in turn."""


def generate(number: int, size: tuple[int, int]) -> Maps:
    width, height = size
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(number):
        coarse = torch.randn(1, CLASSES, 9, 17, generator=generator)
        fine = torch.randn(1, CLASSES, height // 8 + 1, width // 8 + 1, generator=generator)
        logits = 4 * F.interpolate(coarse, size=fine.shape[2:], mode="bicubic") + fine
        value, label = best_class([logits.softmax(1)], (height, width))
        found.append((label[0], value[0]))
    return found


def ours(maps: Maps, number: int, folder: Path) -> None:
    def predict(chosen: Sequence[int]) -> Iterator[Prediction]:
        for i in chosen:
            label, value = maps[i % len(maps)]
            yield i, label, (value * (LEVELS - 1)).round().to(torch.int32)

    write_pseudo_labels(predict, [f"{i}" for i in range(number)], CLASSES, folder, pixels=maps[0][0].numel())


def published(maps: Maps, number: int, folder: Path) -> None:
    shape = (number, *maps[0][0].shape)
    labels, values = np.zeros(shape), np.zeros(shape)
    for i in range(number):
        label, value = maps[i % len(maps)]
        labels[i], values[i] = label.numpy(), value.numpy()
    thresholds = []
    for c in range(CLASSES):
        ascending = np.sort(values[labels == c])
        thresholds.append(ascending[min(round(0.5 * len(ascending)), len(ascending) - 1)] if len(ascending) else 0.0)
    limits = np.minimum(thresholds, 0.9)
    folder.mkdir(exist_ok=True)
    for i in range(number):
        for c in range(CLASSES):
            labels[i][(values[i] < limits[c]) & (labels[i] == c)] = 255
        Image.fromarray(labels[i].astype(np.uint8)).save(folder / f"{i}.png")


def rss_gib() -> float:
    """What this process holds now; where the system does not say, the most it ever held."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**30 if statm.exists() else peak_gib()


def peak_gib() -> float:
    return peak_mib(torch.device("cpu")) / 2**10


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    one_thread()
    logging.getLogger("bafft").setLevel(logging.WARNING)
    maps = generate(8, arguments.size)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        ours(maps, 2, Path(folder) / "first")
        base = rss_gib()
        began = time.perf_counter(), time.process_time()
        ours(maps, arguments.images, Path(folder) / "all")
        seconds = time.perf_counter() - began[0], time.process_time() - began[1]
        peak = peak_gib() - base  # before the published way takes its own
        few = arguments.twin_images
        ways = {"published": published, "ours": ours}
        times = interleaved(
            {name: partial(way, maps, few, Path(folder) / name) for name, way in ways.items()},
            arguments.rounds,
        )
        pairs = [[np.array(Image.open(Path(folder) / name / f"{i}.png")) for name in ways] for i in range(few)]
    different = np.mean([a != b for a, b in pairs])
    if different > 1e-3:
        raise RuntimeError(f"{100 * different:.2f} % of the pixels differ")
    return {
        "peak_above_base_gib": round(peak, 4),
        "ms_per_image": 1000 * seconds[0] / arguments.images,
        "speedup": times["published"][0] / times["ours"][0],
        "cpu_ms_per_image": 1000 * seconds[1] / arguments.images,
        "cpu_speedup": times["published"][1] / times["ours"][1],
        "twin_images": few,
        "twin_ms_per_image": {name: 1000 * t[0] / few for name, t in times.items()},
        "twin_cpu_ms_per_image": {name: 1000 * t[1] / few for name, t in times.items()},
        "published_arrays_gib": arguments.images * maps[0][0].numel() * 16 / 2**30,
        "disk_gib": arguments.images * maps[0][0].numel() * BYTES / 2**30,
        "different_pixels": float(different),
        "images": arguments.images,
        "size": list(arguments.size),
        "device": device(),
    }


def table(r: dict[str, Any]) -> list[str]:
    ms, cpu = r["twin_ms_per_image"], r["twin_cpu_ms_per_image"]
    return [
        f"{r['images']} images of {r['size'][0]}x{r['size'][1]}, without the network: {r['ms_per_image']:.1f} ms per "
        f"image ({r['cpu_ms_per_image']:.1f} ms CPU), peak memory {r['peak_above_base_gib']:.2f} GiB above the start "
        f"(the published arrays: {r['published_arrays_gib']:.1f} GiB), temporary disk space {r['disk_gib']:.1f} GiB. "
        f"Comparison with the published way on {r['twin_images']} images; medians, taken in turns:",
        "",
        "| way | ms per image | CPU ms per image |",
        "|---|---|---|",
        f"| published | {ms['published']:.1f} | {cpu['published']:.1f} |",
        f"| ours | {ms['ours']:.1f} | {cpu['ours']:.1f} |",
        f"| ratio | {r['speedup']:.2f} | {r['cpu_speedup']:.2f} |",
    ]


def main(argv: Sequence[str]) -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--images", type=int, default=2975, help="images of the whole run [2975]")
    parser.add_argument("--twin-images", type=int, default=32, help="images of the comparison [32]")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds of the comparison [3]")
    parser.add_argument("--folder", help="where to write; removed afterwards [the system's temporary folder]")
    parser.set_defaults(size=(1024, 512))
    arguments = parser.parse_args(argv)
    result = measure(arguments)
    results.report("pseudo_labels", argv, arguments, result, table(result))


if __name__ == "__main__":
    config.run(lambda: main(sys.argv[1:]))
