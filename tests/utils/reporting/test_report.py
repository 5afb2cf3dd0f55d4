"""The report as a sink, and on the command line."""

from __future__ import annotations

import json
import logging
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dataset import READERS
from dataset.classes import CITYSCAPES
from model.networks.deeplab import build_segmenter
from model.terms.memory import SourceMemory
from model.terms.regions import ClassSplit
from tests.utils.reporting.test_run import leave
from utils.options import config
from utils.prediction.pseudo_labels import Result
from utils.report.__main__ import main
from utils.reporting import features, notes, report, sections
from utils.reporting.report import Report
from utils.reporting.run import read_run
from utils.reporting.sinks import Pictures, Sink
from utils.states import checkpoint


def test_the_report_is_written_when_asked_for_and_at_the_end(tmp_path):
    leave(tmp_path / "run", {"step": 20, "seg": 1.5})
    sink, page = Report(tmp_path / "run"), tmp_path / "run/report.html"
    sink.record({"step": 20, "seg": 1.5})
    assert not page.exists()
    sink.flush()
    assert "step 20" in page.read_text()
    with open(tmp_path / "run/log.jsonl", "a") as log:
        log.write(json.dumps({"step": 40, "seg": 1.0}) + "\n")
    sink.close()
    assert "step 40" in page.read_text()


def test_a_fault_in_the_report_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="bafft")
    monkeypatch.setattr(report, "render", lambda _: 1 / 0)
    leave(tmp_path / "run")
    Report(tmp_path / "run").flush()
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


CPU = torch.device("cpu")


def images_and_network(root):
    torch.manual_seed(0)
    source = READERS["gta5"](root / "gta5_deeplab", size=(96, 64))
    target = READERS["cityscapes"](root / "Cityscapes", split="train", size=(96, 64), labels=False)
    test = READERS["cityscapes"](root / "Cityscapes", split="val", size=(96, 64), label_size="native")
    return report.Images(source, target, test), build_segmenter(num_classes=19, backbone="tiny").train()


def test_a_run_keeps_what_its_report_shows_and_is_not_changed_by_it(tmp_path, benchmark_root):
    images, segmenter = images_and_network(benchmark_root)
    options = config.parse("step1", ["--preset", "builtin"])[0]
    (tmp_path / "panels/old").mkdir(parents=True)
    before = torch.get_rng_state(), random.getstate(), checkpoint.digest(segmenter.state_dict())
    report.begin(tmp_path, options, "step1", images, segmenter, CPU)
    memory = SourceMemory(ClassSplit(19, CITYSCAPES.stuff, CITYSCAPES.things), segmenter.feature_dim)
    report.look(tmp_path, options, images, segmenter, 20, [Sink(), Pictures(tmp_path)], memory=memory)
    after = torch.get_rng_state(), random.getstate(), checkpoint.digest(segmenter.state_dict())
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:] and segmenter.training
    (tmp_path / "log.jsonl").write_text('{"step": 20, "seg": 1.5}\n')
    run = read_run(tmp_path)
    assert run.note["data"] == {
        "source": {"from": "gta5:data/builtin/gta5_deeplab", "images": 6},
        "target": {"from": "cityscapes:data/builtin/Cityscapes", "images": 4},
        "test": {"from": "cityscapes:data/builtin/Cityscapes, split val", "images": 2},
    }
    assert {picture.group for picture in run.pictures} == {"example 1", "example 2"}
    assert "truth" in {picture.name for picture in run.pictures}
    assert run.before is not None and run.after is not None
    assert list(run.memory["classes"]) == list(CITYSCAPES.names)
    assert not sections.pictures([(p.name, p) for p in run.pictures], run.classes).missing


def test_the_map_is_computed_at_the_start_and_the_end_only(tmp_path, benchmark_root, monkeypatch):
    images, segmenter = images_and_network(benchmark_root)
    options = config.parse("step1", ["--preset", "builtin"])[0]
    computed = []

    def layout(vectors):
        computed.append(len(vectors))
        return np.zeros((len(vectors), 2), np.float32)

    monkeypatch.setattr(features, "has_layout", lambda: True)
    monkeypatch.setattr(features, "layout", layout)
    report.begin(tmp_path, options, "step1", images, segmenter, CPU)
    (tmp_path / "log.jsonl").write_text('{"step": 20, "seg": 1.5}\n')
    page = Report(tmp_path)
    for step in (20, 40):
        report.look(tmp_path, options, images, segmenter, step, [page], last=False)
        page.flush()
    assert len(computed) == 1
    assert "before training</b>" in (tmp_path / "report.html").read_text()
    report.look(tmp_path, options, images, segmenter, 60, [page], last=True)
    page.close()
    assert len(computed) == 2
    assert "after training</b>" in (tmp_path / "report.html").read_text()


