"""The whole page: self-contained, and usable in a browser at the widths of a phone, a tablet and a desktop."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.browser import look
from tests.utils.reporting.samples import full, picture, stage
from utils.reporting.page import compare, render
from utils.reporting.run import RunData

SECTIONS = ["run", "scores", "curves", "pictures", "pseudo-labels", "memory", "confusion", "label-free", "features"]


class Checked(HTMLParser):
    """Collects the ids, the addresses and the elements that are not closed."""

    VOID = ("meta", "img", "input", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[name] for name in ("href", "src") if name in found]
        self.open += [] if tag in self.VOID else [tag]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_report_is_whole_and_needs_nothing_else():
    page = render(full())
    checked = Checked(page)
    assert checked.ids == SECTIONS and checked.open == []
    assert {a for a in checked.addresses if not a.startswith("data:image/")} == {f"#{name}" for name in SECTIONS}
    assert not re.search(r"@import|url\(|https?:", page)
    assert "<h1>stage 2 · builtin</h1>" in page and "finished at step 40 of 40" in page
    assert "<dd>50.0 % <small>19 classes</small></dd>" in page
    assert "Not in this report" not in page


def test_a_report_of_a_run_that_has_just_started_says_what_is_missing():
    page = render(RunData("a<b>", []))
    assert Checked(page).ids == [] and "<h1>a&lt;b&gt; · BAFFT</h1>" in page
    assert "what was run: no run.json" in page


def test_a_run_that_stopped_early_is_not_called_finished():
    run = stage("step1", 0.5)
    assert "stopped, at step 40 of 60" in render(replace(run, note={**run.note, "steps": 60}))


def test_stages_keep_their_colours_in_each_others_reports():
    own, other = full(), stage("step1", 0.375)
    other = replace(other, beside=[stage("source_only", 0.25), stage("step2", 0.5)])
    for run in (own, other):
        page = render(run)
        titles = ("source only", "stage 1", "stage 2")
        assert [page.index(f'--run{i})"></i>{title}') > 0 for i, title in enumerate(titles)] == [True] * 3


def test_a_comparison_shows_the_pictures_that_runs_have_in_common():
    a, b = (replace(full(), name=name, beside=[]) for name in ("a", "b"))
    shown = [picture("example 1", "image", 0), picture("example 1", "prediction", 200), picture("other", "x", 0)]
    page = compare([a, replace(b, pictures=shown)])
    assert Checked(page).ids == ["run", "scores", "curves", "pictures", "label-free"]
    choices = re.findall(r"<option value=\d(?: selected)?>([^<]*)</option>", page)
    assert choices[: len(choices) // 2] == ["image", "truth", "prediction, a", "prediction, b"]
    assert re.findall(r"selected>([^<]*)<", page) == ["prediction, a", "prediction, b"]
    assert "Comparison of 2 runs" in page


def test_runs_of_one_name_are_numbered():
    assert "<h1>stage 1 (1) · stage 1 (2)</h1>" in compare([stage("step1", 0.5), stage("step1", 0.25)])


LOOK = """
const slider = page.querySelector(".slider"), [under, over] = slider.querySelectorAll("img");
const place = (shown) => [...page.querySelectorAll(".strip img")].findIndex((i) => i.src === shown.src);
const before = [place(under), place(over)];
const range = slider.querySelector("input");
range.value = 25;
range.dispatchEvent(new Event("input"));
const right = slider.querySelectorAll("select")[1];
right.value = 1;
right.dispatchEvent(new Event("input"));
const box = under.getBoundingClientRect();
return {
  width: page.documentElement.scrollWidth,
  sections: [...page.querySelectorAll("section")].map((s) => s.getBoundingClientRect().height > 60),
  shown: !slider.hidden && box.width > 100 && Math.abs(box.width / box.height - 2) < 0.05,
  before, at: slider.querySelector(".stage").style.getPropertyValue("--at"),
  after: place(over),
  broken: [...page.images].filter((i) => !i.complete || !i.naturalWidth).length,
  least: Math.min(...[...page.querySelectorAll("section text")].map((t) => t.getBoundingClientRect().height)),
};
"""


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_a_browser_shows_the_page_and_moves_the_slider(tmp_path, width):
    found = look(render(full()), width, LOOK, tmp_path)
    assert found["width"] <= width, "the page scrolls sideways"
    assert found["sections"] == [True] * len(SECTIONS)
    assert found["shown"] and found["before"] == [0, 2] and found["broken"] == 0
    assert found["at"] == "25%" and found["after"] == 1
    assert found["least"] >= 9, "letters that are too small to read"


CHOICES = """
const box = (name) => page.querySelector(name).getBoundingClientRect();
const lines = (cell) => cell.getBoundingClientRect().height / parseFloat(getComputedStyle(cell).lineHeight);
return {
  width: page.documentElement.scrollWidth,
  selects: Math.min(...[...page.querySelectorAll("select")].map((s) => s.getBoundingClientRect().width)),
  values: [...page.querySelectorAll(".options td + td")].map((cell) => cell.getBoundingClientRect().width),
  lines: Math.max(...[...page.querySelectorAll(".options td + td")].map(lines)),
};
"""


@pytest.mark.parametrize("width", [360, 800])
def test_a_browser_shows_long_values_and_names_in_a_comparison(tmp_path, width):
    path = "snapshots/a_folder_with_a_long_name/and_another_one/step1/last.pth"
    runs = [
        replace(
            full(),
            name=f"a long name of run {i}",
            options={"restore_from": f"{i}/{path}"},
            pictures=[picture("example 1", "image"), picture("example 1", "prediction", 80 * i)],
        )
        for i in range(3)
    ]
    found = look(compare(runs), width, CHOICES, tmp_path)
    assert found["width"] <= width, "the page scrolls sideways"
    assert found["selects"] > 180, "the choices cannot be told apart"
    assert len(found["values"]) == 3 and max(found["values"]) < 400 and found["lines"] > 1.5


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("note", {"sessions": [5]}),
        ("note", {"sessions": [{}]}),
        ("note", {"steps": "many"}),
        ("note", {"classes": {"names": ["road"], "palette": [["red", 0, 0]]}}),
        ("note", {"classes": ["road"]}),
        ("scores", {"confusion": [[1]]}),
        ("scores", {"confusion": 5, "classes": ["road"]}),
        ("memory", {"classes": {"road": {"written": 6}}}),
        ("memory", {"classes": {"road": {"written": 6, "slots": 0}}}),
        ("pseudo_labels", {"classes": ["road"]}),
        ("pseudo_labels", {"classes": {"road": 0.5}}),
    ],
)
def test_a_broken_note_is_left_out_and_the_others_are_shown(name, broken, caplog):
    nothing: dict[str, Any] = {name: {}}
    run, without = replace(full(), **{name: broken}), replace(full(), **nothing)
    with caplog.at_level("INFO", logger="bafft"):
        assert render(run) == render(without)
        assert compare([run, full()]) == compare([without, full()])
        assert render(replace(full(), beside=[run])) == render(replace(full(), beside=[without]))
    assert f"broken {name} left out" in caplog.text
