"""Adversarial alignment of soft-max maps or features (paper: image-wide alignment), for both players."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

SOURCE, TARGET = 0.0, 1.0


def domain_loss(scores: Tensor, domain: float) -> Tensor:
    """Binary cross-entropy of discriminator scores (logits, any shape) against one domain; per image, then the mean.

    domain: `SOURCE` or `TARGET`. As a soft-plus, because PyTorch's own form loses the gradient of confident scores to
    rounding in float32.
    """
    return F.softplus(-scores.float() if domain == TARGET else scores.float()).mean()


def segmenter_loss(target_scores: Tensor) -> Tensor:
    """What the segmenter minimises: its target maps should be taken for source maps."""
    return domain_loss(target_scores, SOURCE)


def discriminator_loss(source_scores: Tensor, target_scores: Tensor) -> Tensor:
    """What a discriminator minimises, on detached maps: (BCE(D(p_s), 0) + BCE(D(p_t), 1)) / 2."""
    return (domain_loss(source_scores, SOURCE) + domain_loss(target_scores, TARGET)) / 2
