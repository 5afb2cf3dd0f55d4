"""What one kind of training iteration costs, compared with another.

    python bench/iteration.py --stage 1 --json result/iteration1.json     # ResNet-101, 320x180 and 256x128
    python bench/iteration.py --stage 2 --json result/iteration2.json
    python bench/iteration.py --stage 2 --compare plus full --json result/iteration_plus.json
    python bench/iteration.py --stage 2 --compare crops plus --json result/iteration_crops.json
    python bench/iteration.py --table result/iteration*.json              # the section of bench/RESULTS.md

The kinds of iteration are `full` (the paper's, with all terms), `plain` (without category and instance terms) and, in
stage 2, `plus` (`--method plus` as the preset has it) and `crops` (plus with `--high-resolution-crops`, on images of
twice the size and with a segmenter of its own; its predictions are not forced, because no term of plus counts regions).

The worst case is forced: the logits are shifted so that, in both domains, argmax gives a map with all stuff classes and
`--components` components of every thing class; every source pixel is predicted correctly; the memory is full and ready.
(How many means the classifier accepts does not change the amount of work, because acceptance is a mask.) An iteration
is that of the Trainer, including the optimisers. The two kinds alternate in one process and share the segmenter if
they can; peak memory is measured in one process per kind. The last line is one JSON object. `ratio` compares the
medians of wall-clock time, `cpu_ratio` those of the processor time of all threads, which other programs on the machine
disturb less.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.system.machine import set_up  # before torch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.results import device, write_section
from bench.timing import RETURNING_MEMORY, in_new_process, peak_mib
from dataset.base import SegmentationDataset
from dataset.classes import CITYSCAPES
from model.methods.bafft import Batch
from model.methods.base import Method
from model.networks.deeplab import BACKBONES, DeepLab
from model.networks.high_resolution import read_size
from model.terms.memory import RingBuffers
from utils.options import config
from utils.options.presets import PRESETS
from utils.options.table import Options
from utils.setup import networks
from utils.training.trainer import Data, Trainer

KINDS: dict[str, dict[str, Any]] = {
    "full": {"method": "paper"},
    "plain": {"method": "paper", "lambda_adv_cls": 0.0, "lambda_adv_ins": 0.0, "lambda_adv_cate": 0.0},
    "plus": {"method": "plus"},
    "crops": {"method": "plus", "high_resolution_crops": True},
}
OF_STAGE_2 = {"plus", "crops"}
Size = tuple[int, int]


def forced_map(height: int, width: int, components: int) -> Tensor:
    """[height, width] train ids: `components` 8-connected components of every thing class, and every stuff class.

    The map is cut into cells, things in turn and the rest stuff, with so many cells per row that no cell touches
    another of its class. Raises ValueError if they do not fit.
    """
    things, stuff = CITYSCAPES.things, CITYSCAPES.stuff
    needed = components * len(things) + len(stuff)
    for columns in range(max(1, math.ceil(math.sqrt(needed * width / height))), width + 1):
        rows = math.ceil(needed / columns)
        if rows <= height and columns % len(things) not in (0, 1, len(things) - 1):
            break
    else:
        raise ValueError(f"{components} components of {len(things)} classes do not fit on a {width}x{height} map")
    cell = (torch.arange(height) * rows // height)[:, None] * columns + torch.arange(width) * columns // width
    rest = (cell - components * len(things)).clamp_min(0)
    is_thing = cell < components * len(things)
    return torch.where(is_thing, torch.tensor(things)[cell % len(things)], torch.tensor(stuff)[rest % len(stuff)])


def fitting_map(height: int, width: int, components: int) -> Tensor:
    """`forced_map` with as many components as fit, at most `components`."""
    for number in range(components, 0, -1):
        try:
            return forced_map(height, width, number)
        except ValueError:
            continue
    raise ValueError(f"a {width}x{height} feature map has no room for one component a class; use larger images")


def enlarged(small: Tensor, size: Size) -> Tensor:
    """Labels [H, W] of an image of `size` (W, H) that give `small` [h, w] when resized as training does (nearest)."""

    def cell(length: int, cells: int) -> Tensor:
        pixels = torch.arange(length, dtype=torch.float32)[None, None]
        sampled = F.interpolate(pixels, size=cells, mode="nearest")[0, 0]
        return torch.searchsorted(sampled, pixels[0, 0], right=True) - 1

    return small[cell(size[1], small.shape[0])][:, cell(size[0], small.shape[1])]


class ForcedLogits:
    """Forward hook of the segmenter: shifts the logits so that argmax gives the map of their size."""

    def __init__(self, components: int) -> None:
        self.components = components
        self._masks: dict[torch.Size, Tensor] = {}

    @torch.compiler.disable
    def __call__(self, module: nn.Module, args: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        features, logits = output
        height, width = size = logits.shape[2:]
        if size not in self._masks:
            chosen = fitting_map(height, width, self.components)
            self._masks[size] = F.one_hot(chosen, logits.shape[1]).permute(2, 0, 1).to(logits)
        lift = logits.detach().amax() - logits.detach().amin() + 1
        return features, logits + lift * self._masks[size]


def fill(buffers: RingBuffers) -> None:
    """Make every buffer full and ready, with vectors like features behind a ReLU."""
    entries = torch.rand_like(buffers.entries)
    buffers.load_state_dict({"entries": entries, "count": torch.full_like(buffers.count, buffers.size + 1)})


def fill_memory(method: Method) -> None:
    """Make the source memory of a method full and ready, if it has one."""
    memory = getattr(method, "memory", None)
    if memory is not None:
        fill(memory.stuff)
        fill(memory.things)


def forced_batch(segmenter: DeepLab, size: Size, components: int, number: int = 1) -> Batch:
    """Random images of `size` (W, H), and labels that agree with the forced map, on the segmenter's device."""
    device = segmenter.input_mean.device
    image = torch.randint(256, (number, 3, size[1], size[0]), dtype=torch.uint8, device=device)
    with torch.no_grad():
        height, width = segmenter(image)[1].shape[2:]
    label = enlarged(fitting_map(height, width, components), size).to(device, torch.uint8)
    return {"image": image, "label": label.expand(number, -1, -1).contiguous()}


