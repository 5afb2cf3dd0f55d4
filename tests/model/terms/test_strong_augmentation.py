"""Colour jitter and blur against slow twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from model.terms.strong_augmentation import colour_jitter, gaussian_blur, strong_augmentation
from tests.twins import plus


def noise(height: int = 6, width: int = 7, seed: int = 0) -> Tensor:
    return 255 * torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "change",
    [
        (0, 0, 0, 0),
        (0.3, 0, 0, 0),
        (0, -0.4, 0, 0),
        (0, 0, 0.5, 0),
        (0, 0, -1, 0),
        (0, 0, 0, 0.2),
        (-0.2, 0.3, 0.4, -0.1),
    ],
)
def test_colour_jitter_equals_the_twin(change: tuple[float, float, float, float]) -> None:
    image = noise()
    found = colour_jitter(image, *change)
    np.testing.assert_allclose(found.numpy(), plus.colour_jitter(image.numpy(), *change), atol=0.05)
    if change == (0, 0, 0, 0):
        torch.testing.assert_close(found, image, atol=0.01, rtol=0)


def test_without_saturation_a_pixel_is_its_grey() -> None:
    image = noise(1, 2)
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    torch.testing.assert_close(colour_jitter(image, 0, 0, -1, 0), grey.expand(3, -1, -1), atol=0.01, rtol=0)


@pytest.mark.parametrize("sigma", [0.15, 0.6, 1.15, 4.0])
@pytest.mark.parametrize("size", [(6, 7), (2, 9), (1, 1)])
def test_blur_equals_the_twin(sigma: float, size: tuple[int, int]) -> None:
    image = noise(*size)
    found = gaussian_blur(image, sigma)
    expected = np.stack([plus.gaussian_blur(plane, sigma) for plane in image.numpy()])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


def test_a_batch_is_changed_image_by_image_from_the_generator_only() -> None:
    images = noise(8, 9)[None].round().to(torch.uint8).expand(200, 3, 8, 9)
    found = strong_augmentation(images, 0.2, 1.15, torch.Generator().manual_seed(3))
    assert found.dtype == torch.uint8 and found.shape == images.shape
    torch.manual_seed(0)
    assert torch.equal(found, strong_augmentation(images, 0.2, 1.15, torch.Generator().manual_seed(3)))
    kept = (found == images).flatten(1).all(1).float().mean()
    assert kept == pytest.approx(0.1, abs=0.06)  # an image gets neither: 0.2 * 0.5
    coloured = strong_augmentation(images, 0.2, 0, torch.Generator().manual_seed(3))
    assert (coloured == images).flatten(1).all(1).float().mean() == pytest.approx(0.2, abs=0.08)
    blurred = strong_augmentation(images, 0, 1.15, torch.Generator().manual_seed(3))
    assert (blurred == images).flatten(1).all(1).float().mean() == pytest.approx(0.5, abs=0.1)
    assert torch.equal(strong_augmentation(images, 0, 0, torch.Generator()), images)
