"""The demo, with a handful of steps: every arm is trained, scored and shown."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

import demo
from dataset.classes import CITYSCAPES
from tests.messages import says
from utils.options import config
from utils.system.errors import UserError
from utils.system.files import write_json


def test_all_arms_are_trained_scored_and_shown(tmp_path, benchmark_root, capsys) -> None:
    runner = demo.builtin_runner(benchmark_root, tmp_path, seed=3)
    runner = replace(
        runner,
        common=(*runner.common, "--input-size-target", "96,64"),
        source=(*runner.source, "--input-size", "96,64", "--batch-size", "1"),
        oracle_source=(*runner.oracle_source, "--input-size", "96,64", "--batch-size", "1"),
        schedule=demo.Schedule(pretrain=2, align=2, self_train=2),
    )
    demo.run_arms(runner)

    said = capsys.readouterr().out.split("\n\n")  # tables are set off by empty lines
    tables = [table.strip().splitlines() for table in said if " seg " in table]
    titles = ["oracle", "source only", "source only, where all arms but plus start", "step 1", "step 1 of plus"]
    assert sorted(table[0] for table in tables) == [*titles, "step 1, stopped early"]
    step2 = next(table for table in tables if table[0] == "step 1, stopped early")
    first = [line.split()[0] for line in step2]
    assert first == ["step", "step", "2"] * 2 and step2[3] == "step 2"
    plus = next(table for table in tables if table[0] == "step 1 of plus")
    assert [line.split()[0] for line in plus] == [*["step", "step", "4"], *["step", "step", "2"]]

    scores = demo.read_scores(tmp_path)
    assert list(scores) == ["source_only", "step1", "step2", "plus", "oracle"]
    rows = demo.table(scores).splitlines()
    assert [row[:16].strip() for row in rows[1:]] == [*CITYSCAPES.names, "mean of 19"]
    assert rows[-1].split()[3:] == [f"{100 * demo.main_mean(s):.1f}" for s in scores.values()]
    for arm in scores:
        assert f"{arm}/last.pth" in (tmp_path / f"{arm}.log").read_text()
    assert "Generate_Pseudo_Label.py" in (tmp_path / "step2.log").read_text()

    demo.draw_comparison(benchmark_root, tmp_path / "masks", tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").stat().st_size > 1000
    assert demo.peak_rss_mb() > 100


def test_no_further_arm_starts_once_one_has_failed(tmp_path, benchmark_root, monkeypatch) -> None:
    """Without source images every run fails at once; those that wait for a processor must not start."""
    runner = demo.builtin_runner(benchmark_root, tmp_path, seed=3)
    runner = replace(runner, source=("--data-dir", str(tmp_path / "nowhere")))
    monkeypatch.setattr(demo, "WORKERS", 1)
    with pytest.raises(UserError):
        demo.run_arms(runner)
    assert [path.name for path in tmp_path.glob("*.log")] == ["pretrain.log"]


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
    assert says(said, "last.pth, ... target labels ... no checkpoint\n")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["checkpoint"] == "last.pth"
    assert summary["miou"] == dict.fromkeys(demo.TITLES, 50.0)
    assert summary["per_class"]["step2"] == {"road": 50.0, "car": None} and summary["classes"] == "2"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "file.txt/demo"], "--out: file.txt/demo: ... a file is in the way"),
        (["--out", "file.txt"], "--out: file.txt: ... a file is in the way"),
        (["--out", "/proc/nowhere"], "--out: /proc/nowhere: cannot be written"),
        (["--data", "file.txt/data"], "file.txt/data: ... a file is in the way"),
        (["--data", "file.txt"], "file.txt: found a file"),
        (["--seed", "-1"], "--seed: found -1, ... 0 to 4294967295"),
        (["--seed", "4294967296"], "--seed: found 4294967296, ... 0 to 4294967295"),
        (["--seed", "x"], "--seed: invalid int value: 'x'"),
        (["--sed", "1"], "unrecognized ... --sed 1; ... --seed?"),
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
    assert error.startswith("error: ") and says(error, said) and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def log_of(folder: Path, *records: dict, steps: int = 40) -> None:
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write_json(folder / "config.json", {"num_steps_stop": steps})


def test_the_table_of_an_arm_has_a_few_rows_and_all_scores(tmp_path) -> None:
    records = [{"step": step, "seg": step / 10, "lr_segmenter": 0.1, "iterations_per_s": 2} for step in range(1, 17)]
    log_of(tmp_path / "step1", *records, {"step": 4, "miou": 0.25, "classes": "19", "miou_16": 0.5})
    assert demo.arm_table(tmp_path, "step1").splitlines() == [
        "step 1",
        "step  seg  it/s  target mIoU",
        "   1  0.1  2.00            -",
        "   3  0.3  2.00            -",
        "   4  0.4  2.00        25.00",
        "   5  0.5  2.00            -",
        "   7  0.7  2.00            -",
        "   9  0.9  2.00            -",
        "  11  1.1  2.00            -",
        "  13  1.3  2.00            -",
        "  15  1.5  2.00            -",
    ]


def test_progress_is_of_the_run_that_goes_on(tmp_path) -> None:
    began = time.time() - 60
    assert demo.progress(tmp_path, "step2", began) == "step 1, stopped early: waiting"
    log_of(tmp_path / "step1_stopped", {"step": 20, "seg": 1.0})
    assert demo.progress(tmp_path, "step2", began) == "step 1, stopped early: 20/40"
    log_of(tmp_path / "step2", steps=60)
    assert demo.progress(tmp_path, "step2", began) == "step 2: 0/60"
    later = time.time() + 60  # all files are of an earlier demo
    assert demo.progress(tmp_path, "step2", later) == "step 1, stopped early: waiting"
