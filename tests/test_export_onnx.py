"""`export_onnx.py`: the file computes what the network computes, describes itself, and is not kept if it differs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import export_onnx
from dataset.classes import CITYSCAPES
from model.networks.deeplab import build_segmenter
from tests.scripts import STEP1
from utils.options import config
from utils.prediction import onnx as exporting
from utils.prediction.loading import load
from utils.system.errors import UserError

CHECKPOINT = str(STEP1 / "last.pth")


def exit_code(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        config.run(lambda: export_onnx.main([CHECKPOINT, *arguments]))
    return ended.value.code


def test_a_missing_package_is_named_in_one_line(after_stage1, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert exit_code() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install" in error and "onnxruntime" in error
    assert not Path(CHECKPOINT).with_suffix(".onnx").exists()


def test_the_checkpoint_is_not_replaced(after_stage1, monkeypatch, capsys):
    monkeypatch.setattr(exporting, "check_packages", lambda: None)
    monkeypatch.setattr(exporting, "export", lambda *arguments: arguments[-1].write_bytes(b"file"))
    before = Path(CHECKPOINT).read_bytes()
    Path("link.pth").symlink_to(CHECKPOINT)
    for out in (CHECKPOINT, "link.pth"):
        assert exit_code("--out", out) == 2
        assert capsys.readouterr().err.startswith(f"error: --out: {out} is the checkpoint itself")
    assert Path(CHECKPOINT).read_bytes() == before


def test_the_file_is_the_network(after_stage1, capsys):
    for name in exporting.PACKAGES:
        pytest.importorskip(name, reason=f"needs the optional package {name}")
    import onnxruntime

    export_onnx.main([CHECKPOINT, "--count", "1"])
    said = capsys.readouterr().out
    assert "labels equal on 100.0000 %" in said and "onnxruntime" in said
    session = onnxruntime.InferenceSession(str(STEP1 / "last.onnx"), providers=["CPUExecutionProvider"])
    notes = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert tuple(notes["classes"]) == CITYSCAPES.names
    assert notes["trained_size"] == {"width": 96, "height": 64}
    assert notes["normalization"]["name"] == "caffe" and len(notes["normalization"]["mean"]) == 3
    segmenter = load(CHECKPOINT).segmenter
    images = torch.randint(256, (3, 3, 50, 77), dtype=torch.uint8)
    with torch.no_grad():
        expected = segmenter(images)[1].numpy()
    assert np.abs(session.run(None, {"images": images.numpy()})[0] - expected).max() < 1e-3


def test_a_file_that_differs_is_not_kept(after_stage1, monkeypatch, capsys):
    monkeypatch.setattr(exporting, "check_packages", lambda: None)
    monkeypatch.setattr(exporting, "export", lambda *arguments: arguments[-1].write_bytes(b"file"))
    result = exporting.Comparison(2, 0.5, 0.9, (0.1, 0.2))
    monkeypatch.setattr(exporting, "compare", lambda *_: result)
    assert exit_code("--out", "out/file.onnx") == 2
    assert "labels equal on 90.0000 %" in capsys.readouterr().err and not Path("out").exists()
    monkeypatch.setattr(exporting, "compare", lambda *_: exporting.Comparison(2, 1e-4, 0.9995, (0.1, 0.2)))
    export_onnx.main([CHECKPOINT, "--out", "out/file.onnx"])
    assert Path("out/file.onnx").read_bytes() == b"file"


@pytest.mark.parametrize(
    ("logits", "labels", "agrees"), [(1e-3, 1.0, True), (2e-3, 1.0, False), (None, 0.999, True), (0.0, 0.998, False)]
)
def test_what_counts_as_agreement(logits, labels, agrees):
    assert exporting.Comparison(1, logits, labels, (1.0, 1.0)).agrees == agrees


@pytest.mark.parametrize(
    ("logits", "size", "agrees"),
    [(1e-3, 0.1, True), (2e-3, 0.1, False), (2.5e-3, 4.0, True), (4.1e-3, 4.0, False), (20.0, 2.7e7, True)],
)
def test_large_logits_may_differ_by_a_part_of_their_size(logits, size, agrees):
    found = exporting.Comparison(1, logits, 1.0, (1.0, 1.0), size)
    assert found.agrees == agrees
    assert f"(allowed: {max(1e-3, size / 1e3):.2g}; their size: {size:.2g})" in str(found)


@pytest.mark.parametrize("checkpoint", ["", "."])
def test_a_checkpoint_without_a_name_is_refused_in_a_line(monkeypatch, capsys, checkpoint):
    monkeypatch.setattr(exporting, "check_packages", lambda: None)
    with pytest.raises(SystemExit) as ended:
        config.run(lambda: export_onnx.main([checkpoint]))
    assert ended.value.code == 2 and capsys.readouterr().err.startswith("error: .: is a folder; expected a weight file")


@pytest.mark.parametrize(("error", "side", "agrees"), [(20.0, 40, True), (3e4, 40, False), (float("nan"), 1, False)])
def test_the_size_is_that_of_the_logits_of_most_pixels(monkeypatch, error, side, agrees):
    """A file whose logits are off by a constant, or nan at one pixel whose label is right, beside a network whose
    logits are 2e7 times a one-hot vector."""
    logits = 2e7 * torch.eye(4)[torch.arange(32 * 40) % 4].T.reshape(1, 4, 32, 40)
    logits[:, :, 0] *= 1e-3  # a few pixels
    theirs = logits.clone()
    theirs[:, :, :side, :side] += error

    class Session:
        def run(self, _, inputs):
            return [theirs.repeat(len(inputs["images"]), 1, 1, 1).numpy()]

    runtime = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=lambda *_, **__: Session())
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    network: Any = torch.nn.Module()
    network.forward = lambda images: (None, logits.repeat(len(images), 1, 1, 1))
    found = exporting.compare(network, "logits", Path("file.onnx"), [np.zeros((32, 40, 3), np.uint8)])
    assert found.size == 2e7 and found.logits == pytest.approx(error, nan_ok=True) and found.agrees == agrees


def test_frames_are_drawn_or_those_of_the_user(after_stage1):
    drawn = exporting.frames(None, 2, (96, 64))
    assert [one.shape for one in drawn] == [(64, 96, 3)] * 2 and not np.array_equal(drawn[0], drawn[1])
    given = exporting.frames("data/builtin/gta5_deeplab/images", 3, (48, 32))
    assert [one.shape for one in given] == [(32, 48, 3)] * 3


def test_a_network_of_inplace_abn_is_refused_in_a_line(tmp_path):
    segmenter = build_segmenter(num_classes=19, backbone="tiny")
    segmenter.architecture["norm"] = "inplace-abn"  # without the optional package
    with pytest.raises(UserError, match="inplace-abn, which cannot be exported"):
        exporting.export(segmenter, CITYSCAPES, (96, 64), "logits", tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_the_exporter_has_nothing_left_to_import(tmp_path, monkeypatch):
    """torch answers a signal during its own import of torch._dynamo with a traceback about that module."""
    segmenter = build_segmenter(num_classes=19, backbone="tiny")
    monkeypatch.setitem(sys.modules, "onnx", SimpleNamespace())
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("called without torch._dynamo"))
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it fails
    with pytest.raises(ImportError, match=r"torch\._dynamo"):
        exporting.export(segmenter, CITYSCAPES, (96, 64), "logits", tmp_path / "network.onnx")
