"""The benches of the built-in data keep a score per arm and seed, and train no arm that has one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import demo
from bench import builtin_gains
from bench.builtin_gains import PARTS, Part, run, write_tables


def writer(trained: list[str]) -> Callable[[demo.Runner, str], None]:
    """Instead of training: the scores that an evaluation writes, and the note of a run that was resumed."""

    def train(runner: demo.Runner, arm: str) -> None:
        trained.append(arm)
        scores = {"images": 80, "classes": ["road"], "iou": {"road": 0.5}, "means": {"1": 0.5}, "confusion": [[7]]}
        (runner.out / f"{arm}.json").write_text(json.dumps(scores))
        (runner.out / arm).mkdir()
        sessions = [{"revision": "older"}, {"revision": "newer"}]
        (runner.out / arm / "run.json").write_text(json.dumps({"sessions": sessions}))

    return train


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The sections that are written, by name."""
    written: dict[str, list[str]] = {}
    monkeypatch.setattr(builtin_gains, "write_section", lambda name, command, lines: written.update({name: lines}))
    monkeypatch.setattr(builtin_gains.charts, "draw_section", lambda name: None)
    return written


def test_an_arm_with_a_score_is_not_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin_gains, "write_benchmark", lambda folder, seed: folder.mkdir(parents=True))
    trained: list[str] = []
    part = Part({"first": "a", "second": "b"}, writer(trained), "first")
    scores = tmp_path / "scores"
    scores.mkdir()
    (scores / "a.json").write_text("{}")
    run(part, 0, tmp_path / "out", scores)
    kept = json.loads((scores / "b.json").read_text())
    assert trained == ["b"]
    assert kept["means"] == {"1": 0.5} and kept["iou"] == {"road": 0.5} and "confusion" not in kept
    assert kept["revision"] == "newer"  # which trained it, not the one that reads the scores
    run(part, 0, tmp_path / "elsewhere", scores)  # nothing is missing, so no picture is drawn either
    assert trained == ["b"] and not (tmp_path / "elsewhere").exists()


def test_tables_have_the_seeds_with_all_arms(tmp_path: Path, pages: dict[str, list[str]]) -> None:
    def keep(seed: int, part: str, *, without: str = "", miou: float) -> None:
        folder = tmp_path / f"seed{seed}"
        folder.mkdir(exist_ok=True)
        for arm in set(PARTS[part].arms.values()) - {without}:
            (folder / f"{arm}.json").write_text(json.dumps({"means": {"19": miou}}))

    keep(0, "plus", miou=0.4)
    keep(1, "plus", without="plus_without_mixed_images", miou=0.5)
    keep(0, "image_level", without="the_same_on_fda_images", miou=0.5)
    write_tables(tmp_path)
    assert list(pages) == ["builtin_gains plus"]
    assert pages["builtin_gains plus"][0] == "| mIoU, 19 classes | seed0 | mean ± std | over the first row |"
    assert pages["builtin_gains plus"][5] == "| plus | 40.0 | 40.0 | 0.0 |"
    assert len(pages["builtin_gains plus"]) == 2 + len(PARTS["plus"].arms)


def test_every_arm_of_a_part_can_be_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each arm ends with a training run of its name; what it starts from comes before it."""
    runs: list[str] = []

    def train(runner: demo.Runner, script: object, arm: str, *arguments: str, source: object = None) -> Path:
        runs.append(arm)
        return runner.out / arm / "last.pth"

    monkeypatch.setattr(demo.Runner, "train", train)
    monkeypatch.setattr(demo.Runner, "call", lambda *arguments: None)
    monkeypatch.setattr(demo.Runner, "evaluate", lambda runner, arm: (runner.out / f"{arm}.json").write_text("{}"))
    starts = {"pretrain", "step1_stopped", "plus_step1"}
    for name, part in PARTS.items():
        for arm in part.arms.values():
            out = tmp_path / name / arm
            out.mkdir(parents=True)
            runs.clear()
            part.train(demo.builtin_runner(out / "data", out, 0), arm)
            assert runs[-1] == arm and set(runs[:-1]) <= starts and len(runs) <= 3