class Case:
    """A segmenter with forced predictions, and the trainers and batches of the kinds of iteration asked for."""

    def __init__(self, arguments: argparse.Namespace, kinds: Sequence[str]) -> None:
        stage = f"step{arguments.stage}"
        self.options = {kind: _options(arguments, stage, kind) for kind in kinds}
        set_up(self.options[kinds[0]])
        shared: dict[bool, tuple[DeepLab, Batch, Batch]] = {}
        self.batches: dict[str, tuple[Batch, Batch]] = {}
        # Of its data a trainer reads the class table, and whether there is a target at all.
        data = Data(*[cast(SegmentationDataset, SimpleNamespace(table=CITYSCAPES))] * 2)
        self.trainers: dict[str, Trainer] = {}
        for kind, own in self.options.items():
            crops = own.high_resolution_crops
            if crops not in shared:
                shared[crops] = _segmenter_and_batches(own, arguments.components)
            segmenter, *batches = shared[crops]
            self.batches[kind] = (batches[0], batches[1])
            self.device = segmenter.input_mean.device
            method = networks.method(own, stage, segmenter, CITYSCAPES)
            method.set_training_mode()
            fill_memory(method)
            self.trainers[kind] = Trainer(own, method, data)
            self.trainers[kind].steps = 1  # the terms start at the second iteration of a run

    def iterate(self, kind: str) -> tuple[float, float]:
        """One iteration: wall-clock and processor time in seconds."""
        batches = repeat(self.batches[kind])
        self._synchronise()
        began = time.perf_counter(), time.process_time()
        losses = self.trainers[kind].step(batches)
        self._synchronise()
        seconds = time.perf_counter() - began[0], time.process_time() - began[1]
        bad = [name for name, value in losses.items() if not value.isfinite()]
        if bad:
            raise RuntimeError(f"{kind} iteration: {', '.join(bad)} not finite, so that its time says nothing")
        return seconds

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _segmenter_and_batches(options: Options, components: int) -> tuple[DeepLab, Batch, Batch]:
    """A segmenter whose predictions are forced from now on, and a batch of each domain."""
    segmenter = networks.segmenter(options, frozenset(), CITYSCAPES)
    source, target = (
        forced_batch(segmenter, read_size(size, options.high_resolution_crops), components)
        for size in (options.input_size, options.input_size_target)
    )
    segmenter.register_forward_hook(ForcedLogits(components))
    return segmenter, source, target


