"""Activations computed again in the backward pass instead of kept."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.networks.batchnorm import second_pass


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """`block(x)` that keeps only `x`; the second forward pass leaves BatchNorm's running statistics alone."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), second_pass(block)

    # Nothing random is in the networks, so no generator has to be put back.
    return checkpoint(block, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
