"""Rare-class sampling: probabilities by hand, drawn shares, and exact resuming."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from dataset.class_sampler import RareClassSampler, class_probabilities
from utils.system.errors import UserError

# Four images of 100 pixels, classes road, car, train; 20 pixels of no class in the third.
PIXELS = np.array([[90, 10, 0, 0], [100, 0, 0, 0], [80, 0, 0, 20], [30, 70, 0, 0]])


def drawn(sampler: RareClassSampler, batches: int) -> list[tuple[int, int]]:
    return list(itertools.chain.from_iterable(itertools.islice(sampler, batches)))


def test_probabilities_by_hand() -> None:
    found = class_probabilities(PIXELS, 0.5)
    road, car = math.exp((1 - 300 / 380) / 0.5), math.exp((1 - 80 / 380) / 0.5)
    assert found.tolist() == pytest.approx([road / (road + car), car / (road + car), 0])
    assert class_probabilities(PIXELS, 1e-4).tolist() == pytest.approx([0, 1, 0])
    assert class_probabilities(PIXELS, 1e6).tolist() == pytest.approx([0.5, 0.5, 0], abs=1e-5)


def test_a_class_is_drawn_only_from_images_that_show_enough_of_it() -> None:
    sampler = RareClassSampler(PIXELS, 0.5, 5, seed=1, least_share=0.5)
    samples = drawn(sampler, 800)
    assert [number for _, number in samples] == list(range(4000))
    shares = np.bincount([index for index, _ in samples], minlength=4) / 4000
    road, car = sampler.probabilities[:2]
    assert shares.tolist() == pytest.approx([road / 3, road / 3, road / 3, car], abs=0.02)
    assert class_probabilities(PIXELS, 0.5, least_share=0.75).tolist() == [1, 0, 0]
    with pytest.raises(UserError, match="rare-class sampling"):
        class_probabilities(PIXELS * [0, 0, 0, 1], 0.5)


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_resumes_exactly_and_processes_share_one_order(batches: int) -> None:
    whole = drawn(RareClassSampler(PIXELS, 0.1, 4, seed=7), 8)
    assert drawn(RareClassSampler(PIXELS, 0.1, 4, seed=7, start=4 * batches), 8 - batches) == whole[4 * batches :]
    parts = [drawn(RareClassSampler(PIXELS, 0.1, 2, seed=7, rank=rank, size=2), 8) for rank in (0, 1)]
    together = itertools.chain.from_iterable(
        parts[rank][2 * step : 2 * step + 2] for step in range(8) for rank in (0, 1)
    )
    assert list(together) == whole
    assert drawn(RareClassSampler(PIXELS, 0.1, 4, seed=8), 8) != whole
