"""Draws illustration/method.svg, the method in one picture: two stages, and the four levels of one iteration.

    python illustration/method.py

The background is part of the picture, so that it can be read on a light and on a dark page.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

PAGE = Path(__file__).with_suffix(".svg")
WIDTH, HEIGHT = 1000, 606

INK, QUIET = "#1f2933", "#52606d"
PLAIN, SOURCE, TARGET, NETWORK = "#ffffff", "#dbeafe", "#fde9d0", "#e4e7eb"
LEVELS = ("#e3f4e1", "#d6efe9", "#ece4f7", "#fbe3ea")  # image, feature, category, instance

Point = tuple[float, float]


def text(x: float, y: float, words: str, *, size: int = 13, bold: bool = False, colour: str = INK) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x}" y="{y}" font-size="{size}"{weight} fill="{colour}">{escape(words)}</text>'


def box(x: float, y: float, w: float, h: float, title: str, lines: Sequence[str] = (), fill: str = PLAIN) -> str:
    """A box with a bold title. A line that begins with ">" names files or options, and is written without that sign."""
    parts = [f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{fill}" stroke="{QUIET}"/>']
    parts.append(text(x + 10, y + 20, title, bold=True))
    for number, line in enumerate(lines):
        named = line.startswith(">")
        colour, size = (QUIET, 12) if named else (INK, 13)
        parts.append(text(x + 10, y + 38 + 17 * number, line.removeprefix(">"), size=size, colour=colour))
    return "\n".join(parts)


def arrow(*points: Point) -> str:
    path = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="1.4" marker-end="url(#tip)"/>'


def stages() -> list[str]:
    """The upper row: the scripts in their order."""
    y, h = 58, 92
    return [
        text(24, 40, "Two stages", size=17, bold=True),
        box(24, y, 206, h, "Stage 1: alignment", ["Source labels and the", "four levels", ">train_step1.py"], NETWORK),
        arrow((230, y + h / 2), (266, y + h / 2)),
        box(270, y, 206, h, "Pseudo-labels", ["Sure predictions on all", "target images", ">Generate_Pseudo_Label.py"]),
        arrow((476, y + h / 2), (512, y + h / 2)),
        box(
            516, y, 206, h, "Stage 2: self-training",
            ["The same, and learning", "from the pseudo-labels", ">train_step2.py"], NETWORK,
        ),
        arrow((722, y + h / 2), (758, y + h / 2)),
        box(762, y, 214, h, "The segmenter", ["Predicts images, folders,", "videos and cameras", ">predict.py"]),
    ]  # fmt: skip


def iteration() -> list[str]:
    """The lower part: where each level acts in an iteration of either stage."""
    left, right, w = 24, 590, 362
    # Top and height of each box in the right column.
    rows = ((222, 32), (264, 54), (328, 66), (404, 66), (480, 66), (556, 32))
    middles = [top + height / 2 for top, height in rows]
    bus = right + w + 12
    return [
        text(24, 200, "One iteration of either stage, and its four levels", size=17, bold=True),
        box(left, 222, 150, 62, "Source image", ["with its labels"], SOURCE),
        arrow((174, 253), (202, 253)),
        box(
            206, 222, 190, 98, "1  Image level",
            ["The source image takes", "the target's look", ">--image-level", ">restyle_source.py"], LEVELS[0],
        ),
        arrow((396, 253), (432, 253)),
        box(left, 406, 150, 62, "Target image", ["without labels"], TARGET),
        arrow((99, 406), (99, 302), (202, 302)),
        arrow((174, 437), (432, 437)),
        box(436, 222, 108, 366, "Segmenter", ["DeepLab-v2;", "one network", "for both", "domains"], NETWORK),
        *(arrow((544, middle), (right - 4, middle)) for middle in middles),
        box(right, rows[0][0], w, rows[0][1], "Cross-entropy with the source labels", (), SOURCE),
        box(
            right, rows[1][0], w, rows[1][1], "Source memory",
            ["Classes and things that were predicted correctly"], SOURCE,
        ),
        box(
            right, rows[2][0], w, rows[2][1], "2  Feature level",
            ["Discriminators must not tell the domains apart", ">--lambda-adv-target  --lambda-adv-feat"], LEVELS[1],
        ),
        box(
            right, rows[3][0], w, rows[3][1], "3  Category level: stuff matching and ISIA",
            ["The same classes together, different ones apart", ">--lambda-adv-cls  --lambda-adv-cate"], LEVELS[2],
        ),
        box(
            right, rows[4][0], w, rows[4][1], "4  Instance level: instance matching and AIM",
            ["Each thing moves to the nearest one in memory", ">--lambda-adv-ins  --aim"], LEVELS[3],
        ),
        box(right, rows[5][0], w, rows[5][1], "Stage 2: cross-entropy with the pseudo-labels", (), TARGET),
        arrow((right + w, middles[1]), (bus, middles[1]), (bus, middles[3]), (right + w + 4, middles[3])),
        arrow((bus, middles[3]), (bus, middles[4]), (right + w + 4, middles[4])),
    ]  # fmt: skip


def drawing() -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" role="img">\n'
        "<title>BAFFT: two stages, and the four levels of one iteration</title>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{INK}"/></marker></defs>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#f8fafc"/>'
    )
    return "\n".join([head, *stages(), *iteration(), "</svg>"]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(drawing(), encoding="utf-8")
