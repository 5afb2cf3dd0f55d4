"""Reading the files of a run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.utils.reporting.samples import full, stage
from utils.reporting.run import read_run
from utils.reporting.sinks import Pictures
from utils.system.errors import UserError


def leave(folder, *records: dict, **notes: dict) -> None:
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for name, content in notes.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def test_a_run_is_read_with_its_notes_and_those_beside_it(tmp_path):
    for name in ("zeta", "step2", "step1", "source_only"):
        leave(tmp_path / name, {"step": 20, "seg": 1.5}, run={"steps": 20}, scores={"step": 20}, config={"cpu": True})
    (tmp_path / "masks").mkdir()
    run = read_run(tmp_path / "step1")
    assert (run.name, run.title, run.step, run.note, run.scores) == (
        "step1",
        "stage 1",
        20,
        {"steps": 20},
        {"step": 20},
    )
    assert run.options == {"cpu": True} and run.memory == {} and run.pictures == [] and run.after is None
    assert [other.title for other in run.beside] == ["source only", "stage 2", "zeta"]
    assert read_run(tmp_path / "zeta", beside=False).beside == ()


def test_a_folder_without_a_log_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no log\.jsonl in it"):
        read_run(tmp_path)


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    leave(tmp_path / "run")
    with pytest.raises(UserError, match=r"log\.jsonl: a file, expected the folder of a run .*: give \S+run$"):
        read_run(tmp_path / "run" / "log.jsonl")


def test_pictures_are_read_by_group_from_what_is_given_to_what_is_found(tmp_path):
    leave(tmp_path / "run")
    sink = Pictures(tmp_path / "run")
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    for name in ("example 1/confidence", "example 1/image", "alone", "example 1/prediction"):
        sink.panel(40, name, noise if name == "example 1/image" else np.full((64, 96, 3), 9, np.uint8))
    start, data, pixels = (tmp_path / "run/panels/example 1/image.png").read_bytes().partition(b"IDAT")
    damaged = start[:-1] + b"\x10" + data + pixels  # a wrong length, for which Pillow raises SyntaxError
    for name, content in (("broken", b"x"), ("damaged", damaged)):
        (tmp_path / f"run/panels/{name}.png").write_bytes(content)
    found = read_run(tmp_path / "run").pictures
    assert [(p.group, p.name, p.step) for p in found] == [
        ("alone", "alone", 40),
        ("example 1", "image", 40),
        ("example 1", "prediction", 40),
        ("example 1", "confidence", 40),
    ]
    assert [p.kind for p in found] == ["png", "jpeg", "png", "png"]
    assert Image.MIME[found[1].kind.upper()] == "image/jpeg" and found[1].size == (96, 64)


def test_series_hold_the_values_of_a_key():
    run = stage("step1", 0.5)
    assert run.series("seg").y == [2.0, 1.0] and run.series("seg").x == [20, 40]
    assert run.series("iou/road").y == [0.25, 0.5] and run.series("iou/train").y == [None, None]
    assert run.series("nothing").y == [] and run.last("nothing") is None
    assert run.last("miou") == 0.5 and run.last_table("iou")["road"] == 0.5


def test_keys_are_found_by_group():
    run = full()
    assert run.keys("terms") == ["seg", "adv_cls"]
    assert run.keys("label-free scores") == ["snd", "infomax", "agreement"]
    assert run.keys("target scores") == ["miou", "miou_16"]
    assert run.keys("memory") == ["ready_stuff", "ready_things"]
