"""Recomputed activations: gradients and running statistics equal those of a plain pass, and less memory is kept."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from model.methods.base import Step
from model.networks.batchnorm import set_training_mode
from model.networks.choices import BN_MODES
from model.networks.deeplab import DeepLab, build_segmenter
from model.terms.regions import ClassSplit
from tests.methods import OFF, method_of


def networks(backbone: str) -> tuple[DeepLab, DeepLab]:
    torch.manual_seed(0)
    plain = build_segmenter(backbone, 3, width=0.125)
    again = copy.deepcopy(plain)
    again.checkpoint_activations = True
    return plain, again


@pytest.mark.parametrize("bn", BN_MODES)
@pytest.mark.parametrize("backbone", ["tiny", "resnet50", "vgg16", "mobilenet_v2"])
def test_gradients_and_running_statistics_equal_the_plain_pass(backbone: str, bn: str) -> None:
    source, target = (
        {"image": torch.randint(256, (2, 3, 33, 40), dtype=torch.uint8), "label": torch.randint(3, (2, 33, 40))}
        for _ in range(2)
    )
    both = networks(backbone)
    for network in both:
        set_training_mode(network, bn)
        method = method_of(network, ClassSplit(3, (0, 1, 2), ()), bn=bn, **(OFF | {"lambda_pseudo": 0.5}))
        method.iteration(source, target, lambda loss, _: loss.backward(), Step(1))
    plain, again = both
    for (name, p), q in zip(plain.named_parameters(), again.parameters()):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None and q.grad is not None:
            assert torch.equal(p.grad, q.grad), name
    for (name, a), b in zip(plain.named_buffers(), again.named_buffers()):
        assert torch.equal(a, b[1] if isinstance(b, tuple) else b), name


def kept_bytes(network: DeepLab) -> int:
    """What autograd keeps besides parameters, including the inputs of recomputed blocks."""
    storages: dict[int, int] = {}
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network.train()(torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8))
    return sum(size for storage, size in storages.items() if storage not in parameters)


def test_less_than_a_third_is_kept() -> None:
    plain, again = networks("resnet50")
    assert kept_bytes(again) < 0.33 * kept_bytes(plain)


def test_without_a_backward_pass_to_come_nothing_is_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.networks.deeplab.recomputed", lambda *_: pytest.fail("recomputed"))
    _, again = networks("tiny")
    image = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with torch.no_grad():
        again.train()(image)
    again.eval()(image)
