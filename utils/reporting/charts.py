"""Charts as inline SVG: lines, bars, a heat map and points. Colours and fonts come from the page's style sheet.

Every function returns one <svg> element whose marks have a <title>, which a browser shows at the pointer. `None` and
nan stand for values that do not exist: they are left out, and interrupt a line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

Value = float | None
Format = Callable[[float], str]

MOST_POINTS = 240  # points per line, more than a screen can show


@dataclass(frozen=True)
class Series:
    """A named line or row of bars; colour: any CSS colour."""

    name: str
    x: Sequence[float]
    y: Sequence[Value]
    colour: str = "var(--run0)"


@dataclass(frozen=True)
class Scale:
    """Maps `low` to `start` and `high` to `end`, in pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        return round(self.start + (self.end - self.start) * ((value - self.low) / span if span else 0.5), 1)


def number(value: float) -> str:
    """A short form: 250000 -> 250k, 0.00025 -> 2.5e-4, 12.3456 -> 12.3."""
    size = abs(value)
    if size >= 999_500:  # what is closer to 1M than to 999k
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    if size >= 999.5:
        return f"{value:.0f}"
    if size and size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """0.1234 -> 12.3 %."""
    return f"{100 * value:.1f} %"


def distinct(values: Sequence[float], form: Format = number) -> list[str]:
    """The values as `form` writes them, with more digits if they would otherwise look equal."""
    shown = [form(value) for value in values]
    digits = 4
    while len(set(shown)) < len(set(values)) and digits < 12:
        shown = [f"{value:.{digits}g}" for value in values]
        digits += 1
    return shown


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, at most `most` of them: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20, 50):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [float(f"{place * step:.12g}") for place in range(first, last + 1)]
    return [low]


