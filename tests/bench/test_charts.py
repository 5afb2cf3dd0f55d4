"""The charts of the results page: what they show, and that they agree with their tables."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from bench import charts
from bench.results import PAGE, rows

SECTION = """
<!-- part -->
`command`, machine

| mIoU, 2 classes | seed1 | seed2 | mean |
|---|---|---|---|
| source only | 30.0 | 32.0 | 31.0 |
| step 2 | 35.0 | 36.5 | 35.8 |

| IoU | road | sky |
|---|---|---|
| step 2 | 1.0 | 2.0 |
<!-- end part -->
"""


def words(path: Path) -> list[str]:
    return [element.text or "" for element in ElementTree.parse(path).iter() if element.tag.endswith("text")]


def test_the_first_table_of_a_section_by_seed() -> None:
    title, arms = charts.arms_of(SECTION, "part")
    assert title == "mIoU, 2 classes"
    assert arms == {"source only": [30.0, 32.0], "step 2": [35.0, 36.5]}


def test_a_chart_names_its_groups_and_arms_and_is_the_same_each_time(tmp_path: Path) -> None:
    groups = {"A -> B": {"source only": [30.0, 32.0], "plus, `lab`": [35.0]}, "C -> D": {"source only": [50.0]}}
    for name in ("first.svg", "second.svg"):
        charts.draw(tmp_path / name, groups, "mIoU, %")
    shown = words(tmp_path / "first.svg")
    assert {"A -> B", "C -> D", "source only", "plus, lab", "mIoU, %", "30", "35"} <= set(shown)
    assert (tmp_path / "first.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()


def test_every_chart_of_the_page_is_there_and_has_the_rows_of_its_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for section, name in charts.SECTIONS.items():
        assert f"(../illustration/results/{name}.svg)" in page
        assert set(charts.arms_of(page, section)[1]) <= set(words(charts.FOLDER / f"{name}.svg"))
    assert "(../illustration/results/real.svg)" in page
    headings = {"---", "IoU, %, mean of the seeds", "change of target mIoU by what is named last"}
    arms = {cells[0].replace("`", "") for cells in rows(page, "real")} - headings
    assert len(arms) > 3 and arms <= set(words(charts.FOLDER / "real.svg"))
