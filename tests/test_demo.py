"""The demo, with a handful of steps: every arm is trained, scored and shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import demo
from dataset.classes import CITYSCAPES
from utils.options import config
from utils.system.files import write_json


def test_all_arms_are_trained_scored_and_shown(tmp_path, benchmark_root) -> None:
    runner = demo.builtin_runner(benchmark_root, tmp_path, seed=3)
    runner = replace(
        runner,
        common=(*runner.common, "--input-size-target", "96,64"),
        source=(*runner.source, "--input-size", "96,64", "--batch-size", "1"),
        oracle_source=(*runner.oracle_source, "--input-size", "96,64", "--batch-size", "1"),
        schedule=demo.Schedule(pretrain=2, align=2, self_train=2),
    )
    demo.run_arms(runner)

    scores = demo.read_scores(tmp_path)
    assert list(scores) == ["source_only", "step1", "step2", "oracle"]
    rows = demo.table(scores).splitlines()
    assert [row[:16].strip() for row in rows[1:]] == [*CITYSCAPES.names, "mean of 19"]
    assert rows[-1].split()[3:] == [f"{100 * demo.main_mean(s):.1f}" for s in scores.values()]
    for arm in scores:
        assert f"{arm}/last.pth" in (tmp_path / f"{arm}.log").read_text()
    assert "Generate_Pseudo_Label.py" in (tmp_path / "step2.log").read_text()

    demo.draw_comparison(benchmark_root, tmp_path / "masks", tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").stat().st_size > 1000
    assert demo.peak_rss_mb() > 100


def test_table_and_summary_say_which_checkpoint_was_scored(tmp_path, monkeypatch, capsys) -> None:
    scores = {"classes": ["road", "car"], "iou": {"road": 0.5, "car": None}, "means": {"2": 0.5}}

    def write_scores(runner: demo.Runner) -> None:
        for arm in demo.TITLES:
            write_json(runner.out / f"{arm}.json", scores)

    monkeypatch.setattr(demo, "write_benchmark", lambda *_, **__: None)
    monkeypatch.setattr(demo, "draw_comparison", lambda *_: None)
    monkeypatch.setattr(demo, "run_arms", write_scores)
    demo.main(["--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert "\nof last.pth, the end of each training: no checkpoint was chosen by target labels\n" in said
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["checkpoint"] == "last.pth"
    assert summary["miou"] == dict.fromkeys(demo.TITLES, 50.0)
    assert summary["per_class"]["step2"] == {"road": 50.0, "car": None} and summary["classes"] == "2"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "file.txt/demo"], "--out: file.txt/demo: cannot be written (a file is in the way)"),
        (["--out", "file.txt"], "--out: file.txt: cannot be written (a file is in the way)"),
        (["--out", "/proc/nowhere"], "--out: /proc/nowhere: cannot be written"),
        (["--data", "file.txt/data"], "file.txt/data: cannot be made a folder (a file is in the way)"),
        (["--data", "file.txt"], "file.txt: found a file, expected an empty or new folder"),
        (["--seed", "-1"], "--seed: found -1, expected 0 to 4294967295"),
        (["--seed", "4294967296"], "--seed: found 4294967296, expected 0 to 4294967295"),
        (["--seed", "x"], "--seed: invalid int value: 'x'"),
        (["--sed", "1"], "unrecognized arguments: --sed 1; did you mean --seed?"),
        (["--se", "1"], "unrecognized arguments: --se 1"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_drawn(tmp_path, monkeypatch, capsys, arguments, said) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file.txt").touch()
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr("dataset.builtin.write.draw_example", lambda *_: pytest.fail("drawn"))
        config.run(lambda: demo.main(arguments))
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