def test_a_stopped_runs_map_is_computed_by_the_command(tmp_path, benchmark_root, monkeypatch):
    pytest.importorskip("sklearn")
    images, segmenter = images_and_network(benchmark_root)
    options = config.parse("step1", ["--preset", "builtin"])[0]
    report.look(tmp_path, options, images, segmenter, 20, [], last=False)
    (tmp_path / "log.jsonl").write_text('{"step": 20, "seg": 1.5}\n')
    left, read = read_run(tmp_path, place=False).after, read_run(tmp_path).after
    assert left is not None and left.layout is None
    assert read is not None and read.layout is not None and len(read.layout) == len(left.vectors)


def test_a_run_that_goes_on_keeps_its_first_features(tmp_path, benchmark_root):
    images, segmenter = images_and_network(benchmark_root)
    options = config.parse("step1", ["--preset", "builtin"])[0]
    report.begin(tmp_path, options, "step1", images, segmenter, CPU)
    first = (tmp_path / features.BEFORE).read_bytes()
    nn.init.zeros_(segmenter.conv1.weight)
    report.begin(tmp_path, options, "step1", images, segmenter, CPU, step=20)
    assert (tmp_path / features.BEFORE).read_bytes() == first
    report.begin(tmp_path, options, "step1", images, segmenter, CPU)
    assert (tmp_path / features.BEFORE).read_bytes() != first


def test_pseudo_labels_are_not_shown_as_the_truth(tmp_path, benchmark_root):
    images, segmenter = images_and_network(benchmark_root)
    options = config.parse("step2", ["--preset", "builtin"])[0]
    labelled = images._replace(target=images.test, test=None)
    report.look(tmp_path, options, labelled, segmenter, 20, [Pictures(tmp_path)])
    names = {path.stem for path in (tmp_path / "panels").rglob("*.png")}
    assert names == {"image", "prediction", "overlay", "pseudo-label", "confidence"}


def test_only_a_run_that_learns_from_pseudo_labels_shows_those(tmp_path, benchmark_root):
    images, segmenter = images_and_network(benchmark_root)
    assert images.target is not None
    result = Result(np.full(19, 0.5), np.full(19, 3), np.full(19, 4), masks=4)
    notes.write_pseudo_label_note(tmp_path / "masks", result, CITYSCAPES)
    for name in images.target.names:
        Image.new("L", (96, 64)).save(tmp_path / f"masks/{images.target.key(name)}.png")
    options = config.parse("step2", ["--preset", "builtin", "--ssl-target-dir", str(tmp_path / "masks")])[0]
    run, held = tmp_path / "run", tmp_path / "run/pseudo_labels.json"
    report.begin(run, options, "step2", images, segmenter, CPU)
    assert not held.exists()  # as with --lambda-pseudo 0
    target = READERS["cityscapes"](images.target.root, size=(96, 64), pseudo_label_dir=tmp_path / "masks")
    report.begin(run, options, "step2", images._replace(target=target), segmenter, CPU)
    assert notes.read(held) == notes.read(tmp_path / "masks/pseudo_labels.json") != {}
    report.clear(run)
    assert not list(run.iterdir())


def test_a_fault_in_a_picture_does_not_end_the_run(tmp_path, benchmark_root, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="bafft")
    monkeypatch.setattr(report, "examples", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(features, "points", lambda *_, **__: 1 / 0)
    images, segmenter = images_and_network(benchmark_root)
    options = config.parse("step1", ["--preset", "builtin"])[0]
    report.begin(tmp_path, options, "step1", images, segmenter, CPU)
    report.look(tmp_path, options, images, segmenter, 20, [Pictures(tmp_path)])
    said = [record.getMessage().split(": ")[:2] for record in caplog.records]
    assert said == [["attention", f"no {what}"] for what in ("features", "pictures", "features")]


def test_a_run_without_a_target_keeps_no_features(tmp_path, benchmark_root):
    images, segmenter = images_and_network(benchmark_root)
    options = config.parse("step1", ["--preset", "builtin", "--source-only"])[0]
    report.begin(tmp_path, options, "step1", report.Images(images.source), segmenter, CPU)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "none: no log.jsonl in it"),
        (["run", "none"], "none: no log.jsonl in it"),
        (["run", "--out", "run"], "--out: found the folder run"),
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
