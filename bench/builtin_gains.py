"""What the stages, each term, the image level and `--method plus` give on the built-in data, over seeds.

    python bench/builtin_gains.py --part plus --seeds 0 1 2 --out result/gains    # trains and scores, resumes
    python bench/builtin_gains.py --table                                         # bench/RESULTS.md

Every seed draws its own pictures and trains its own networks, with the demo's own schedule. The parts:
    main         the arms of the demo
    ablation     stage 1, as stopped early for stage 2, with one term left out, with none of them, and with the weights
                 of the paper
    image_level  training on the source without colour jitter: as it is, and restyled in each way
    plus         both stages of `--method plus`, whole and with parts left out or added, and source only by AdamW, with
                 and without class balance
The scores are kept in bench/scores/builtin, and an arm that has a score is not run. A table has the seeds that all arms
of its part have.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

import demo
from bench import charts
from bench.results import write_section
from dataset.builtin import write_benchmark
from utils.options import config
from utils.reporting import notes
from utils.system import logs
from utils.system.files import write_json

SCORES = Path(__file__).resolve().parent / "scores" / "builtin"
KEPT = "images", "classes", "iou", "means"  # of the scores that the evaluation writes

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
SOURCE_ONLY = {
    "source only, AdamW": ("--class-balance", "0"),
    "source only, trained as plus is": (),
}
PLUS = {
    "plus": (),
    "plus without plain images": ("--lambda-pseudo", "0"),
    "plus without mixed images": ("--lambda-mix", "0"),
    "plus with labels weighted by image": ("--pseudo-selection", "image"),
    "plus with masked consistency": ("--lambda-masked", "1"),
}


def arm_name(title: str) -> str:
    return re.sub(r"\W+", "_", title).strip("_")


def run_stages(runner: demo.Runner) -> Path:
    """Source only, stage 1 as stopped for stage 2, and stage 2; returns the start that they share."""
    for arm in ("source_only", "step2"):
        train_main(runner, arm)
    return pretrained(runner)


def pretrained(runner: demo.Runner) -> Path:
    """The checkpoint from which all arms start but those of plus and of the image level."""
    return once(runner, demo.PRETRAIN, runner.pretrain)


def step1_stopped(runner: demo.Runner) -> Path:
    """The checkpoint of stage 1 as stopped for stage 2."""
    return train_ablation(runner, "step1_stopped")


def train_main(runner: demo.Runner, arm: str) -> None:
    start = step1_stopped(runner) if arm == "step2" else pretrained(runner)
    once(runner, arm, lambda: getattr(runner, arm)(start))


def train_ablation(runner: demo.Runner, arm: str) -> Path:
    start = pretrained(runner)
    return once(runner, arm, lambda: runner.step1_stopped(start, *OPTIONS.get(arm, ()), name=arm))


def train_image_level(runner: demo.Runner, arm: str) -> None:
    once(runner, arm, lambda: runner.pretrain(OPTIONS[arm], arm))


def train_plus(runner: demo.Runner, arm: str) -> None:
    if arm == "step2":  # which plus is compared with
        train_main(runner, arm)
    elif arm in named(SOURCE_ONLY).values():
        once(runner, arm, lambda: runner.plus_source_only(*OPTIONS[arm], name=arm))
    else:
        start = once(runner, "plus_step1", runner.plus_step1)
        once(runner, arm, lambda: runner.plus(start, *OPTIONS[arm], name=arm))


def once(runner: demo.Runner, arm: str, train: Callable[[], object]) -> Path:
    """Train and score an arm, unless it has scores; returns its checkpoint."""
    if not (runner.out / f"{arm}.json").exists():
        train()
        runner.evaluate(arm)
    return runner.out / arm / demo.SCORED


def miou(folder: Path, arm: str) -> float:
    return 100 * demo.main_mean(json.loads((folder / f"{arm}.json").read_text()))


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation; for a single seed, only its value."""
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def gains(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


def compared(folders: Sequence[Path], arms: Mapping[str, str], against: Literal["above", "first"]) -> list[str]:
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


@dataclass(frozen=True)
class Part:
    """arms: their names by title; train: trains an arm and what it starts from, unless they are there; against: what
    the table compares a row with."""

    arms: Mapping[str, str]
    train: Callable[[demo.Runner, str], object]
    against: Literal["above", "first"]

    def missing(self, folder: Path) -> list[str]:
        """The arms that have no score in the folder of a seed."""
        return [arm for arm in self.arms.values() if not (folder / f"{arm}.json").exists()]


def named(titles: Iterable[str]) -> dict[str, str]:
    return {title: arm_name(title) for title in titles}


OPTIONS = {arm_name(title): options for title, options in {**VARIANTS, **IMAGE_LEVELS, **SOURCE_ONLY, **PLUS}.items()}
STOPPED = f"stage 1 after {demo.Schedule.align} steps"
PARTS = {
    "main": Part({demo.TITLES[arm]: arm for arm in ("source_only", "step1", "step2")}, train_main, "above"),
    "ablation": Part({STOPPED: "step1_stopped", **named(VARIANTS)}, train_ablation, "first"),
    "image_level": Part(named(IMAGE_LEVELS), train_image_level, "first"),
    "plus": Part({demo.TITLES["step2"]: "step2", **named((*SOURCE_ONLY, *PLUS))}, train_plus, "first"),
}


def run(part: Part, seed: int, out: Path, scores: Path) -> None:
    """Train and score the arms of a part that have no score yet. out, scores: the folders of this seed."""
    missing = part.missing(scores)
    if missing:
        write_benchmark(out / "data", seed=seed)
    for arm in missing:
        runner = demo.builtin_runner(out / "data", out, seed)
        part.train(runner, arm)
        found: dict[str, Any] = json.loads((out / f"{arm}.json").read_text())
        trained = notes.read(out / arm / notes.RUN)["sessions"][-1]  # in an old folder, by an older revision
        scores.mkdir(parents=True, exist_ok=True)
        write_json(scores / f"{arm}.json", {key: found[key] for key in KEPT} | {"revision": trained["revision"]})


def write_tables(scores: Path) -> None:
    """Write the section of every part that has a seed with all arms."""
    seeds = sorted(scores.glob("seed*"))
    for name, part in PARTS.items():
        folders = [folder for folder in seeds if not part.missing(folder)]
        if folders:
            lines = compared(folders, part.arms, part.against)
            write_section(f"builtin_gains {name}", "python bench/builtin_gains.py --table", lines)
            print("\n".join([name, "", *lines, ""]))
    charts.draw_section("builtin_gains main")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("result/gains"), help="folder of checkpoints and logs")
    parser.add_argument("--scores", type=Path, default=SCORES, help="folder of the scores")
    parser.add_argument("--part", choices=PARTS, default="main")
    parser.add_argument("--table", action="store_true", help="write the sections of the results page from the scores")
    arguments = parser.parse_args()
    if arguments.table:
        write_tables(arguments.scores)
        return
    logs.setup()
    for seed in arguments.seeds:
        name = f"seed{seed}"
        run(PARTS[arguments.part], seed, arguments.out / name, arguments.scores / name)


if __name__ == "__main__":
    config.run(main)
