"""Which statistics BatchNorm uses and which it keeps (`--bn`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def set_training_mode(segmenter: nn.Module, bn: str) -> None:
    """Train mode; under `frozen` the BatchNorm layers stay in eval mode."""
    segmenter.train()
    if bn == "frozen":
        for layer in _layers(segmenter):
            layer.eval()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; afterwards each layer returns to its previous mode, including frozen BatchNorm."""
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


@contextmanager
def statistics_kept(segmenter: nn.Module, keep: bool) -> Iterator[None]:
    """Around a forward pass in train mode: `keep`: batch statistics are used, and the running ones do not change."""
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


def second_pass(block: nn.Module) -> AbstractContextManager[None]:
    """A context for repeating a forward pass later: with the statistics that the first pass used, and without updating
    the running ones again. It must be created before the first pass."""
    return _second_pass({layer: layer.track_running_stats for layer in _layers(block)})


@contextmanager
def _second_pass(tracked: dict[_BatchNorm, bool]) -> Iterator[None]:
    now = {layer: (layer.track_running_stats, dict(layer.named_buffers(recurse=False))) for layer in tracked}
    for layer, track in tracked.items():
        layer.track_running_stats = track
        for name, values in now[layer][
            1
        ].items():  # a copy is updated, because the same tensors must be used both times
            setattr(layer, name, values.clone())
    try:
        yield
    finally:
        for layer, (track, buffers) in now.items():
            layer.track_running_stats = track
            for name, values in buffers.items():
                setattr(layer, name, values)


def _layers(module: nn.Module) -> Iterator[_BatchNorm]:
    return (layer for layer in module.modules() if isinstance(layer, _BatchNorm))
