"""The outputs of a run: the log line by line, the table on the console, TensorBoard, picture files."""

from __future__ import annotations

import json
import logging
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.reporting.names import describe
from utils.reporting.sinks import Console, JsonLines, Pictures, Sink, TensorBoard, read_records
from utils.system.errors import UserError


def lines(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("up_to", "kept"), [(0, []), (2, [1, 2, 2]), (9, [1, 2, 2, 3])])
def test_a_log_keeps_whole_lines_up_to_a_step(tmp_path, up_to, kept):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "miou": null}\n{"step": 3}\n{"ste')
    log = JsonLines(path, lambda record: record["step"] <= up_to)
    assert lines(path) == kept
    log.record({"step": 4, "seg": 0.5})
    assert lines(path) == [*kept, 4]


def test_a_log_on_a_full_disk_ends_with_a_whole_line(tmp_path):
    path = tmp_path / "log.jsonl"
    log = JsonLines(path)
    log.record({"step": 1, "seg": 0.5})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        with pytest.raises(UserError, match=r"log\.jsonl: .*No space left .* make room"):
            log.record({"step": 2, "seg": 0.25})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert lines(path) == [1]
    log.record({"step": 3})
    assert lines(path) == [1, 3]


def test_broken_lines_are_not_read(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "seg": 0.5}\n[1]\n{"seg": 2}\n{"step": "x"}\n\x00\n{"step": 2}\n{"st')
    assert list(read_records(path)) == [{"step": 1, "seg": 0.5}, {"step": 2}]
    assert list(read_records(tmp_path / "none.jsonl")) == []


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture
def console(caplog) -> Console:
    caplog.set_level(logging.INFO, logger="bafft")
    return Console("step1", 2000, {"ready_stuff": 8})


def test_the_console_prints_one_header_and_aligned_rows(console, caplog):
    common = {"lr_segmenter": 0.01, "data_wait": 0.031}
    console.record({"step": 20, "seg": 0.51239, "adv_target": 1e-5, "ready_stuff": 3, "iterations_per_s": 2, **common})
    console.record(
        {"step": 2000, "seg": 12.5, "adv_target": None, "ready_stuff": 8, "iterations_per_s": 11.5, **common}
    )
    assert said(caplog) == [
        "step1 step        seg  adv_target  stuff  wait    it/s      left",
        "step1   20     0.5124       1e-05    3/8    3%    2.00   0:16:30",
        "step1 2000       12.5           -    8/8    3%   11.50   0:00:00",
    ]


def test_a_new_column_comes_behind_the_one_it_follows_and_the_header_again(console, caplog):
    console.record({"step": 1, "seg": 1.0, "D_output": 2.0})
    console.record({"step": 2, "seg": 1.5, "adv_cls": 0.5, "D_output": 2.5})
    console.record({"step": 3, "seg": 1.25, "D_output": 2.25})
    assert [line.split() for line in said(caplog)] == [
        ["step1", "step", "seg", "D_output"],
        ["step1", "1", "1", "2"],
        ["step1", "step", "seg", "adv_cls", "D_output"],
        ["step1", "2", "1.5", "0.5", "2.5"],
        ["step1", "3", "1.25", "-", "2.25"],
    ]


def test_a_score_is_a_line_with_the_main_mean_first(console, caplog):
    console.record({"step": 400, "miou": 0.43212, "classes": "16", "miou_19": 0.4, "miou_13": None, "iou": {"road": 1}})
    assert said(caplog) == ["step1 400  target mIoU 43.21 (16 classes), 40.00 (19 classes), nan (13 classes)"]
    caplog.clear()
    console.record({"step": 5, "miou": 0.5, "classes": "19", "miou_16": 0.25, "averaged": {"19": 9}})
    assert said(caplog) == ["step1 5  target mIoU 50.00 (9 of 19 classes), 25.00 (16 classes)"]


def test_tensorboard_gets_numbers_under_names_that_say_what_they_are(tmp_path):
    pytest.importorskip("torch.utils.tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path)
    board.record({"step": 3, "seg": 0.5, "miou": None, "classes": "19", "iou": {"road": 0.25, "sky": None}})
    board.panel(3, "target/prediction", np.full((4, 6, 3), 7, np.uint8))
    board.close()
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]} == {
        "terms/seg (source cross-entropy)": [(3, 0.5)],
        "target scores/iou/road (target IoU)": [(3, 0.25)],
    }
    assert [(e.step, e.width, e.height) for e in found.Images("target/prediction")] == [(3, 6, 4)]


def test_pictures_keep_the_newest_of_a_name_with_its_step(tmp_path):
    sink = Pictures(tmp_path)
    for step in (20, 40):
        sink.panel(step, "target/image", np.full((4, 6, 3), step, np.uint8))
    with Image.open(tmp_path / "panels/target/image.png") as image:
        assert (image.info["step"], image.size, image.getpixel((0, 0))) == ("40", (6, 4), (40, 40, 40))


def test_a_sink_ignores_what_it_does_not_take(tmp_path):
    for sink in (Sink(), Pictures(tmp_path)):
        sink.record({"step": 1})
        sink.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "group", "title"),
    [
        ("seg", "terms", "source cross-entropy"),
        ("lr_segmenter", "rates", "learning rate of the segmenter"),
        ("miou_16", "target scores", "target mean IoU, classes: 16"),
        ("D_output", "discriminators", "discriminator, output space"),
        ("a_new_term", "terms", "a new term"),
    ],
)
def test_names_say_what_a_key_is(key, group, title):
    assert describe(key) == (group, title)
