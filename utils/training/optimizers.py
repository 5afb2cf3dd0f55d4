"""The rates of optimisers, and loading their states."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# Settings of an optimiser's group that always come from the options, even if a run resumes.
_SETTINGS = ("name", "base_lr", "momentum", "weight_decay", "fused")


def set_rates(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set the rate of every group to its base rate times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor


def take_over(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state; rates, momentum and weight decay stay those of the options.

    Raises ValueError if another kind of optimiser wrote it.
    """
    for ours, theirs in zip(optimizer.param_groups, state["param_groups"], strict=True):
        if ("betas" in ours) != ("betas" in theirs):  # SGD has none
            raise ValueError(f"trained with --optimizer {'adamw' if 'betas' in theirs else 'sgd'}")
    own = [{k: group[k] for k in _SETTINGS if k in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
    _lay_out(optimizer)


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give the state the memory format of its parameter, because a fused step reads both in the order of memory."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
