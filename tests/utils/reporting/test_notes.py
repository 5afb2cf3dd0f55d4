"""The small files that a run keeps for its report."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from dataset.classes import AERIAL, CITYSCAPES
from model.terms.memory import SourceMemory
from model.terms.regions import ClassSplit
from utils.options import config
from utils.prediction.metrics import ConfusionMatrix
from utils.prediction.pseudo_labels import Result
from utils.reporting import notes

CPU = torch.device("cpu")


def begin(folder, *arguments: str, step: int = 0) -> dict:
    options = config.parse("step1", ["--preset", "builtin", *arguments])[0]
    notes.begin(folder, options, "step1", CITYSCAPES, {"source": 6, "test": 2}, CPU, step=step)
    return json.loads((folder / "run.json").read_text())


def test_only_options_that_change_the_run_differ_from_its_preset():
    options = config.parse("step1", ["--preset", "builtin", "--overwrite", "--num-steps", "60", "--cpu"])[0]
    options = replace(options, stride_style="caffe")  # "auto" is resolved when the network is built
    assert notes.differing_options(options, "step1") == {"--num-steps": 60, "--cpu": True}
    stopped = config.parse("step1", ["--preset", "builtin", "--num-steps", "60", "--num-steps-stop", "40"])[0]
    assert notes.differing_options(stopped, "step1") == {"--num-steps": 60, "--num-steps-stop": 40}


def test_a_run_to_the_end_differs_from_a_preset_that_stops_earlier() -> None:
    options = config.parse("step1", ["--num-steps-stop", "250000"])[0]
    assert notes.differing_options(options, "step1") == {"--num-steps-stop": 250000}
    assert notes.differing_options(config.parse("step1", ["--num-steps", "300000"])[0], "step1") == {
        "--num-steps": 300000
    }


@pytest.mark.parametrize("preset", ["builtin", "own_images"])
def test_the_baseline_differs_from_its_preset_only_by_being_it(preset):
    options = config.parse("step1", ["--preset", preset, "--source-only"])[0]
    assert notes.differing_options(options, "step1") == {"--source-only": True}


def test_a_run_notes_what_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train_step1.py", "--preset", "builtin", "--snapshot-dir", "a b"])
    note = begin(tmp_path, "--batch-size", "3", "--iter-size", "2", "--source-only")
    assert (note["stage"], note["preset"], note["batch"]) == ("step1", "builtin", 6)
    assert note["data"]["source"] == {"from": "gta5:data/builtin/gta5_deeplab", "images": 6}
    assert note["data"]["test"]["from"] == "cityscapes:data/builtin/Cityscapes, split val"
    assert note["classes"]["names"] == list(CITYSCAPES.names) and note["classes"]["palette"][0] == [128, 64, 128]
    (session,) = note["sessions"]
    assert session["command"] == "train_step1.py --preset builtin --snapshot-dir 'a b'"
    assert session["machine"].endswith(f"torch {torch.__version__}")


def test_a_run_that_goes_on_is_added_and_one_that_starts_anew_is_not(tmp_path):
    begin(tmp_path)
    notes.progress(tmp_path, 40, CPU)
    note = begin(tmp_path, step=40)
    assert [(s["from_step"], s["step"]) for s in note["sessions"]] == [(0, 40), (40, 40)]
    assert note["sessions"][0]["memory_mb"] > 100 and "gpu_memory_mb" not in note["sessions"][0]
    assert 0 <= note["sessions"][0]["seconds"] < 60
    assert len(begin(tmp_path)["sessions"]) == 1


def test_progress_without_a_start_writes_nothing(tmp_path):
    notes.progress(tmp_path, 40, CPU)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, "", "[1]", '{"a": '])
def test_a_broken_note_is_empty(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert notes.read(tmp_path / "run.json") == {}


def test_scores_are_recorded_by_class(tmp_path):
    scores = ConfusionMatrix(2)
    scores.add(np.array([[6, 2, 0], [0, 0, 0]]))
    scores.images = 3
    record = notes.score_record(20, scores, AERIAL, "2")
    assert record == {
        "step": 20,
        "miou": 0.375,
        "classes": "2",
        "iou": {"background": 0.75, "foreground": 0.0},
    }
    notes.write_scores(tmp_path, 20, scores, AERIAL)
    kept = json.loads((tmp_path / "scores.json").read_text())
    assert (kept["step"], kept["images"], kept["confusion"]) == (20, 3, [[6, 2], [0, 0]])


def test_the_main_mean_leads(tmp_path):
    scores = ConfusionMatrix(19)
    counts = np.zeros((19, 20), int)
    counts[9, 9] = counts[0, 0] = counts[0, 9] = 1  # terrain belongs to the 19 classes only
    scores.add(counts)
    record = notes.score_record(20, scores, CITYSCAPES, "16")
    assert (record["classes"], record["miou"], record["miou_19"], record["miou_13"]) == ("16", 0.5, 0.5, 0.5)
    assert record["iou"]["road"] == 0.5 and record["iou"]["sky"] is None


def test_pseudo_labels_are_noted_by_class(tmp_path):
    result = Result(np.array([0.5, 0.0]), np.array([3, 0]), np.array([4, 0]), masks=2)
    notes.write_pseudo_label_note(tmp_path / "labels", result, AERIAL)
    assert np.asarray(notes.thresholds(tmp_path / "labels", AERIAL.names)).tolist() == [0.5, 0.0]
    assert notes.thresholds(tmp_path / "labels", ["other", "classes"]) is None
    assert notes.thresholds(tmp_path, AERIAL.names) is None


def test_the_memory_is_noted_by_class(tmp_path):
    memory = SourceMemory(ClassSplit(2, (0,), (1,)), feature_dim=4, num_prototype=2)
    memory.stuff.count += 3
    notes.write_memory(tmp_path, 20, memory, AERIAL)
    assert notes.read(tmp_path / "memory.json") == {
        "step": 20,
        "classes": {"background": {"written": 3, "slots": 2}, "foreground": {"written": 0, "slots": 20}},
    }
