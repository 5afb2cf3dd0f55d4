"""The results page: replacing a section, and the list of sections without results."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.results import PENDING, cells_of, pending, replaced, rows, section, write_section

TEXT = f"""# Results

## Speed

<!-- speed -->
{PENDING}`python bench/speed.py`
<!-- end speed -->

## Not measured

<!-- pending -->
- Speed: `python bench/speed.py`
<!-- end pending -->
"""


def test_a_section_that_gets_results_leaves_the_list(tmp_path: Path) -> None:
    page = tmp_path / "RESULTS.md"
    page.write_text(TEXT)
    write_section("speed", "python bench/speed.py", ["| a | b |", "|---|---|", "| 1 | 2 |"], page)
    text = page.read_text()
    assert section(text, "pending") == "" and pending(TEXT) == ["- Speed: `python bench/speed.py`"]
    assert rows(text, "speed") == [["a", "b"], ["---", "---"], ["1", "2"]]
    assert text.count("<!-- speed -->\n`python bench/speed.py`, ") == 1


def test_cells_of_a_row_by_column() -> None:
    lines = ["<!-- part -->", "| mIoU | seed0 | mean |", "|---|---|---|", "| step 1 | 1 | 2 |", "| step 2 | 3 | 4 |"]
    page = "\n".join([*lines, "<!-- end part -->"])
    assert cells_of(page, "part", "step 2") == {"mIoU": "step 2", "seed0": "3", "mean": "4"}


def test_a_section_that_the_page_lacks() -> None:
    with pytest.raises(ValueError, match="'memory'"):
        replaced(TEXT, "memory", [])
    with pytest.raises(ValueError, match="'memory'"):
        section(TEXT, "memory")
