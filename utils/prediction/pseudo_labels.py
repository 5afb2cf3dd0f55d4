"""Pseudo-labels in two passes with memory that does not grow with the number of images (paper: self-training).

The first pass predicts every image, keeps its label (8 bits) and confidence (16 bits) on disk, and counts the
confidences of each class. The counts give the thresholds. The second pass writes the masks. Both write in the
background. If a run is killed, the next one reuses what is on disk, if it would compute the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dataset.classes import LabelMap
from model.networks.upsampling import best_class
from model.terms.thresholds import CAP
from utils.prediction.evaluation import whole_batches
from utils.system import distributed
from utils.system.background import Background
from utils.system.errors import UserError
from utils.system.files import make_folder, write_bytes, write_json
from utils.system.logs import logger
from utils.system.transfer import to_host

LEVELS = 65536  # steps of a 16-bit confidence; a threshold is exact within 1 / 65535
PORTION = 0.5
SCRATCH = ".unfinished"
BYTES = 3  # of temporary disk space per pixel
_VERSION = 1  # of the temporary files, and of how they are computed
_SLACK = 2**20  # bytes of disk space in addition to the pixels
_PER_MACHINE = ("root", "images")  # parts of an identity that may differ between machines
_NO_RECORD = (OSError, EOFError, BadZipFile, ValueError, KeyError)

Prediction = tuple[int, Tensor, Tensor]
"""Number of the image, label and level [H, W] of `confidence`."""
Levels = npt.NDArray[np.uint16]


def confidence(logits: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Label and confidence of logits [1, C, h, w] at `size` (H, W): soft-max first, then up-sampled (released).

    Returns uint8 [H, W] and the confidence as an int32 multiple of 1/65535 [H, W].
    """
    best, label = best_class([logits.softmax(1)], size)
    return label[0], (best[0] * (LEVELS - 1)).round().to(torch.int32)


class Histogram:
    """Counts of 16-bit confidences for each of `num_classes` predicted classes; several threads may add to them."""

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, LEVELS), dtype=np.int64)
        self._lock = Lock()

    def add(self, label: LabelMap, level: Levels) -> None:
        bins = label.ravel().astype(np.int64) * LEVELS + level.ravel()
        counts = np.bincount(bins, minlength=self.counts.size).reshape(self.counts.shape)
        with self._lock:
            self.counts += counts

    def thresholds(self, portion: float = PORTION, cap: float = CAP) -> npt.NDArray[np.float64]:
        """[C]: of the n confidences in ascending order, the one at index round(portion * n) (half to even, counted from
        0), at most `cap`; 0 for a class that was never predicted."""
        result = np.zeros(len(self.counts))
        for c, counts in enumerate(self.counts):
            total = counts.cumsum()
            if total[-1]:
                position = min(round(portion * int(total[-1])), int(total[-1]) - 1)
                result[c] = min(int(np.searchsorted(total, position, side="right")) / (LEVELS - 1), cap)
        return result


@dataclass(frozen=True)
class Result:
    """Thresholds [C], pixels kept [C], pixels predicted [C], and the number of masks that were written."""

    thresholds: npt.NDArray[np.float64]
    kept: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    masks: int


