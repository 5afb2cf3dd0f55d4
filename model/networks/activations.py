"""Activations that are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.networks.batchnorm import SecondPass


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """`block(x)`, of which only `x` is kept; the second forward pass does not update BatchNorm's running statistics."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), SecondPass(block)

    # The networks use no random numbers, so no generator has to be reset.
    return checkpoint(block, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
