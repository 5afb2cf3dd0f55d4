"""BatchNorm and activation in one, with a stand-in for the package; test_optional.py tests the package itself."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.networks.batchnorm import set_training_mode, statistics_kept
from model.networks.deeplab import build_segmenter
from model.networks.norm import FusedNorm


def stand_in(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Any, var: Any, training: bool, momentum: float, eps: float, *act: Any
) -> Tensor:
    """Computes what the package computes, and refuses what it refuses."""
    assert x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu") and act == ("leaky_relu", 0.01)
    y = F.batch_norm(x, mean, var, weight.abs() + eps, bias, training or mean is None, momentum, eps)
    return F.leaky_relu(y, 0.01)


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = SimpleNamespace(inplace_abn=stand_in)
    monkeypatch.setitem(sys.modules, "inplace_abn", SimpleNamespace(functions=functions))
    monkeypatch.setitem(sys.modules, "inplace_abn.functions", functions)


@pytest.mark.parametrize(("backbone", "fused"), [("tiny", 5), ("resnet50", 33), ("mobilenet_v2", 34)])
def test_every_norm_before_an_activation_is_fused_under_its_name(backbone: str, fused: int) -> None:
    plain, ours = (build_segmenter(backbone, 3, width=0.125, norm=norm) for norm in ("batchnorm", "inplace-abn"))
    assert plain.state_dict().keys() == ours.state_dict().keys()
    layers = [layer for layer in ours.modules() if isinstance(layer, FusedNorm)]
    assert len(layers) == fused
    assert not any(p.requires_grad for layer in layers for p in layer.parameters())
    assert ours.architecture["norm"] == "inplace-abn" and "norm" not in plain.architecture
    _, logits = ours.train()(torch.zeros(2, 3, 33, 40, dtype=torch.uint8))
    logits.sum().backward()


@pytest.mark.parametrize(("bn", "fed"), [("shared", True), ("frozen", False)])
def test_statistics_follow_the_mode(bn: str, fed: bool) -> None:
    network = build_segmenter("tiny", 3, width=0.25, norm="inplace-abn")
    set_training_mode(network, bn)
    image = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    buffers = dict(network.named_buffers())
    before = buffers["bn1.running_mean"].clone()
    with statistics_kept(network, True):
        network(image)
    assert torch.equal(buffers["bn1.running_mean"], before)
    network(image)
    assert torch.equal(buffers["bn1.running_mean"], before) != fed
    assert buffers["bn1.num_batches_tracked"] == int(fed)


def test_computes_in_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert FusedNorm(4)(torch.randn(2, 4, 3, 3).bfloat16()).dtype == torch.float32


def test_vgg_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="vgg16 has no normalisation"):
        build_segmenter("vgg16", 3, norm="inplace-abn")


def test_without_the_package_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("inplace_abn", "inplace_abn.functions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"make test-optional.*--checkpoint-activations"):
        build_segmenter("tiny", 3, norm="inplace-abn")
