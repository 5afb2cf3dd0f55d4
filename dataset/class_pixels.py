"""How many pixels each class has in the labels, and the weights of the classes that follow from it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataset.base import SegmentationDataset
from utils.system.errors import UserError
from utils.system.files import write_bytes

log = logging.getLogger("bafft")

Pixels = npt.NDArray[np.int64]
"""The counts of `class_pixels`."""
SMALLEST_SHARE = 1e-4
"""A rarer class is weighed as if it had this share, so that no weight is boundless."""


def class_shares(pixels: Pixels) -> npt.NDArray[np.float64]:
    """The share of every class of all pixels that belong to a class, [C].

    Raises UserError if there is no such pixel.
    """
    counts = pixels[:, :-1].sum(0)
    if not counts.any():
        raise UserError("no source label shows any class; expected labels of the class table: check --classes")
    return counts / counts.sum()


def class_weights(pixels: Pixels, power: float) -> npt.NDArray[np.float64]:
    """A weight per class, [C]: its share of the pixels to the power of -`power`, from 0 (all weights are 1) to 1.

    The mean weight over all pixels that belong to a class is 1, so that the loss keeps its size. Our choice.
    """
    shares = class_shares(pixels)
    weights = np.maximum(shares, SMALLEST_SHARE) ** -power
    return weights / (shares * weights).sum()


def class_pixels(
    data: SegmentationDataset,
    folder: str | Path,
    workers: int = 1,
    progress: Callable[[Iterator[Pixels]], Iterable[Pixels]] = iter,
) -> Pixels:
    """How many pixels of each class every label has, [N, C + 1]; the last column counts pixels of no class.

    The counts are stored in a file in `folder`, which later calls read if the names, the label files and all that their
    reading depends on (size, ids, colours) are still the same.
    If bad images are skipped, a label that cannot be read counts as empty; otherwise it raises UserError. progress: a
    wrapper around the counts of all labels, such as a progress bar. If the file cannot be written, a warning says so.
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
        found = np.stack(list(progress(pool.map(count, data.names))))
    try:
        write_bytes(path, json.dumps(found.tolist()).encode())
    except UserError as error:  # for example in a read-only cache
        log.warning("pixels of each class: %s; the next run counts them again", error)
    return found


def _fingerprint(data: SegmentationDataset) -> str:
    """A hash of everything that the counts depend on; sizes and times stand for the contents of files."""
    digest = hashlib.sha256(data.label_kind.encode())
    for name in data.names:
        path = data.label_file(name)
        try:
            status = os.stat(path)
            digest.update(repr((str(path), status.st_size, status.st_mtime_ns)).encode())
        except OSError:
            digest.update(repr((str(path), None)).encode())
    return digest.hexdigest()[:16]
