"""The benchmark of the aerial tiles on tiny originals: any number of workers gives the same, and what it reports."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from bench import prepare_aerial, results
from bench.prepare_aerial import cut, main

SMALL = ("--images", "2", "--side", "520", "--rounds", "1")


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)


def test_one_json_object_at_the_end_and_nothing_left(tmp_path, monkeypatch, capsys):
    page, scratch = tmp_path / "RESULTS.md", tmp_path / "scratch"
    page.write_text("a\n<!-- prepare_aerial -->\nof before\n<!-- end prepare_aerial -->\nb\n")
    scratch.mkdir()
    monkeypatch.setattr(results, "write_section", partial(results.write_section, page=page))
    main((*SMALL, "--folder", str(scratch), "--json", "--write"))
    [line] = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["speedup"] == found["s_per_image"]["1"] / found["s_per_image"]["2"] > 0
    assert (found["images"], found["tiles"], found["workers"]) == (2, 8, 2)  # two tiles per side
    assert "of before" not in page.read_text() and "| 2 | " in page.read_text() and not list(scratch.iterdir())


def test_other_tiles_from_several_workers_are_an_error(tmp_path, monkeypatch):
    def wrong(download: Path, out: Path, workers: int) -> dict:
        return cut(download, out, workers) | {"workers": workers}

    monkeypatch.setattr(prepare_aerial, "cut", wrong)
    with pytest.raises(RuntimeError, match="2 workers cut other tiles"):
        main((*SMALL, "--folder", str(tmp_path)))
