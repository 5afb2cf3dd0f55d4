"""Charts of the results page: one row per arm; open circles are its seeds, the full circle is their mean.

    python bench/charts.py    # draws the charts of SECTIONS again, from the tables in bench/RESULTS.md

A bench draws its own chart when it writes its table. The background is part of the picture, so that it can be read on
a light and on a dark page.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.results import PAGE, rows
from utils.system.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER = PAGE.parent.parent / "illustration" / "results"
# Sections of the results page with a chart of their first table, which has scores by seed; the name of the chart.
SECTIONS = {"builtin_gains main": "builtin", "camvid": "camvid"}

INK, POINT, LINE, BACKGROUND = "#1f2933", "#2563eb", "#cbd2d9", "#f8fafc"
ROW = 0.28  # height of an arm, in inches
Arms = Mapping[str, Sequence[float]]  # the scores of each arm, one per seed, by its title

# Text stays text, and the same scores give the same file.
STYLE: dict[Any, Any] = {
    **{"svg.fonttype": "none", "svg.hashsalt": "bafft", "font.family": "sans-serif", "font.size": 10},
    **{"text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": LINE},
    **{"figure.facecolor": BACKGROUND, "axes.facecolor": BACKGROUND},
}


def draw(path: Path, groups: Mapping[str, Arms], label: str) -> None:
    """One axis per group, by its title; the dashed line of a group is the mean of its first arm. label: of the axes."""
    import matplotlib  # here, because a bench that trains imports this file too

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows_of = [len(arms) for arms in groups.values()]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(groups),
            figsize=(10, sum(ROW * number + 0.8 for number in rows_of)),
            height_ratios=[number + 1 for number in rows_of],
            squeeze=False,
            layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12),
        )
        for axis, (title, arms) in zip(axes[:, 0], groups.items(), strict=True):
            axis.set_title(title, loc="left", fontweight="bold", fontsize=10)
            axis.set_xlabel(label)
            _points(axis, arms)
        write_atomically(
            path, lambda file: figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        )
        plt.close(figure)


def _points(axis: Axes, arms: Arms) -> None:
    from matplotlib.ticker import MaxNLocator

    means = [statistics.mean(values) for values in arms.values()]
    axis.axvline(means[0], color=INK, linestyle="--", linewidth=0.8)
    for number, (values, mean) in enumerate(zip(arms.values(), means, strict=True)):
        axis.plot([min(values), max(values)], [number, number], color=POINT, linewidth=1.5)
        axis.plot(values, [number] * len(values), "o", color=POINT, markerfacecolor=BACKGROUND, markersize=6)
        axis.plot(mean, number, "o", color=POINT, markersize=7)
    axis.set_yticks(range(len(arms)), [title.replace("`", "") for title in arms])
    axis.set_ylim(len(arms) - 0.5, -0.5)
    low, high = (extreme(value for values in arms.values() for value in values) for extreme in (min, max))
    margin = max(0.08 * (high - low), 1 - (high - low) / 2)  # close scores do not look far apart
    axis.set_xlim(low - margin, high + margin)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True))
    axis.grid(axis="x", color=LINE)
    axis.set_axisbelow(True)
    axis.tick_params(length=0)
    axis.spines[["top", "left", "right"]].set_visible(False)


def arms_of(page: str, section: str) -> tuple[str, dict[str, list[float]]]:
    """What the first table of a section scores (its first header), and the scores of each row by seed."""
    header, *lines = rows(page, section)
    seeds = [number for number, title in enumerate(header) if title.startswith("seed")]
    arms = {}
    for cells in lines[1:]:  # without the line below the header
        if len(cells) != len(header):  # another table follows
            break
        arms[cells[0]] = [float(cells[number]) for number in seeds]
    return header[0], arms


def draw_section(section: str) -> None:
    """Draw the chart of a section from the results page."""
    title, arms = arms_of(PAGE.read_text(encoding="utf-8"), section)
    draw(FOLDER / f"{SECTIONS[section]}.svg", {title: arms}, "mIoU, %")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for section in SECTIONS:
        draw_section(section)


if __name__ == "__main__":
    main()
