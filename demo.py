"""Run the whole method on synthetic data: no download, no GPU, some minutes.

The script draws two domains of street scenes and trains five arms: the source-only baseline, stage 1, both stages of
the paper (with the pseudo-labels between them), both stages of `--method plus`, and an oracle, which is trained on
target labels. It compares them on target images.

Every arm trains for the same number of source steps. All but plus, which learns the source in its own way, start from
the same source-trained network. The arms run side by side: a line shows their progress, a table follows when one is
finished, and ARM.log holds the whole output of an arm, with each command as one would type it.

Examples:
  python demo.py                            # what `make demo` runs
  python demo.py --seed 1 --out result/demo1
"""

from __future__ import annotations

import utils.system.machine  # noqa: F401 - before all others

import argparse
import json
import os
import shlex
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import redirect_stdout
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import evaluate_cityscapes
import Generate_Pseudo_Label
import train_step1
import train_step2
from dataset import READERS
from dataset.builtin import write_benchmark
from utils.options import config, parsing
from utils.reporting.sinks import read_records
from utils.reporting.tables import aligned, cells, percent
from utils.system import logs
from utils.system.files import check_can_write, write_json
from utils.system.logs import logger

TITLES = {"source_only": "source only", "step1": "step 1", "step2": "step 2", "plus": "plus", "oracle": "oracle"}
SCORED = "last.pth"  # of every arm: target labels choose no checkpoint
SHOWN = 4  # images of the picture
PRETRAIN = "pretrain"  # the run that all arms but plus start from
# What is trained side by side, the longest first: its runs, and what each is called. All but plus wait for PRETRAIN.
RUNS = {
    PRETRAIN: {PRETRAIN: "source only, where all arms but plus start"},
    "plus": {"plus_step1": "step 1 of plus", "plus": "step 2 of plus"},
    "step2": {"step1_stopped": "step 1, stopped early", "step2": "step 2"},
    **{arm: {arm: TITLES[arm]} for arm in ("step1", "source_only", "oracle")},
}
WORKERS = min(len(RUNS) - 1, os.cpu_count() or 1)  # all but plus wait for PRETRAIN
ROWS = 8  # of a run's table, in addition to those with a score
PROGRESS_EVERY = 30.0  # seconds
LOG = "log.jsonl"  # of a run

Main = Callable[[Sequence[str]], None]
Arguments = tuple[str, ...]


@dataclass(frozen=True)
class Schedule:
    """Numbers of steps: `pretrain` before all arms but plus, `align` in stage 1, `self_train` in stage 2. Stage 1 of
    plus takes `pretrain` + `align`. learning_rate: that of all arms but plus."""

    pretrain: int = 1600
    align: int = 300
    self_train: int = 500
    learning_rate: float = 0.01


