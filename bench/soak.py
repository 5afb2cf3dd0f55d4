"""Does a long run leak? Memory, open files and threads of a training process over thousands of iterations.

    python bench/soak.py

The script of stage 1 runs in its own process on small built-in images, with one reading process per domain, and a
checkpoint and a score every 50 steps. The process is sampled from outside at every log line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

from bench.results import write_section
from dataset.builtin import write_benchmark
from utils.options import config

SCRIPT = Path(__file__).resolve().parent.parent / "train_step1.py"
SIDE = 32
EVERY = 50
NAMES = ("open files", "threads", "reading processes")


@dataclass
class Sample:
    """One look at the process: resident bytes, open files, threads, and its child processes."""

    step: int
    resident: int
    files: int
    threads: int
    children: int


def look(process: int, step: int) -> Sample:
    own = Path(f"/proc/{process}")
    pages = int((own / "statm").read_text().split()[1])
    children = (own / "task" / str(process) / "children").read_text().split()
    return Sample(
        step=step,
        resident=pages * os.sysconf("SC_PAGE_SIZE"),
        files=len(os.listdir(own / "fd")),
        threads=len(os.listdir(own / "task")),
        children=len(children),
    )


def soak(steps: int, folder: Path) -> list[Sample]:
    """A look at every log line of a run of so many steps. RuntimeError where the run fails."""
    write_benchmark(folder / "data", size=(2 * SIDE, SIDE), source=8, target_train=8, target_val=2)
    size = f"{2 * SIDE},{SIDE}"
    command = [
        *(sys.executable, str(SCRIPT), "--preset", "builtin", "--snapshot-dir", str(folder / "run")),
        *("--data-dir", str(folder / "data/gta5_deeplab"), "--data-dir-target", str(folder / "data/Cityscapes")),
        *("--input-size", size, "--input-size-target", size, "--batch-size", "1", "--num-workers", "1"),
        *("--num-steps", str(steps), "--save-pred-every", str(EVERY), "--log-every", "10"),
        *("--select-on-target-labels", "--warmup-steps", "0", "--learning-rate", "0.001", "--num-prototype", "2"),
    ]
    log = folder / "run/log.jsonl"
    samples: list[Sample] = []
    with open(folder / "stderr.txt", "w+", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            while process.poll() is None:
                time.sleep(0.05)
                step = last_step(log)
                if step > (samples[-1].step if samples else 0) and step % EVERY:  # not while it saves and scores
                    samples.append(look(process.pid, step))
        finally:
            process.kill()
        if process.wait():
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed: {errors.read()}")
    return samples


def last_step(log: Path) -> int:
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def table(samples: list[Sample], steps: int) -> list[str]:
    """Medians over ten parts of the run, and how much those after the first differ."""
    parts = [[s for s in samples if part * steps < 10 * s.step <= (part + 1) * steps] for part in range(10)]
    lines = [f"| steps | resident, MB | {' | '.join(NAMES)} |", "|---|---|---|---|---|"]
    medians = []
    for part, looks in enumerate(parts):
        values = [
            statistics.median(getattr(look, name) for look in looks)
            for name in ("resident", "files", "threads", "children")
        ]
        medians.append(values)
        cells = " | ".join(f"{value:g}" for value in values[1:])
        lines.append(f"| {part * steps // 10} to {(part + 1) * steps // 10} | {values[0] / 1e6:.1f} | {cells} |")
    resident = [values[0] for values in medians[1:]]
    spread = 100 * (max(resident) - min(resident)) / min(resident)
    trend = 100 * (resident[-1] / resident[0] - 1)
    counts = zip(*[values[1:] for values in medians[1:]], strict=True)
    ranges = [f"{min(found):g} to {max(found):g} {name}" for name, found in zip(NAMES, counts, strict=True)]
    lines += [
        "",
        f"After the first tenth, resident memory varies by {spread:.2f} % (from the second tenth to the last: "
        f"{trend:+.2f} %), with {', '.join(ranges)}. {len(samples)} samples, {steps // EVERY} checkpoints and scores.",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5000)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        lines = table(soak(arguments.steps, Path(folder)), arguments.steps)
    given = "" if arguments.steps == 5000 else f" --steps {arguments.steps}"
    write_section("soak", f"python bench/soak.py{given}", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    config.run(main)
