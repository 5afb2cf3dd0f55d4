"""How fast a training iteration is, what memory it takes, and what each option for speed or memory gives.

    python bench/train_speed.py          # on a GPU: both stages at full size, every precision, batch 1, 2 and 4
    python bench/train_speed.py          # without one: each option on and off, 320x180 and 256x128
    python bench/train_speed.py --compile no reduce-overhead --amp bf16 --batch 1     # on a GPU: what compiling gives
    python bench/train_speed.py --table bench/scores/train_speed/*.json    # the full cases of files that were kept
    python bench/train_speed.py --help   # other networks, sizes, precisions, batches

Either way, the script writes a section of bench/RESULTS.md, and all figures to result/train_speed.json.

On a GPU each case runs in its own process, with the iterations and the loader of the Trainer, on synthetic images in
files of GTA5's and Cityscapes' sizes. Predictions are forced and the source memory is full, so that every term does as
much work as possible (bench/iteration.py). `data wait` is the time that an iteration waits for the loader; `GPU busy`
is the sum over its kernels, so that the rest is the time in which the GPU waits for the CPU. PyTorch counts the
operations of the convolutions. They are given as a share of the card's rate for dense matrices in that precision,
according to NVIDIA's data sheets; for a card that is not in the table, a large matrix product is measured.

Without a GPU, the iterations with and without an option take turns in one process, on the same images. The table
compares medians of the wall-clock time and of the processor time, which other programs disturb less. `kept` is what
autograd holds after the forward pass of a source batch, without the parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.system.machine import set_up  # before torch

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.iteration import ForcedLogits, fill_memory, forced_batch, size_of
from bench.loader import draw_pairs
from bench.results import device, write_section
from dataset import GTA5
from dataset.base import SegmentationDataset
from dataset.classes import CITYSCAPES
from model.methods.bafft import Batch
from model.networks.deeplab import BACKBONES
from utils.options import config
from utils.setup import networks
from utils.system.files import write_json
from utils.training.trainer import Data, Trainer

COMPONENTS = 12
NATIVE = ((1914, 1052), (2048, 1024))
Batches = Iterator[tuple[Batch, Batch | None]]

# Dense TFLOP/s: TF32, in which cuDNN computes float32 convolutions, and bfloat16 or float16.
CARDS = {"H200": (494.7, 989.4), "H100": (494.7, 989.4), "A100": (156.0, 312.0), "L40S": (183.0, 362.0)}

# What is compared without a GPU: an option's values, and those beside it.
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "channels-last": ({"channels_last": True}, {"channels_last": False}),
    "checkpoint-activations": ({"checkpoint_activations": True}, {}),
    "norm inplace-abn": ({"norm": "inplace-abn"}, {}),
    "amp bf16": ({"amp": "bf16"}, {}),
    "compile": ({"compile": True}, {}),
}

# Where the time goes: how the names of a part's operations begin.
PARTS = {
    "convolutions, forward": ("aten::mkldnn_convolution", "aten::cudnn_convolution", "aten::_slow_conv"),
    "convolutions, backward": ("aten::convolution_backward",),
    "BatchNorm": ("aten::native_batch_norm", "aten::cudnn_batch_norm", "InPlaceABN"),
    "soft-max and up-sampling": ("aten::_softmax", "aten::_log_softmax", "aten::upsample", "aten::exp"),
    "matrix products": ("aten::mm", "aten::bmm", "aten::addmm", "aten::_cdist"),
    "optimisers": ("aten::_fused",),
}


class Convolutions(TorchDispatchMode):
    """Counts the operations of convolutions, forward and backward (two for each multiplication and addition).

    By PyTorch's formulas; its own counter follows modules by hooks, which fail under a backward pass inside another.
    """

    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.convolution, torch.ops.aten.convolution_backward):
            self.operations += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


class Case:
    """A trainer whose predictions are forced and whose source memory is full, and a pair of batches for it."""

    def __init__(self, stage: int, given: dict[str, Any], data: Data | None = None) -> None:
        options = config.resolve(f"step{stage}", given)
        set_up(options)
        self.segmenter = networks.segmenter(options, frozenset(), CITYSCAPES)
        self.device = self.segmenter.input_mean.device
        self.batches = cast(
            tuple[Batch, Batch],
            tuple(
                forced_batch(self.segmenter, size, COMPONENTS, options.batch_size)
                for size in (options.input_size, options.input_size_target)
            ),
        )
        # Without a loader a trainer reads of its data the class table, and whether there is a target at all.
        without = Data(*[cast(SegmentationDataset, SimpleNamespace(table=CITYSCAPES))] * 2)
        method = networks.method(options, f"step{stage}", self.segmenter, CITYSCAPES)
        method.set_training_mode()
        fill_memory(method)
        self.trainer = Trainer(options, method, data or without)
        self.trainer.steps = 1  # the terms start at the second iteration of a run
        self.segmenter.register_forward_hook(ForcedLogits(COMPONENTS))

    def iterate(self, batches: Batches | None = None) -> dict[str, Tensor]:
        return self.trainer.step(batches or repeat(self.batches))

    def timed(self) -> tuple[float, float]:
        """Wall-clock and processor time of an iteration, in seconds."""
        self.synchronise()
        began = time.perf_counter(), time.process_time()
        losses = self.iterate()
        self.synchronise()
        seconds = time.perf_counter() - began[0], time.process_time() - began[1]
        check_finite(losses)
        return seconds

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def convolution_tflop(self) -> float:
        """Of one iteration, forward and backward; what `--checkpoint-activations` computes again does not count."""
        again, self.segmenter.checkpoint_activations = self.segmenter.checkpoint_activations, False
        with Convolutions() as counted:
            self.iterate()
        self.segmenter.checkpoint_activations = again
        return counted.operations / 1e12

    def kept_mib(self) -> float:
        """What autograd holds after the forward pass of the source batch, parameters aside."""
        storages: dict[int, int] = {}
        parameters = {p.untyped_storage().data_ptr() for p in self.segmenter.parameters()}

        def note(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        dtype = self.trainer.precision.autocast
        autocast = torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)
        with autocast, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            outputs = self.segmenter(self.batches[0]["image"])
        del outputs
        return sum(size for storage, size in storages.items() if storage not in parameters) / 2**20

    def profiled(self) -> dict[str, Any]:
        """One iteration in parts: the share of the time by kind of operation, on the GPU if there is one, where the
        number of kernels and the sum of their times are counted too."""
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (self.device.type == "cuda")
        with profile(activities=activities) as recorded:
            self.iterate()
            self.synchronise()
        clock = "self_device_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
        seconds = dict.fromkeys([*PARTS, "everything else"], 0.0)
        kernels, busy = 0, 0.0
        for event in recorded.key_averages():
            if event.device_type != DeviceType.CPU:  # its time also counts for the operation that launched it
                kernels, busy = kernels + event.count, busy + float(event.self_device_time_total)
                continue
            part = next((part for part, starts in PARTS.items() if event.key.startswith(starts)), "everything else")
            seconds[part] += float(getattr(event, clock))
        shares = {part: value / max(sum(seconds.values()), 1e-9) for part, value in seconds.items()}
        return {"parts": shares} | ({"kernels": kernels, "busy_ms": busy / 1000} if kernels else {})


def check_finite(losses: dict[str, Tensor]) -> None:
    bad = [name for name, value in losses.items() if not value.isfinite()]
    if bad:
        raise RuntimeError(f"{', '.join(bad)} not finite, so that the time says nothing")


# ---------------------------------------------------------------- full cases, one process each


def full_case(
    arguments: argparse.Namespace, stage: int, method: str, compile: str, amp: str, batch: int, images: Path
) -> dict[str, Any]:
    """Rates, memory, waiting and operations of one case, with the Trainer's own loader."""
    given = _given(arguments) | {"method": method, "amp": amp, "batch_size": batch, "num_workers": arguments.workers}
    given |= {"checkpoint_activations": arguments.checkpoint_activations}
    if compile != "no":
        given |= {"compile": True, "compile_mode": compile}
    sizes = (arguments.source_size, arguments.target_size)
    readers = [GTA5(images / name, size=size) for name, size in zip(("source", "target"), sizes)]
    case = Case(stage, given, Data(*readers))
    waited = 0.0

    def batches() -> Batches:
        nonlocal waited
        loader = case.trainer._batches()
        while True:
            began = time.perf_counter()
            source, target = next(loader)
            waited += time.perf_counter() - began
            yield source | {"label": case.batches[0]["label"]}, target

    feed = batches()
    for _ in range(arguments.warmup):
        losses = case.iterate(feed)
    case.synchronise()
    if case.device.type == "cuda":  # cuDNN tries algorithms with any workspace that fits
        torch.cuda.reset_peak_memory_stats(case.device)
    waited, began = 0.0, time.perf_counter()
    for _ in range(arguments.iterations):
        losses = case.iterate(feed)
    case.synchronise()
    seconds = (time.perf_counter() - began) / arguments.iterations
    check_finite(losses)
    memory = torch.cuda.max_memory_allocated(case.device) / 2**30 if case.device.type == "cuda" else None
    tflop = case.convolution_tflop()
    rate, whose = _card_rate(case.device, amp)
    return {
        "ms": 1000 * seconds,
        "iterations_per_s": 1 / seconds,
        "images_per_s": 2 * batch / seconds,
        "peak_gib": memory,
        "data_wait_ms": 1000 * waited / arguments.iterations,
        "convolution_tflop": tflop,
        "card_tflop_per_s": rate,
        "card_rate": whose,
        "share": tflop / seconds / rate,
        **case.profiled(),
    }


