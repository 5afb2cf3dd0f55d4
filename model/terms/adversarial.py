"""Adversarial alignment of soft-max maps or features (paper: image-wide alignment), for both players."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SOURCE, TARGET = 0.0, 1.0


def domain_loss(scores: Tensor, domain: float) -> Tensor:
    """Binary cross-entropy of discriminator scores (logits, any shape) against one domain; per image, then the mean.

    domain: `SOURCE` or `TARGET`. Computed as a soft-plus, because rounding in float32 destroys the gradient of
    confident scores in PyTorch's own form.
    """
    return F.softplus(-scores.float() if domain == TARGET else scores.float()).mean()


def segmenter_loss(target_scores: Tensor) -> Tensor:
    """What the segmenter minimises, so that the discriminator takes its target maps for source maps."""
    return domain_loss(target_scores, SOURCE)


def discriminator_loss(source_scores: Tensor, target_scores: Tensor) -> Tensor:
    """What a discriminator minimises, on detached maps: (BCE(D(p_s), 0) + BCE(D(p_t), 1)) / 2."""
    return (domain_loss(source_scores, SOURCE) + domain_loss(target_scores, TARGET)) / 2


def shared_scores(discriminator: nn.Module, maps: Tensor) -> tuple[Tensor, Tensor]:
    """One forward pass for both players: the scores for the segmenter's loss, and for the discriminator's.

    The values are equal. The gradient of the first reaches `maps` but not the discriminator's parameters; that of the
    second reaches the parameters but not `maps`.
    """
    seen = maps.detach().requires_grad_()
    scores = discriminator(seen)
    return _ScoresForSegmenter.apply(maps, (seen, scores)), scores


class _ScoresForSegmenter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, graph: tuple[Tensor, Tensor]) -> Tensor:
        ctx.graph = graph  # in a tuple, or autograd would follow it into the discriminator
        return graph[1].detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        seen, scores = ctx.graph
        (through,) = torch.autograd.grad(scores, seen, gradient, retain_graph=True)
        return through, None
