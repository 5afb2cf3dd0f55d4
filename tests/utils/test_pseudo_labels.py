"""Pseudo-label thresholds and masks against sorted lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from tests.twins import pseudo_labels as twin
from tests.twins.segmentation import upsample
from utils.pseudo_labels import CAP, LEVELS, Histogram, confidence, write_pseudo_labels

STEP = 1 / (LEVELS - 1)


def thresholds_of(values: list[float], label: int = 0, num_classes: int = 1) -> np.ndarray:
    histogram = Histogram(num_classes)
    levels = np.round(np.asarray(values) * (LEVELS - 1)).astype(np.uint16)
    histogram.add(np.full(levels.shape, label, dtype=np.uint8), levels)
    return histogram.thresholds()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.7], 0.7),  # round(0.5) = 0
        ([0.6, 0.4], 0.6),  # round(1.0) = 1
        ([0.5, 0.3, 0.4], 0.5),  # round(1.5) = 2, half to even
        ([0.1, 0.2, 0.3, 0.4], 0.3),  # round(2.0) = 2
        ([0.1, 0.2, 0.3, 0.4, 0.5], 0.3),  # round(2.5) = 2, half to even
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], 0.5),  # round(3.5) = 4
        ([0.95, 0.99, 0.97], 0.9),  # the cap
        ([0.2, 1.0, 1.0], 0.9),
        ([1.0], 0.9),
        ([0.0, 0.0], 0.0),
        ([0.3] * 5, 0.3),
    ],
)
def test_thresholds_by_hand(values: list[float], expected: float) -> None:
    assert thresholds_of(values).tolist() == [pytest.approx(expected, abs=0.51 * STEP)]


def test_a_class_that_is_never_predicted_has_threshold_zero() -> None:
    assert thresholds_of([0.5, 0.6], label=1, num_classes=3)[[0, 2]].tolist() == [0.0, 0.0]


def predictions_of(images: list[tuple[Tensor, Tensor]]) -> list[tuple[str, Tensor, Tensor]]:
    """Labels and exact confidences as the script stores them."""
    return [
        (f"{i}", label.to(torch.uint8), (value * (LEVELS - 1)).round().to(torch.int32))
        for i, (label, value) in enumerate(images)
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(2, 19), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_thresholds_equal_sorting_within_one_step(number: int, classes: int, h: int, w: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    images = [
        (torch.randint(classes, (h, w), generator=g), torch.rand(h, w, generator=g, dtype=torch.float64))
        for _ in range(number)
    ]
    histogram = Histogram(classes)
    for _, label, level in predictions_of(images):
        histogram.add(label.numpy(), level.numpy().astype(np.uint16))
    expected = twin.thresholds([(a.tolist(), b.tolist()) for a, b in images], classes)
    np.testing.assert_allclose(histogram.thresholds(), expected, rtol=0, atol=STEP)


def test_masks_equal_sorting_except_within_one_step_of_the_threshold(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    images = [
        (torch.randint(5, (23, 31), generator=g), torch.rand(23, 31, generator=g, dtype=torch.float64).sqrt())
        for _ in range(3)
    ]
    images[1][0][images[1][0] == 4] = 3
    thresholds, kept, predicted = write_pseudo_labels(predictions_of(images), 6, tmp_path)
    lists = [(a.tolist(), b.tolist()) for a, b in images]
    limits = twin.thresholds(lists, 6)
    np.testing.assert_allclose(thresholds, limits, rtol=0, atol=STEP)
    masks = [np.array(Image.open(tmp_path / f"{i}.png")) for i in range(3)]
    for mask, image, (label, value) in zip(masks, lists, images):
        wanted = np.array(twin.pseudo_label(image, limits))
        near = np.abs(value.numpy() - np.array(limits)[label.numpy()]) <= STEP
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask[~near], wanted[~near])
    together = np.stack(masks)
    assert kept.tolist() == [int((together == c).sum()) for c in range(6)]
    assert predicted.tolist() == [int(sum((label == c).sum() for label, _ in images)) for c in range(6)]
    assert kept[5] == predicted[5] == 0


def test_a_pixel_at_the_threshold_is_kept_and_one_below_is_not(tmp_path: Path) -> None:
    level = torch.tensor([[10, 20, 30, 40]])  # the threshold is element 2, that is 30
    write_pseudo_labels([("a", torch.ones(1, 4, dtype=torch.uint8), level)], 2, tmp_path, ignore_label=99)
    assert np.array(Image.open(tmp_path / "a.png")).tolist() == [[99, 99, 1, 1]]


def test_the_cap_keeps_confident_pixels_below_the_median(tmp_path: Path) -> None:
    value = torch.tensor([[0.85, 0.91, 0.95, 0.97, 0.99]])
    thresholds, kept, _ = write_pseudo_labels(predictions_of([(torch.zeros(1, 5), value)]), 1, tmp_path)
    assert thresholds.tolist() == [CAP] and kept.tolist() == [4]


def test_nothing_but_the_masks_is_left_behind(tmp_path: Path) -> None:
    images = [(torch.zeros(2, 2), torch.rand(2, 2)), (torch.ones(3, 5), torch.rand(3, 5))]
    write_pseudo_labels(predictions_of(images), 2, tmp_path / "labels")
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == ["0.png", "1.png"]


def test_scratch_files_go_also_on_failure(tmp_path: Path) -> None:
    def failing():
        yield from predictions_of([(torch.zeros(2, 2), torch.rand(2, 2))])
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_pseudo_labels(failing(), 2, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("classes", "size_in", "size_out"), [(2, (1, 1), (3, 4)), (5, (3, 4), (9, 15)), (19, (4, 5), (4, 5))]
)
def test_confidence_is_the_soft_max_first_then_up_sampled(
    classes: int, size_in: tuple[int, int], size_out: tuple[int, int]
) -> None:
    logits = 3 * torch.randn(1, classes, *size_in, generator=torch.Generator().manual_seed(classes))
    label, level = confidence(logits, size_out)
    planes = np.array([upsample(plane, *size_out) for plane in F.softmax(logits[0].double(), 0).tolist()])
    assert label.dtype == torch.uint8 and level.dtype == torch.int32
    np.testing.assert_array_equal(label.numpy(), planes.argmax(0))
    np.testing.assert_allclose(level.numpy() * STEP, planes.max(0), rtol=0, atol=0.6 * STEP)


def test_a_certain_pixel_has_the_highest_level() -> None:
    logits = torch.full((1, 3, 2, 2), -200.0)
    logits[:, 1] = 200.0
    label, level = confidence(logits, (7, 9))
    assert (label == 1).all() and (level == LEVELS - 1).all()
