"""The demo, with a handful of steps: every arm is trained, scored and shown."""

from __future__ import annotations

from dataclasses import replace

import demo
from dataset.classes import CITYSCAPES


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
