"""The packages of requirements-optional.txt (`make test-optional`)."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import nn

from model.networks.deeplab import build_segmenter
from model.networks.norm import FusedNorm


@pytest.mark.optional
def test_inplace_abn_is_batchnorm_then_leaky_relu() -> None:
    inplace_abn = pytest.importorskip("inplace_abn")
    torch.manual_seed(0)
    images = torch.randn(2, 8, 5, 7)
    fused = inplace_abn.InPlaceABN(8, activation="leaky_relu", activation_param=0.01)
    plain = nn.Sequential(nn.BatchNorm2d(8), nn.LeakyReLU(0.01))
    expected = plain(images)
    # The package scales by |weight| + eps.
    torch.testing.assert_close(fused(images.clone()), expected, rtol=1e-3, atol=1e-3)


@pytest.fixture
def inplace_abn_package():
    return pytest.importorskip("inplace_abn")


@pytest.mark.optional
@pytest.mark.usefixtures("inplace_abn_package")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    # Batch statistics of a small map, fifty times in a row, magnify rounding too much for a comparison.
    ("backbone", "training"),
    [("tiny", True), ("tiny", False), ("resnet50", False), ("mobilenet_v2", False)],
)
def test_a_network_with_fused_norms_equals_one_with_leaky_relu(backbone, training, channels_last):
    torch.manual_seed(0)
    fused = build_segmenter(backbone, 3, width=0.25, norm="inplace-abn")
    plain = build_segmenter(backbone, 3, width=0.25, norm="inplace-abn")
    plain.load_state_dict(fused.state_dict())
    for layer in plain.modules():
        if isinstance(layer, FusedNorm):
            layer._function = by_two_layers
    if channels_last:
        nn.utils.convert_conv2d_weight_memory_format(fused, torch.channels_last)
    image = torch.randint(256, (2, 3, 64, 48), dtype=torch.uint8)
    for network in (fused, plain):
        network.train(training)
        features, logits = network(image)
        (features.square().mean() + logits.square().mean()).backward()
    for (name, p), q in zip(fused.named_parameters(), plain.parameters()):
        if q.grad is not None:
            scale = q.grad.abs().max()
            assert p.grad is not None
            assert (p.grad - q.grad).abs().max() <= 2e-3 * scale, name
    for (name, a), (_, b) in zip(fused.named_buffers(), plain.named_buffers()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)


def by_two_layers(x, weight, bias, mean, var, training, momentum, eps, activation, slope):
    y = nn.functional.batch_norm(x, mean, var, weight.abs() + eps, bias, training, momentum, eps)
    return nn.functional.leaky_relu(y, slope)


@pytest.mark.optional
@pytest.mark.usefixtures("inplace_abn_package")
def test_fused_norms_keep_fewer_activations_and_can_be_recomputed():
    def kept(norm):
        network, storages = build_segmenter("resnet50", 3, width=0.25, norm=norm).train(), {}
        parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}

        def note(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = network(torch.zeros(1, 3, 128, 128, dtype=torch.uint8))
        assert output[1].requires_grad
        return sum(size for storage, size in storages.items() if storage not in parameters)

    assert kept("inplace-abn") < 0.87 * kept("batchnorm")
    torch.manual_seed(0)
    plain = build_segmenter("tiny", 3, width=0.25, norm="inplace-abn").train()
    again = copy.deepcopy(plain)
    again.checkpoint_activations = True
    image = torch.randint(256, (2, 3, 64, 48), dtype=torch.uint8)
    for network in (plain, again):
        network(image)[1].square().mean().backward()
    for p, q in zip(plain.parameters(), again.parameters()):
        assert p.grad is None or (q.grad is not None and torch.equal(p.grad, q.grad))
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), again.buffers()))


@pytest.mark.optional
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_equals_the_plain_one_at_both_sizes():
    torch.manual_seed(0)
    plain = build_segmenter("tiny", 5, width=0.25).train()
    compiled = copy.deepcopy(plain)
    compiled.compile(dynamic=False)
    for size in ((64, 96), (48, 64), (64, 96)):
        image = torch.randint(256, (2, 3, *size), dtype=torch.uint8)
        gradients = []
        for network in (plain, compiled):
            network.zero_grad()
            features, logits = network(image)
            (features.square().mean() + logits.square().mean()).backward()
            gradients.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
        for name, gradient in gradients[0].items():
            assert (gradients[1][name] - gradient).abs().max() <= 1e-3 * gradient.abs().max(), name
    for (name, a), (_, b) in zip(compiled.named_buffers(), plain.named_buffers()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)
