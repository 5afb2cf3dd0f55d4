"""Random changes of a training sample, image and label alike; resizing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance

from dataset.cache import Pixels

Size = tuple[int, int]
"""Width and height in pixels."""

PAD_COLOUR = (123, 117, 104)
"""Mean RGB colour, which the networks' normalisation takes to about zero."""


@dataclass(frozen=True)
class Augment:
    """Which random changes a training sample gets (our choice; the released readers mirror at most).

    mirror: flip left and right, probability 1/2. scale: resize by a factor of 0.5 to 1.5, then crop or pad
    back to the size at a random place; the image is padded with the mean colour, the label with the ignore
    label. jitter: brightness, contrast and saturation of the image, each by a factor of 0.5 to 1.5.
    """

    mirror: bool = False
    scale: bool = False
    jitter: bool = False


@dataclass(frozen=True)
class Draw:
    """One sample's random numbers; all are always drawn, so that switching one change leaves the others."""

    flip: bool
    factor: float
    place: tuple[float, float]
    jitter: tuple[float, float, float]

    @classmethod
    def make(cls, augment: Augment, seed: int, number: int) -> Draw:
        rng = np.random.default_rng([seed, number])
        flip = bool(rng.random() < 0.5)
        factor = float(rng.uniform(0.5, 1.5))
        x, y = (float(v) for v in rng.random(2))
        brightness, contrast, saturation = (float(v) for v in rng.uniform(0.5, 1.5, 3))
        return cls(
            flip=flip and augment.mirror,
            factor=factor if augment.scale else 1.0,
            place=(x, y),
            jitter=(brightness, contrast, saturation) if augment.jitter else (1.0, 1.0, 1.0),
        )

    def geometry(self, pixels: Pixels, size: Size, resample: Image.Resampling, fill: Any) -> Pixels:
        """Resize once, from native to the scaled size, then crop or pad to `size`."""
        width, height = (max(1, round(side * self.factor)) for side in size)
        pixels = resized(pixels, (width, height), resample)
        if (width, height) != size:
            left, top = round(self.place[0] * (size[0] - width)), round(self.place[1] * (size[1] - height))
            image = Image.fromarray(pixels)
            window = Image.new(image.mode, size, fill)
            window.paste(image, (left, top))
            pixels = np.asarray(window)
        return pixels

    def mirror(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flip(-1) if self.flip else pixels

    def colour(self, pixels: Pixels) -> Pixels:
        if self.jitter == (1.0, 1.0, 1.0):
            return pixels
        image = Image.fromarray(pixels)
        enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for enhancer, factor in zip(enhancers, self.jitter, strict=True):
            image = enhancer(image).enhance(factor)
        return np.asarray(image)


def resized(pixels: Pixels, size: Size | None, resample: Image.Resampling) -> Pixels:
    """Pixels [H, W] or [H, W, 3] at another size; None leaves them as they are."""
    if size is None or pixels.shape[1::-1] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, resample))