def thinned(x: Sequence[float], y: Sequence[Value], most: int = MOST_POINTS) -> tuple[list[float], list[Value]]:
    """At most `most` points: means over groups of consecutive points of equal length, at the last point of each."""
    length = -(-len(x) // most) if x else 1
    starts = range(0, len(x), length)
    return [x[min(start + length, len(x)) - 1] for start in starts], [_mean(y[s : s + length]) for s in starts]


def _mean(values: Sequence[Value]) -> Value:
    there = [value for value in values if _exists(value)]
    return sum(there) / len(there) if there else None  # type: ignore[arg-type]


def _exists(value: Value) -> bool:
    return value is not None and math.isfinite(value)


def limits(values: Sequence[Value], low: float | None = None, high: float | None = None) -> tuple[float, float]:
    """The range of an axis: that of the values, from zero if they come close to it. low, high: values that it must
    include."""
    there = [value for value in values if value is not None and math.isfinite(value)] or [0.0, 1.0]
    least, most = min(there), max(there)
    if 0 < least < 0.5 * most:
        least = 0.0
    least, most = min(least, low if low is not None else least), max(most, high if high is not None else most)
    if least == most:
        margin = abs(least) / 10 or 1.0
        least, most = (0.0 if least == 0 else least - margin), most + margin
    return least, most


def _svg(width: float, height: float, label: str, body: str, kind: str) -> str:
    return (
        f'<svg class="chart {kind}" viewBox="0 0 {width:g} {height:g}" style="--w:{width:g}px" role="img" '
        f'aria-label="{escape(label)}">{body}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "tick", more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}"{more}>{escape(text)}</text>'


def lines(
    series: Sequence[Series],
    label: str,
    *,
    low: float | None = None,
    high: float | None = None,
    form: Format = number,
    width: int = 320,
    height: int = 150,
) -> str:
    """One line per series over a shared axis, and a dot at its last value.

    low, high: the vertical axis shows at least these. form: how its values are written.
    """
    drawn = [(one, *thinned(one.x, one.y)) for one in series]
    bottom, top = limits([value for _, _, y in drawn for value in y], low, high)
    steps = [place for _, x, _ in drawn for place in x]
    first, last = (min(steps), max(steps)) if steps else (0.0, 1.0)
    up = Scale(bottom, top, height - 22, 10)
    values = ticks(bottom, top, 4)
    marks = list(zip(values, distinct(values, form), strict=True))
    left = 12 + 6 * max(len(text) for _, text in marks)
    across = Scale(min(first, 0.0) if first > 0 else first, last, left, width - 12)
    body = [
        f'<path class="grid" d="M{left} {up(value)}H{width - 8}"/>{_text(left - 5, up(value) + 3.5, text, "end")}'
        for value, text in marks
    ]
    body += [_text(across(step), height - 6, number(step)) for step in ticks(across.low, across.high, 4)]
    for one, x, y in drawn:
        points = [(step, value) for step, value in zip(x, y, strict=True) if _exists(value)]
        if not points:
            continue
        body.append(f'<path class="line" style="stroke:{one.colour}" d="{path(x, y, across, up)}"/>')
        step, value = points[-1]
        title = f"{one.name}: {form(value or 0)} at step {step:g}"
        body.append(
            f'<circle cx="{across(step)}" cy="{up(value or 0)}" r="3" style="fill:{one.colour}">'
            f"<title>{escape(title)}</title></circle>"
        )
    return _svg(width, height, label, "".join(body), "lines")


def path(x: Sequence[float], y: Sequence[Value], across: Scale, up: Scale) -> str:
    """The path of a line, in pieces where values are missing; a piece of one point is a dot."""
    pieces: list[list[str]] = [[]]
    for step, value in zip(x, y, strict=True):
        if value is not None and math.isfinite(value):
            pieces[-1].append(f"{across(step):g} {up(value):g}")
        elif pieces[-1]:
            pieces.append([])
    return "".join(f"M{piece[0]}" + ("".join(f"L{p}" for p in piece[1:]) or "h0") for piece in pieces if piece)


def bars(
    names: Sequence[str],
    series: Sequence[Series],
    label: str,
    *,
    high: float | None = None,
    form: Format = percent,
    colours: Sequence[str] = (),
    width: int = 340,
) -> str:
    """Horizontal bars from zero: one group per name, one bar per series (whose `x` is not used).

    high: the axis shows at least this. colours: of the swatch before each name, if any.
    """
    values = [value for one in series for value in one.y]
    top = limits([0.0, *values], high=high)[1]
    thick = 12 if len(series) == 1 else 11  # the values beside the bars are 10 high
    step = thick * len(series) + 8
    left = 12 + (14 if colours else 0) + 6.4 * max([len(name) for name in names], default=0)
    along = Scale(0.0, top, left, width - 52)
    height = step * len(names) + 4
    body = []
    for row, name in enumerate(names):
        y = 4 + step * row
        middle = y + (step - 8) / 2
        if colours:
            square = f'x="{left - 15:g}" y="{middle - 5:g}" width="10" height="10"'
            body.append(f'<rect class="swatch" {square} fill="{colours[row]}"/>')
        body.append(_text(left - (20 if colours else 6), middle + 4, name, "end", "name"))
        for place, one in enumerate(series):
            value = one.y[row]
            line = y + thick * place + (thick - 1) / 2 + 3.5  # of the text, whose middle is that of the bar
            if value is None or not math.isfinite(value):
                body.append(_text(left + 2, line, "–", "start", "value"))
                continue
            title = f"{name}, {one.name}: {form(value)}"
            body.append(
                f'<rect x="{left:g}" y="{y + thick * place}" width="{along(value) - left:.1f}" height="{thick - 1}" '
                f'style="fill:{one.colour}"><title>{escape(title)}</title></rect>'
            )
            body.append(_text(along(value) + 4, line, form(value), "start", "value"))
    return _svg(width, height, label, "".join(body), "bars")


def heatmap(
    values: Sequence[Sequence[Value]],
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    *,
    form: Format = percent,
    row_colours: Sequence[str] = (),
    column_colours: Sequence[str] = (),
    cell: int = 24,
) -> str:
    """Cells [R][C] of values from 0 to 1, darker for higher values; written in percent if they round to at least 1."""
    left = 22 + 6.4 * max([len(name) for name in rows], default=0)
    above = 22 + 6.0 * max([len(name) for name in columns], default=0) * 0.82
    body = []
    for c, name in enumerate(columns):
        x = left + cell * c + cell / 2
        if column_colours:
            swatch = f'x="{x - 5:g}" y="{above - 13:g}" width="10" height="10" fill="{column_colours[c]}"'
            body.append(f'<rect class="swatch" {swatch}/>')
        turn = f' transform="rotate(-55 {x + 3:g} {above - 16:g})"'
        body.append(_text(x + 3, above - 16, name, "start", "name", turn))
    for r, name in enumerate(rows):
        y = above + cell * r
        if row_colours:
            swatch = f'x="{left - 14:g}" y="{y + cell / 2 - 5:g}" width="10" height="10" fill="{row_colours[r]}"'
            body.append(f'<rect class="swatch" {swatch}/>')
        body.append(_text(left - 18, y + cell / 2 + 4, name, "end", "name"))
        for c, value in enumerate(values[r]):
            x = left + cell * c
            place = f'x="{x:g}" y="{y:g}" width="{cell - 1}" height="{cell - 1}"'
            if value is None or not math.isfinite(value):
                body.append(f'<rect class="none" {place}/>')
                continue
            title = f"<title>{escape(f'{name} → {columns[c]}: {form(value)}')}</title>"
            body.append(f'<rect class="cell" {place} fill-opacity="{min(max(value, 0.0), 1.0):.3f}">{title}</rect>')
            if round(100 * value) >= 1:
                kind = "on" if value > 0.55 else "off"
                body.append(_text(x + cell / 2 - 0.5, y + cell / 2 + 3.5, f"{100 * value:.0f}", "middle", kind))
    right = 40 + 4 * max([len(name) for name in columns], default=0)
    return _svg(left + cell * len(columns) + right, above + cell * len(rows) + 2, label, "".join(body), "heatmap")


@dataclass(frozen=True)
class Point:
    """A point of a map. shape: "circle" or "cross"; large: an emphasised one."""

    x: float
    y: float
    colour: str
    shape: str
    title: str
    large: bool = False


def points(all_points: Sequence[Point], label: str, *, size: int = 360) -> str:
    """Points on a square without axes; both directions have one scale, so that distances can be compared."""
    xs, ys = [point.x for point in all_points], [point.y for point in all_points]
    span = max(max(xs) - min(xs), max(ys) - min(ys), 1e-9) if all_points else 1.0
    middle = [(max(v) + min(v)) / 2 if v else 0.0 for v in (xs, ys)]
    across = Scale(middle[0] - span / 2, middle[0] + span / 2, 10, size - 10)
    up = Scale(middle[1] - span / 2, middle[1] + span / 2, size - 10, 10)
    body = []
    for point in all_points:
        x, y = across(point.x), up(point.y)
        title = f"<title>{escape(point.title)}</title>"
        r = 5 if point.large else 2.6
        if point.shape == "circle":
            body.append(f'<circle class="point" cx="{x}" cy="{y}" r="{r}" fill="{point.colour}">{title}</circle>')
        else:
            d = f"M{x - r:.1f} {y - r:.1f}l{2 * r:g} {2 * r:g}m0 {-2 * r:g}l{-2 * r:g} {2 * r:g}"
            kind = "cross large" if point.large else "cross"
            body.append(f'<path class="{kind} halo" d="{d}"/>')
            body.append(f'<path class="{kind}" d="{d}" stroke="{point.colour}">{title}</path>')
    return _svg(size, size, label, "".join(body), "points")
