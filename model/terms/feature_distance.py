"""ImageNet feature distance: things keep the features that ImageNet taught the backbone (DAFormer)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def feature_distance(
    features: Tensor, imagenet: Tensor, labels: Tensor, things: Sequence[int], share: float = 0.75
) -> Tensor:
    """Mean Euclidean distance of the features on things; 0 if the batch shows none.

    features, imagenet: [B, D, h, w] of the segmenter and, without gradient, of the frozen ImageNet backbone, on the
    same source images; labels: train ids [B, H, W]. A feature takes part if one class among `things` covers at least
    `share` of its patch of pixels.
    """
    height, width = features.shape[2:]
    largest = features.new_zeros((len(features), height, width), dtype=torch.float32)
    for c in things:
        covered = F.adaptive_avg_pool2d((labels == c).float()[:, None], (height, width))[:, 0]
        largest = torch.maximum(largest, covered)
    counted = largest >= share
    with torch.autocast(features.device.type, enabled=False):
        square = (features.float() - imagenet.float()).square().sum(1)
        # A distance of 0 has no gradient.
        distance = square.where(counted & (square > 0), 1).sqrt().where(counted & (square > 0), 0)
        return distance.sum() / counted.sum().clamp_min(1)
