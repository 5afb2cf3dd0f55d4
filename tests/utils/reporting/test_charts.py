"""Charts: where marks lie, and which numbers stand next to them."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from utils.reporting import charts
from utils.reporting.charts import Point, Scale, Series


def elements(svg: str, tag: str, kind: str = "") -> list[ET.Element]:
    return [e for e in ET.fromstring(svg).iter(tag) if kind in e.get("class", "")]


def texts(svg: str, kind: str) -> list[str]:
    return [e.text or "" for e in elements(svg, "text", kind)]


def numbers(element: ET.Element, *names: str) -> list[float]:
    return [float(element.get(name, "nan")) for name in names]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (12.3456, "12.3"),
        (250_000, "250k"),
        (2e6, "2M"),
        (1234.4, "1234"),
        (2.5e-4, "2.5e-4"),
        (0.5, "0.5"),
        (999.7, "1000"),
        (-999_700, "-1M"),
        (999_400, "999k"),
    ],
)
def test_numbers_are_short(value, shown):
    assert charts.number(value) == shown


def test_ticks_close_together_get_the_digits_that_tell_them_apart():
    assert charts.distinct([0.6925, 0.693, 0.6935]) == ["0.6925", "0.693", "0.6935"]
    assert charts.distinct([0, 0.5, 0.5]) == ["0", "0.5", "0.5"]


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0, 1, 4, [0, 0.5, 1]),
        (0, 250_000, 4, [0, 100_000, 200_000]),
        (0.003, 0.0095, 4, [0.004, 0.006, 0.008]),
        (-1, 1, 5, [-1, -0.5, 0, 0.5, 1]),
        (3, 3, 5, [3]),
    ],
)
def test_ticks_are_round_and_few(low, high, most, expected):
    assert charts.ticks(low, high, most) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 4.0], (0, 4)), ([3.0, 4], (3, 4)), ([None, 2, math.nan, 1.9], (1.9, 2)), ([5.0], (4.5, 5.5)), ([], (0, 1))],
)
def test_an_axis_starts_at_zero_if_the_values_come_near_it(values, expected):
    assert charts.limits(values) == expected


def test_long_lines_are_thinned_to_means():
    x, y = charts.thinned(range(7), [0.0, 2.0, None, 4.0, None, None, 6.0], most=4)
    assert (x, y) == ([1, 3, 5, 6], [1.0, 4.0, None, 6.0])


def test_a_scale_maps_its_ends():
    up = Scale(0, 10, 100, 20)
    assert [up(0), up(5), up(10)] == [100, 60, 20]
    assert Scale(3, 3, 0, 10)(3) == 5


def test_a_line_is_broken_where_values_are_missing():
    same = Scale(0, 10, 0, 10)
    assert charts.path([0, 1, 2, 3, 4], [1.0, 2.0, None, math.nan, 5.0], same, same) == "M0 1L1 2M4 5h0"


def test_lines_end_in_a_dot_at_the_last_value():
    svg = charts.lines([Series("a<b", [0, 100], [0.0, 8.0]), Series("none", [], [])], "chart", width=320, height=150)
    (dot,) = elements(svg, "circle")
    assert numbers(dot, "cx", "cy") == [308, 10]
    assert dot.findtext("title") == "a<b: 8 at step 100"
    assert texts(svg, "tick")[:3] == ["0", "5", "0"]


def test_bars_are_as_long_as_their_values():
    rows = [Series("a", (), [0.25, None]), Series("b", (), [1.0, 0.5])]
    svg = charts.bars(["road", "sky"], rows, "IoU", high=1, width=340)
    widths = [numbers(e, "width")[0] for e in elements(svg, "rect")]
    assert widths[1] == pytest.approx(4 * widths[0], abs=0.5) and widths[1] == pytest.approx(2 * widths[2], abs=0.5)
    assert texts(svg, "value") == ["25.0 %", "100.0 %", "–", "50.0 %"]


def test_the_values_beside_bars_are_level_with_them_and_do_not_touch():
    svg = charts.bars(["road", "sky"], [Series(name, (), [0.25, 0.5]) for name in "abc"], "IoU")
    values = [numbers(e, "y")[0] for e in elements(svg, "text", "value")]
    boxes = [numbers(e, "y", "height") for e in elements(svg, "rect")]
    assert min(b - a for a, b in pairwise(values)) > 10  # the height of the letters
    assert [y + height / 2 for y, height in boxes] == pytest.approx([value - 3.5 for value in values])


def test_a_heat_map_is_darker_for_higher_values():
    svg = charts.heatmap([[0.9, 0.004], [None, 0.1]], ["road", "sky"], ["road", "sky"], "confusion")
    cells = elements(svg, "rect", "cell")
    assert [numbers(cell, "fill-opacity") for cell in cells] == [[0.9], [0.004], [0.1]]
    assert cells[1].findtext("title") == "road → sky: 0.4 %"
    assert texts(svg, "on") == ["90"] and texts(svg, "off") == ["10"]
    assert len(elements(svg, "rect", "none")) == 1


def test_points_keep_one_scale_for_both_directions():
    marks = [Point(0, 0, "#fff", "circle", "a"), Point(10, 5, "#000", "cross", "b", large=True)]
    svg = charts.points(marks, "map", size=120)
    (circle,) = elements(svg, "circle")
    assert numbers(circle, "cx", "cy") == [10, 85]
    assert elements(svg, "path", "halo")[0].get("d", "").startswith("M105.0 30.0l10 10")
    assert charts.points([], "map").startswith("<svg")
