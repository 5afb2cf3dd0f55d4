"""Random changes of a training sample, the same for image and label; resizing."""

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
    """Which random changes a training sample gets (our choice; the released readers only mirror, if anything).

    mirror: flip left and right, probability 1/2. scale: resize by a factor of 0.5 to 1.5, then crop or pad
    back to the size at a random place; the image is padded with the mean colour, the label with the ignore
    label. jitter: brightness, contrast and saturation of what is left of the image, each by a factor of 0.5 to 1.5.
    crop: the width and height of the window that is left, where it is smaller than the image.
    """

    mirror: bool = False
    scale: bool = False
    jitter: bool = False
    crop: Size | None = None


@dataclass(frozen=True)
class SampleChanges:
    """The changes that one sample gets from an `Augment`. All random numbers are always drawn, so that switching one
    change on or off does not affect the others."""

    flip: bool
    factor: float
    place: tuple[float, float]
    jitter: tuple[float, float, float]
    crop: Size | None = None

    @classmethod
    def drawn(cls, augment: Augment, seed: int, number: int) -> SampleChanges:
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
            crop=augment.crop,
        )

    def image(self, pixels: Pixels, size: Size) -> Pixels:
        """An image [H, W, 3] resized once (bicubic), from native to `size` (width, height) times the random factor,
        then cropped to the crop or to `size`, jittered and padded: as few pixels as possible are jittered."""
        scaled = resized(pixels, self._scaled(size), Image.Resampling.BICUBIC)
        return self._placed(scaled, self.crop or size, PAD_COLOUR)

    def label(self, pixels: Pixels, size: Size, fill: int) -> Pixels:
        """The same as `image` for a label [H, W]: resized by nearest neighbours, padded with `fill`."""
        scaled = resized(pixels, self._scaled(size), Image.Resampling.NEAREST)
        return self._placed(scaled, self.crop or size, fill)

    def mirror(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flip(-1) if self.flip else pixels

    def _scaled(self, size: Size) -> Size:
        return max(1, round(size[0] * self.factor)), max(1, round(size[1] * self.factor))

    def _placed(self, pixels: Pixels, size: Size, fill: Any) -> Pixels:
        height, width = pixels.shape[:2]
        left, top = (round(at * (side - own)) for at, side, own in zip(self.place, size, (width, height)))
        visible = pixels[max(0, -top) : size[1] - top, max(0, -left) : size[0] - left]
        if pixels.ndim == 3:
            visible = self._jittered(visible)
        if visible.shape[1::-1] == size:
            return visible
        window = np.empty((size[1], size[0], *pixels.shape[2:]), np.uint8)
        window[:] = fill
        window[max(0, top) :, max(0, left) :][: visible.shape[0], : visible.shape[1]] = visible
        return window

    def _jittered(self, pixels: Pixels) -> Pixels:
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
