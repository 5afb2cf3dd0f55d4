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


class SecondPass(AbstractContextManager[None]):
    """A context for repeating a forward pass later: with the statistics that the first pass used, and without updating
    the running ones again.

    It must be created before the first pass. It may be entered several times, one after the other: each backward pass
    through the same graph repeats the forward pass.
    """

    def __init__(self, block: nn.Module) -> None:
        self._tracked = {layer: layer.track_running_stats for layer in _layers(block)}
        self._now: dict[_BatchNorm, tuple[bool, dict[str, Tensor]]] = {}

    def __enter__(self) -> None:
        for layer, track in self._tracked.items():
            buffers = dict(layer.named_buffers(recurse=False))
            self._now[layer] = (layer.track_running_stats, buffers)
            layer.track_running_stats = track
            for name, values in buffers.items():  # a copy is updated, because the same tensors must be used both times
                setattr(layer, name, values.clone())

    def __exit__(self, *_: object) -> None:
        for layer, (track, buffers) in self._now.items():
            layer.track_running_stats = track
            for name, values in buffers.items():
                setattr(layer, name, values)
        self._now.clear()


def _layers(module: nn.Module) -> Iterator[_BatchNorm]:
    return (layer for layer in module.modules() if isinstance(layer, _BatchNorm))
