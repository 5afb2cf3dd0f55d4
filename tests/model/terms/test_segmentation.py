"""Up-sampling, soft-max maps and the cross-entropy against slow twins and PyTorch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.networks.high_resolution import Detail, Window
from model.networks.upsampling import upsample
from model.terms.segmentation import probabilities, segmentation_loss, weighted_segmentation_loss
from tests.twins import plus, segmentation
from tests.twins.cases import SIZES, assert_gradient, assert_value, random_case


@pytest.mark.parametrize(("batch", "classes", "height", "width"), SIZES)
def test_segmentation_loss_equals_the_twin(batch: int, classes: int, height: int, width: int) -> None:
    case = random_case(0, batch, classes, height, width)
    labels = case.labels.clone()
    if batch > 1:
        labels[1] = 255  # an image without a valid pixel counts as 0 and is part of the mean over images
    logits = case.logits.requires_grad_()
    loss = segmentation_loss(logits, labels)
    (gradient,) = torch.autograd.grad(loss, logits)
    expected, wanted = segmentation.segmentation_loss(logits.detach(), labels)
    assert_value(loss, expected)
    assert_gradient(gradient, wanted)


def test_segmentation_loss_of_a_full_size_map_equals_the_twin() -> None:
    case = random_case(1, 1, 3, 91, 161)
    expected, _ = segmentation.segmentation_loss(case.logits, case.labels)
    assert_value(segmentation_loss(case.logits, case.labels), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_without_a_valid_pixel_loss_and_gradient_are_zero(dtype: torch.dtype) -> None:
    logits = (1e4 * torch.randn(2, 3, 4, 5)).requires_grad_()
    loss = segmentation_loss(logits, torch.full((2, 4, 5), 255, dtype=dtype))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0 and not gradient.any()


def test_segmentation_loss_by_hand_with_another_ignore_label() -> None:
    logits = torch.log(torch.tensor([[[[1.0, 3.0]], [[1.0, 1.0]]], [[[1.0, 1.0]], [[1.0, 7.0]]]]))
    labels = torch.tensor([[[0, 0]], [[9, 1]]])
    # (log 2 + log 4/3) / 2 and log 8/7
    expected = (np.log(2) + np.log(4 / 3)) / 4 + np.log(8 / 7) / 2
    assert segmentation_loss(logits, labels, 9).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("size_in", "size_out"), [((1, 1), (3, 5)), ((2, 3), (7, 4)), ((5, 9), (33, 64)), ((4, 4), (4, 4))]
)
def test_up_sampling_puts_corners_on_corners(size_in: tuple[int, int], size_out: tuple[int, int]) -> None:
    logits = torch.randn(1, 2, *size_in, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor([segmentation.upsample(plane, *size_out) for plane in logits[0].tolist()])
    torch.testing.assert_close(upsample(logits, size_out)[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (33, 64), (23, 41)])
def test_probabilities_are_the_soft_max_of_the_up_sampled_logits(size: tuple[int, int], channels_last: bool) -> None:
    logits = torch.randn(2, 5, 5, 9, generator=torch.Generator().manual_seed(0))
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last)
    logits.requires_grad_()
    cotangent = torch.randn(2, 5, *size, generator=torch.Generator().manual_seed(1))
    expected = upsample(logits, size).softmax(1)
    maps = probabilities(logits, size)
    torch.testing.assert_close(maps, expected, rtol=1e-6, atol=1e-6)
    (gradient,), (wanted,) = (torch.autograd.grad(m, logits, cotangent) for m in (maps, expected))
    assert_gradient(gradient, wanted.double(), 1e-5)


@pytest.mark.parametrize(
    ("small", "large"), [((1, 1), (7, 5)), ((5, 9), (33, 64)), ((7, 4), (3, 2)), ((1, 6), (1, 31)), ((9, 3), (10, 3))]
)
def test_cross_entropy_at_label_size_equals_that_of_up_sampled_logits(
    small: tuple[int, int], large: tuple[int, int]
) -> None:
    g = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(3, 4, *small, generator=g)).requires_grad_()
    labels = torch.randint(4, (3, *large), generator=g)
    labels[torch.rand(labels.shape, generator=g) < 0.3] = 255
    labels[1] = 255
    up = upsample(logits.double(), large)
    losses = [F.cross_entropy(up[b : b + 1], labels[b : b + 1], ignore_index=255) for b in (0, 2)]
    expected = torch.stack([loss.nan_to_num() for loss in losses]).sum() / 3
    loss = segmentation_loss(logits, labels.to(torch.uint8))
    assert_value(loss, expected)
    (gradient,), (wanted,) = (torch.autograd.grad(value, logits) for value in (3 * loss, 3 * expected))
    assert_gradient(gradient, wanted.double(), 1e-5)


def test_half_precision_logits_have_a_float32_loss_and_a_gradient_of_their_type() -> None:
    case = random_case(2, 2, 5, 6, 7)
    logits = case.logits.bfloat16().requires_grad_()
    loss = segmentation_loss(logits, case.labels)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    expected, wanted = segmentation.segmentation_loss(logits.detach(), case.labels)
    assert_value(loss, expected)
    assert_gradient(gradient, wanted, 2**-8)


def test_a_scaled_float16_gradient_of_a_large_map_keeps_what_is_small() -> None:
    logits = torch.randn(1, 19, 33, 65, generator=torch.Generator().manual_seed(0)).half().requires_grad_()
    labels = torch.randint(19, (1, 720, 1280), generator=torch.Generator().manual_seed(1))
    exact = logits.detach().double().requires_grad_()
    F.cross_entropy(upsample(exact, (720, 1280)), labels).backward()
    (65536 * segmentation_loss(logits, labels)).backward()
    assert exact.grad is not None and logits.grad is not None and logits.grad.dtype == torch.float16
    error = (logits.grad.double() / 65536 - exact.grad).norm() / exact.grad.norm()
    assert error < 3e-4  # if it were cast before it is scaled, it would be off by 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_probabilities_of_half_precision_logits_are_float32(dtype: torch.dtype) -> None:
    logits = torch.randn(1, 5, 5, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = probabilities(logits, (33, 64))
    assert maps.dtype == torch.float32 and torch.equal(maps, probabilities(logits.float(), (33, 64)))


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize(("batch", "classes", "height", "width"), SIZES)
def test_weighted_loss_equals_the_twin_and_autograd(batch: int, classes: int, height: int, width: int) -> None:
    case = random_case(0, batch, classes, height, width)
    weights = torch.rand(case.labels.shape, generator=torch.Generator().manual_seed(0))
    logits = case.logits.requires_grad_()
    loss = weighted_segmentation_loss(logits, case.labels, weights)
    assert_value(loss, plus.weighted_cross_entropy(logits.detach(), case.labels, weights))
    (gradient,) = torch.autograd.grad(loss, logits)
    each = F.cross_entropy(logits.double(), case.labels, ignore_index=255, reduction="none")
    (wanted,) = torch.autograd.grad((each * weights).mean(), logits)
    assert_gradient(gradient, wanted.double())


def test_ignored_pixels_count_in_the_denominator_of_the_weighted_loss() -> None:
    labels = torch.tensor([[[0, 255, 255, 255]]])
    loss = weighted_segmentation_loss(torch.zeros(1, 2, 1, 4), labels, torch.tensor([[[0.5]]]))
    assert loss.item() == pytest.approx(0.5 * np.log(2) / 4)


def test_weighted_loss_of_a_larger_map_has_the_weight_of_every_pixel() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, 9, generator=g)
    labels = torch.randint(4, (2, 33, 64), generator=g)
    weights = torch.rand(2, 33, 64, generator=g)
    expected = (F.cross_entropy(upsample(logits.double(), (33, 64)), labels, reduction="none") * weights).mean()
    assert_value(weighted_segmentation_loss(logits, labels, weights), expected)


def test_a_detail_adds_its_weighted_loss_on_its_window() -> None:
    case = random_case(3, 2, 3, 6, 8)
    labels = case.labels.clone()
    labels[0, 0] = 255
    detail = Detail(case.logits[:, :, :4, :5].flip(0), Window(1, 2, 4, 5), 0.3)
    cut = labels[:, 1:5, 2:7]
    assert torch.equal(detail.window.of(labels), cut)
    expected = segmentation_loss(case.logits, labels) + 0.3 * segmentation_loss(detail.logits, cut)
    assert_value(segmentation_loss(case.logits, labels, detail=detail), expected)
    weights = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0))
    for given, inside in ((weights, weights[:, 1:5, 2:7]), (weights[:, :1, :1], weights[:, :1, :1])):
        expected = weighted_segmentation_loss(case.logits, labels, given)
        expected = expected + 0.3 * weighted_segmentation_loss(detail.logits, cut, inside)
        assert_value(weighted_segmentation_loss(case.logits, labels, given, detail=detail), expected)
    off = detail._replace(weight=0.0)
    assert torch.equal(segmentation_loss(case.logits, labels, detail=off), segmentation_loss(case.logits, labels))


def test_class_weights_are_factors_on_the_pixels_of_a_class() -> None:
    case = random_case(3, 2, 3, 5, 7)
    weights = torch.tensor([0.5, 1.0, 4.0])
    labels = case.labels.masked_fill(
        torch.rand(case.labels.shape, generator=torch.Generator().manual_seed(0)) < 0.3, 255
    )
    logits = case.logits.requires_grad_()
    by_class = [labels.where(labels == c, torch.full_like(labels, 255)) for c in range(3)]
    valid = (labels != 255).sum((1, 2))
    for image in range(2):  # the number that a sum is divided by does not depend on the weights
        one = logits[image : image + 1]
        sums = [segmentation_loss(one, label[image : image + 1]) * (label[image] != 255).sum() for label in by_class]
        expected = (weights * torch.stack(sums)).sum() / valid[image]
        assert_value(segmentation_loss(one, labels[image : image + 1], class_weights=weights), expected)
