"""Day to dusk on real photographs: CamVid, MobileNetV2 from ImageNet weights, all stages, over seeds.

    python bench/camvid.py --data data/CamVid --weights pretrained/mobilenet_v2_features.pth --seeds 1 2

Source: the labelled day frames of train_day.txt; target: the dusk frames of train_dusk.txt, whose labels are only used
for the scores at the end. Every arm starts from the same day-trained network; source only takes as many source steps as
step 1 and step 2 together. An arm that has scores is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

import demo
from bench import charts
from bench.builtin_gains import NO_TERMS, gains, miou, once, paper_weights, run_stages, spread
from bench.results import write_section
from dataset import READERS
from utils.options import config
from utils.reporting.figures import comparison
from utils.system import logs

ILLUSTRATION = Path(__file__).resolve().parent.parent / "illustration" / "dusk.png"
SCHEDULE = demo.Schedule(pretrain=3000, align=800, self_train=800, learning_rate=1e-3)
ARMS = {
    "source_only": "source only",
    "no_terms": f"step 1 without any term (only BatchNorm statistics), {SCHEDULE.align} steps",
    "step1_stopped": f"step 1, {SCHEDULE.align} steps, where step 2 starts",
    "self_training": f"step 2 without any term of either stage (only pseudo-labels), {SCHEDULE.self_train} steps more",
    "step2": f"step 2, {SCHEDULE.self_train} steps more",
    "paper_step1": "step 1 with the weights of the paper, a tenth of the preset's",
    "paper_step2": "step 2 after it, with the paper's weights too",
}


def runner(data: Path, weights: Path, out: Path, seed: int) -> demo.Runner:
    common = ("--preset", "camvid_day_to_dusk", "--data-dir-target", str(data))
    return demo.Runner(out, seed, common, source=("--data-dir", str(data)), schedule=SCHEDULE, weights=weights)


def run(stages: demo.Runner) -> None:
    start = run_stages(stages)
    without = once(stages, "no_terms", lambda: stages.step1_stopped(start, *NO_TERMS, name="no_terms"))
    once(stages, "self_training", lambda: stages.step2(without, *NO_TERMS, name="self_training"))
    light = once(stages, "paper_step1", lambda: stages.step1_stopped(start, *paper_weights("0.01"), name="paper_step1"))
    once(stages, "paper_step2", lambda: stages.step2(light, *paper_weights("0.001"), name="paper_step2"))


def table(folders: list[Path]) -> list[str]:
    scores = {arm: [json.loads((folder / f"{arm}.json").read_text()) for folder in folders] for arm in ARMS}
    seeds = " | ".join(folder.name for folder in folders)
    lines = [f"| dusk mIoU, 11 classes | {seeds} | mean ± std | over source only |", "|---" * (len(folders) + 3) + "|"]
    base = [miou(folder, "source_only") for folder in folders]
    for arm, title in ARMS.items():
        values = [miou(folder, arm) for folder in folders]
        cells = " | ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {title} | {cells} | {spread(values)} | {spread(gains(values, base))} |")
    times = ", ".join(f"{arm} {minutes(folders, arm):.0f}" for arm in ("pretrain", *ARMS))
    lines += ["", f"Minutes of training, mean over the seeds: {times}."]
    classes = scores["step2"][0]["classes"]
    lines += ["", f"| mean IoU per class | {' | '.join(classes)} |", "|---" * (len(classes) + 1) + "|"]
    for arm, title in ARMS.items():
        per_class = [sum(100 * s["iou"][name] for s in scores[arm]) / len(folders) for name in classes]
        lines.append(f"| {title} | {' | '.join(f'{value:.1f}' for value in per_class)} |")
    return lines


def minutes(folders: list[Path], arm: str) -> float:
    """Mean time of an arm's training, from when its configuration was written to its last checkpoint."""
    files = [(folder / arm / "config.json", folder / arm / "last.pth") for folder in folders]
    return statistics.mean((last.stat().st_mtime - first.stat().st_mtime) / 60 for first, last in files)


def draw(data: Path, folder: Path, path: Path) -> None:
    images = READERS["camvid"](data, list_file=data / "train_dusk.txt", label_size="native")
    names = images.names[::16][:4]
    shown = {"source only": "source_only", "step 1": "step1_stopped", "step 2": "step2"}
    masks = {title: folder / "masks" / arm for title, arm in shown.items()}
    comparison(images, names, masks, path)
    comparison(images, names, masks, ILLUSTRATION, with_data=False)  # the photographs are not ours to pass on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/CamVid"))
    parser.add_argument("--weights", type=Path, default=Path("pretrained/mobilenet_v2_features.pth"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path("result/camvid"))
    parser.add_argument("--table-only", action="store_true", help="only write table and picture, from existing scores")
    arguments = parser.parse_args()
    logs.setup()
    folders = [arguments.out / f"seed{seed}" for seed in arguments.seeds]
    for seed, folder in zip(arguments.seeds, folders, strict=True):
        if not arguments.table_only:
            run(runner(arguments.data, arguments.weights, folder, seed))
    lines = table(folders)
    write_section("camvid", f"python bench/camvid.py --seeds {' '.join(map(str, arguments.seeds))}", lines)
    charts.draw_section("camvid")
    draw(arguments.data, folders[0], arguments.out / "dusk.png")
    print("\n".join(lines))


if __name__ == "__main__":
    config.run(main)
