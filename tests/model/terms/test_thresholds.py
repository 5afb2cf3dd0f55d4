"""The running thresholds of the classes, against sorted confidences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.terms.thresholds import BINS, CAP, KEEP, ClassThresholds

CPU = torch.device("cpu")
ALL = torch.ones(1, dtype=torch.bool)


def test_the_limit_is_the_median_of_the_class_to_a_bin() -> None:
    g = torch.Generator().manual_seed(0)
    labels, confidence = torch.randint(3, (4, 50, 60), generator=g), torch.rand(4, 50, 60, generator=g) ** 2
    thresholds = ClassThresholds(5, CPU)
    thresholds.update(labels, confidence, ALL.expand_as(labels))
    for c, limit in enumerate(thresholds.limits().tolist()):
        own = np.sort(confidence[labels == c].numpy())
        wanted = own[len(own) // 2] if len(own) else 0.0
        assert limit <= wanted < limit + 1 / BINS or (limit, wanted) == (0, 0)
    sure = thresholds.sure(labels, confidence)
    assert 0.49 < sure.float().mean() < 0.53  # half of each class, plus the pixels in the same bin as the median


def test_no_limit_is_above_the_cap() -> None:
    thresholds = ClassThresholds(2, CPU)
    thresholds.update(torch.zeros(4, dtype=torch.uint8), torch.tensor([0.95, 0.99, 1.0, 1.0]), ALL.expand(4))
    assert thresholds.limits().tolist() == [pytest.approx(CAP), 0]
    assert thresholds.sure(torch.tensor([0, 0, 1]), torch.tensor([0.91, 0.89, 0.01])).tolist() == [True, False, True]


def test_old_labels_fade() -> None:
    thresholds = ClassThresholds(1, CPU)
    labels = torch.zeros(10, dtype=torch.long)
    thresholds.update(labels, torch.full((10,), 0.25), ALL.expand(10))
    updates = 0
    while thresholds.limits().item() == 0.25:
        thresholds.update(labels[:1], torch.full((1,), 0.75), ALL)
        updates += 1
    # After n updates the old ones weigh 10 KEEP^n and the new ones (1 - KEEP^n) / (1 - KEEP).
    assert updates == next(n for n in range(99) if 10 * KEEP**n < (1 - KEEP**n) / (1 - KEEP))
    assert thresholds.limits().item() == 0.75


def test_what_is_not_counted_changes_nothing() -> None:
    labels, confidence = torch.tensor([0, 0, 1, 1]), torch.tensor([0.2, 0.6, 0.7, 0.3])
    some, few = ClassThresholds(2, CPU), ClassThresholds(2, CPU)
    some.update(labels, confidence, torch.tensor([True, False, True, False]))
    few.update(labels[::2], confidence[::2], ALL.expand(2))
    assert torch.equal(some.counts, few.counts) and some.counts.sum() == 2
