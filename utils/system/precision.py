"""Mixed precision in training: autocast with a gradient scaler per optimiser, or apex.amp if it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from utils.system import distributed
from utils.system.amp import AMP, apex_amp
from utils.system.errors import UserError

AMP_DTYPES = dict(zip(AMP, (None, torch.bfloat16, torch.float16, None, None), strict=True))
"""The type that autocast computes in, by `--amp`; apex patches the networks instead."""


class Precision:
    """Scaled backward passes and optimiser steps of several players ("segmenter", "discriminator").

    autocast: the type that forward passes compute in; None for no change. With `fp16`, every optimiser has its own
    scaler, and steps with an overflowed gradient are skipped and counted. apex: its opt level, O1 or O2.
    """

    def __init__(
        self,
        amp: str,
        device: torch.device,
        networks: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
    ) -> None:
        self.autocast = AMP_DTYPES[amp]
        self.optimizers = optimizers
        self.scalers = {name: torch.amp.GradScaler(device.type, enabled=amp == "fp16") for name in optimizers}
        self._skipped = {name: torch.zeros((), device=device) for name in optimizers}
        # The parameters of the networks themselves: apex gives copies of them to the optimisers.
        self._inputs = {
            name: [p for group in optimizer.param_groups for p in group["params"]]
            for name, optimizer in optimizers.items()
        }
        self._apex: Any = None
        if amp.startswith("apex"):
            if distributed.size() > 1:  # it checks the gradients of each process before they can be averaged
                raise UserError(f"--amp {amp}: found {distributed.size()} processes, expected one: use --amp bf16")
            self._apex = apex_amp()
            self._apex.initialize(
                list(networks.values()),
                list(optimizers.values()),
                opt_level=amp.removeprefix("apex-"),
                num_losses=len(optimizers),
                verbosity=0,
            )
        if amp == "fp16":
            for name, optimizer in optimizers.items():
                optimizer.register_step_pre_hook(self._counter(name))

    @property
    def skips_overflows(self) -> bool:
        """Whether steps with an overflowed loss or gradient are skipped, so that they do no harm."""
        return any(scaler.is_enabled() for scaler in self.scalers.values())

    def _counter(self, player: str) -> Any:
        def count(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            # The scaler sets it on a fused optimiser, whose kernel then skips the step, so that nothing waits for the
            # device.
            found = getattr(optimizer, "found_inf", None)
            if found is not None:
                self._skipped[player] += (found > 0).to(self._skipped[player])

        return count

    def backward(self, loss: Tensor, player: str) -> None:
        """Add the scaled gradient of a player's loss only to the parameters of that player."""
        if self._apex is not None:
            number = list(self.optimizers).index(player)
            with self._apex.scale_loss(loss, self.optimizers[player], loss_id=number) as scaled:
                scaled.backward(inputs=self._inputs[player])
            return
        self.scalers[player].scale(loss).backward(inputs=self._inputs[player])

    def step(self) -> None:
        """Make a step with every optimiser."""
        for player, optimizer in self.optimizers.items():
            self.scalers[player].step(optimizer)
            self.scalers[player].update()

    def skipped(self) -> dict[str, Tensor]:
        """Skipped steps since the last call, by player; empty if steps are never skipped."""
        counts = {name: count.clone() for name, count in self._skipped.items() if self.scalers[name].is_enabled()}
        for count in self._skipped.values():
            count.zero_()
        return counts

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {player: scaler.state_dict() for player, scaler in self.scalers.items()}
        if self.skips_overflows:
            state["skipped"] = {player: count.clone() for player, count in self._skipped.items()}
        return state if self._apex is None else state | {"apex": self._apex.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the scalers. A state of a run without a scaler, or without apex, changes nothing."""
        for player, scaler in self.scalers.items():
            if state.get(player):
                scaler.load_state_dict(state[player])
        for player, count in state.get("skipped", {}).items():
            self._skipped[player].copy_(count)
        if self._apex is not None and "apex" in state:
            self._apex.load_state_dict(state["apex"])
