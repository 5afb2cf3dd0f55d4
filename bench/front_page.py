"""The table of README: what each method gives, next to what the paper reports.

    python bench/front_page.py          # prints the table
    python bench/front_page.py --write  # also writes it into README.md

It reads the tables of bench/RESULTS.md for the built-in data and CamVid, and the records in bench/scores for the real
pairs. A mean is over the seeds of that arm; the gain is the mean difference from "source only" on the seeds of both.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import real
from bench.paper import REPORTED
from bench.results import PAGE, of_page, write_section

README = PAGE.parent.parent / "README.md"
Scores = Mapping[Any, float]  # mIoU in percent by seed

ARMS = {
    "paper_step2": "the paper's two stages",
    "plus": "`--method plus`",
    "plus_lab": "`--method plus --image-level lab`",
}


def cell(scores: Scores, base: Scores | None = None) -> str:
    """Mean and number of seeds; with a base, also the gain over it."""
    if not scores:
        return "not run"
    seeds = f"{len(scores)} seed{'s' if len(scores) > 1 else ''}"
    words = f"{statistics.mean(scores.values()):.1f} ({seeds})"
    gains = [scores[seed] - base[seed] for seed in scores if seed in base] if base is not None else []
    return f"{words}, {statistics.mean(gains):+.1f}" if gains else words


def line(title: str, network: str, base: Scores, arms: Mapping[str, Scores]) -> str:
    cells = [title, network, cell(base), *(cell(arms.get(arm, {}), base) for arm in ARMS)]
    return f"| {' | '.join(cells)} |"


def table(page: str, scores: Path) -> list[str]:
    """page: text of the results page; scores: folder of the records of `bench/real.py`."""
    lines = [
        f"| mIoU on target images, % | network | source only | {' | '.join(ARMS.values())} |",
        "|---" * (3 + len(ARMS)) + "|",
    ]
    base, last = (of_page(page, "builtin_gains main", row) for row in ("source only", "step 2"))
    lines.append(line("drawn streets, 19 classes", "four residual blocks", base, {"paper_step2": last}))
    for name, pair in real.PAIRS.items():
        records: dict[str, Scores] = {
            arm: {seed: 100 * record["miou"] for seed, record in of_seed.items()}
            for arm, of_seed in real.read(scores, name).items()
        }
        if "source_only" in records:
            lines.append(line(pair.title.replace("->", "to"), "MobileNetV2", records["source_only"], records))
    earlier = [of_page(page, "camvid", row) for row in ("source only", "step 2 after it, with the paper's weights too")]
    lines.append(
        line("CamVid day to dusk, an earlier schedule", "MobileNetV2", earlier[0], {"paper_step2": earlier[1]})
    )
    for paper in REPORTED:
        title = f"{paper.title}, {len(paper.iou)} classes"
        first = "not reported here" if paper.source_only is None else f"{paper.source_only}"
        lines.append(f"| {title}, **as the paper reports** | ResNet-101 | {first} | {paper.miou} | – | – |")
        lines.append(f"| {title}, **this code** | ResNet-101 | {' | '.join(['not measured'] * (1 + len(ARMS)))} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table into README.md")
    arguments = parser.parse_args()
    lines = table(PAGE.read_text(encoding="utf-8"), real.SCORES)
    print("\n".join(lines))
    if arguments.write:
        write_section("front_page", "python bench/front_page.py --write", lines, README)


if __name__ == "__main__":
    main()