def _card_rate(where: torch.device, amp: str) -> tuple[float, str]:
    """TFLOP/s to compare with, and where the figure is from."""
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else ""
    for card, rates in CARDS.items():
        if card in name:
            return rates[amp != "off"], f"data sheet of the {card}"
    side, dtype = (8192 if where.type == "cuda" else 1024), {"bf16": torch.bfloat16, "fp16": torch.float16}.get(amp)
    a = torch.randn(side, side, device=where, dtype=dtype)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        float((a @ a)[0, 0])
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds) / 1e12, f"a matrix product of {side}x{side}, measured"


def full_cases(arguments: argparse.Namespace, argv: Sequence[str]) -> list[dict[str, Any]]:
    """Every stage, precision and batch; a case that fails (memory) is one line with the reason."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name, native in zip(("source", "target"), arguments.native):
            draw_pairs(Path(folder) / name, arguments.images, native)
        names = ("stage", "method", "compile", "amp", "batch")
        for values in product(*(getattr(arguments, name) for name in names)):
            case = dict(zip(names, values, strict=True))
            if case["method"] == "plus" and case["stage"] == 1:
                continue
            command = [sys.executable, str(Path(__file__).resolve()), *argv]
            command += ["--case", json.dumps(case), "--images-in", folder]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["killed"])[-1]
                results.append(case | {"failed": "out of memory" if "memory" in reason else reason})
            else:
                results.append(case | json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(results[-1]), flush=True)
    return results


# Heading, key and format of a column; a kept result may lack some.
COLUMNS = (
    ("ms / iteration", "ms", "{:.1f}"),
    ("GPU busy", "busy_ms", "{:.1f} ms"),
    ("kernels", "kernels", "{}"),
    ("images/s", "images_per_s", "{:.1f}"),
    ("peak memory", "peak_gib", "{:.1f} GiB"),
    ("data wait", "data_wait_ms", "{:.1f} ms"),
    ("convolutions", "convolution_tflop", "{:.2f} TFLOP"),
    ("share of the card", "share", "{:.0%}"),
)


def full_table(results: Sequence[dict[str, Any]]) -> list[str]:
    headings = ["stage", "method", "compiled", "precision", "batch", *(heading for heading, *_ in COLUMNS)]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for r in results:
        cells = [f"{r[key]}" for key in ("stage", "method", "compile", "amp", "batch")]
        if "failed" in r:
            cells += [r["failed"], *[""] * (len(COLUMNS) - 1)]
        else:
            cells += ["–" if r.get(key) is None else form.format(r[key]) for _, key, form in COLUMNS]
        lines.append(f"| {' | '.join(cells)} |")
    rates = sorted(
        {f"{r['amp']}: {r['card_tflop_per_s']:.4g} TFLOP/s ({r['card_rate']})" for r in results if "card_rate" in r}
    )
    if rates:
        lines += ["", f"Share of: {'; '.join(rates)}."]
    parts = {_name(r): r["parts"] for r in results if "parts" in r}
    return [*lines, "", *_parts_table(parts)] if parts else lines


def kept_tables(paths: Sequence[Path]) -> list[str]:
    """The tables of files that earlier runs wrote."""
    lines = []
    for path in paths:
        kept = json.loads(path.read_text())
        lines += [f"{kept['device']}, `{kept['command']}`{kept.get('note', '')}:", "", *full_table(kept["results"]), ""]
    return lines[:-1]


def _name(result: dict[str, Any]) -> str:
    return ", ".join(str(result[key]) for key in ("stage", "method", "compile", "amp", "batch"))


def _parts_table(columns: dict[str, dict[str, float]]) -> list[str]:
    names = list(columns)
    lines = [f"| where the time goes | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for part in [*PARTS, "everything else"]:
        lines.append(f"| {part} | {' | '.join(f'{100 * columns[name][part]:.0f} %' for name in names)} |")
    return lines


# ---------------------------------------------------------------- options, side by side


def side_by_side(arguments: argparse.Namespace, stage: int, option: str) -> dict[str, Any]:
    """Medians with and without an option, taken in turns; for an option that does not run here, the reason."""
    try:
        return {"stage": stage, "option": option, **_side_by_side(arguments, stage, option)}
    except Exception as error:  # whatever a missing package or compiler raises
        return {"stage": stage, "option": option, "failed": (str(error).splitlines() or [repr(error)])[0]}


def _side_by_side(arguments: argparse.Namespace, stage: int, option: str) -> dict[str, Any]:
    cases = [Case(stage, _given(arguments) | values) for values in OPTIONS[option]]
    cases[0].batches = cases[1].batches
    for case in cases:
        case.iterate()
    seconds: tuple[list[tuple[float, float]], ...] = ([], [])
    for turn in range(arguments.iterations):
        for which in (0, 1) if turn % 2 else (1, 0):
            seconds[which].append(cases[which].timed())
    wall, cpu = ([statistics.median(t[clock] for t in times) for times in seconds] for clock in (0, 1))
    kept = [case.kept_mib() for case in cases] if option != "compile" else [None, None]
    return {
        **{"with_s": wall[0], "without_s": wall[1], "ratio": wall[0] / wall[1]},
        **{"with_cpu_s": cpu[0], "without_cpu_s": cpu[1], "cpu_ratio": cpu[0] / cpu[1]},
        **{"with_kept_mib": kept[0], "without_kept_mib": kept[1]},
    }


def options_compared(arguments: argparse.Namespace) -> dict[str, Any]:
    results, parts = [], {}
    for stage in arguments.stage:
        for option in arguments.options:
            results.append(side_by_side(arguments, stage, option))
            print(json.dumps(results[-1]), flush=True)
        case = Case(stage, _given(arguments))
        case.iterate()
        parts[f"step {stage}"] = case.profiled()["parts"]
    return {"options": results, "parts": parts}


def options_table(arguments: argparse.Namespace, found: dict[str, Any]) -> list[str]:
    sizes = " / ".join("x".join(map(str, size)) for size in (arguments.source_size, arguments.target_size))
    lines = [
        f"{arguments.backbone}, {sizes}, batch {arguments.batch[0]}, {torch.get_num_threads()} threads, medians of "
        f"{arguments.iterations} iterations, taken in turns.",
        "",
        "| stage | option | with | without | ratio | CPU time, with | without | ratio | kept, with | without |",
        "|---" * 10 + "|",
    ]
    for r in found["options"]:
        if "failed" in r:
            lines.append(f"| {r['stage']} | `--{r['option']}` | does not run here: {r['failed']} |" + " |" * 7)
            continue
        kept = ["–" if r[key] is None else f"{r[key]:.0f} MiB" for key in ("with_kept_mib", "without_kept_mib")]
        lines.append(
            f"| {r['stage']} | `--{r['option']}` | {r['with_s']:.3f} s | {r['without_s']:.3f} s | {r['ratio']:.2f} "
            f"| {r['with_cpu_s']:.3f} s | {r['without_cpu_s']:.3f} s | {r['cpu_ratio']:.2f} | {' | '.join(kept)} |"
        )
    return [*lines, "", *_parts_table(found["parts"])]


# ---------------------------------------------------------------- command line


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "backbone": arguments.backbone,
        "restore_from": "none",
        "input_size": arguments.source_size,
        "input_size_target": arguments.target_size,
        "batch_size": arguments.batch[0],
        "cpu": arguments.cpu,
        "class_balance": 0.0,
    }


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--full", action=argparse.BooleanOptionalAction, help="full cases [if there is a GPU]")
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet101")
    parser.add_argument("--source-size", type=size_of, metavar="W,H", help="[1280,720 in full cases, else 320,180]")
    parser.add_argument("--target-size", type=size_of, metavar="W,H", help="[1024,512 in full cases, else 256,128]")
    parser.add_argument("--stage", type=int, nargs="+", choices=(1, 2), default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", help="[1 2 4 in full cases, else 1]")
    parser.add_argument("--iterations", type=int, help="that count [50 in full cases, else 5]")
    parser.add_argument("--json", type=Path, default=Path("result/train_speed.json"), metavar="FILE")
    parser.add_argument("--results", action=argparse.BooleanOptionalAction, default=True, help="write RESULTS.md")
    full = parser.add_argument_group("full cases")
    full.add_argument("--amp", nargs="+", choices=("off", "bf16", "fp16"), default=["off", "bf16", "fp16"])
    full.add_argument("--checkpoint-activations", action="store_true")
    full.add_argument("--method", nargs="+", choices=("paper", "plus"), default=["paper"], help="plus in stage 2 only")
    full.add_argument(
        "--compile", nargs="+", choices=("no", "default", "reduce-overhead"), default=["no"], help="--compile-mode"
    )
    full.add_argument("--table", nargs="+", type=Path, metavar="FILE", help="only write the section from such files")
    full.add_argument("--warmup", type=int, default=10, help="iterations before those that count [10]")
    workers = max(1, (os.cpu_count() or 1) // 2)
    full.add_argument("--workers", type=int, default=workers, help="processes that read a domain's images [cores / 2]")
    full.add_argument("--images", type=int, default=16, help="drawn images of a domain [16]")
    full.add_argument("--native", type=size_of, nargs=2, default=NATIVE, help="their sizes, W,H W,H")
    full.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    full.add_argument("--images-in", type=Path, help=argparse.SUPPRESS)
    beside = parser.add_argument_group("options side by side")
    beside.add_argument("--options", nargs="+", choices=tuple(OPTIONS), default=list(OPTIONS))
    arguments = parser.parse_args(argv)
    if arguments.full is None:
        arguments.full = torch.cuda.is_available() and not arguments.cpu
    usual = ((1280, 720), (1024, 512), [1, 2, 4], 50) if arguments.full else ((320, 180), (256, 128), [1], 5)
    for name, value in zip(("source_size", "target_size", "batch", "iterations"), usual):
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def main(argv: Sequence[str]) -> None:
    arguments = parse(argv)
    if arguments.case:
        print(json.dumps(full_case(arguments, **arguments.case, images=arguments.images_in)))
        return
    command = " ".join(["python bench/train_speed.py", *argv])
    if arguments.table:
        write_section("train_speed full", command, kept_tables(arguments.table))
        return
    if arguments.full:
        found: Any = full_cases(arguments, argv)
        lines = full_table(found)
    else:
        found = options_compared(arguments)
        lines = options_table(arguments, found)
    write_json(arguments.json, {"command": command, "device": device(), "results": found})
    if arguments.results:
        write_section("train_speed full" if arguments.full else "train_speed options", command, lines)
    print("\n".join(lines))


if __name__ == "__main__":
    config.run(lambda: main(sys.argv[1:]))
