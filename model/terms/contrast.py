"""Pixel contrast with the source memory: ISIA's two aims for every confident pixel (our own form, `--isia contrast`).

ISIA pulls a category's target centroid towards its source centroid and pushes it away from the others. Here every
confident pixel is pulled and pushed, by a cross-entropy over the cosine similarities to the source centroids (after
SePiCo).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def pixel_contrast(features: Tensor, labels: Tensor, source: Tensor, ready: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of soft-max(cosine / `temperature`) over the ready classes; mean per image, then over the images.

    features: [B, D, h, w]; labels: integer [B, h, w], the class of a confident pixel and any id outside the classes for
    the others; source: centroids [C, D] without gradient; ready: [C] bool. A pixel takes part if its class is ready; an
    image without such a pixel gives 0.
    """
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(features.float(), dim=1)
        similarity = torch.einsum("cd,bdhw->bchw", F.normalize(source.float(), dim=1), unit) / temperature
        # A finite number, because it may be that no class is ready.
        log_p = similarity.masked_fill(~ready[:, None, None], -1e4).log_softmax(1)
        known = labels < len(source)
        own = labels.where(known, 0).long()
        counted = known & ready[own]
        loss = -log_p.gather(1, own[:, None])[:, 0].where(counted, 0).sum((1, 2))
        return (loss / counted.sum((1, 2)).clamp_min(1)).mean()
