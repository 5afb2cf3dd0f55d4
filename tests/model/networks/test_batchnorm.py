"""Which running statistics change, and whose statistics normalise, under each `--bn`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from model.methods.bafft import Alignment
from model.methods.base import Context, Method, Step
from model.methods.source_only import SourceOnly
from model.networks.batchnorm import set_training_mode, statistics_kept
from model.networks.choices import BN_MODES
from model.networks.deeplab import DeepLab, build_segmenter
from model.terms.regions import ClassSplit
from tests.methods import OFF, method_of
from utils.options import config


def network() -> DeepLab:
    torch.manual_seed(0)
    return build_segmenter("tiny", 3, width=0.25)


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """Running means and variances, by name."""
    return {name: value.clone() for name, value in model.state_dict().items() if ".running_" in f".{name}"}


def batch(seed: int, batch_size: int = 2) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (batch_size, 3, 32, 64), generator=g, dtype=torch.uint8)
    return {"image": image, "label": torch.randint(3, (batch_size, 32, 64), generator=g)}


def after_one_iteration(bn: str, target: bool = True) -> dict[str, Tensor]:
    model = network()
    set_training_mode(model, bn)
    split = ClassSplit(3, (0, 1, 2), ())
    if target:
        method: Method = method_of(model, split, Alignment, bn=bn, **OFF)
    else:
        method = SourceOnly(Context(model, split, config.resolve("step1", {"source_only": True, "bn": bn})))
    method.iteration(batch(0), batch(1) if target else None, lambda loss, player: loss.backward(), Step(1))
    return statistics(model)


def after_passes(*seeds: int) -> dict[str, Tensor]:
    """Running statistics of a network in train mode after these batches."""
    model = network().train()
    for seed in seeds:
        model(batch(seed)["image"])
    return statistics(model)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    assert a.keys() == b.keys() and a
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("bn", "fed_by"), [("shared", (0, 1)), ("source", (0,)), ("target", (1,)), ("frozen", ())])
def test_running_statistics_are_fed_by_the_domains_of_the_mode(bn: str, fed_by: tuple[int, ...]) -> None:
    assert same(after_one_iteration(bn), after_passes(*fed_by))


@pytest.mark.parametrize("bn", ["shared", "source", "target"])
def test_source_only_feeds_the_running_statistics_by_the_source_in_every_training_mode(bn: str) -> None:
    assert same(after_one_iteration(bn, target=False), after_passes(0))


def test_both_domains_change_the_statistics_differently() -> None:
    feeds = [after_passes(*seeds) for seeds in ((), (0,), (1,), (0, 1))]
    assert not any(same(a, b) for i, a in enumerate(feeds) for b in feeds[:i])


@pytest.mark.parametrize("bn", BN_MODES)
def test_passes_use_batch_statistics_except_under_frozen(bn: str) -> None:
    model = network()
    reference = copy.deepcopy(model)
    reference.train(bn != "frozen")
    set_training_mode(model, bn)
    for keep in (False, True):
        with statistics_kept(model, keep):
            features, logits = model(batch(2)["image"])
        expected_features, expected_logits = reference(batch(2)["image"])
        assert torch.equal(features, expected_features) and torch.equal(logits, expected_logits)


@pytest.mark.parametrize("bn", BN_MODES)
def test_training_mode_is_restored_after_evaluation(bn: str) -> None:
    model = network().eval()
    set_training_mode(model, bn)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(m.training == (bn != "frozen") for m in norms)
    assert model.training and model.layer6.training


def test_keeping_statistics_ends_with_the_pass_even_when_it_fails() -> None:
    model = network().train()
    before = statistics(model)
    with pytest.raises(RuntimeError, match="stop"), statistics_kept(model, True):
        model(batch(0)["image"])
        raise RuntimeError("stop")
    assert same(statistics(model), before)
    model(batch(0)["image"])
    assert same(statistics(model), after_passes(0))


def test_kept_statistics_do_not_change_the_state_dict() -> None:
    model = network().train()
    with statistics_kept(model, True):
        inside = list(model.state_dict())
    assert inside == list(model.state_dict())


def test_affine_parameters_are_never_trained() -> None:
    norms = [m for m in network().modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(p.requires_grad for m in norms for p in m.parameters())
