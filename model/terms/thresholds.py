"""Which of the teacher's labels are sure: a confidence threshold per class, kept up to date while the teacher learns.

The rule is the paper's for pseudo-labels (section III-D): a pixel counts if it is in the surer half of its class, and
in any case above 0.9. The paper computes the thresholds once; here the confidences of the last steps stand for those of
all images (our choice).
"""

from __future__ import annotations

import torch
from torch import Tensor

CAP = 0.9
BINS = 256
KEEP = 0.95
"""Share of the counts that stays per update: about the last 20 updates count."""


class ClassThresholds:
    """The running median of the confidence of each class, at most `CAP`.

    counts: float32 [C, BINS], how often each class had which confidence, older labels counting less; made with
    `device`. A class without any label so far has the threshold 0.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.counts = torch.zeros(num_classes, BINS, device=device)

    @torch.no_grad()
    def update(self, labels: Tensor, confidence: Tensor, counted: Tensor) -> None:
        """Take in labels (integer [...], all below C) and their confidences (float [...], 0 to 1), where `counted`
        (bool [...]) is true."""
        bins = (confidence.flatten() * BINS).long().clamp_max(BINS - 1)
        found = torch.zeros_like(self.counts).flatten()
        found.index_add_(0, labels.flatten().long() * BINS + bins, counted.flatten().to(found.dtype))
        self.counts.mul_(KEEP).add_(found.view_as(self.counts))

    def limits(self) -> Tensor:
        """[C]: the lower edge of the bin in which the median lies, at most `CAP`."""
        below = self.counts.cumsum(1)
        before_median = below <= below[:, -1:] / 2
        return ((before_median & (below[:, -1:] > 0)).sum(1) / BINS).clamp_max(CAP)

    def sure(self, labels: Tensor, confidence: Tensor) -> Tensor:
        """Where a label's confidence reaches the limit of its class: bool [...]."""
        return confidence >= self.limits()[labels.long()]
