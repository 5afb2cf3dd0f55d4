"""The comparison with the paper and its released code, and where its figures come from."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from bench.paper import REPORTED, Reported, our_ratio, table
from bench.results import PAGE, section
from dataset.classes import CITYSCAPES


@pytest.mark.parametrize("paper", REPORTED, ids=lambda paper: paper.name)
def test_the_typed_figures_agree_with_each_other(paper: Reported) -> None:
    assert statistics.mean(paper.iou.values()) == pytest.approx(paper.miou, abs=0.05)
    assert list(paper.iou) == [CITYSCAPES.names[i] for i in CITYSCAPES.subsets[str(len(paper.iou))]]


def test_our_scores_fill_the_table_once_they_are_there(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "| mIoU, GTA5 to Cityscapes, 19 classes | 50.7 | not known | not measured |" in table(page, tmp_path)
    scores = {"means": {"19": 0.5, "13": 0.4}, "iou": dict.fromkeys(CITYSCAPES.names, 0.25)}
    (tmp_path / "gta5_to_cityscapes.json").write_text(json.dumps(scores))
    lines = table(page, tmp_path)
    assert "| mIoU, GTA5 to Cityscapes, 19 classes | 50.7 | not known | 50.0 |" in lines
    assert f"| this code | {' | '.join(['25.0'] * 19)} |" in lines


def test_the_section_of_the_page_is_what_the_script_makes() -> None:
    page = PAGE.read_text(encoding="utf-8")
    made = section(page, "paper").splitlines()[2:]  # without the command and the line below it
    assert made == table(page), "run: python bench/paper.py --table"


def test_the_ratio_of_the_full_iteration_to_the_plain_one() -> None:
    kinds = "| stage | kinds | ratio | ratio |\n|---|---|---|---|\n"
    other = "| 1, resnet101, 320x180 / 256x128 | plus / full | 1.5 | 1.6 |\n"
    ours = "| 1, resnet101, 320x180 / 256x128 | full / plain | 1.042 | 1.1 |\n"
    page = "<!-- iteration -->\n{}<!-- end iteration -->\n"
    assert our_ratio(page.format(kinds + other + ours), 1) == "1.04"
    assert our_ratio(page.format(kinds + other), 1) == our_ratio(page.format(kinds + ours), 2) == "not measured"
