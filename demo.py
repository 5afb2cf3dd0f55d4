"""The whole method on built-in data: no download, no GPU, some minutes.

Draws two domains of street scenes, trains the source-only baseline, stage 1, pseudo-labels, stage 2 and an oracle
(trained on target labels), and compares them on target images. Every arm starts from the same source-trained network
and takes the same number of source steps. Each command is printed as one would type it.

Examples:
  python demo.py                            # what `make demo` runs
  python demo.py --seed 1 --out result/demo1
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import evaluate_cityscapes
import Generate_Pseudo_Label
import train_step1
import train_step2
from dataset import READERS
from dataset.builtin import write_benchmark
from utils import config, logs
from utils.checkpoint import write_json
from utils.figures import comparison
from utils.logs import logger

PRETRAIN, ALIGN, SELF_TRAIN = 1000, 400, 400  # source steps before all arms, of stage 1, of stage 2
TITLES = {"source_only": "source only", "step1": "step 1", "step2": "step 2", "oracle": "oracle"}
SHOWN = 4  # images of the picture

Main = Callable[[Sequence[str]], None]


@dataclass(frozen=True)
class Runner:
    """Runs the scripts of one seed, data under `root`, checkpoints and masks under `out`."""

    root: Path
    out: Path
    seed: int

    def call(self, script: Main, *arguments: str) -> None:
        common = ("--preset", "builtin", "--data-dir-target", str(self.root / "Cityscapes"))
        name = str(script.__globals__["__file__"]).rsplit("/", 1)[-1]
        logger.info("$ python %s %s", name, shlex.join((*common, *arguments)))
        script((*common, *arguments))

    def train(self, script: Main, arm: str, *arguments: str, source: tuple[str, ...] = ()) -> Path:
        """Train into `out`/ARM; returns the checkpoint."""
        source = source or ("--data-dir", str(self.root / "gta5_deeplab"))
        folder = self.out / arm
        files = ("--snapshot-dir", str(folder), "--overwrite", "--random-seed", str(self.seed))
        self.call(script, *source, *files, *arguments)
        return folder / "last.pth"

    def pretrain(self) -> Path:
        return self.train(train_step1.main, "pretrain", "--source-only", "--num-steps", str(PRETRAIN))

    def source_only(self, start: Path, *arguments: str) -> Path:
        return self._arm("source_only", start, "--source-only", *arguments)

    def oracle(self, start: Path, *arguments: str) -> Path:
        target = ("--source", "cityscapes", "--data-dir", str(self.root / "Cityscapes"))
        return self._arm("oracle", start, "--source-only", *arguments, source=target)

    def step1(self, start: Path, *arguments: str, name: str = "step1") -> tuple[Path, Path]:
        """Stage 1 planned over all steps: as stopped early for stage 2, and carried on to the end."""
        stopped = self._arm(f"{name}_stopped", start, "--num-steps-stop", str(ALIGN), *arguments)
        return stopped, self._arm(name, start, "--continue-train", str(stopped), *arguments)

    def step2(self, start: Path, *arguments: str, name: str = "step2") -> Path:
        """Pseudo-labels from the stage-1 checkpoint `start`, then stage 2 from its weights."""
        labels = ("--ssl-target-dir", str(self.out / f"{name}_pseudo_labels"))
        self.call(Generate_Pseudo_Label.main, "--restore-from", str(start), *labels)
        steps = ("--num-steps", str(SELF_TRAIN))
        return self.train(train_step2.main, name, "--restore-from", str(start), *labels, *steps, *arguments)

    def evaluate(self, arm: str) -> tuple[Path, Path]:
        """Masks and scores of an arm's checkpoint: (folder of masks, JSON file)."""
        masks, scores = self.out / "masks" / arm, self.out / f"{arm}.json"
        checkpoint = str(self.out / arm / "last.pth")
        self.call(evaluate_cityscapes.main, "--restore-from", checkpoint, "--save", str(masks), "--json", str(scores))
        return masks, scores

    def _arm(self, name: str, start: Path, *arguments: str, source: tuple[str, ...] = ()) -> Path:
        steps = ("--restore-from", str(start), "--num-steps", str(ALIGN + SELF_TRAIN))
        return self.train(train_step1.main, name, *steps, *arguments, source=source)


def run_arms(runner: Runner) -> dict[str, Path]:
    """Train and score all arms of the demo; returns the masks of each, by name."""
    start = runner.pretrain()
    runner.source_only(start)
    stopped, _ = runner.step1(start)
    runner.step2(stopped)
    runner.oracle(start)
    return {arm: runner.evaluate(arm)[0] for arm in TITLES}


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


def main_mean(scores: dict) -> float:
    """The mean over the whole class table."""
    return next(iter(scores["means"].values()))


def draw_comparison(runner: Runner, masks: dict[str, Path], path: Path) -> None:
    images = READERS["cityscapes"](runner.root / "Cityscapes", split="val", label_size="native")
    shown = images.names[:: max(1, len(images) // SHOWN)][:SHOWN]
    arms = [arm for arm in masks if arm != "oracle"]
    comparison(images, shown, {TITLES[arm]: masks[arm] for arm in arms}, path)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the pictures and of all training [0]")
    parser.add_argument("--data", type=Path, default=Path("data/builtin"), help="folder of the pictures [data/builtin]")
    parser.add_argument("--out", type=Path, default=Path("result/demo"), help="folder of all results [result/demo]")
    arguments = parser.parse_args(argv)
    began = time.monotonic()
    logs.setup()
    write_benchmark(arguments.data, seed=arguments.seed)
    runner = Runner(arguments.data, arguments.out, arguments.seed)
    masks = run_arms(runner)
    draw_comparison(runner, masks, arguments.out / "comparison.png")
    scores = read_scores(arguments.out)
    summary = {
        "miou": {arm: round(100 * main_mean(s), 2) for arm, s in scores.items()},
        "per_class": {
            arm: {name: None if v is None else round(100 * v, 2) for name, v in s["iou"].items()}
            for arm, s in scores.items()
        },
        "seconds": round(time.monotonic() - began, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    write_json(arguments.out / "summary.json", summary)
    print(f"\n{table(scores)}\n")
    print(f"{summary['seconds']:.0f} s, {summary['peak_rss_mb']} MB; {arguments.out / 'summary.json'}, ", end="")
    print(arguments.out / "comparison.png")


if __name__ == "__main__":
    config.run(main)
