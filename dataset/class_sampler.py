"""Rare-class sampling: labelled images are drawn by class, rare classes more often (DAFormer)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dataset.class_pixels import Pixels, class_shares
from dataset.sampler import EndlessSampler
from utils.system.errors import UserError

LEAST_SHARE = 3000 / (1914 * 1052)
"""Share of an image's pixels that a class must cover for the image to be drawn for it: 3,000 pixels of GTA5
(DAFormer)."""


class RareClassSampler(EndlessSampler):
    """Endless batches of `(index, draw)` like those of the base class, but every sample is drawn by class.

    First a class is drawn with the probability of `class_probabilities`, then a random image of which it covers at
    least `least_share`. Sample n depends only on `seed` and n, so that a run resumes exactly, and several processes
    together draw the samples of one.

    pixels: the counts of `class_pixels`. temperature: above 0; the smaller, the more often rare classes are drawn.
    Raises UserError if no image shows enough of any class.
    """

    def __init__(
        self,
        pixels: Pixels,
        temperature: float,
        batch_size: int,
        seed: int,
        start: int = 0,
        *,
        rank: int = 0,
        size: int = 1,
        least_share: float = LEAST_SHARE,
    ) -> None:
        super().__init__(len(pixels), batch_size, seed, start, rank=rank, size=size)
        self.probabilities = class_probabilities(pixels, temperature, least_share)
        enough = _enough(pixels, least_share)
        self._images = [np.flatnonzero(shown) for shown in enough.T]

    def _samples(self) -> Iterator[tuple[int, int]]:
        number = self.start
        while True:
            # The third number makes this random stream independent of the one that augments the sample.
            rng = np.random.default_rng([self.seed, number, 1])
            images = self._images[rng.choice(len(self._images), p=self.probabilities)]
            yield int(rng.choice(images)), number
            number += 1


def class_probabilities(
    pixels: Pixels, temperature: float, least_share: float = LEAST_SHARE
) -> npt.NDArray[np.float64]:
    """P(c) ~ exp((1 - f_c) / `temperature`), where f_c is the class's share of all pixels that belong to a class; [C].

    A class gets probability 0 if no image shows enough of it. Raises UserError if that is so for all classes.
    """
    drawn = _enough(pixels, least_share).any(0)
    if not drawn.any():
        raise UserError(
            f"rare-class sampling: no source label shows a class on at least {least_share:.2%} of its pixels; "
            f"expected labels of the class table"
        )
    exponent = np.where(drawn, -class_shares(pixels) / temperature, -np.inf)
    weights = np.exp(exponent - exponent.max())
    return weights / weights.sum()


def _enough(pixels: Pixels, least_share: float) -> npt.NDArray[np.bool_]:
    """[N, C]: whether the class covers enough of the image."""
    return (pixels[:, :-1] > 0) & (pixels[:, :-1] >= least_share * pixels.sum(1, keepdims=True))
