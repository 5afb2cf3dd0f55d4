"""The optimisers of both players and their rates: the paper's, and AdamW."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from model.networks.deeplab import DeepLab


def poly(step: int, options: Any) -> float:
    """Factor on every learning rate: (1 - i/N)^power, rising linearly over the first `--warmup-steps`."""
    factor = (1 - step / options.num_steps) ** options.power
    return factor * min(1.0, (step + 1) / options.warmup_steps) if options.warmup_steps else factor


def segmenter_optimizer(segmenter: DeepLab, options: Any) -> torch.optim.Optimizer:
    """`--optimizer` over the backbone and, at ten times its rate, the classifier: SGD (paper), or AdamW (DAFormer)."""
    backbone, classifier = segmenter.parameter_groups()
    groups = [
        {"name": "segmenter", "params": backbone, "base_lr": options.learning_rate * options.backbone_lr_mult},
        {"name": "classifier", "params": classifier, "base_lr": options.learning_rate * 10},
    ]
    settings: dict[str, Any] = {"lr": options.learning_rate, "weight_decay": options.weight_decay, "fused": True}
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, **settings)
    optimizer = torch.optim.SGD(groups, momentum=options.momentum, **settings)
    if options.momentum:  # if its first step is skipped, a fused optimiser would continue with uninitialised memory
        for parameter in backbone + classifier:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def discriminator_optimizer(discriminators: nn.Module, options: Any) -> torch.optim.Optimizer:
    """Adam over all discriminators (paper)."""
    return torch.optim.Adam(
        [{"params": list(discriminators.parameters()), "base_lr": options.learning_rate_D}],
        lr=options.learning_rate_D,
        betas=(0.9, 0.99),
        fused=True,
    )
