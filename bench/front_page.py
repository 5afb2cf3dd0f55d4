"""The tables of README: what each method gives, next to what the paper reports, and what training costs.

    python bench/front_page.py          # prints the tables
    python bench/front_page.py --write  # also writes them into README.md

It reads the tables of bench/RESULTS.md for costs and for 4,600 steps on CamVid, and the records in bench/scores for the
rest. A mean is over the seeds of that arm; the gain is the mean difference from "source only" by the same optimiser, on
the seeds of both. Plus is trained by AdamW, as its presets say.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import builtin_gains, real
from bench.paper import REPORTED
from bench.real_pairs import PAIRS
from bench.results import PAGE, cells_of, rows, section, write_section

README = PAGE.parent.parent / "README.md"
FULL_SIZE = PAGE.parent / "scores" / "train_speed" / "h200_compile.json"
Scores = Mapping[Any, float]  # mIoU in percent by seed

ARMS = {
    "paper_step2": "the paper's two stages",
    "source_only_adamw": "source only, AdamW",
    "source_only{level}_balanced_adamw": "source only, AdamW, class balance",
    "plus{level}_adamw": "`--method plus`",
    "plus{level}_adamw_with_high_resolution_crops": "plus with `--high-resolution-crops`",
}
"""The arm of each column, and its title; {level} stands for the image level of the pair."""
LEVELS = {"carla_to_cityscapes": "lab"}


def number_of(seeds: Collection[Any]) -> str:
    return f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"


def cell(scores: Scores, base: Scores | None = None) -> str:
    """Mean and number of seeds; with a base, also the gain over it on the seeds of both."""
    if not scores:
        return "not run"
    words = f"{statistics.mean(scores.values()):.1f} ({number_of(scores)})"
    gains = [scores[seed] - base[seed] for seed in scores if seed in base] if base is not None else []
    if not gains:
        return words
    of_seeds = "" if len(gains) == len(scores) else f" ({number_of(gains)})"
    return f"{words}, {statistics.mean(gains):+.1f}{of_seeds}"


def compared(records: Mapping[str, Scores], level: str | None = None) -> dict[str, str]:
    """The cell of each column whose arm has been run, with its gain over "source only" by the same optimiser."""
    of_pairs = next(iter(real.ARMS.values()))  # which names the base of an arm, alike on all data
    cells = {}
    for column in ARMS:
        arm = column.format(level=f"_{level}" if level else "")
        if arm in records:
            base = of_pairs.base(arm)
            cells[column] = cell(records[arm], records.get(base) if arm != base else None)
    return cells


def line(title: str, network: str, base: str, arms: Mapping[str, str]) -> str:
    """base: the cell of "source only"; arms: those of the columns that have been run."""
    return f"| {' | '.join([title, network, base, *(arms.get(arm, 'not run') for arm in ARMS)])} |"


def line_of_page(page: str, title: str, network: str, section: str, last: str) -> str:
    """The line of a table in the results page, whose row `last` has the scores of both stages.

    Its scores by seed are rounded, so the mean and the gain are those of the table.
    """
    base, stages = (cells_of(page, section, row) for row in ("source only", last))
    seeds = [name for name in base if name.startswith("seed")]
    words = [f"{row['mean ± std'].partition(' ')[0]} ({number_of(seeds)})" for row in (base, stages)]
    gain = float(stages["over source only"].partition(" ")[0])
    return line(title, network, words[0], {"paper_step2": f"{words[1]}, {gain:+.1f}"})


def of_builtin(scores: Path) -> dict[str, Scores]:
    """The scores on the built-in data, by arm of the table. scores: the folder that `bench/builtin_gains.py` writes."""
    arms = {
        **{"source_only": "source_only", "paper_step2": "step2", "source_only_adamw": "source_only_AdamW"},
        **{"source_only_balanced_adamw": "source_only_trained_as_plus_is", "plus_adamw": "plus"},
    }
    return {
        name: {path.parent.name: builtin_gains.miou(path.parent, arm) for path in scores.glob(f"seed*/{arm}.json")}
        for name, arm in arms.items()
    }


def table(page: str, scores: Path) -> list[str]:
    """page: text of the results page; scores: folder of the records of the benches."""
    lines = [
        f"| mIoU on target images, % | network | source only | {' | '.join(ARMS.values())} |",
        "|---" * (3 + len(ARMS)) + "|",
    ]
    drawn = of_builtin(scores / "builtin")
    title = "built-in data (drawn streets), 19 classes"
    lines.append(line(title, "four residual blocks", cell(drawn["source_only"]), compared(drawn)))
    for name, pair in PAIRS.items():
        records: dict[str, Scores] = {
            arm: {seed: 100 * record["miou"] for seed, record in of_seed.items()}
            for arm, of_seed in real.read(scores / "real", name).items()
        }
        if "source_only" in records:
            level = LEVELS.get(name)
            title = pair.title.replace("->", "to")
            title += f"; class balance and plus on `{level}` images" if level else ""
            lines.append(line(title, "MobileNetV2", cell(records["source_only"]), compared(records, level)))
    last = "step 2 after it, with the paper's weights too"
    lines.append(line_of_page(page, "CamVid day to dusk, 4,600 steps", "MobileNetV2", "camvid", last))
    for paper in REPORTED:
        title = f"{paper.title}, {len(paper.iou)} classes"
        first = "not reported here" if paper.source_only is None else f"{paper.source_only}"
        reported = {arm: "–" for arm in ARMS} | {"paper_step2": f"{paper.miou}"}
        lines.append(line(f"{title}, **as the paper reports**", "ResNet-101", first, reported))
        lines.append(f"| {title}, **this code** | ResNet-101 | {' | '.join(['not measured'] * (1 + len(ARMS)))} |")
    return lines


def cost_table(page: str) -> list[str]:
    """page: text of the results page."""
    first = cells_of(page, "iteration", "1, resnet101, 320x180 / 256x128")
    plus = cells_of(page, "iteration", "2, mobilenet_v2, 640x360 / 640x360")
    header, *options = rows(page, "train_speed options")
    [bf16] = (row for row in options if row[:2] == ["1", "`--amp bf16`"])
    minutes = dict(re.findall(r"(\w+) (\d+)[,.]", section(page, "camvid")))
    stages = " + ".join(minutes[stage] for stage in ("pretrain", "step1_stopped", "step2"))
    kept = json.loads(FULL_SIZE.read_text())["results"]
    full_size = {case["compile"]: case["ms"] for case in kept if (case["stage"], case["method"]) == (2, "paper")}
    lines = [
        (
            "ResNet-101, one iteration of stage 1, 320x180 and 256x128",
            f"{float(first['wall'].split(' / ')[0]):.1f} s, {first['peak'].split(' / ')[0]} MiB",
            "Cost of the category and instance terms",
        ),
        ("the same with `--amp bf16`", f"{float(bf16[header.index('ratio')]):.1f} times as long", "Training speed"),
        (
            "MobileNetV2 on CamVid, 320x240: source training, then stages 1 and 2",
            f"{stages} minutes",
            "CamVid, day to dusk",
        ),
        (
            "MobileNetV2 from CamVid to India, 320x240: both stages of plus, 2,000 steps, on one core",
            f"{real.minutes(list(real.read(real.SCORES, 'camvid_to_idd')['plus'].values()))[1]} minutes",
            "Real pairs",
        ),
        (
            "MobileNetV2, 640x360, as in `own_images`: one iteration of plus, with one image per domain, on one core",
            f"{float(plus['wall'].split(' / ')[0]):.1f} s, {plus['peak'].split(' / ')[0]} MiB",
            "Cost of the category and instance terms",
        ),
        (
            "the same network, the labels of an image of 1280x720, on one core",
            f"{cells_of(page, 'predicting', 'mobilenet_v2, 640x360, stride 16')['ms']} ms",
            "Predicting",
        ),
        (
            "full size (1280x720 and 1024x512), stage 2, H200, `--amp bf16`; also with `--compile --compile-mode "
            "reduce-overhead`",
            " and ".join(f"{full_size[compiled]:.0f} ms" for compiled in ("no", "reduce-overhead")),
            "At full size, on a GPU",
        ),
    ]
    return ["| what | measured | section |", "|---|---|---|", *(f"| {' | '.join(cells)} |" for cells in lines)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the tables into README.md")
    arguments = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    for name, lines in (("front_page", table(page, real.SCORES.parent)), ("front_page costs", cost_table(page))):
        print("\n".join(lines))
        if arguments.write:
            write_section(name, "python bench/front_page.py --write", lines, README)


if __name__ == "__main__":
    main()
