"""Averaging gradients between processes: one message after the backward passes, or DistributedDataParallel.

    torchrun --standalone --nproc-per-node 2 bench/gradients.py            # gloo, two processes on one machine's CPU
    torchrun --standalone --nproc-per-node 2 bench/gradients.py --write    # also the section of bench/RESULTS.md

A step is that of a segmenter trained on two domains: forward and backward of a source batch, then of a target batch,
then the mean of all gradients and of BatchNorm's running statistics over the processes. "local" leaves the messages
out. DistributedDataParallel sends the gradients in buckets during the target's backward pass (`no_sync` around the
source's); the running statistics still need their own message. The ways take turns. The table compares medians of the
processor time of all threads of a process, which other programs on the machine disturb little, and of the wall-clock
time. The line below it gives the time of the small exchange in every step, on the CPU, of signals and errors.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bench.results import write_section
from model.networks.batchnorm import running_statistics
from model.networks.deeplab import BACKBONES, build_segmenter
from utils.options import config
from utils.system import distributed

Seconds = tuple[float, float]  # processor time, wall clock


class Step:
    """A segmenter, its copy in DistributedDataParallel, and a batch of each domain."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.manual_seed(distributed.rank())
        self.images = [torch.randint(256, (1, 3, h, w), dtype=torch.uint8) for w, h in ((320, 180), (256, 128))]
        torch.manual_seed(0)
        self.plain, wrapped = (build_segmenter(arguments.backbone) for _ in range(2))
        # find_unused_parameters: what a missing gradient needs to be no hang, and what keeps the buckets as they are
        # built, without which a resumed run sums in another order than one that was never stopped.
        self.parallel = DistributedDataParallel(
            wrapped, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=True
        )

    def local(self) -> None:
        self._passes(self.plain, self.plain)

    def message(self) -> None:
        self._passes(self.plain, self.plain)
        gradients = [p.grad for p in self.plain.parameters() if p.grad is not None]
        distributed.average([*gradients, *running_statistics(self.plain)])

    def data_parallel(self) -> None:
        self._passes(self.parallel, self.parallel.module)
        distributed.average(running_statistics(self.parallel.module))

    def _passes(self, forward: nn.Module, network: nn.Module) -> None:
        network.zero_grad(set_to_none=True)
        for number, images in enumerate(self.images):
            last = number == len(self.images) - 1
            held = nullcontext() if last or forward is network else self.parallel.no_sync()
            with held:
                _loss(forward(images)).backward()


def _loss(maps: tuple[Tensor, Tensor]) -> Tensor:
    return maps[1].logsumexp(1).mean()


def in_turns(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[Seconds]]:
    """Seconds of every round but the first; the processes begin each one together."""
    found: dict[str, list[Seconds]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in ways if number % 2 else reversed(list(ways)):
            distributed.barrier()
            began = time.process_time(), time.perf_counter()
            ways[name]()
            found[name].append((time.process_time() - began[0], time.perf_counter() - began[1]))
    return {name: seconds[1:] for name, seconds in found.items()}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet101")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="write the section of bench/RESULTS.md")
    arguments = parser.parse_args(argv)
    if distributed.size() == 1:
        parser.error("start it with torchrun --standalone --nproc-per-node 2")
    torch.set_num_threads(1)
    distributed.start(cpu=True)
    step = Step(arguments)
    found = in_turns(
        {"local": step.local, "message": step.message, "data_parallel": step.data_parallel}, arguments.rounds
    )
    exchange = in_turns({"exchange": lambda: [distributed.largest(0) for _ in range(100)]}, 10)["exchange"]
    everywhere = distributed.objects((found, exchange))
    if distributed.is_main():
        lines = table(arguments, everywhere)
        print("\n".join(lines))
        if arguments.write:
            command = " ".join(
                ["torchrun --standalone --nproc-per-node", str(distributed.size()), "bench/gradients.py"]
            )
            write_section("gradients", " ".join([command, *argv]), lines)


def table(arguments: argparse.Namespace, everywhere: list[tuple[dict[str, list[Seconds]], list[Seconds]]]) -> list[str]:
    names = {
        "local": "no messages",
        "message": "one message after the backward passes (as training does)",
        "data_parallel": "DistributedDataParallel",
    }
    medians = {
        name: [statistics.median(times[clock] for found, _ in everywhere for times in found[name]) for clock in (0, 1)]
        for name in names
    }
    tiny = statistics.median(times[1] for _, exchange in everywhere for times in exchange) / 100
    return [
        f"{arguments.backbone}, 320x180 and 256x128, {len(everywhere)} processes of one thread, gloo; medians of "
        f"{arguments.rounds} steps, taken in turns.",
        "",
        "| gradients | CPU s per process and step | more than no messages | wall s |",
        "|---|---|---|---|",
        *(
            f"| {names[name]} | {cpu:.3f} | {100 * (cpu / medians['local'][0] - 1):.1f} % | {wall:.3f} |"
            for name, (cpu, wall) in medians.items()
        ),
        "",
        f"The exchange of signals and errors on the CPU takes {1000 * tiny:.2f} ms, "
        f"{100 * tiny / medians['message'][1]:.2f} % of a step.",
    ]


if __name__ == "__main__":
    config.run(lambda: main(sys.argv[1:]))
