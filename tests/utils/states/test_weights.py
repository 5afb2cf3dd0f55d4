"""The loader on every published pattern of names, with small networks, its report, and files that are wrong."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.networks.deeplab import DeepLab, build_segmenter
from tests.messages import says
from utils.states import checkpoint
from utils.states.weights import FileInfo, describe_file, load_weights
from utils.system.errors import UserError

State = dict[str, Any]
HEAD = 8  # tensors of layer6
BODY = {"tiny": 60, "resnet18": 100, "resnet50": 265, "vgg16": 26, "mobilenet_v2": 255}  # tensors of a backbone


def small(backbone: str = "tiny", classes: int = 5, **options: Any) -> DeepLab:
    return build_segmenter(backbone, classes, **{"width": 1 / 16, **options})


def state_of(model: DeepLab, *, head: bool = True) -> State:
    """Different random weights of the same network."""
    torch.manual_seed(1)
    state = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    return {k: v for k, v in state.items() if head or not k.startswith("layer6")}


def head(name: str, classes: int, dim: int) -> State:
    return {
        f"{name}.conv2d_list.{i}.{part}": torch.randn(shape)
        for i in range(4)
        for part, shape in (("weight", (classes, dim, 3, 3)), ("bias", (classes,)))
    }


def saved(content: Any, tmp_path: Path, **how: Any) -> Path:
    path = tmp_path / "weights.pth"
    torch.save(content, path, **how)
    return path


def holds(model: DeepLab, state: State, *, body_only: bool = False) -> bool:
    return all(
        torch.equal(value, state[name])
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked") and not (body_only and name.startswith("layer6"))
    )


def snapshot(model: DeepLab) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# ---------------------------------------------------------------- patterns


@pytest.mark.parametrize("prefix", ["", "module.", "Scale.", "module.Scale."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_prefixes_and_wrappers(
    prefix: str, wrapper: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = small()
    state = state_of(model)
    content: State = {prefix + name: value for name, value in state.items()}
    path = saved(content if wrapper is None else {wrapper: content, "epoch": 3}, tmp_path)
    with caplog.at_level(logging.INFO, logger="bafft"):
        report = load_weights(model, path)
    assert holds(model, state)
    assert len(report.matched) == BODY["tiny"] + HEAD
    assert (report.missing, report.unexpected, report.mismatched, report.skipped, report.notes) == ((),) * 5
    assert report.kind == "caffe"
    assert f"weights {path} (caffe): 68 tensors matched, 0 missing, 0 unexpected, 0 shape-mismatched" in caplog.text
    assert str(report) in caplog.text


@pytest.mark.parametrize("kind", ["published", "ours"])
def test_negative_scales_are_reported_where_their_sign_would_be_lost(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions = SimpleNamespace(inplace_abn=None)
    monkeypatch.setitem(sys.modules, "inplace_abn", SimpleNamespace(functions=functions))
    monkeypatch.setitem(sys.modules, "inplace_abn.functions", functions)
    fused = small(norm="inplace-abn")
    state = {name: value.abs() if value.dim() == 1 else value for name, value in state_of(fused).items()}
    state["bn1.weight"][0] *= -1  # tensors of a layer that is fused, and of one that is not
    state["layer2.0.bn2.weight"][0] *= -1
    content = (
        state if kind == "published" else {"format": "bafft", "architecture": fused.architecture, "segmenter": state}
    )
    path = saved(content, tmp_path)
    notes = "; ".join(load_weights(fused, path).notes)
    assert says(notes, "attention: 1 scales ... negative") == (kind == "published")
    assert holds(fused, state)
    if kind == "published":
        assert "negative" not in "; ".join(load_weights(small(), path).notes)


@pytest.mark.parametrize("backbone", list(BODY))
def test_every_backbone_plain(backbone: str, tmp_path: Path) -> None:
    model = small(backbone)
    state = state_of(model)
    report = load_weights(model, saved(state, tmp_path))
    assert holds(model, state)
    assert len(report.matched) == BODY[backbone] + HEAD


def test_caffe_initialisation_with_a_coco_classifier(tmp_path: Path) -> None:
    """`Scale.` names, no num_batches_tracked, the old file format, and a layer5 of 21 classes."""
    model = small("resnet50")
    before = snapshot(model)
    state = {k: v for k, v in state_of(model, head=False).items() if "num_batches" not in k}
    content = {f"Scale.{k}": v for k, v in {**state, **head("layer5", 21, model.feature_dim)}.items()}
    path = saved(content, tmp_path, _use_new_zipfile_serialization=False)
    assert describe_file(path) == FileInfo("caffe", "caffe", "caffe", None)
    report = load_weights(model, path)
    assert holds(model, state, body_only=True)
    assert len(report.matched) == BODY["resnet50"]
    assert len(report.missing) == HEAD and all(name.startswith("layer6.") for name in report.missing)
    assert report.unexpected == report.unused
    assert len(report.unused) == HEAD
    assert "8 unexpected, of which 8 unused (layer5)," in str(report)
    assert says(str(report), "no classifier (layer6) ... as initialised")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items() if k.startswith("layer6"))


def test_official_two_head_model(tmp_path: Path) -> None:
    model = small("resnet50")
    state = state_of(model)
    path = saved({**state, **head("layer5", 5, model.feature_dim // 2)}, tmp_path)
    report = load_weights(model, path)
    assert holds(model, state)
    assert len(report.matched) == BODY["resnet50"] + HEAD
    assert (report.missing, report.mismatched, report.notes) == ((), (), ())
    assert len(report.unused) == len(report.unexpected) == HEAD
    assert describe_file(path).kind == "caffe"


@pytest.mark.parametrize(
    ("backbone", "extra"),
    [
        ("resnet50", {"fc.weight": (10, 128), "fc.bias": (10,)}),
        ("resnet18", {"fc.weight": (10, 32), "fc.bias": (10,)}),
        ("vgg16", {f"classifier.{i}.{p}": (4,) for i in (0, 3, 6) for p in ("weight", "bias")}),
        ("vgg16", {}),
        (
            "mobilenet_v2",
            {"features.18.0.weight": (4, 20, 1, 1), "features.18.1.weight": (4,), "classifier.1.bias": (9,)},
        ),
        ("mobilenet_v2", {}),
    ],
)
def test_torchvision(backbone: str, extra: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    model = small(backbone, stride_style="torchvision", normalization="imagenet")
    state = state_of(model, head=False)
    path = saved({**state, **{name: torch.randn(shape) for name, shape in extra.items()}}, tmp_path)
    info = describe_file(path)
    assert info == FileInfo("torchvision", "imagenet", "torchvision", None)
    report = load_weights(model, path)
    assert holds(model, state, body_only=True)
    assert len(report.matched) == BODY[backbone]
    assert set(report.unexpected) == set(report.unused) == set(extra)
    assert len(report.missing) == HEAD
    absent, wanted = report.notes
    assert says(absent, "no classifier (layer6) ... as initialised")
    assert says(wanted, "torchvision ... stride_style torchvision ... normalization imagenet")


def test_torchvision_in_a_caffe_network_is_called_out(tmp_path: Path) -> None:
    model = small("resnet50")
    path = saved({**state_of(model, head=False), "fc.bias": torch.zeros(10)}, tmp_path)
    notes = load_weights(model, path).notes[2:]
    first, second = notes
    assert says(first, "attention: ... weights ... normalization imagenet, ... caffe")
    assert says(second, "attention: ... weights ... stride_style torchvision, ... caffe")


def test_half_precision_is_widened(tmp_path: Path) -> None:
    model = small("vgg16")
    state = {name: value.half() for name, value in state_of(model).items()}
    report = load_weights(model, saved(state, tmp_path))
    assert len(report.matched) == BODY["vgg16"] + HEAD
    assert holds(model, {name: value.float() for name, value in state.items()})
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())


def test_own_checkpoint(tmp_path: Path) -> None:
    model = small("mobilenet_v2", output_stride=16, normalization="imagenet")
    content: State = {
        "format": "bafft",
        "architecture": model.architecture,
        "segmenter": state_of(model),
        "memory": {"buffer": torch.zeros(3)},
        "step": 12,
    }
    path = saved(content, tmp_path)
    info = describe_file(path)
    assert info == FileInfo("bafft", "imagenet", "caffe", model.architecture)
    assert info.architecture is not None
    again = build_segmenter(**info.architecture)
    report = load_weights(again, path)
    assert (report.kind, len(report.matched), report.missing, report.unexpected) == ("bafft", 263, (), ())
    assert report.notes == ()
    assert holds(again, content["segmenter"])
    other = small("mobilenet_v2", aspp_branches=4, normalization="imagenet")
    first, second = load_weights(other, path).notes
    assert says(first, "attention: ... weights ... aspp_branches 2, ... 4")
    assert says(second, "attention: ... weights ... output_stride 16, ... 8")


def test_branches_out_of_use_may_be_missing(tmp_path: Path) -> None:
    model = small()
    state = {k: v for k, v in state_of(model).items() if "list.2" not in k and "list.3" not in k}
    path = saved(state, tmp_path)
    assert len(load_weights(model, path).missing) == 4
    with pytest.raises(UserError, match=r"classifier does not fit \(layer6.conv2d_list.2.weight"):
        load_weights(small(aspp_branches=4), path)


def test_describing_and_loading_read_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    state = state_of(model)
    path = tmp_path / "last.pth"
    own = {"method": "step1", "architecture": model.architecture, "segmenter": state, "optimizer": {}}
    checkpoint.save(path, own)
    reads: list[Any] = []
    real = torch.load

    def load(file: Any, **how: Any) -> Any:
        reads.append(file)
        return real(file, **how)

    monkeypatch.setattr(torch, "load", load)
    for last in (lambda: load_weights(model, path), lambda: checkpoint.load(path, "step1", model.architecture)):
        reads.clear()
        describe_file(path)
        describe_file(path)
        last()
        assert len(reads) == 1
    assert holds(model, state)


# ---------------------------------------------------------------- another class count


def test_other_class_count_needs_to_be_told(tmp_path: Path) -> None:
    model = small(classes=5)
    before = snapshot(model)
    state = state_of(small(classes=7))
    path = saved(state, tmp_path)
    with pytest.raises(UserError, match=r"has 7 classes, the model 5;.*--not-restore-last") as caught:
        load_weights(model, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert holds(model, before)

    report = load_weights(model, path, not_restore_last=True)
    assert len(report.mismatched) == HEAD and len(report.matched) == BODY["tiny"]
    assert says(str(report), "classifier (layer6, 7 classes) ... not loaded")
    assert holds(model, state, body_only=True)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items() if k.startswith("layer6"))


def test_a_classifier_that_is_needed_must_be_there_and_fit(tmp_path: Path) -> None:
    model, other = small(classes=5), small(classes=7)
    before = snapshot(model)
    path = saved(state_of(other, head=False), tmp_path)
    with pytest.raises(UserError, match=r"no classifier .*\(layer6\), .* 5 classes; give"):
        load_weights(model, path, needs_classifier=True)
    path = saved(state_of(other), tmp_path)
    with pytest.raises(UserError, match=r"7 classes, the model 5; .* 5 classes, .* --classes"):
        load_weights(model, path, needs_classifier=True)
    assert holds(model, before)
    load_weights(other, path, needs_classifier=True)


def test_not_restore_last_skips_a_fitting_classifier_too(tmp_path: Path) -> None:
    model = small()
    before, state = snapshot(model), state_of(model)
    report = load_weights(model, saved(state, tmp_path), not_restore_last=True)
    assert len(report.skipped) == HEAD and "8 skipped" in str(report)
    assert holds(model, state, body_only=True)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items() if k.startswith("layer6"))


# ---------------------------------------------------------------- another backbone


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("resnet18", "resnet34"),  # contains every tensor of resnet18, and more
        ("resnet34", "resnet18"),
        ("resnet50", "resnet101"),
        ("resnet101", "resnet50"),
        ("resnet18", "tiny"),
        ("resnet50", "mobilenet_v2"),
        ("vgg16", "resnet50"),
        ("mobilenet_v2", "vgg16"),
    ],
)
def test_other_backbone_fails_and_names_it(
    ours: str, theirs: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = small(ours)
    before = snapshot(model)
    path = saved(state_of(small(theirs), head=False), tmp_path)
    with caplog.at_level(logging.INFO, logger="bafft"), pytest.raises(UserError) as caught:
        load_weights(model, path)
    message = str(caught.value)
    assert (
        message.startswith(f"{path}: ") and says(message, f"does not fit ... backbone {ours}: ") and "\n" not in message
    )
    assert says(message, f"looks like {theirs}; ... --backbone {theirs}")
    assert "tensors matched" in caplog.text  # the report comes before the failure
    assert holds(model, before)


def test_incomplete_backbone_fails(tmp_path: Path) -> None:
    model = small()
    before, state = snapshot(model), state_of(model)
    del state["layer3.0.bn1.bias"]
    state["layer2.0.conv1.weight"] = torch.zeros(1, 2, 3, 3)
    with pytest.raises(UserError) as caught:
        load_weights(model, saved(state, tmp_path))
    message = str(caught.value)
    assert says(message, "58 of 60 ... 1 missing (layer3.0.bn1.bias), 1 ... shape (layer2.0.conv1.weight)")
    assert holds(model, before)


def test_own_checkpoint_of_another_backbone(tmp_path: Path) -> None:
    content = {"format": "bafft", "architecture": small("resnet34").architecture, "segmenter": state_of(small())}
    with pytest.raises(UserError, match="looks like resnet34"):
        load_weights(small(), saved(content, tmp_path))


# ---------------------------------------------------------------- files that are wrong


class Hostile:
    """Touches a file when it is unpickled without protection."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def broken_files(tmp_path: Path) -> dict[str, Path]:
    whole = saved(state_of(small()), tmp_path).read_bytes()
    contents = {
        "empty.pth": b"",
        "text.pth": b"not weights at all\n",
        "truncated.pth": whole[: len(whole) // 2],
        "header.pth": whole[:30],
        "garbled.pth": whole[:200] + bytes(200) + whole[400:],
        "pickle.pth": pickle.dumps({"conv1.weight": [1, 2]}, protocol=2),
        "png.pth": b"\x89PNG\r\n\x1a\n" + bytes(64),
    }
    paths = {name: tmp_path / name for name in contents}
    for name, content in contents.items():
        paths[name].write_bytes(content)
    objects = {
        "list.pth": [torch.zeros(3)],
        "numbers.pth": {"a": 1},
        "tensor.pth": torch.zeros(3),
        "none.pth": {},
        "own.pth": {"format": "bafft", "segmenter": {}},
        "twice.pth": {"conv1.weight": torch.zeros(1), "module.conv1.weight": torch.zeros(1)},
        "hostile.pth": {"conv1.weight": torch.zeros(1), "x": Hostile(tmp_path / "touched")},
    }
    for name, content_ in objects.items():
        paths[name] = tmp_path / name
        torch.save(content_, paths[name])
    return {**paths, "absent.pth": tmp_path / "absent.pth", "folder": tmp_path}


def test_wrong_files_end_in_one_line_that_names_them(tmp_path: Path) -> None:
    for name, path in broken_files(tmp_path).items():
        for call in (describe_file, lambda file: load_weights(small(), file)):
            with pytest.raises(UserError) as caught:
                call(path)
            message = str(caught.value)
            assert message.startswith(f"{path}: "), name
            words, _, command = message.partition("save its tensors with: ")
            assert "\n" not in message and len(words) < len(str(path)) + 250, (name, message)
            assert bool(command) == (name in ("pickle.pth", "hostile.pth")), name
    assert not (tmp_path / "touched").exists()


# ---------------------------------------------------------------- real files, if available


@pytest.mark.parametrize(
    ("name", "backbone"), [("mobilenet_v2_features.pth", "mobilenet_v2"), ("vgg16_features_fp16.pth", "vgg16")]
)
def test_real_weights(name: str, backbone: str) -> None:
    path = Path(os.environ.get("BAFFT_PRETRAINED", "")) / name
    if not os.environ.get("BAFFT_PRETRAINED") or not path.is_file():
        pytest.skip(f"needs BAFFT_PRETRAINED, a folder with {name}")
    info = describe_file(path)
    model = build_segmenter(backbone, 11, stride_style=info.stride_style, normalization=info.normalization)
    report = load_weights(model, path)
    assert info.kind == "torchvision"
    assert len(report.matched) == BODY[backbone]
    assert report.unexpected == report.unused
    with torch.no_grad():
        features = model.eval()(torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8))[0]
    assert 0.05 < features.abs().mean() < 10
