"""The optimisers of both players, their rates, and taking over their states."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from model.networks.deeplab import DeepLab
from utils.options.config import Options

# Of an optimiser's group, from the options also on resuming.
_SETTINGS = ("base_lr", "momentum", "weight_decay", "fused")


def poly(step: int, options: Options) -> float:
    """Factor on every learning rate: (1 - i/N)^power, rising linearly over the first `--warmup-steps`."""
    factor = (1 - step / options.num_steps) ** options.power
    return factor * min(1.0, (step + 1) / options.warmup_steps) if options.warmup_steps else factor


def set_rates(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Every group's base rate, times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor


def segmenter_optimizer(segmenter: DeepLab, options: Options) -> torch.optim.Optimizer:
    """SGD over the backbone and, at ten times its rate, the classifier (paper)."""
    backbone, classifier = segmenter.parameter_groups()
    optimizer = torch.optim.SGD(
        [
            {"params": backbone, "base_lr": options.learning_rate * options.backbone_lr_mult},
            {"params": classifier, "base_lr": options.learning_rate * 10},
        ],
        lr=options.learning_rate,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        fused=True,
    )
    if options.momentum:  # a fused optimiser would go on with arbitrary memory after a first step left out
        for parameter in backbone + classifier:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def discriminator_optimizer(discriminators: nn.Module, options: Options) -> torch.optim.Optimizer:
    """Adam over all discriminators (paper)."""
    return torch.optim.Adam(
        [{"params": list(discriminators.parameters()), "base_lr": options.learning_rate_D}],
        lr=options.learning_rate_D,
        betas=(0.9, 0.99),
        fused=True,
    )


def take_over(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state; rates, momentum and weight decay stay those of the options."""
    own = [{k: group[k] for k in _SETTINGS if k in group} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
    _lay_out(optimizer)


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Keep the state in memory as its parameter is: a fused step reads both in the order of memory."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
