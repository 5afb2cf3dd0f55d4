"""Small networks with the wrappers, prefixes and classifiers that public files have."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch

from model.networks.deeplab import BACKBONES, build_segmenter
from tests.messages import says
from utils.states.unwrapping import _backbone_names
from utils.states.weights import describe_file, load_weights
from utils.system.errors import UserError

from .test_weights import BODY, HEAD, State, head, holds, saved, small, snapshot, state_of


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def other(state: State) -> State:
    return {name: value + 1 for name, value in state.items()}


def body(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith("layer6")}


def head_as(name: str, state: State) -> State:
    """The classifier of a state under another name: `name`, with {} for a branch's number."""
    return {
        name.format(number) + part: state[f"layer6.conv2d_list.{number}.{part}"]
        for number in range(4)
        for part in ("weight", "bias")
    }


def critic() -> State:
    """Names that occur in a backbone too."""
    return {"conv1.weight": torch.zeros(4, 3, 4, 4), "conv1.bias": torch.zeros(4), "conv2.weight": torch.zeros(4)}


COUNTED = {"n_averaged": torch.tensor(3)}
FILES: dict[str, tuple[Callable[[State], Any], str]] = {  # content, and what the report says about its place
    "model_state_dict": (lambda s: {"model_state_dict": s, "epoch": 5}, "unwrapped model_state_dict"),
    "net": (lambda s: {"net": s}, "unwrapped net"),
    "nested": (lambda s: {"ResNet101": {"model_state": s}, "iter": 5}, "unwrapped ResNet101/model_state"),
    "never heard of": (lambda s: {"a": {"b": {"c": under("d.e.", s)}}}, "unwrapped a/b/c, prefix d.e. stripped"),
    "lightning": (lambda s: {"state_dict": under("segmenter.", s)}, "unwrapped state_dict, prefix segmenter. stripped"),
    "lightning with a loss": (
        lambda s: {"state_dict": {**under("net.", s), "loss.weight": torch.ones(5)}, "callbacks": {}},
        "unwrapped state_dict, prefix net. stripped",
    ),
    "model.backbone": (lambda s: under("model.backbone.", s), "prefix model.backbone. stripped"),
    "data parallel twice": (lambda s: under("module.module.", s), "prefix module.module. stripped"),
    "compiled": (lambda s: {"model": under("_orig_mod.module.", s)}, "unwrapped model, prefix _orig_mod.module."),
    "first of a tuple": (lambda s: (s, 5), "unwrapped 0"),
    "a list of networks": (lambda s: {"models": [{"conv1.weight": torch.zeros(2)}, s]}, "unwrapped models/1"),
    "discriminators beside": (
        lambda s: {"D1": critic(), "model": under("module.", s), "D2": critic()},
        "unwrapped model, prefix module. stripped",
    ),
    "optimizer beside": (
        lambda s: {"optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}}, "network": s},
        "unwrapped network",
    ),
    "average before it": (
        lambda s: {"ema_state_dict": other(s), "state_dict": s},
        "unwrapped state_dict, the copy under ema_state_dict/ left out",
    ),
    "teacher in the same mapping": (
        lambda s: {**under("teacher.", other(s)), **under("student.", s)},
        "prefix student. stripped, the copy under teacher. left out",
    ),
    "average of the model": (
        lambda s: {"state_dict": {**under("model.", s), **under("ema_model.", other(s))}},
        "unwrapped state_dict, prefix model. stripped, the copy under state_dict/ema_model. left out",
    ),
    "average without buffers": (
        lambda s: {"net": s, "shadow": {k: v for k, v in other(s).items() if "running" not in k}},
        "unwrapped net",
    ),
    "average and model below one key": (
        lambda s: {"ema": {**under("online_model.", s), **under("ema_model.", other(s)), "step": torch.tensor(3)}},
        "unwrapped ema, prefix online_model. stripped, the copy under ema/ema_model. left out",
    ),
    "average only": (lambda s: {"ema_state_dict": s}, "unwrapped ema_state_dict"),
    "averaged by torch": (lambda s: {**COUNTED, **under("module.", s)}, "prefix module. stripped"),
    "two parts": (
        lambda s: {
            "feature_extractor": under("backbone.", body(s)),
            "classifier": head_as("conv2d_list.{}.", s),
        },
        "unwrapped feature_extractor, prefix backbone. stripped",
    ),
    "two parts, layer6": (
        lambda s: {"backbone": body(s), "head": {k: v for k, v in s.items() if k not in body(s)}},
        "unwrapped backbone",
    ),
    "two parts, parallel": (
        lambda s: {"encoder": under("module.", body(s)), "decoder": head_as("module.{}.", s)},
        "unwrapped encoder, prefix module. stripped",
    ),
    "two parts and their averages": (
        lambda s: {
            "backbone_ema": other(body(s)),
            "head_ema": head_as("{}.", other(s)),
            "backbone": body(s),
            "head": head_as("{}.", s),
        },
        "unwrapped backbone, the copy under backbone_ema/ left out",
    ),
    "mmsegmentation": (
        lambda s: {
            "meta": {"CLASSES": ["road"]},
            "state_dict": {
                **under("backbone.", body(s)),
                **head_as("decode_head.aspp_modules.{}.conv.", s),
                "auxiliary_head.conv_seg.weight": torch.zeros(5, 32, 1, 1),
            },
        },
        "unwrapped state_dict, prefix backbone. stripped",
    ),
    "sequential": (
        lambda s: {**under("0.", body(s)), **head_as("1.conv2d_list.{}.", s)},
        "prefix 0. stripped",
    ),
    "layer5": (lambda s: {**body(s), **head_as("layer5.conv2d_list.{}.", s)}, ""),
    "layer5, wrapped": (
        lambda s: {"state_dict": under("module.", {**body(s), **head_as("layer5.conv2d_list.{}.", s)})},
        "unwrapped state_dict, prefix module. stripped",
    ),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("needed", [False, True])
def test_the_network_is_found_whole(kind, needed, tmp_path, caplog):
    model = small()
    state = state_of(model)
    content, place = FILES[kind]
    path = saved(content(state), tmp_path)
    with caplog.at_level(logging.INFO, logger="bafft"):
        report = load_weights(model, path, needs_classifier=needed)
    assert holds(model, state)
    assert len(report.matched) == BODY["tiny"] + HEAD
    assert report.missing == report.mismatched == ()
    assert report.place.startswith(place) and place in caplog.text and bool(place) == bool(report.place)
    assert describe_file(path).kind == "caffe"


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16", "mobilenet_v2"])
def test_every_family_is_found_in_a_wrapper_and_below_a_prefix(backbone, tmp_path):
    model = small(backbone)
    state = state_of(model)
    report = load_weights(model, saved({"net": under("module.encoder.", state)}, tmp_path))
    assert holds(model, state) and len(report.matched) == BODY[backbone] + HEAD


def test_networks_that_fit_equally_are_not_chosen_between(tmp_path):
    model = small()
    before = snapshot(model)
    path = saved({"first": state_of(model), "second": other(state_of(model))}, tmp_path)
    for call in (describe_file, lambda file: load_weights(model, file)):
        with pytest.raises(UserError, match=r"2 networks .*equally \(first/, second/\)"):
            call(path)
    assert holds(model, before)


def test_the_shapes_tell_a_student_from_a_larger_network_beside_it(tmp_path):
    model = small("resnet18")
    state = state_of(model)
    path = saved({"large": state_of(small("resnet101")), "small": state}, tmp_path)
    assert load_weights(model, path).place == "unwrapped small"
    assert holds(model, state)


def test_the_names_are_those_of_the_networks_at_any_width_and_draw_no_random_numbers():
    before = torch.get_rng_state()
    _backbone_names.cache_clear()
    found = _backbone_names()
    assert torch.equal(before, torch.get_rng_state())
    for backbone in BACKBONES:
        names = {name for name in build_segmenter(backbone).state_dict() if "num_batches_tracked" not in name}
        assert {name for name in names if not name.startswith("layer6")} <= found


@pytest.mark.parametrize("half", [False, True])
def test_safetensors(half, tmp_path):
    model = small()
    state = {name: value.half() if half else value for name, value in state_of(model).items()}
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(under("model.", state), path)
    assert load_weights(model, path).place == "prefix model. stripped"
    assert holds(model, {name: value.float() for name, value in state.items()})
    path.rename(tmp_path / "x.pth")  # recognised by its content
    assert len(load_weights(model, tmp_path / "x.pth").matched) == BODY["tiny"] + HEAD


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype, tmp_path):
    model = small()
    state = {name: value.to(dtype) for name, value in state_of(model).items()}
    load_weights(model, saved({"net": state}, tmp_path))
    assert holds(model, {name: value.float() for name, value in state.items()})


# ---------------------------------------------------------------- classifiers of other names


def test_a_lone_layer5_on_the_last_features_is_the_classifier(tmp_path):
    model = small("resnet50")
    state = state_of(model)
    path = saved({**body(state), **head_as("layer5.conv2d_list.{}.", state)}, tmp_path)
    report = load_weights(model, path, needs_classifier=True)
    assert holds(model, state)
    assert report.notes == ("classifier layer5 read as layer6",)
    assert report.unexpected == report.unused == ()


def test_a_lone_layer5_of_another_class_count_is_not_passed_over(tmp_path):
    model = small("resnet50")
    path = saved({**body(state_of(model)), **head("layer5", 7, model.feature_dim)}, tmp_path)
    for needed in (False, True):
        with pytest.raises(UserError, match="classifier has 7 classes, the model 5"):
            load_weights(model, path, needs_classifier=needed)
    report = load_weights(model, path, not_restore_last=True)
    assert says(str(report), "classifier (layer6, 7 classes) ... not loaded")


@pytest.mark.parametrize("prefix", ["Scale.", "module.Scale.", ""])
def test_the_classifier_of_the_start_weights_stays_unused(prefix, tmp_path):
    model = small("resnet50")
    before = snapshot(model)
    content = under(prefix, {**body(state_of(model)), **head("layer5", 21, model.feature_dim)})
    report = load_weights(model, saved(content, tmp_path))
    assert len(report.unused) == HEAD and len(report.missing) == HEAD
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items() if k.startswith("layer6"))
    said = (
        "its classifier has 21 classes"
        if not prefix
        else r"no classifier in it \(layer6\).*; the tensors of layer5 do not belong"
    )
    with pytest.raises(UserError, match=said):
        load_weights(model, saved(content, tmp_path), needs_classifier=True)


