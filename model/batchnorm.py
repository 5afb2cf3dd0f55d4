"""Whose statistics BatchNorm uses and keeps (`--bn`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

BN_MODES = ("shared", "source", "target", "frozen")
"""shared: train mode, running statistics fed by both domains (as published). source, target: every pass uses its
batch's statistics, only that domain's batches feed the running ones (`target` is our choice: evaluation and
pseudo-labels then see the statistics of the domain they are for). frozen: running statistics used and fixed."""


def set_training_mode(segmenter: nn.Module, bn: str) -> None:
    """Train mode; under `frozen` the BatchNorm layers stay in eval mode."""
    segmenter.train()
    if bn == "frozen":
        for layer in _layers(segmenter):
            layer.eval()


@contextmanager
def statistics_kept(segmenter: nn.Module, keep: bool) -> Iterator[None]:
    """Around a forward pass in train mode: with `keep`, batch statistics are used but leave the running ones alone."""
    layers = list(_layers(segmenter)) if keep else []
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def running_statistics(segmenter: nn.Module) -> list[Tensor]:
    """Running mean and variance of every BatchNorm layer."""
    both = [(layer.running_mean, layer.running_var) for layer in _layers(segmenter)]
    return [values for pair in both for values in pair if values is not None]


def _layers(module: nn.Module) -> Iterator[_BatchNorm]:
    return (layer for layer in module.modules() if isinstance(layer, _BatchNorm))
