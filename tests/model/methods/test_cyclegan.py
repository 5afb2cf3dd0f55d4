"""One iteration of CycleGAN compared with a slow twin; its pools, crops, rates and state."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.methods.base import Batch, Step
from model.methods.cyclegan import CycleGAN
from model.networks.deeplab import build_segmenter
from tests.twins import translation as twin

WIDTH, HEIGHT = 40, 32


def options(**changes: Any) -> SimpleNamespace:
    given = {"crop": (WIDTH, HEIGHT), "generator_width": 0.05, "discriminator_width": 0.05, "num_steps": 8}
    rates = {"learning_rate": 2e-4, "learning_rate_D": 1e-4}
    weights = {"lambda_cycle": 10.0, "lambda_identity": 5.0, "lambda_semantic": 1.0}
    return SimpleNamespace(**{**given, **rates, **weights, **changes})


def method(seed: int = 0, **changes: Any) -> CycleGAN:
    torch.manual_seed(seed)
    made = CycleGAN(options(**changes))
    for parameter in made.networks.parameters():  # so that all networks and terms matter
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0.0, 0.2)
    return made


def batch(seed: int, width: int = WIDTH, height: int = HEIGHT, count: int = 1) -> Batch:
    g = torch.Generator().manual_seed(seed)
    return {"image": torch.randint(256, (count, 3, height, width), generator=g, dtype=torch.uint8)}


class Player:
    """Records the weighted losses that are passed to `backward`."""

    def __init__(self) -> None:
        self.losses: list[tuple[str, Tensor]] = []

    def __call__(self, loss: Tensor, player: str) -> None:
        self.losses.append((player, loss))


def test_losses_equal_the_twin() -> None:
    made = method().networks.double()
    cyclegan = method()
    cyclegan.networks.load_state_dict(made.state_dict())
    source, target, player = batch(1), batch(2), Player()
    found = cyclegan.iteration(source, target, player, Step(0, 5))
    wanted = twin.losses(made, source["image"], target["image"])
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(wanted, rel=1e-4)
    assert all(not loss.requires_grad for loss in found.values())
    assert [name for name, _ in player.losses] == ["generator", "discriminator", "discriminator"]
    sums = [loss.item() for _, loss in player.losses]
    assert sums == pytest.approx([twin.total(wanted, 10, 5), wanted["D_target"], wanted["D_source"]], rel=1e-4)


def test_without_the_identity_loss_it_is_not_computed() -> None:
    cyclegan, player = method(lambda_identity=0.0), Player()
    found = cyclegan.iteration(batch(1), batch(2), player, Step(0))
    assert "identity" not in found
    parts = found["adv_target"] + found["adv_source"] + 10 * found["cycle"]
    assert player.losses[0][1].item() == pytest.approx(parts.item(), rel=1e-5)


def test_a_discriminators_loss_reaches_no_generator() -> None:
    cyclegan, player = method(), Player()
    cyclegan.iteration(batch(1), batch(2), player, Step(0))
    generators = [*cyclegan.to_target.parameters(), *cyclegan.to_source.parameters()]
    for _, loss in player.losses[1:]:
        assert all(g is None for g in torch.autograd.grad(loss, generators, allow_unused=True, retain_graph=True))


def test_discriminators_learn_from_the_pool_once_it_is_full() -> None:
    """A pool of one image returns either the new image or the one of the step before."""
    cyclegan = method()
    for pool in cyclegan.pools.values():
        pool.size = 1
    first, second = batch(1), batch(2)
    cyclegan.iteration(first, batch(3), Player(), Step(0, 0))
    kept = cyclegan.pools["target"].state().clone()
    found = set()
    for seed in range(8):
        again = copy.deepcopy(cyclegan)
        losses = again.iteration(second, batch(3), Player(), Step(1, seed))
        with torch.no_grad():
            new = again.to_target(second["image"].float() / 127.5 - 1)
            for name, image in (("old", kept), ("new", new)):
                real = again.real_target(batch(3)["image"].float() / 127.5 - 1)
                loss = ((real - 1).square().mean() + again.real_target(image).square().mean()) / 2
                if losses["D_target"].item() == pytest.approx(loss.item(), rel=1e-5):
                    found.add(name)
    assert found == {"old", "new"}


def test_an_iteration_is_repeated() -> None:
    source, target = batch(1, count=2), batch(2, count=2)
    losses = [method().iteration(source, target, Player(), Step(0, seed)) for seed in (3, 3)]
    assert losses[0] == losses[1]


def test_the_rate_is_constant_and_then_falls_linearly_to_zero() -> None:
    assert [method(num_steps=8).rate(step) for step in range(8)] == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]


def test_optimisers_are_those_of_the_paper() -> None:
    cyclegan = method(learning_rate=2e-4, learning_rate_D=3e-4)
    for player, rate, names in (
        ("generator", 2e-4, ("to_target", "to_source")),
        ("discriminator", 3e-4, ("real_target", "real_source")),
    ):
        (group,) = cyclegan.optimizers[player].param_groups
        assert (group["betas"], group["base_lr"], group["weight_decay"]) == ((0.5, 0.999), rate, 0)
        wanted = [id(p) for name in names for p in cyclegan.networks[name].parameters()]
        assert [id(p) for p in group["params"]] == wanted


# ---------------------------------------------------------------- semantic term


def test_the_semantic_loss_by_hand_and_its_weight() -> None:
    torch.manual_seed(1)
    segmenter = build_segmenter("tiny", 4, width=0.2)
    made, player = method(lambda_semantic=3.0), Player()
    cyclegan = CycleGAN(options(lambda_semantic=3.0), semantic=segmenter)
    cyclegan.networks.load_state_dict(made.networks.state_dict())
    source, target = batch(1), batch(2)
    found = cyclegan.iteration(source, target, player, Step(0))
    wanted = torch.zeros(())
    with torch.no_grad():
        for images, generator in ((source["image"], made.to_target), (target["image"], made.to_source)):
            restyled = (generator(images.float() / 127.5 - 1) + 1) * 127.5
            seen = segmenter(images)[1].argmax(1)
            probability = segmenter(segmenter.normalise(restyled))[1].softmax(1).gather(1, seen[:, None])
            wanted = wanted - probability.log().mean()
    assert found["semantic"].item() == pytest.approx(wanted.item(), rel=1e-4)
    plain = made.iteration(source, target, Player(), Step(0))
    rest = plain["adv_target"] + plain["adv_source"] + 10 * plain["cycle"] + 5 * plain["identity"]
    assert player.losses[0][1].item() == pytest.approx((rest + 3 * wanted).item(), rel=1e-4)


def test_the_segmenter_of_the_semantic_loss_is_frozen_and_not_saved() -> None:
    segmenter = build_segmenter("tiny", 4, width=0.2).train()
    before = copy.deepcopy(segmenter.state_dict())
    cyclegan, player = CycleGAN(options(), semantic=segmenter), Player()
    cyclegan.set_training_mode()
    cyclegan.iteration(batch(1), batch(2), player, Step(0))
    player.losses[0][1].backward()
    assert not segmenter.training and all(p.grad is None for p in segmenter.parameters())
    assert all(torch.equal(value, before[name]) for name, value in segmenter.state_dict().items())
    assert set(cyclegan.networks) == {"to_target", "to_source", "real_target", "real_source"}
    assert all(p.grad is not None for p in cyclegan.to_target.parameters())


# ---------------------------------------------------------------- state


def test_it_goes_on_from_its_state_with_its_pools() -> None:
    one, other = method(), method()
    for number in range(3):
        one.iteration(batch(number), batch(10 + number), Player(), Step(number, number))
    state = one.state_dict()
    assert state["pools"]["target"].shape == (1, 3, 3, HEIGHT, WIDTH)
    assert state["generator"] == {"blocks": 6, "width": 0.05}
    other.load_state_dict(state)
    for domain in ("source", "target"):
        assert torch.equal(one.pools[domain].state(), other.pools[domain].state())
    losses = [m.iteration(batch(5), batch(6), Player(), Step(3, 3)) for m in (one, other)]
    assert losses[0] == losses[1]


def test_each_of_several_processes_takes_its_own_pools_back() -> None:
    processes = [method(seed) for seed in range(2)]
    for rank, process in enumerate(processes):
        process.iteration(batch(rank), batch(10 + rank), Player(), Step(0, rank))
    sent: list[Tensor] = []

    def gather(tensors: list[Tensor]) -> list[Tensor]:
        """Collects from the first process, and gives everything to the second."""
        sent.extend(tensors)
        return [torch.cat([sent[-3], sent[-1]], 1)] if len(sent) > 2 else list(tensors)

    for process in processes:
        process.gather = gather
        state = process.state_dict()
    assert state["pools"]["source"].shape[:2] == (2, 1)
    for rank in range(3):
        resumed = CycleGAN(options(), rank=rank)
        resumed.load_state_dict(state)
        found = resumed.pools["source"].state()
        assert torch.equal(found, processes[rank % 2].pools["source"].state())  # a new process takes those of another


def test_a_pool_of_other_crops_is_refused() -> None:
    one = method()
    one.iteration(batch(1), batch(2), Player(), Step(0))
    with pytest.raises(ValueError, match=r"pool .* 40x32 .* 64x32"):
        method(crop=(64, 32)).load_state_dict(one.state_dict())


def test_panels_show_both_domains_before_and_after() -> None:
    cyclegan, source, target = method(), batch(1, count=2), batch(2, count=2)
    with torch.no_grad():
        panels = cyclegan.panels(source, target, Step(0))
    assert torch.equal(panels["source"], source["image"][0])
    assert torch.equal(panels["target"], target["image"][0])
    assert {p.dtype for p in panels.values()} == {torch.uint8} and len(panels) == 4