@pytest.mark.parametrize("needed", [False, True])
def test_a_layer5_on_other_features_is_no_classifier(needed, tmp_path):
    model = small("resnet50")
    path = saved({**body(state_of(model)), **head("layer5", 5, model.feature_dim // 2)}, tmp_path)
    if needed:
        with pytest.raises(UserError, match=r"no classifier .*\(layer6\).*; the tensors of layer5 do not belong"):
            load_weights(model, path, needs_classifier=True)
    else:
        assert len(load_weights(model, path).unused) == HEAD


@pytest.mark.parametrize("names", [("layer5", "layer6"), ("cls1", "cls2")])
@pytest.mark.parametrize("branches", [2, 4])
@pytest.mark.parametrize("half", [False, True])
@torch.no_grad()
def test_two_heads_on_the_last_features_predict_their_sum(names, branches, half, tmp_path):
    """CLAN's form. The prediction of the folded classifier is the sum of both predictions."""
    model = small("resnet50", aspp_branches=branches).eval()
    state = {k: v.abs() if "running" in k else v / 8 for k, v in state_of(model).items()}
    torch.manual_seed(2)
    parts = [{k.replace(name, "layer6"): v for k, v in head(name, 5, model.feature_dim).items()} for name in names]
    kinds = [{k.replace("layer6", name): v for k, v in part.items()} for name, part in zip(names, parts)]
    content = {**body(state), **kinds[0], **kinds[1]}
    content = {k: v.half() if half and v.is_floating_point() else v for k, v in content.items()}
    report = load_weights(model, saved(content, tmp_path), needs_classifier=True)
    assert len(report.notes) == 1
    assert says(report.notes[0], f"classifier {names[0]} and {names[1]}, ... folded into layer6")
    assert report.unexpected == report.missing == ()
    images = torch.randn(1, 3, 32, 40)
    folded = model(images)[1]
    expected = torch.zeros_like(folded)
    for part in parts:
        part = {k.removeprefix("layer6."): (v.half() if half else v).float() for k, v in part.items()}
        model.layer6.load_state_dict(part)
        expected += model(images)[1]
    torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_second_head_of_another_form_is_not_added(tmp_path):
    model = small("resnet50")
    state = state_of(model)
    report = load_weights(model, saved({**state, **head("layer5", 21, model.feature_dim)}, tmp_path))
    assert holds(model, state) and report.notes == () and len(report.unused) == HEAD


FOREIGN_HEADS: dict[str, tuple[str, State, str]] = {  # prefix of the backbone, head, and what the message names
    "torchvision's DeepLab": (
        "backbone.",
        {"classifier.0.convs.1.0.weight": torch.zeros(8, 128, 3, 3), "classifier.4.weight": torch.zeros(5, 8, 1, 1)},
        "classifier",
    ),
    "mmsegmentation's": ("backbone.", {"decode_head.conv_seg.weight": torch.zeros(5, 8, 1, 1)}, "decode_head"),
    "smp's": ("encoder.", {"segmentation_head.0.weight": torch.zeros(5, 8, 3, 3)}, "segmentation_head"),
    "ProDA's": ("", {"layer5.conv2d_list.0.0.weight": torch.zeros(8, 128, 1, 1)}, "layer5"),
}


@pytest.mark.parametrize("kind", FOREIGN_HEADS)
def test_a_head_of_another_kind_is_named_and_its_backbone_can_start_a_run(kind, tmp_path):
    prefix, strange, named = FOREIGN_HEADS[kind]
    model = small("resnet50")
    state = state_of(model)
    path = saved({"model": {**under(prefix, body(state)), **strange}}, tmp_path)
    with pytest.raises(UserError, match=rf"no classifier .*\(layer6\).*; the tensors of {named} do not belong"):
        load_weights(model, path, needs_classifier=True)
    report = load_weights(model, path)
    assert holds(model, state, body_only=True)
    assert set(report.unexpected) == set(strange)
    assert describe_file(path).kind == ("torchvision" if prefix else "caffe")


@pytest.mark.parametrize("normalization", ["caffe", "imagenet"])
@torch.no_grad()
def test_what_input_a_network_of_other_code_wants_is_seen_in_its_statistics(normalization, tmp_path):
    model = small("resnet50", normalization=normalization, width=1 / 4).train()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.5
    coarse = torch.randint(0, 256, (2, 3, 5, 5)).float()
    model(torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear").to(torch.uint8))
    state = dict(model.state_dict())
    content = {"feature_extractor": under("backbone.", body(state)), "classifier": head_as("conv2d_list.{}.", state)}
    info = describe_file(saved(content, tmp_path))
    assert (info.normalization, info.kind) == (
        (normalization, "torchvision") if normalization == "imagenet" else ("caffe", "caffe")
    )
    # The usual names of DeepLab in this field need no prefix.
    assert describe_file(saved({"net": state}, tmp_path)).kind == "caffe"


def test_an_own_checkpoint_is_taken_as_it_is(tmp_path):
    """Names that would be prefixes or heads in other files are left as they are."""
    model = small()
    state = state_of(model)
    content = {"format": "bafft", "architecture": model.architecture, "segmenter": state, "teacher": other(state)}
    report = load_weights(model, saved(content, tmp_path))
    assert holds(model, state) and report.place == "" and report.notes == ()
    strange = {**content, "segmenter": {**state, **head("layer5", 5, model.feature_dim)}}
    report = load_weights(model, saved(strange, tmp_path))
    assert holds(model, state) and len(report.unused) == HEAD and report.notes == ()
