"""Which images of a data set a person gets to see."""

from __future__ import annotations

import pytest

from dataset import READERS
from model.networks.deeplab import build_segmenter
from utils.reporting.passes import passes


@pytest.mark.parametrize(
    ("number", "expected"), [(1, [0]), (3, [0, 2, 4]), (4, [0, 1, 3, 4]), (6, list(range(6))), (24, list(range(6)))]
)
def test_images_are_spread_evenly_over_the_data_set(benchmark_root, number, expected):
    data = READERS["gta5"](benchmark_root / "gta5_deeplab", size=(96, 64), labels=False)
    segmenter = build_segmenter(num_classes=19, backbone="tiny")
    seen = [sample["name"] for sample, _, _ in passes(segmenter, data, number)]
    assert seen == [data.names[index] for index in expected]
