"""What the stages, each term, the image level and `--method plus` give on the built-in data, over seeds.

    python bench/builtin_gains.py --seeds 0 1 2 --out result/gains          # runs, resumes, writes bench/RESULTS.md
    python bench/builtin_gains.py --seeds 0 1 2 --out result/gains --part ablation

Every seed draws its own pictures and trains its own networks, with the demo's own schedule. The parts:
    main         the arms of the demo
    ablation     stage 1, as stopped early for stage 2, with one term left out, with none of them, and with the weights
                 of the paper
    image_level  training on the source without colour jitter: as it is, and restyled in each way
    plus         stage 2 by `--method plus` from the same stopped stage 1, whole and without each of its parts
An arm that has scores is not run again. The table is written between the markers `builtin_gains PART` of the results
page.
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
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

import demo
from bench import charts
from bench.results import write_section
from dataset.builtin import write_benchmark
from utils.options import config
from utils.system import logs

ADVERSARIAL = ("--lambda-adv-target", "0", "--lambda-adv-feat", "0")
NO_TERMS = (
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
    "without any term (only BatchNorm statistics)": NO_TERMS,
    "with the weights of the paper": paper_weights("0.01"),
}
NO_JITTER = "--no-random-jitter"
UNADAPTED = (*NO_TERMS, "--bn", "source", NO_JITTER)
IMAGE_LEVELS = {
    "source only, without jitter": ("--source-only", NO_JITTER),
    "the same on `lab` images": (*UNADAPTED, "--image-level", "lab"),
    "the same on `fda` images": (*UNADAPTED, "--image-level", "fda"),
}
PLUS = {
    "plus": (),
    "plus without plain images": ("--lambda-pseudo", "0"),
    "plus without mixed images": ("--lambda-mix", "0"),
    "plus with labels weighted by image": ("--pseudo-selection", "image"),
    "plus with masked consistency": ("--lambda-masked", "1"),
}
ARMS = ("source_only", "step1", "step2")


def arm_name(title: str) -> str:
    return re.sub(r"\W+", "_", title).strip("_")


def run_stages(runner: demo.Runner) -> Path:
    """Source only, stage 1 as stopped for stage 2, and stage 2; returns the start that they share."""
    start = pretrained(runner)
    once(runner, "source_only", lambda: runner.source_only(start))
    run_step2(runner, start)
    return start


def run_step2(runner: demo.Runner, start: Path) -> Path:
    """Stage 1 as stopped for stage 2, and stage 2; returns the checkpoint of the stopped stage 1."""
    stopped = runner.out / "step1_stopped" / "last.pth"
    once(runner, "step1_stopped", lambda: runner.step1_stopped(start))
    once(runner, "step2", lambda: runner.step2(stopped))
    return stopped


def run_main(runner: demo.Runner) -> None:
    start = run_stages(runner)
    once(runner, "step1", lambda: runner.step1(start))


def run_ablation(runner: demo.Runner) -> None:
    start = pretrained(runner)
    once(runner, "step1_stopped", lambda: runner.step1_stopped(start))
    for title, options in VARIANTS.items():
        name = arm_name(title)
        once(runner, name, partial(runner.step1_stopped, start, *options, name=name))


def run_image_level(runner: demo.Runner) -> None:
    for title, options in IMAGE_LEVELS.items():
        name = arm_name(title)
        once(runner, name, partial(runner.pretrain, options, name))


def run_plus(runner: demo.Runner) -> None:
    stopped = run_step2(runner, pretrained(runner))
    for title, options in PLUS.items():
        name = arm_name(title)
        once(runner, name, partial(runner.plus, stopped, *options, name=name))


def pretrained(runner: demo.Runner) -> Path:
    once(runner, "pretrain", runner.pretrain)
    return runner.out / "pretrain" / "last.pth"


def once(runner: demo.Runner, arm: str, train: Callable[[], object]) -> None:
    """Train and score an arm, unless it has scores."""
    if not (runner.out / f"{arm}.json").exists():
        train()
        runner.evaluate(arm)


def miou(out: Path, arm: str) -> float:
    return 100 * demo.main_mean(json.loads((out / f"{arm}.json").read_text()))


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation; for a single seed, only its value."""
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def gains(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


def main_table(folders: list[Path]) -> list[str]:
    return compared(folders, {demo.TITLES[arm]: arm for arm in ARMS}, "above")


def image_level_table(folders: list[Path]) -> list[str]:
    return compared(folders, {title: arm_name(title) for title in IMAGE_LEVELS}, "first")


def plus_table(folders: list[Path]) -> list[str]:
    return compared(folders, {demo.TITLES["step2"]: "step2"} | {title: arm_name(title) for title in PLUS}, "first")


def compared(folders: list[Path], arms: dict[str, str], against: Literal["above", "first"]) -> list[str]:
    """A table of arms by title, each with its gain over the first row, or over the row above."""
    seeds = [folder.name for folder in folders]
    words = "over the first row" if against == "first" else "over the row above"
    lines = [f"| mIoU, 19 classes | {' | '.join(seeds)} | mean ± std | {words} |", "|---" * (len(seeds) + 3) + "|"]
    base: list[float] | None = None
    for title, arm in arms.items():
        values = [miou(folder, arm) for folder in folders]
        gain = "" if base is None else spread(gains(values, base))
        lines.append(f"| {title} | {' | '.join(f'{v:.1f}' for v in values)} | {spread(values)} | {gain} |")
        base = values if against == "above" or base is None else base
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


PARTS = {
    "main": (run_main, main_table),
    "ablation": (run_ablation, ablation_table),
    "image_level": (run_image_level, image_level_table),
    "plus": (run_plus, plus_table),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("result/gains"))
    parser.add_argument("--part", choices=PARTS, default="main")
    parser.add_argument("--table-only", action="store_true", help="only write the table, from existing scores")
    arguments = parser.parse_args()
    logs.setup()
    folders = [arguments.out / f"seed{seed}" for seed in arguments.seeds]
    for seed, folder in zip(arguments.seeds, folders, strict=True):
        if not arguments.table_only:
            write_benchmark(folder / "data", seed=seed)
            runner = demo.builtin_runner(folder / "data", folder, seed)
            PARTS[arguments.part][0](runner)
    lines = PARTS[arguments.part][1](folders)
    seeds = " ".join(map(str, arguments.seeds))
    command = f"python bench/builtin_gains.py --seeds {seeds} --part {arguments.part}"
    write_section(f"builtin_gains {arguments.part}", command, lines)
    if arguments.part == "main":
        charts.draw_section("builtin_gains main")
    print("\n".join(lines))


if __name__ == "__main__":
    config.run(main)
