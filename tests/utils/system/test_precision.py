"""Scaled passes and steps of both players; apex.amp, played by a stand-in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.scripts import exit_code
from utils.options import config
from utils.system.errors import UserError
from utils.system.precision import Precision

CPU = torch.device("cpu")
PLAYERS = ("segmenter", "discriminator")


def players() -> tuple[dict[str, nn.Module], dict[str, torch.optim.Optimizer]]:
    torch.manual_seed(0)
    networks: dict[str, nn.Module] = {name: nn.Linear(3, 1) for name in PLAYERS}
    return networks, {
        "segmenter": torch.optim.SGD(networks["segmenter"].parameters(), lr=0.1, momentum=0.9, fused=True),
        "discriminator": torch.optim.Adam(networks["discriminator"].parameters(), lr=0.1, fused=True),
    }


def losses(networks: dict[str, nn.Module]) -> dict[str, Tensor]:
    through_both = networks["discriminator"](networks["segmenter"](torch.ones(2, 3)).expand(2, 3)).mean()
    return {"segmenter": through_both, "discriminator": 2 * through_both}


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_steps_are_those_of_plain_optimisers_and_gradients_go_to_their_player(amp: str) -> None:
    networks, optimizers = players()
    plain, reference = players()
    precision = Precision(amp, CPU, networks, optimizers)
    assert precision.autocast == {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]
    for _ in range(3):
        for optimizer in (*optimizers.values(), *reference.values()):
            optimizer.zero_grad()
        for player in PLAYERS:
            precision.backward(losses(networks)[player], player)
            gradients = torch.autograd.grad(losses(plain)[player], list(plain[player].parameters()))
            for p, gradient in zip(plain[player].parameters(), gradients):
                p.grad = gradient
        precision.step()
        for optimizer in reference.values():
            optimizer.step()
    for player in PLAYERS:
        for p, q in zip(networks[player].parameters(), plain[player].parameters()):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
    assert {name: int(count) for name, count in precision.skipped().items()} == (
        dict.fromkeys(PLAYERS, 0) if amp == "fp16" else {}
    )


def test_an_overflowed_step_is_left_out_and_counted_for_that_player_alone() -> None:
    networks, optimizers = players()
    precision = Precision("fp16", CPU, networks, optimizers)
    before = {name: [p.clone() for p in network.parameters()] for name, network in networks.items()}
    scale = precision.scalers["discriminator"].get_scale()
    precision.backward(losses(networks)["segmenter"], "segmenter")
    precision.backward(losses(networks)["discriminator"] * 1e38, "discriminator")
    precision.step()
    moved = {
        name: any(not torch.equal(a, b) for a, b in zip(before[name], network.parameters()))
        for name, network in networks.items()
    }
    assert moved == {"segmenter": True, "discriminator": False}
    assert precision.scalers["discriminator"].get_scale() == scale / 2
    assert precision.scalers["segmenter"].get_scale() == scale
    assert {name: int(n) for name, n in precision.skipped().items()} == {"segmenter": 0, "discriminator": 1}
    assert {name: int(n) for name, n in precision.skipped().items()} == {"segmenter": 0, "discriminator": 0}


def test_scales_are_saved_and_of_a_run_without_none_are_taken() -> None:
    first, second, plain = (Precision(amp, CPU, *players()) for amp in ("fp16", "fp16", "off"))
    first.scalers["segmenter"].scale(torch.zeros(()))
    first.scalers["segmenter"].update(8.0)
    second.load_state_dict(first.state_dict())
    assert second.scalers["segmenter"].get_scale() == 8.0 and second.scalers["discriminator"].get_scale() == 2**16
    second.load_state_dict(plain.state_dict())
    assert second.scalers["segmenter"].get_scale() == 8.0


class Amp:
    """Stand-in for apex.amp: records the calls, scales by 4."""

    def __init__(self) -> None:
        self.initialised: dict[str, Any] = {}
        self.losses: list[tuple[Any, int]] = []
        self.loaded: Any = None

    def initialize(self, models: list[nn.Module], optimizers: list[Any], **options: Any) -> tuple[Any, Any]:
        self.initialised = {"models": models, "optimizers": optimizers, **options}
        return models, optimizers

    @contextmanager
    def scale_loss(self, loss: Tensor, optimizer: torch.optim.Optimizer, loss_id: int) -> Iterator[Tensor]:
        self.losses.append((optimizer, loss_id))
        yield loss * 4
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad /= 4

    def state_dict(self) -> dict[str, float]:
        return {"loss_scaler0": 4.0}

    def load_state_dict(self, state: Any) -> None:
        self.loaded = state


@pytest.fixture
def amp(monkeypatch: pytest.MonkeyPatch) -> Amp:
    amp = Amp()
    monkeypatch.setitem(sys.modules, "apex", SimpleNamespace(amp=amp))
    return amp


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_apex_scales_each_loss_and_sees_all_networks(amp: Amp, level: str) -> None:
    networks, optimizers = players()
    precision = Precision(f"apex-{level}", CPU, networks, optimizers)
    assert amp.initialised["opt_level"] == level and amp.initialised["num_losses"] == 2
    assert amp.initialised["models"] == list(networks.values())
    assert amp.initialised["optimizers"] == list(optimizers.values())
    assert precision.autocast is None
    weight, other = (next(networks[player].parameters()) for player in PLAYERS)
    (expected,) = torch.autograd.grad(losses(networks)["segmenter"], weight)
    precision.backward(losses(networks)["segmenter"], "segmenter")
    assert other.grad is None
    torch.testing.assert_close(weight.grad, expected)
    precision.backward(losses(networks)["discriminator"], "discriminator")
    assert amp.losses == [(optimizers["segmenter"], 0), (optimizers["discriminator"], 1)]
    precision.step()
    state = precision.state_dict()
    precision.load_state_dict(state)
    assert amp.loaded == {"loss_scaler0": 4.0}


def test_the_flag_chooses_the_level(amp: Amp) -> None:
    assert config.resolve("step1", {"amp": "apex"}).amp == "apex-O1"
    assert config.resolve("step2", {"amp": "apex-O2"}).amp == "apex-O2"
    with pytest.raises(UserError, match=r"training only; .* off, bf16, fp16"):
        config.resolve("evaluate", {"amp": "apex-O1"})


@pytest.mark.parametrize("found", [None, SimpleNamespace()])
def test_without_apex_the_message_says_what_to_use(monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    """The package is missing, or it is the other package of that name."""
    monkeypatch.setitem(sys.modules, "apex", found)
    with pytest.raises(UserError, match="use --amp bf16"):
        config.resolve("step1", {"amp": "apex"})


def test_without_apex_the_script_ends_with_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "apex", None)
    assert exit_code("step1", "--amp", "apex") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --amp apex: found no apex.amp") and "--amp bf16" in line
