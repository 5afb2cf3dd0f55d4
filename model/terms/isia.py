"""ISIA: inter-class separation and intra-class aggregation of category centroids (paper), and the released forms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.terms.regions import MAX_INSTANCES


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """0.5 + 0.5 cos of all pairs of rows: [N, D], [M, D] -> [N, M] in 0..1; a zero vector has cosine 0, no gradient."""
    return 0.5 + 0.5 * _unit(a) @ _unit(b).T


def _unit(vectors: Tensor) -> Tensor:
    square = vectors.square().sum(1, keepdim=True)
    return (vectors * square.where(square > 0, 1).rsqrt()).where(square > 0, 0)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` (same shape); 0 for an empty mask."""
    return values.where(mask, 0).sum() / mask.sum().clamp_min(1)


def intra_class_aggregation(target: Tensor, present: Tensor, source: Tensor, ready: Tensor) -> Tensor:
    """Mean over classes present in the target and ready in memory of ||x_c - s_c||_1 / D (paper).

    target, source: centroids [C, D], `source` detached; present, ready: [C] bool.
    """
    return masked_mean((target - source).abs().mean(1), present & ready)


def inter_class_separation(target: Tensor, present: Tensor, source: Tensor, ready: Tensor) -> Tensor:
    """Mean similarity of different classes, target to source plus target to target (paper); arguments as above.

    Both means run over ordered pairs c != c': c present and c' ready, then c and c' both present.
    """
    other = ~torch.eye(len(target), dtype=torch.bool, device=target.device)
    across = masked_mean(similarity(target, source), present[:, None] & ready[None] & other)
    within = masked_mean(similarity(target, target), present[:, None] & present[None] & other)
    return across + within


def isia(target: Tensor, present: Tensor, source: Tensor, ready: Tensor) -> Tensor:
    """ISIA of one image as in the paper: aggregation plus separation; arguments as above."""
    aggregation = intra_class_aggregation(target, present, source, ready)
    return aggregation + inter_class_separation(target, present, source, ready)


def released_gap(
    stuff: Tensor, stuff_matched: Tensor, instances: Tensor, instances_matched: Tensor, num_prototype: int
) -> Tensor:
    """Released step 2, 'gap': similarity of every accepted ready stuff class with every matched instance, scaled.

    stuff: centroids [N, D], stuff_matched: [N] bool; instances: [T, R, D], instances_matched: [T, R] bool.
    Each pair counts (0.5 + 0.5 cos) * 10 K / D / n, with n the instances of that thing class.
    """
    pairs = similarity(stuff, instances.flatten(0, 1)).view(len(stuff), *instances.shape[:2])
    mask = stuff_matched[:, None, None] & instances_matched[None]
    per_class = pairs.where(mask, 0).sum((0, 2)) / instances_matched.sum(1).clamp_min(1)
    return per_class.sum() * (MAX_INSTANCES * num_prototype / stuff.shape[1])


def released_same(source_logits: Tensor, target_logits: Tensor, feature_dim: int) -> Tensor:
    """Earlier release, 'same': L1 between the soft-max maps of both domains, summed over classes and pixels, over D.

    source_logits: [C, h, w], target_logits: [C, h', w'] of one image pair; the gradient goes through both. Where the
    sizes differ, the source map is resized to the target's (bilinear, align_corners=True; our choice).
    """
    source = source_logits.float().softmax(0)
    if source.shape[1:] != target_logits.shape[1:]:
        source = F.interpolate(source[None], target_logits.shape[1:], mode="bilinear", align_corners=True)[0]
    return (source - target_logits.float().softmax(0)).abs().sum() / feature_dim
