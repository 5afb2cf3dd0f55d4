"""Our `released` forms against figures that the published code computed (inputs and figures in tests/data)."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import pytest

from bench import released_figures
from bench.released_figures import Row, main

CASES = sorted((Path(__file__).parent.parent / "data").glob("released_case*.npz"))


@cache
def compare(path: Path) -> list[Row]:
    return released_figures.compare(path)


def test_there_are_cases() -> None:
    assert len(CASES) >= 2


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_published_figure_is_ours(path: Path) -> None:
    rows = compare(path)
    for figure, published, ours, tolerance in rows:
        assert ours == pytest.approx(published, rel=tolerance, abs=1e-6 * tolerance), figure


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_no_published_figure_is_left_out(path: Path) -> None:
    published = json.loads(path.with_suffix(".json").read_text())
    names = [figure for figure, *_ in compare(path)]
    for kind in ("stuff", "thing"):
        slots = sum(len(row) for row in published[f"{kind}_slot_sums_after"])
        assert sum(name.startswith(f"{kind} slot ") for name in names) == slots
        assert sum(name.startswith(f"{kind} count ") for name in names) == len(published[f"{kind}_count_after"])
    for step in ("step1", "step2"):
        wanted = {f"{step} {loss} {key}" for loss, values in published[step].items() for key in values}
        assert wanted and wanted <= set(names)


def test_the_script_exits_with_0_when_all_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(CASES[0])]) == 0
    assert capsys.readouterr().out.endswith("all figures agree\n")


def test_the_script_exits_with_1_on_a_difference_and_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "case.npz"
    shutil.copy(CASES[0], copy)
    published = json.loads(CASES[0].with_suffix(".json").read_text())
    published["thing_count_after"][0] += 1
    published["step1"]["loss_ins"]["value"] *= 1 + 1e-4
    copy.with_suffix(".json").write_text(json.dumps(published))
    assert main([str(copy)]) == 1
    lines = capsys.readouterr().out.splitlines()
    wrong = [line.split("  ")[1] for line in lines if line.endswith("DIFFERS")]
    assert wrong == ["thing count 0", "step1 loss_ins value"] and lines[-1] == "2 figures differ"


def test_no_file_is_no_agreement(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "agree" not in capsys.readouterr().out
