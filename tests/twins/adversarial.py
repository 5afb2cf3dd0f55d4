"""Twin of `model.terms.adversarial`: binary cross-entropy, one score at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def domain_loss(scores: Tensor, domain: int) -> float:
    """Mean over images of the mean over an image's scores of -log of the probability of `domain`; 1 means target."""
    images = []
    for image in scores.double():
        losses = []
        for score in image.flatten().tolist():
            margin = score if domain == 1 else -score  # log odds of the domain
            losses.append(math.log1p(math.exp(-margin)) if margin > 0 else math.log1p(math.exp(margin)) - margin)
        images.append(sum(losses) / len(losses))
    return sum(images) / len(images)


def domain_gradient(scores: Tensor, domain: int) -> Tensor:
    """d domain_loss / d scores = (sigmoid(score) - domain) / number of scores."""
    gradient = torch.zeros(scores.numel(), dtype=torch.float64)
    for i, score in enumerate(scores.double().flatten().tolist()):
        probability = 1 / (1 + math.exp(-score)) if score > 0 else math.exp(score) / (1 + math.exp(score))
        gradient[i] = (probability - domain) / scores.numel()
    return gradient.view(scores.shape)
