"""What the paper reports and what its released code costs, next to this code.

    python bench/paper.py --table    # bench/RESULTS.md

The figures of the paper are typed here, from its tables (ResNet-101, Cityscapes val). Our figures are read from other
sections of the results page and, for the tables of the paper, from scores that this command writes:

    python evaluate_cityscapes.py --restore-from CHECKPOINT --json bench/scores/paper/gta5_to_cityscapes.json

The released code cannot be part of this repository, so its times of an iteration are typed too. The benches imitate its
other steps and measure both ways.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.results import PAGE, rows, section, write_section

SCORES = Path(__file__).resolve().parent / "scores" / "paper"
UNKNOWN, MISSING = "not known", "not measured"


@dataclass(frozen=True)
class Reported:
    """A table of the paper: mean IoU of source only (None if we do not know it) and of both stages, IoU per class, in
    percent. name: the stem of the file of our scores."""

    name: str
    title: str
    source_only: float | None
    miou: float
    iou: Mapping[str, float]


REPORTED = (
    Reported(
        "gta5_to_cityscapes",
        "GTA5 to Cityscapes",
        36.6,
        50.7,
        {
            **{"road": 91.8, "sidewalk": 48.7, "building": 85.6, "wall": 38.1, "fence": 31.8, "pole": 35.7},
            **{"traffic light": 39.5, "traffic sign": 40.3, "vegetation": 85.3, "terrain": 40.5, "sky": 85.9},
            **{"person": 62.2, "rider": 32.3, "car": 84.2, "truck": 31.4, "bus": 52.2, "train": 9.9},
            **{"motorcycle": 31.0, "bicycle": 36.1},
        },
    ),
    Reported(
        "synthia_to_cityscapes",
        "SYNTHIA to Cityscapes",
        None,
        53.4,
        {
            **{"road": 78.9, "sidewalk": 35.7, "building": 81.3, "traffic light": 26.4, "traffic sign": 31.5},
            **{"vegetation": 81.5, "sky": 83.5, "person": 53.4, "rider": 26.1, "car": 78.8, "bus": 40.0},
            **{"motorcycle": 28.5, "bicycle": 48.8},
        },
    ),
)

# Seconds of an iteration of the released code, and of the same without category and instance terms, by stage: its
# scripts, changed only as far as a CPU needs it; ResNet-101, 320x180 and 256x128, as in bench/iteration.py.
RELEASED_SECONDS = {1: ((13.2, 11.1),), 2: ((70.7, 6.2), (87.3, 4.6))}


def table(page: str, scores: Path = SCORES) -> list[str]:
    """page: text of the results page; scores: folder of the scores on the data sets of the paper."""
    lines = ["| what | paper | released code | this code |", "|---|---|---|---|"]
    for paper in REPORTED:
        what = f"mIoU, {paper.title}, {len(paper.iou)} classes"
        lines.append(f"| {what} | {paper.miou} | {UNKNOWN} | {percent(our_mean(paper, scores))} |")
    for stage, seconds in RELEASED_SECONDS.items():
        released = " and ".join(f"{full / plain:#.3g}" for full, plain in seconds)
        what = f"time of an iteration of stage {stage}: with the category and instance terms / without them"
        lines.append(f"| {what} | – | {released} | {our_ratio(page, stage)} |")
    lines += [f"| {what} | – | {released} | {ours} |" for what, released, ours in steps(page)]
    for paper in REPORTED:
        lines += ["", *class_table(paper, our_scores(paper, scores))]
    return lines


def steps(page: str) -> list[tuple[str, str, str]]:
    """The steps around the network, which are measured in both ways: what, released code, this code."""
    loader, iou, evaluation, pseudo = (
        {cells[0]: cells[1] for cells in rows(page, name)} for name in ("loader", "iou", "evaluation", "pseudo_labels")
    )
    published = next(value for way, value in loader.items() if way.startswith("published way"))
    cached = loader["from the cache (`--cache`)"]
    memory = re.search(
        r"peak memory (.+?) above the start \(the published arrays: (.+?)\)", section(page, "pseudo_labels")
    )
    assert memory is not None
    return [
        ("GTA5's pairs loaded per second", published, f"{loader['without cache']}; {cached} from the cache"),
        ("pairs of masks scored per second", iou["published way"], iou["ours"]),
        ("up-sampling and argmax of an image, ms", evaluation["published"], evaluation["ours"]),
        ("pseudo-labels, ms per image without the network", pseudo["published"], pseudo["ours"]),
        ("pseudo-labels of 2975 images, memory", memory[2], memory[1]),
    ]


def our_ratio(page: str, stage: int) -> str:
    """From the section of bench/iteration.py: wall-clock time of the full iteration over that of the plain one."""
    header, *lines = rows(page, "iteration")
    for cells in lines:
        if cells[0].startswith(f"{stage}, resnet101") and cells[header.index("kinds")] == "full / plain":
            return f"{float(cells[header.index('ratio')]):#.3g}"
    return MISSING


def our_scores(paper: Reported, folder: Path) -> dict[str, Any] | None:
    path = folder / f"{paper.name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def our_mean(paper: Reported, folder: Path) -> float | None:
    found = our_scores(paper, folder)
    return None if found is None else found["means"][str(len(paper.iou))]


def percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f}"


def class_table(paper: Reported, ours: dict[str, Any] | None) -> list[str]:
    cells = [percent(ours["iou"][name]) if ours else "–" for name in paper.iou]
    return [
        f"| IoU, %, {paper.title} | {' | '.join(paper.iou)} |",
        "|---" * (len(paper.iou) + 1) + "|",
        f"| paper | {' | '.join(map(str, paper.iou.values()))} |",
        f"| this code | {' | '.join(cells)} |",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="write the section of bench/RESULTS.md")
    arguments = parser.parse_args()
    lines = table(PAGE.read_text(encoding="utf-8"))
    print("\n".join(lines))
    if arguments.table:
        write_section("paper", "python bench/paper.py --table", lines)


if __name__ == "__main__":
    main()
