"""What stage 1, stage 2 and each term give on the built-in data, over seeds, with the demo's own schedule.

    python bench/builtin_gains.py --seeds 0 1 2 --out result/gains          # runs, resumes, writes bench/RESULTS.md
    python bench/builtin_gains.py --seeds 0 1 2 --out result/gains --part ablation

Every seed draws its own pictures and trains its own networks. The part `main` compares the arms of the demo; the part
`ablation` repeats stage 1 (stopped early) and stage 2 with one term left out, or with none of them. An arm whose scores
are there is not run again. The table goes between the markers `builtin_gains PART` of the results page.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import demo
from bench.results import write_section
from dataset.builtin import write_benchmark
from utils import config, logs

# Options that leave a term out, for both stages.
LEFT_OUT = {
    "adversarial": ("--lambda-adv-target", "0", "--lambda-adv-feat", "0"),
    "stuff matching": ("--lambda-adv-cls", "0"),
    "instance matching": ("--lambda-adv-ins", "0"),
    "AIM weights": ("--aim", "none"),
    "ISIA": ("--lambda-adv-cate", "0"),
}
ALL_TERMS = sum((LEFT_OUT[name] for name in LEFT_OUT if name != "AIM weights"), ())
ARMS = ("source_only", "step1", "step2")


def arm_name(term: str) -> str:
    return "without_" + term.replace(" ", "_")


def run_main(runner: demo.Runner) -> None:
    start = pretrained(runner)
    stopped = runner.out / "step1_stopped" / "last.pth"
    once(runner, "source_only", lambda: runner.source_only(start))
    once(runner, "step1_stopped", lambda: runner.step1_stopped(start))
    once(runner, "step1", lambda: runner.step1(stopped))
    once(runner, "step2", lambda: runner.step2(stopped))


def run_ablation(runner: demo.Runner) -> None:
    start = pretrained(runner)
    for term, options in {**LEFT_OUT, "all terms": ALL_TERMS}.items():
        first, second = f"{arm_name(term)}_stopped", f"{arm_name(term)}_step2"
        once(runner, first, partial(runner.step1_stopped, start, *options, name=first))
        once(runner, second, partial(runner.step2, runner.out / first / "last.pth", *options, name=second))


def pretrained(runner: demo.Runner) -> Path:
    checkpoint = runner.out / "pretrain" / "last.pth"
    return checkpoint if checkpoint.exists() else runner.pretrain()


def once(runner: demo.Runner, arm: str, train: Callable[[], object]) -> None:
    """Train and score an arm, unless its scores are there."""
    if not (runner.out / f"{arm}.json").exists():
        train()
        runner.evaluate(arm)


def miou(out: Path, arm: str) -> float:
    return 100 * demo.main_mean(json.loads((out / f"{arm}.json").read_text()))


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


def gains(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


def main_table(folders: list[Path]) -> list[str]:
    seeds = [folder.name for folder in folders]
    lines = [f"| mIoU, 19 classes | {' | '.join(seeds)} | mean ± std | gain |", "|---" * (len(seeds) + 3) + "|"]
    before: list[float] | None = None
    for arm in ARMS:
        values = [miou(folder, arm) for folder in folders]
        gain = "" if before is None else spread(gains(values, before))
        lines.append(f"| {demo.TITLES[arm]} | {' | '.join(f'{v:.1f}' for v in values)} | {spread(values)} | {gain} |")
        before = values
    return lines


def ablation_table(folders: list[Path]) -> list[str]:
    lines = [
        f"| left out | stage 1 after {demo.Schedule.align} steps | change | then stage 2 | change |",
        "|---|---|---|---|---|",
    ]
    full = {stage: [miou(folder, stage) for folder in folders] for stage in ("step1_stopped", "step2")}
    lines.append(f"| nothing | {spread(full['step1_stopped'])} | | {spread(full['step2'])} | |")
    for term in (*LEFT_OUT, "all terms"):
        cells = []
        for stage, ending in (("step1_stopped", "_stopped"), ("step2", "_step2")):
            values = [miou(folder, arm_name(term) + ending) for folder in folders]
            cells += [spread(values), spread(gains(values, full[stage]))]
        lines.append(f"| {term} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("result/gains"))
    parser.add_argument("--part", choices=("main", "ablation"), default="main")
    parser.add_argument("--table-only", action="store_true", help="write the table from scores that are there")
    arguments = parser.parse_args()
    logs.setup()
    began = time.monotonic()
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
    print("\n".join(lines), f"\n{time.monotonic() - began:.0f} s on {platform.machine()}")


if __name__ == "__main__":
    config.run(main)