@dataclass(frozen=True)
class Runner:
    """Runs the scripts for one seed, and keeps checkpoints, masks and scores below `out`.

    common: arguments of every script (preset, target folder). source: arguments of the training scripts only, such as
    the folder of the labelled images; oracle_source: the same with the target's own labels as source. weights: the file
    that `pretrain` starts from (default: that of the preset).
    """

    out: Path
    seed: int
    common: Arguments
    source: Arguments
    oracle_source: Arguments = ()
    schedule: Schedule = Schedule()
    weights: Path | None = None

    def call(self, script: Main, *arguments: str) -> None:
        name = Path(script.__globals__["__file__"]).name
        logger.info("$ python %s %s", name, shlex.join((*self.common, *arguments)))
        script((*self.common, *arguments))

    def train(self, script: Main, arm: str, *arguments: str, source: Arguments | None = None) -> Path:
        """Train into `out`/ARM; returns the checkpoint."""
        folder = self.out / arm
        files = ("--snapshot-dir", str(folder), "--overwrite", "--random-seed", str(self.seed))
        time = ("--label-free-images", "0")  # the synthetic target has labels, so label-free scores are not needed
        self.call(script, *(self.source if source is None else source), *files, *time, *arguments)
        return folder / SCORED

    def pretrain(self, arguments: Arguments = ("--source-only",), name: str = PRETRAIN) -> Path:
        steps = ("--num-steps", str(self.schedule.pretrain))
        weights = ("--restore-from", str(self.weights)) if self.weights else ()
        return self.train(train_step1.main, name, *arguments, *weights, *steps)

    def source_only(self, start: Path) -> Path:
        return self._arm("source_only", start, "--source-only")

    def oracle(self, start: Path) -> Path:
        return self._arm("oracle", start, "--source-only", source=self.oracle_source)

    def step1(self, start: Path) -> Path:
        return self._arm("step1", start)

    def step1_stopped(self, start: Path, *arguments: str, name: str = "step1_stopped") -> Path:
        """The stage 1 that stage 2 starts from: stopped, as published, at four fifths of the planned steps."""
        steps = self.schedule.align
        return self._arm(name, start, "--num-steps-stop", str(steps), *arguments, planned=steps * 5 // 4)

    def step2(self, stopped: Path, *arguments: str, name: str = "step2") -> Path:
        """Pseudo-labels from the stopped stage 1, then stage 2 from its weights."""
        labels = ("--ssl-target-dir", str(self.out / f"{name}_pseudo_labels"))
        self.call(Generate_Pseudo_Label.main, "--restore-from", str(stopped), *labels)
        steps = self._steps(stopped, self.schedule.self_train)
        return self.train(train_step2.main, name, *labels, *steps, *arguments)

    def plus_source_only(self, *arguments: str, name: str) -> Path:
        """Source only, trained as `--method plus` trains, for as many steps as both its stages take."""
        steps = self.schedule.pretrain + self.schedule.align + self.schedule.self_train
        return self.train(
            train_step1.main, name, "--method", "plus", "--source-only", "--num-steps", str(steps), *arguments
        )

    def plus_step1(self) -> Path:
        """Stage 1 of `--method plus`, which only learns the source."""
        steps = self.schedule.pretrain + self.schedule.align
        return self.train(train_step1.main, "plus_step1", "--method", "plus", "--num-steps", str(steps))

    def plus(self, start: Path, *arguments: str, name: str = "plus") -> Path:
        """Stage 2 of `--method plus`, without pseudo-labels made before."""
        steps = ("--restore-from", str(start), "--num-steps", str(self.schedule.self_train))
        return self.train(train_step2.main, name, "--method", "plus", *steps, *arguments)

    def evaluate(self, arm: str) -> Path:
        """Masks and scores (ARM.json) of an arm's checkpoint; returns the folder of the masks."""
        masks, scores = self.out / "masks" / arm, self.out / f"{arm}.json"
        checkpoint = str(self.out / arm / SCORED)
        self.call(evaluate_cityscapes.main, "--restore-from", checkpoint, "--save", str(masks), "--json", str(scores))
        return masks

    def _arm(
        self, name: str, start: Path, *arguments: str, source: Arguments | None = None, planned: int | None = None
    ) -> Path:
        steps = self._steps(start, planned or self.schedule.align + self.schedule.self_train)
        return self.train(train_step1.main, name, *steps, *arguments, source=source)

    def _steps(self, start: Path, planned: int) -> Arguments:
        rate = ("--learning-rate", str(self.schedule.learning_rate), "--warmup-steps", "0")
        return ("--restore-from", str(start), "--num-steps", str(planned), *rate)


def builtin_runner(data: Path, out: Path, seed: int) -> Runner:
    """The demo's runner, on the built-in data under `data`."""
    target = str(data / "Cityscapes")
    return Runner(
        out,
        seed,
        common=("--preset", "builtin", "--data-dir-target", target),
        source=("--data-dir", str(data / "gta5_deeplab")),
        oracle_source=("--source", "cityscapes", "--data-dir", target),
    )


def train_arm(runner: Runner, arm: str) -> str:
    """Train one of RUNS, and score it if it is an arm, unless the demo has been stopped; its output goes to
    `out`/ARM.log."""
    assert _stopped is not None
    if _stopped.is_set():
        return arm
    logs.setup()
    start = runner.out / PRETRAIN / SCORED
    try:
        with open(runner.out / f"{arm}.log", "w", encoding="utf-8") as log, redirect_stdout(log):
            if arm == PRETRAIN:
                runner.pretrain()
            elif arm == "plus":
                start = runner.plus_step1()
                if _stopped.is_set():
                    return arm
                runner.plus(start)
            elif arm == "step2":
                runner.step2(runner.step1_stopped(start))
            else:
                getattr(runner, arm)(start)
            if arm in TITLES:
                runner.evaluate(arm)
    except BaseException:
        _stopped.set()
        raise
    return arm


_stopped: Event | None = None
"""Set when an arm fails or the demo is stopped: an arm that a process has already been given must then not start."""


def start_process(stopped: Event) -> None:
    """What a process of the pool does first."""
    import torch  # after `utils`, which sets up the environment that torch reads at its start

    global _stopped
    _stopped = stopped
    torch.set_num_threads(1)


def run_arms(runner: Runner) -> None:
    """Train all arms, one per processor at a time: a small network uses only one."""
    began = time.time()
    runner.out.mkdir(parents=True, exist_ok=True)
    context = get_context("spawn")
    stopped = context.Event()
    with ProcessPoolExecutor(WORKERS, context, initializer=start_process, initargs=(stopped,)) as pool:

        def submit(*names: str) -> dict[Future[str], str]:
            return {pool.submit(train_arm, runner, name): name for name in names}

        running = submit(PRETRAIN, "plus")
        try:
            while running:
                for future in wait(running, timeout=PROGRESS_EVERY, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    future.result()
                    print(f"\n{arm_table(runner.out, name)}\n", flush=True)
                    if name == PRETRAIN:
                        running |= submit(*(arm for arm in RUNS if arm not in (PRETRAIN, "plus")))
                if running:
                    logger.info("%s", "; ".join(progress(runner.out, name, began) for name in running.values()))
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def progress(out: Path, arm: str, began: float) -> str:
    """How far an arm is, in a few words. began: when this run started; older files belong to an earlier one."""
    for run, title in reversed(RUNS[arm].items()):
        log = out / run / LOG
        if log.is_file() and log.stat().st_mtime >= began:
            steps = json.loads((out / run / "config.json").read_text())["num_steps_stop"]
            return f"{title}: {max((record['step'] for record in read_records(log)), default=0)}/{steps}"
    return f"{next(iter(RUNS[arm].values()))}: waiting"


def arm_table(out: Path, arm: str) -> str:
    """The log of an arm, one table per run: a few evenly spaced rows, and all rows with a target score."""
    parts = []
    for run, title in RUNS[arm].items():
        by_step: dict[int, dict[str, Any]] = {}
        for record in read_records(out / run / LOG):
            by_step.setdefault(record["step"], {}).update(record)
        kept = list(by_step)[:: -(-len(by_step) // ROWS)] if by_step else []
        rows = []
        for step, record in by_step.items():
            if step in kept or "miou" in record:
                score = {"target mIoU": percent(record["miou"])} if "miou" in record else {}
                rows.append({"step": str(step)} | cells(record) | score)
        parts.append("\n".join([title, *aligned(rows)]))
    return "\n".join(parts)


def peak_rss_mb() -> int:
    """An upper bound on the memory of all processes together, in MiB."""
    import resource  # not on Windows

    own, largest_child = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round((own + WORKERS * largest_child) / 1024)


def read_scores(out: Path) -> dict[str, dict]:
    return {arm: json.loads((out / f"{arm}.json").read_text()) for arm in TITLES}


def table(scores: dict[str, dict]) -> str:
    """Per-class target IoU of every arm, in percent, and the mean."""
    classes = next(iter(scores.values()))["classes"]
    lines = [f"{'target IoU, %':16s}" + "".join(f"{TITLES[arm]:>13s}" for arm in scores)]
    rows = [(name, [s["iou"][name] for s in scores.values()]) for name in classes]
    rows.append((f"mean of {len(classes)}", [main_mean(s) for s in scores.values()]))
    for name, values in rows:
        lines.append(f"{name:16s}" + "".join(f"{'absent' if v is None else f'{100 * v:.1f}':>13s}" for v in values))
    return "\n".join(lines)


def summary(scores: dict[str, dict], seconds: float) -> dict[str, object]:
    """The content of summary.json: mean and IoU per class of every arm in percent, which checkpoint, time, memory."""
    return {
        "checkpoint": SCORED,
        "miou": {arm: round(100 * main_mean(s), 2) for arm, s in scores.items()},
        "classes": next(iter(scores["oracle"]["means"])),
        "per_class": {
            arm: {name: None if v is None else round(100 * v, 2) for name, v in s["iou"].items()}
            for arm, s in scores.items()
        },
        "seconds": round(seconds, 1),
        "peak_rss_mb": peak_rss_mb(),
    }


def main_mean(scores: dict) -> float:
    """The mean over the whole class table."""
    return next(iter(scores["means"].values()))


def draw_comparison(data: Path, masks: Path, path: Path) -> None:
    from utils.reporting.figures import comparison

    images = READERS["cityscapes"](data / "Cityscapes", split="val", label_size="native")
    shown = images.names[:: max(1, len(images) // SHOWN)][:SHOWN]
    arms = [arm for arm in TITLES if arm != "oracle"]
    comparison(images, shown, {TITLES[arm]: masks / arm for arm in arms}, path)


def main(argv: Sequence[str] | None = None) -> None:
    parser = parsing.Parser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of the pictures and of all training [0]")
    parser.add_argument(
        "--data", metavar="DIR", type=Path, help="folder of the pictures [data/builtin; with another seed, builtinSEED]"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("result/demo"), help="folder of all results [result/demo]"
    )
    arguments = parser.parse_args(argv)
    data = arguments.data or Path(f"data/builtin{arguments.seed or ''}")
    began = time.monotonic()
    logs.setup()
    check_can_write("--out", arguments.out, folder=True)
    write_benchmark(data, seed=arguments.seed)
    run_arms(builtin_runner(data, arguments.out, arguments.seed))
    draw_comparison(data, arguments.out / "masks", arguments.out / "comparison.png")
    scores = read_scores(arguments.out)
    found = summary(scores, time.monotonic() - began)
    write_json(arguments.out / "summary.json", found)
    print(f"\n{table(scores)}\nscores of {SCORED}, the end of each training: target labels chose no checkpoint\n")
    print(f"{found['seconds']:.0f} s, {found['peak_rss_mb']} MB; {arguments.out / 'summary.json'}, ", end="")
    print(arguments.out / "comparison.png")


if __name__ == "__main__":
    config.run(main)
