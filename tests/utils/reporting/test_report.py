"""The report as a sink, and on the command line."""

from __future__ import annotations

import json
import logging

import pytest

from tests.utils.reporting.test_run import leave
from utils.options import config
from utils.report.__main__ import main
from utils.reporting import report
from utils.reporting.report import Report


def test_the_report_is_written_when_asked_for_and_at_the_end(tmp_path):
    leave(tmp_path / "run", {"step": 20, "seg": 1.5})
    sink, page = Report(tmp_path / "run"), tmp_path / "run/report.html"
    sink.record({"step": 20, "seg": 1.5})
    assert not page.exists()
    sink.write()
    assert "step 20" in page.read_text()
    with open(tmp_path / "run/log.jsonl", "a") as log:
        log.write(json.dumps({"step": 40, "seg": 1.0}) + "\n")
    sink.close()
    assert "step 40" in page.read_text()


def test_a_fault_in_the_report_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="bafft")
    monkeypatch.setattr(report, "render", lambda _: 1 / 0)
    leave(tmp_path / "run")
    Report(tmp_path / "run").write()
    assert "no report: ZeroDivisionError" in caplog.text and not (tmp_path / "run/report.html").exists()


def test_the_command_reports_one_run_and_compares_several(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        leave(tmp_path / name, {"step": 20, "seg": 1.5})
    main(["a"])
    main(["a", "b"])
    main(["a", "b", "--out", "pages/both.html"])
    assert capsys.readouterr().out.split() == ["a/report.html", "comparison.html", "pages/both.html"]
    assert "<h1>a · BAFFT</h1>" in (tmp_path / "a/report.html").read_text()
    assert (tmp_path / "comparison.html").read_text() == (tmp_path / "pages/both.html").read_text()
    assert "<h1>a · b</h1>" in (tmp_path / "comparison.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "none: no log.jsonl in it; expected the folder of a run"),
        (["run", "none"], "none: no log.jsonl in it"),
        (["run", "--out", "run"], "--out: found the folder run, expected a file to write"),
        ([], "the following arguments are required: RUN"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    leave(tmp_path / "run")
    with pytest.raises(SystemExit) as ended:
        config.run(lambda: main(arguments))
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith("error: ") and said in error and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"] and len(list((tmp_path / "run").iterdir())) == 1
