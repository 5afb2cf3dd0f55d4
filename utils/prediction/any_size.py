"""Label maps of images of any size and shape, each at the size of its image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from dataset.augment import Size, resized
from dataset.base import ASPECT_TOLERANCE
from dataset.classes import LabelMap
from model.networks.deeplab import DeepLab
from model.networks.upsampling import best_class
from utils.prediction.evaluation import Variants, maps
from utils.system.transfer import to_host

ONE = Variants()
SMALLEST = 32  # smallest side of the network's input, in pixels


def network_size(native: Size, trained: Size) -> Size:
    """The width and height to which an image is resized for the network (our choice).

    The image keeps its shape, and gets about as many pixels as the images that the network was trained on: an object
    then has about the size that the network knows, and a portrait is not squeezed into a landscape. If the shapes
    differ by no more than `ASPECT_TOLERANCE`, it gets exactly the trained size, as in training and evaluation.
    """
    (width, height), (trained_width, trained_height) = native, trained
    if abs(width * trained_height / (height * trained_width) - 1) <= ASPECT_TOLERANCE:
        return trained
    scale = math.sqrt(trained_width * trained_height / (width * height))
    return max(SMALLEST, round(width * scale)), max(SMALLEST, round(height * scale))


class Prepared(NamedTuple):
    """An image, uint8 RGB [H, W, 3], and the same image at the size of the network's input, [3, h, w]."""

    pixels: npt.NDArray[np.uint8]
    image: Tensor


class Predicted(NamedTuple):
    """Train ids [H, W], and, if requested, the confidence in them as a multiple of 1/255 [H, W]."""

    labels: LabelMap
    confidence: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Predictor:
    """A segmenter with everything that its predictions depend on.

    size: width and height of the images that it was trained on. exact: predict every image at exactly that size,
    whatever its shape. confidence: also compute the largest value of the soft-max maps, which are up-sampled (as for
    pseudo-labels).
    """

    segmenter: DeepLab
    size: Size
    variants: Variants = ONE
    amp: str = "off"
    exact: bool = False
    confidence: bool = False

    def prepare(self, pixels: npt.NDArray[np.uint8]) -> Prepared:
        """An image uint8 RGB [H, W, 3], resized (bicubic, as in training). Threads may call this."""
        native = (pixels.shape[1], pixels.shape[0])
        size = self.size if self.exact else network_size(native, self.size)
        image = np.ascontiguousarray(resized(pixels, size, Image.Resampling.BICUBIC).transpose(2, 0, 1))
        return Prepared(pixels, torch.from_numpy(image))

    @torch.inference_mode()
    def __call__(self, batch: Sequence[Prepared]) -> list[Predicted]:
        """Predictions at the images' own sizes; all network inputs must have the same size."""
        device = self.segmenter.input_mean.device
        found = maps(self.segmenter, torch.stack([image for _, image in batch]).to(device), self.variants, self.amp)
        soft = found
        if self.confidence and self.variants == ONE:
            soft = [found[0].softmax(1)]
        return [
            self._at_size([m[n : n + 1] for m in found], [m[n : n + 1] for m in soft], pixels.shape[:2])
            for n, (pixels, _) in enumerate(batch)
        ]

    def _at_size(self, found: list[Tensor], soft: list[Tensor], size: Sequence[int]) -> Predicted:
        labels = to_host(best_class(found, size)[1][0])
        if not self.confidence:
            return Predicted(labels)
        return Predicted(labels, to_host((best_class(soft, size)[0][0] * 255).round().to(torch.uint8)))


def label_map(segmenter: DeepLab, pixels: npt.ArrayLike, size: Size) -> LabelMap:
    """The train ids [H, W] of one image, uint8 RGB [H, W, 3]; segmenter and size: as `loading.load` returns them.

    Raises ValueError for an array of another shape or type.
    """
    image = np.asarray(pixels)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an array of shape {image.shape} and type {image.dtype}; expected uint8 RGB [H, W, 3]")
    predictor = Predictor(segmenter, size)
    return predictor([predictor.prepare(image)])[0].labels
