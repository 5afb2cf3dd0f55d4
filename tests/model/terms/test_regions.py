"""Regions compared with a flood fill and sums pixel by pixel, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.terms.regions import MAX_INSTANCES, ClassSplit, LabelMaps, Regions, largest_components, pool_regions
from tests.copies import counted_copies
from tests.twins import regions as twin
from tests.twins.cases import SIZES, assert_gradient, blobs, random_case, split_of


def numbered(labels: np.ndarray, things: tuple[int, ...]) -> np.ndarray:
    """What `largest_components` must return, from the twin."""
    result = np.full(labels.shape, -1)
    for t, c in enumerate(things):
        for rank, component in enumerate(twin.largest_components(labels.tolist(), c)):
            for y, x in component:
                result[y, x] = t * MAX_INSTANCES + rank
    return result


def test_components_by_hand_touch_at_corners_and_never_across_classes() -> None:
    labels = np.array([[1, 0, 3, 3], [0, 1, 1, 0], [3, 1, 0, 1]])
    #   class 1: five pixels, joined by corners; class 3: two on top, then one below
    expected = [[10, -1, 0, 0], [-1, 10, 10, -1], [1, 10, -1, 10]]
    assert largest_components(labels, (3, 1)).tolist() == expected


def test_ties_at_rank_ten_go_to_the_first_in_raster_order() -> None:
    labels = np.zeros((5, 12), dtype=np.int64)
    labels[0, ::2] = 1  # six single pixels
    labels[2, ::2] = 1  # six more: only three of them can be kept, because a larger one comes last
    labels[4, 2:5] = 1
    numbers = largest_components(labels, (1,))
    assert numbers[4, 2:5].tolist() == [0, 0, 0]
    assert numbers[0, ::2].tolist() == [1, 2, 3, 4, 5, 6]
    assert numbers[2, ::2].tolist() == [7, 8, 9, -1, -1, -1]


def test_raster_order_is_that_of_the_first_pixel() -> None:
    labels = np.array([[0, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 0]])
    assert largest_components(labels, (1,)).tolist() == [[-1, -1, -1, 0], [1, -1, -1, 0], [1, -1, -1, -1]]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (40, 1), (13, 17), (33, 65), (91, 161)])
@pytest.mark.parametrize("classes", [2, 7, 19])
def test_components_equal_flood_fill(classes: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(classes * height + width)
    labels = blobs(generator, classes, height, width).numpy()
    labels[:: max(height // 3, 2), ::3] = 255
    for things in (split_of(classes).things, tuple(reversed(range(classes)))):
        np.testing.assert_array_equal(largest_components(labels, things), numbered(labels, things))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_components_of_noise_equal_flood_fill(height: int, width: int, classes: int, seed: int) -> None:
    labels = np.random.default_rng(seed).choice([*range(classes), 255], (height, width))
    things = tuple(range(classes))
    np.testing.assert_array_equal(largest_components(labels, things), numbered(labels, things))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_components_take_any_integer_labels_and_nothing_else_is_an_instance(dtype: npt.DTypeLike) -> None:
    labels: npt.NDArray[Any] = np.array([[255, 2], [254, 0]], dtype=dtype)
    assert largest_components(labels, (2,)).tolist() == [[-1, 0], [-1, -1]]
    assert largest_components(labels, ()).tolist() == [[-1, -1], [-1, -1]]


def assert_equal_to_twin(features: torch.Tensor, labels: torch.Tensor, split: ClassSplit) -> None:
    """Compare values to 1e-5, and the gradient of a random weighting of all means to 1e-4."""
    features = features.clone().requires_grad_()
    generator = torch.Generator().manual_seed(1)
    images = pool_regions(features, LabelMaps(labels), split)
    assert len(images) == len(features)
    loss = torch.zeros(())
    expected_gradients = []
    for image, pixels, label in zip(images, map(twin.Features, features), labels.tolist()):
        expected = torch.zeros((), dtype=torch.float64)
        for c in range(split.num_classes):
            direction = torch.randn(pixels.dim, generator=generator, dtype=torch.float64)
            mean = pixels.centroid(label, c)
            assert bool(image.present[c]) == (mean is not None)
            wanted = torch.zeros(pixels.dim, dtype=torch.float64) if mean is None else mean
            torch.testing.assert_close(image.centroids[c].double(), wanted, rtol=1e-5, atol=1e-6)
            expected = expected + (wanted * direction).sum()
            loss = loss + (image.centroids[c] * direction.float()).sum()
        for t, c in enumerate(split.things):
            means = pixels.instances(label, c)
            assert image.is_instance[t].tolist() == [r < len(means) for r in range(image.is_instance.shape[1])]
            assert not image.instances[t, len(means) :].any()
            for rank, wanted in enumerate(means):
                direction = torch.randn(pixels.dim, generator=generator, dtype=torch.float64)
                torch.testing.assert_close(image.instances[t, rank].double(), wanted, rtol=1e-5, atol=1e-6)
                expected = expected + (wanted * direction).sum()
                loss = loss + (image.instances[t, rank] * direction.float()).sum()
        expected_gradients.append(pixels.gradient(expected))
    (gradient,) = torch.autograd.grad(loss, features)
    assert_gradient(gradient, torch.stack(expected_gradients))


@pytest.mark.parametrize(("batch", "classes", "height", "width"), SIZES)
def test_means_equal_sums_pixel_by_pixel(batch: int, classes: int, height: int, width: int) -> None:
    case = random_case(3, batch, classes, height, width)
    labels = case.prediction.clone()
    labels[:, ::5] = 255
    assert_equal_to_twin(case.features, labels, case.split)


def test_means_of_a_full_size_map_equal_sums_pixel_by_pixel() -> None:
    case = random_case(4, 1, 19, 91, 161, dim=4)
    assert_equal_to_twin(case.features, case.prediction, case.split)


@pytest.mark.parametrize("split", [ClassSplit(4, (), (3, 0)), ClassSplit(4, (1, 2), ()), ClassSplit(4, (2,), (1,))])
def test_a_split_may_lack_a_kind_or_leave_classes_out(split: ClassSplit) -> None:
    case = random_case(5, 2, 4, 6, 9)
    assert_equal_to_twin(case.features, case.prediction, split)


def test_means_by_hand() -> None:
    features = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])[None]
    labels = torch.tensor([[[0, 0, 1], [1, 255, 0]]])
    [image] = pool_regions(features, LabelMaps(labels), ClassSplit(3, (0, 2), (1,)))
    assert image.centroids.tolist() == [[3.0], [3.5], [0.0]]
    assert image.present.tolist() == [True, True, False]
    assert image.instances.tolist() == [[[3.0], [4.0]]]
    assert image.is_instance.tolist() == [[True, True]]


def test_an_image_without_a_valid_pixel_has_no_region_and_gradient_zero() -> None:
    features = torch.rand(2, 3, 4, 5, requires_grad=True)
    labels = torch.full((2, 4, 5), 255)
    labels[1, 0, 0] = 1
    empty, other = pool_regions(features, LabelMaps(labels), split_of(4))
    assert not empty.present.any() and not empty.is_instance.any() and not empty.centroids.any()
    assert other.present.tolist() == [False, True, False, False]
    (gradient,) = torch.autograd.grad(empty.centroids.sum() + empty.instances.sum(), features)
    assert not gradient.any()


def test_nothing_but_ignored_pixels_gives_empty_instances() -> None:
    [image] = pool_regions(torch.rand(1, 3, 4, 5), LabelMaps(torch.full((1, 4, 5), 255)), split_of(4))
    assert image.instances.shape == (2, 0, 3) and image.is_instance.shape == (2, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_features_are_pooled_in_float32_under_autocast(dtype: torch.dtype) -> None:
    case = random_case(6, 1, 5, 8, 9)
    features = case.features.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        [low] = pool_regions(features, LabelMaps(case.prediction), case.split)
    [high] = pool_regions(features.float(), LabelMaps(case.prediction), case.split)
    assert low.centroids.dtype == low.instances.dtype == torch.float32
    for name in Regions.__dataclass_fields__:
        assert torch.equal(getattr(low, name), getattr(high, name))


def test_instances_may_be_numbered_for_more_than_there_are() -> None:
    """As on a GPU, where all images must give the same shapes."""
    case = random_case(8, 2, 7, 9, 12)
    numbers, count = LabelMaps(case.prediction).instances(case.split, MAX_INSTANCES)
    assert count == MAX_INSTANCES
    expected = [largest_components(image.numpy(), case.split.things) for image in case.prediction]
    np.testing.assert_array_equal(numbers, np.stack(expected))
    fewer, largest = LabelMaps(case.prediction).instances(case.split)
    assert 1 < largest < MAX_INSTANCES and (fewer >= 0).tolist() == (numbers >= 0).tolist()


def test_a_batch_costs_one_copy_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(7, 4, 19, 8, 9)
    copies = counted_copies(monkeypatch)
    pool_regions(case.features, LabelMaps(case.prediction), case.split)
    assert len(copies) == 1


@pytest.mark.parametrize(("stuff", "things"), [((0, 0), ()), ((0,), (0, 1)), ((4,), ()), ((), (-1,))])
def test_a_split_names_each_class_once_and_within_the_table(stuff: tuple[int, ...], things: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="distinct ids below 4"):
        ClassSplit(4, stuff, things)
