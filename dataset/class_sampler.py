"""Rare-class sampling: labelled images are drawn by class, rare classes more often (DAFormer)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataset.base import SegmentationDataset
from dataset.sampler import EndlessSampler
from utils.system.errors import UserError
from utils.system.files import make_folder, write_bytes

LEAST_SHARE = 3000 / (1914 * 1052)
"""Share of an image's pixels that a class must cover for the image to be drawn for it: 3,000 pixels of GTA5
(DAFormer)."""

Pixels = npt.NDArray[np.int64]


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
    counts = pixels[:, :-1].sum(0)
    exponent = np.where(drawn, -counts / counts.sum() / temperature, -np.inf)
    weights = np.exp(exponent - exponent.max())
    return weights / weights.sum()


def _enough(pixels: Pixels, least_share: float) -> npt.NDArray[np.bool_]:
    """[N, C]: whether the class covers enough of the image."""
    return (pixels[:, :-1] > 0) & (pixels[:, :-1] >= least_share * pixels.sum(1, keepdims=True))


def class_pixels(data: SegmentationDataset, folder: str | Path, workers: int = 1) -> Pixels:
    """How many pixels of each class every label has, [N, C + 1]; the last column counts pixels of no class.

    The counts are stored in a file in `folder`, which later calls read if names, files and classes are still the same.
    If bad images are skipped, a label that cannot be read counts as empty; otherwise it raises UserError.
    """
    path = Path(folder) / f"class_pixels_{_fingerprint(data)}.json"
    try:
        kept = np.array(json.loads(path.read_bytes()), np.int64)
        if kept.shape == (len(data), data.table.num_classes + 1):
            return kept
    except (OSError, ValueError):
        pass  # missing or damaged: counted again

    def count(name: str) -> Pixels:
        try:
            counts = data.label_pixels(name)
        except UserError:
            if not data.skip_bad:
                raise
            counts = np.zeros(256, np.int64)
        classes = counts[: data.table.num_classes]
        return np.append(classes, counts.sum() - classes.sum())

    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = np.stack(list(pool.map(count, data.names)))
    make_folder(path.parent)
    write_bytes(path, json.dumps(found.tolist()).encode())
    return found


def _fingerprint(data: SegmentationDataset) -> str:
    """A hash of everything that the counts depend on; sizes and times stand for the contents of files."""
    digest = hashlib.sha256(repr((data.table.names, data.train_ids().tolist())).encode())
    for name in data.names:
        path = data.label_file(name)
        try:
            status = os.stat(path)
            digest.update(repr((str(path), status.st_size, status.st_mtime_ns)).encode())
        except OSError:
            digest.update(repr((str(path), None)).encode())
    return digest.hexdigest()[:16]