class Records:
    """Labels and levels of images on disk, one file per image, in `folder`/.unfinished until `close`.

    identity: everything that the records depend on, as JSON; records with another identity are removed.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder / SCRATCH
        note = self.folder / "identity.json"
        self.resumed = False
        with suppress(OSError, ValueError):
            self.resumed = json.loads(note.read_text()) == json.loads(json.dumps(identity))
        if not self.resumed:
            shutil.rmtree(self.folder, ignore_errors=True)
            make_folder(self.folder)
            write_json(note, identity)

    def save(self, number: int, label: LabelMap, level: Levels) -> None:
        np.savez(self._path(number), label=label, level=level)

    def load(self, number: int) -> tuple[LabelMap, Levels]:
        """Raises one of `_NO_RECORD` if there is no complete record."""
        with np.load(self._path(number)) as arrays:
            return arrays["label"], arrays["level"]

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.npz"


def write_pseudo_labels(
    predict: Callable[[Sequence[int]], Iterable[Prediction]],
    keys: Sequence[str],
    num_classes: int,
    folder: Path,
    ignore_label: int = 255,
    *,
    identity: dict[str, Any] | None = None,
    pixels: int = 0,
    batch_size: int = 1,
    threads: int = 2,
) -> Result:
    """Find the threshold of each class over all predictions, then write `folder`/KEY.png of train ids and
    `ignore_label`.

    predict: yields number, label and level (`confidence`) of the images whose numbers it gets, without bad images;
    keys: of all images; pixels: per image.

    The masks appear in `folder` when all are made. Until then it also holds 3 bytes per pixel, which is logged at the
    start; they are removed even after an error or Ctrl-C. After a kill they stay, and a call with the same `identity`
    (what the predictions depend on) and keys continues from there, in whole batches of `batch_size`. Raises UserError
    if the disk has no room for them. If there are several processes, each makes the masks of some of the batches, and
    all return the same result.
    """
    depends = {"version": _VERSION, "keys": list(keys), "classes": num_classes, **(identity or {})}
    distributed.check_equal(lambda: {name: value for name, value in depends.items() if name not in _PER_MACHINE})
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    depends = distributed.objects(depends)[0]
    with distributed.main_first():
        records = Records(folder, depends)
    resumed = distributed.objects(records.resumed)[0]
    try:
        histogram = Histogram(num_classes)
        batches = distributed.share(whole_batches(len(keys), batch_size))
        done = _counted(records, histogram, chain(*batches), threads) if resumed else set()
        missing = [number for batch in batches if not done.issuperset(batch) for number in batch]
        to_do, taken_up = distributed.total(np.array([len(missing), len(done)])).tolist()
        _check_disk(folder, to_do * (BYTES * pixels + 1024), taken_up)
        with Background(threads) as background:
            for number, label, level in predict(missing) if to_do else ():
                if number not in done:
                    background.run(_record, records, histogram, number, to_host(label), to_host(level))
                    done.add(number)
        histogram.counts = distributed.total(histogram.counts)
        thresholds = histogram.thresholds()
        limits = np.searchsorted(np.arange(LEVELS) / (LEVELS - 1), thresholds)  # the lowest level that is kept
        masks = [records.folder / f"{keys[number]}.png" for number in sorted(done)]
        with Background(threads) as background:
            for number, path in zip(sorted(done), masks, strict=True):
                background.run(_write_pseudo_label, records, number, limits.astype(np.uint16), ignore_label, path)
        made = int(distributed.total(np.array([len(masks)]))[0])  # returns when all processes have made theirs
        for path in masks:
            os.replace(path, folder / path.name)
        distributed.barrier()
    except BaseException as error:
        distributed.failing(error)
        records.close()
        with suppress(OSError):  # another program may have put a file there meanwhile
            for path in new:
                path.rmdir()
        if isinstance(error, OSError):
            raise UserError(
                f"{folder}: cannot be written ({error.strerror}); make room or choose another one"
            ) from error
        raise
    records.close()
    levels = np.arange(LEVELS)
    kept = np.where(levels[None] >= limits[:, None], histogram.counts, 0).sum(1)
    return Result(thresholds, kept, histogram.counts.sum(1), made)


def fingerprint(network: nn.Module) -> str:
    """A hash of all weights and buffers of a network."""
    total = hashlib.sha256()
    for name, value in network.state_dict().items():
        total.update(name.encode())
        total.update(to_host(value.contiguous().flatten().view(torch.uint8)).tobytes())
    return total.hexdigest()


def _record(records: Records, histogram: Histogram, number: int, label: LabelMap, level: npt.NDArray[np.int32]) -> None:
    levels = level.astype(np.uint16)
    records.save(number, label, levels)
    histogram.add(label, levels)


def _counted(records: Records, histogram: Histogram, images: Iterable[int], threads: int) -> set[int]:
    """The images with complete records, whose confidences are counted here."""
    done: set[int] = set()

    def count(image: int) -> None:
        with suppress(*_NO_RECORD):
            histogram.add(*records.load(image))
            done.add(image)

    with Background(threads) as background:
        for image in images:
            background.run(count, image)
    return done


def _check_disk(folder: Path, needed: int, done: int) -> None:
    """Log how much temporary disk space the remaining images take. Raises UserError if it is not free."""
    free = shutil.disk_usage(folder).free
    if done:
        logger.info("%s: continuing a stopped run, which has predicted %d images", folder, done)
    logger.info("temporary disk space: %.2f GiB in %s (%.1f GiB free)", needed / 2**30, folder, free / 2**30)
    if needed + _SLACK > free:
        raise UserError(
            f"{folder}: {free / 2**30:.2f} GiB free, expected {needed / 2**30:.2f} GiB of temporary space; make room "
            "or choose another --ssl-target-dir"
        )


def _write_pseudo_label(records: Records, number: int, limits: Levels, ignore_label: int, path: Path) -> None:
    label, level = records.load(number)
    mask = np.where(level < limits[label], np.uint8(ignore_label), label)
    # OpenCV is several times as fast as Pillow, and its files are little larger.
    write_bytes(path, cv2.imencode(".png", mask)[1].tobytes())
