"""What stage 1, stage 2 and each term give on the built-in data, over seeds, with the demo's own schedule.

    python bench/builtin_gains.py --seeds 0 1 2 --out result/gains          # runs, resumes, writes bench/RESULTS.md
    python bench/builtin_gains.py --seeds 0 1 2 --out result/gains --part ablation

Every seed draws its own pictures and trains its own networks. The part `main` compares the arms of the demo; the part
`ablation` repeats stage 1, as stopped early for stage 2, with one term left out, with none of them, and with the
weights of the paper. An arm whose scores are there is not run again. The table goes between the markers
`builtin_gains PART` of the results page.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

import demo
from bench.results import write_section
from dataset.builtin import write_benchmark
from utils.options import config
from utils.system import logs

ADVERSARIAL = ("--lambda-adv-target", "0", "--lambda-adv-feat", "0")
ALL_TERMS = (
    *ADVERSARIAL,
    *("--lambda-adv-cls", "0", "--lambda-adv-ins", "0", "--lambda-adv-cate", "0"),
)


def paper_weights(category: str) -> tuple[str, ...]:
    """The options for the paper's weights, `category` being that of the category and instance terms in the stage."""
    adversarial = ("--lambda-adv-target", "0.001", "--lambda-adv-feat", "0.001")
    return (*adversarial, "--lambda-adv-cls", category, "--lambda-adv-ins", category, "--lambda-adv-cate", category)


VARIANTS = {
    "without adversarial": ADVERSARIAL,
    "without stuff matching": ("--lambda-adv-cls", "0"),
    "without instance matching": ("--lambda-adv-ins", "0"),
    "without AIM weights": ("--aim", "none"),
    "without ISIA": ("--lambda-adv-cate", "0"),
    "without any term (BatchNorm statistics alone)": ALL_TERMS,
    "with the weights of the paper": paper_weights("0.01"),
}
ARMS = ("source_only", "step1", "step2")


def arm_name(title: str) -> str:
    return re.sub(r"\W+", "_", title).strip("_")


def run_stages(runner: demo.Runner) -> Path:
    """Source only, stage 1 as stopped for stage 2, and stage 2; returns the start that they share."""
    start = pretrained(runner)
    stopped = runner.out / "step1_stopped" / "last.pth"
    once(runner, "source_only", lambda: runner.source_only(start))
    once(runner, "step1_stopped", lambda: runner.step1_stopped(start))
    once(runner, "step2", lambda: runner.step2(stopped))
    return start


def run_main(runner: demo.Runner) -> None:
    start = run_stages(runner)
    once(runner, "step1", lambda: runner.step1(start))


def run_ablation(runner: demo.Runner) -> None:
    start = pretrained(runner)
    once(runner, "step1_stopped", lambda: runner.step1_stopped(start))
    for title, options in VARIANTS.items():
        name = arm_name(title)
        once(runner, name, partial(runner.step1_stopped, start, *options, name=name))


def pretrained(runner: demo.Runner) -> Path:
    once(runner, "pretrain", runner.pretrain)
    return runner.out / "pretrain" / "last.pth"


def once(runner: demo.Runner, arm: str, train: Callable[[], object]) -> None:
    """Train and score an arm, unless its scores are there."""
    if not (runner.out / f"{arm}.json").exists():
        train()
        runner.evaluate(arm)


def miou(out: Path, arm: str) -> float:
    return 100 * demo.main_mean(json.loads((out / f"{arm}.json").read_text()))


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation; of a single seed the value alone."""
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def gains(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


def main_table(folders: list[Path]) -> list[str]:
    seeds = [folder.name for folder in folders]
    lines = [
        f"| mIoU, 19 classes | {' | '.join(seeds)} | mean ± std | over the row above |",
        "|---" * (len(seeds) + 3) + "|",
    ]
    before: list[float] | None = None
    for arm in ARMS:
        values = [miou(folder, arm) for folder in folders]
        gain = "" if before is None else spread(gains(values, before))
        lines.append(f"| {demo.TITLES[arm]} | {' | '.join(f'{v:.1f}' for v in values)} | {spread(values)} | {gain} |")
        before = values
    return lines


def ablation_table(folders: list[Path]) -> list[str]:
    full = [miou(folder, "step1_stopped") for folder in folders]
    lines = [
        f"| stage 1 after {demo.Schedule.align} steps | mIoU, 19 classes, mean ± std | change |",
        "|---|---|---|",
        f"| all terms | {spread(full)} | |",
    ]
    for title in VARIANTS:
        values = [miou(folder, arm_name(title)) for folder in folders]
        lines.append(f"| {title} | {spread(values)} | {spread(gains(values, full))} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("result/gains"))
    parser.add_argument("--part", choices=("main", "ablation"), default="main")
    parser.add_argument("--table-only", action="store_true", help="write the table from scores that are there")
    arguments = parser.parse_args()
    logs.setup()
    folders = [arguments.out / f"seed{seed}" for seed in arguments.seeds]
    for seed, folder in zip(arguments.seeds, folders, strict=True):
        if not arguments.table_only:
            write_benchmark(folder / "data", seed=seed)
            runner = demo.builtin_runner(folder / "data", folder, seed)
            {"main": run_main, "ablation": run_ablation}[arguments.part](runner)
    lines = {"main": main_table, "ablation": ablation_table}[arguments.part](folders)
    seeds = " ".join(map(str, arguments.seeds))
    command = f"python bench/builtin_gains.py --seeds {seeds} --part {arguments.part}"
    write_section(f"builtin_gains {arguments.part}", command, lines)
    print("\n".join(lines))


if __name__ == "__main__":
    config.run(main)
