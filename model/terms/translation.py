"""The losses of CycleGAN (Zhu et al., ICCV 2017), and the semantic one of CyCADA (Hoffman et al., ICML 2018)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def least_squares(scores: Tensor, real: bool) -> Tensor:
    """Mean squared distance of discriminator scores (any shape) from 1 for real images, from 0 for restyled ones."""
    return (scores.float() - (1.0 if real else 0.0)).square().mean()


def generator_loss(scores: Tensor) -> Tensor:
    """What a generator minimises, so that its images are taken for real (Zhu et al., section 7.1)."""
    return least_squares(scores, real=True)


def discriminator_loss(real: Tensor, restyled: Tensor) -> Tensor:
    """What a discriminator minimises, halved to slow it down (Zhu et al., section 7.1)."""
    return (least_squares(real, real=True) + least_squares(restyled, real=False)) / 2


def distance(images: Tensor, others: Tensor) -> Tensor:
    """Mean absolute difference of images in -1..1: the cycle and the identity loss (Zhu et al., eq. 2)."""
    return F.l1_loss(images.float(), others.float())


def semantic_loss(before: Tensor, after: Tensor) -> Tensor:
    """Cross-entropy of the logits after restyling with the classes seen before (CyCADA, eq. 4), over all pixels.

    before, after: logits [B, C, h, w] of a frozen segmenter; `before` gets no gradient.
    """
    return F.cross_entropy(after.float(), before.detach().argmax(1))