def _options(arguments: argparse.Namespace, stage: str, kind: str) -> Options:
    given: dict[str, Any] = {
        "preset": arguments.preset,
        "backbone": arguments.backbone,
        "restore_from": "none",
        "input_size": arguments.source_size,
        "input_size_target": arguments.target_size,
        "amp": arguments.amp,
        "cpu": arguments.cpu,
        "class_balance": 0.0,  # it would need the counts of a data set
    }
    return config.resolve(stage, given | KINDS[kind])


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians over the pairs, after one pair that does not count."""
    kinds = arguments.compare
    case = Case(arguments, kinds)
    seconds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for pair in range(arguments.pairs + 1):
        for kind in kinds if pair % 2 else reversed(kinds):
            seconds[kind].append(case.iterate(kind))
    wall, cpu = ([statistics.median(times[clock] for times in seconds[kind][1:]) for kind in kinds] for clock in (0, 1))
    return {"ratio": wall[0] / wall[1], "s": wall, "cpu_ratio": cpu[0] / cpu[1], "cpu_s": cpu}


def peak_of(arguments: argparse.Namespace, kind: str) -> float:
    """Peak memory of this process (or of the GPU, if there is one) after two iterations of one kind."""
    case = Case(arguments, (kind,))
    for _ in range(2):  # the optimisers' states come with the first step
        case.iterate(kind)
    return peak_mib(case.device)


def peaks(arguments: argparse.Namespace, argv: Sequence[str]) -> dict[str, Any]:
    """Peak memory of both kinds, each in its own process. It comes before this process builds anything."""
    found = []
    environment = os.environ | RETURNING_MEMORY
    for kind in arguments.compare:
        found.append(in_new_process(__file__, *argv, "--peak-of", kind, environment=environment)["peak_mib"])
    return {"peak_ratio": found[0] / found[1], "peak_mib": found}


def table(results: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "One kind of iteration is compared with another. `full`: the paper's; `plain`: without the category and "
        "instance terms; `plus`: `--method plus`; `crops`: with `--high-resolution-crops` too. Predictions and memory "
        "are forced so that all terms do as much work as possible. Medians of the wall-clock time and of the CPU time "
        "of all threads (which other programs disturb less), and peak memory of the process, or of the GPU if there is "
        "one.",
        "",
        "| stage, network, source / target | kinds | pairs | wall | ratio | CPU time | ratio "
        "| peak | ratio | machine |",
        "|---" * 10 + "|",
    ]
    for r in results:
        sizes = " / ".join("x".join(map(str, r[f"{domain}_size"])) for domain in ("source", "target"))
        wall, cpu = (" / ".join(f"{value:.3f}" for value in r[key]) + " s" for key in ("s", "cpu_s"))
        peak = " / ".join(f"{value:.0f}" for value in r["peak_mib"]) + " MiB"
        lines.append(
            f"| {r['stage']}, {r['backbone']}, {sizes} | {' / '.join(r['compare'])} | {r['pairs']} "
            f"| {wall} | {r['ratio']:.3f} | {cpu} | {r['cpu_ratio']:.3f} | {peak} | {r['peak_ratio']:.3f} "
            f"| {r['device']}, {r['threads']} threads |"
        )
    return [*lines, "", *(f"- `{r['command']}`" for r in results)]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="gta5_to_cityscapes")
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet101")
    parser.add_argument("--source-size", type=size_of, default=(320, 180), metavar="W,H")
    parser.add_argument("--target-size", type=size_of, default=(256, 128), metavar="W,H")
    parser.add_argument("--stage", type=int, choices=(1, 2), default=1)
    parser.add_argument(
        "--compare", nargs=2, choices=KINDS, default=("full", "plain"), metavar="KIND", help="two kinds [full plain]"
    )
    parser.add_argument("--components", type=int, default=12, help="components of each thing class, if they fit [12]")
    parser.add_argument("--pairs", type=int, default=5, help="measured iterations of each kind [5]")
    parser.add_argument("--amp", choices=("off", "bf16", "fp16"), default="off", help="mixed precision")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--json", nargs="?", const="", metavar="FILE", help="print only the JSON line; save it in FILE")
    parser.add_argument(
        "--table", nargs="+", type=Path, metavar="FILE", help="write the section of RESULTS.md from these"
    )
    parser.add_argument("--peak-of", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    found = OF_STAGE_2.intersection(arguments.compare)
    if found and arguments.stage == 1:
        parser.error(f"--compare: found {sorted(found)[0]} in stage 1, expected it only in stage 2: give --stage 2")
    return arguments


def size_of(text: str) -> Size:
    try:
        width, height = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected W,H such as 320,180") from None
    return width, height


def run(argv: Sequence[str]) -> dict[str, Any]:
    arguments = parse(argv)
    settings = {
        name: getattr(arguments, name) for name in ("stage", "backbone", "compare", "components", "pairs", "amp")
    }
    return {
        **peaks(arguments, argv),
        **measure(arguments),
        **settings,
        "source_size": arguments.source_size,
        "target_size": arguments.target_size,
        "threads": torch.get_num_threads(),
        "device": device(),
        "command": " ".join(["python bench/iteration.py", *argv]),
    }


def main(argv: Sequence[str]) -> None:
    arguments = parse(argv)
    if arguments.peak_of:
        print(json.dumps({"peak_mib": peak_of(arguments, arguments.peak_of)}))
        return
    if arguments.table:
        files = " ".join(map(str, arguments.table))
        results = [json.loads(path.read_text()) for path in arguments.table]
        lines, gpu = table(results), all("NVIDIA" in result["device"] for result in results)
        write_section("iteration gpu" if gpu else "iteration", f"python bench/iteration.py --table {files}", lines)
        print("\n".join(lines))
        return
    result = run(argv)
    if arguments.json:
        Path(arguments.json).parent.mkdir(parents=True, exist_ok=True)
        Path(arguments.json).write_text(json.dumps(result) + os.linesep)
    if arguments.json is None:
        print("\n".join(table([result])))
    print(json.dumps(result))


if __name__ == "__main__":
    config.run(lambda: main(sys.argv[1:]))
