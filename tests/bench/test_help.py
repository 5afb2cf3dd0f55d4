"""`--help` of every bench: a usage line, what the bench does, and exit code 0."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

BENCHES = sorted(
    path
    for path in (Path(__file__).parents[2] / "bench").glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.stem)
def test_the_help_is_printed(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.setattr(sys, "path", list(sys.path))  # a bench adds the project's folder
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")  # in this process, because importing torch takes seconds
    said = capsys.readouterr()
    assert ended.value.code in (0, None) and not said.err
    usage, *rest = said.out.splitlines()
    assert usage.startswith(f"usage: {path.name} [-h]") and any(line.strip() for line in rest)


def test_all_benches_are_found() -> None:
    assert {"iteration", "real", "released_figures"} <= {path.stem for path in BENCHES}
