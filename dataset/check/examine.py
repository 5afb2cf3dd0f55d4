"""Examining single files, by many processes at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from dataset.augment import Size
from dataset.base import SegmentationDataset
from dataset.classes import IGNORE, LabelMap
from dataset.labels import LABEL_SUFFIXES, TRAIN_ID_END
from dataset.reading import IMAGE_SUFFIXES, OTHER_SUFFIXES, check_image, image_names
from utils.system.errors import UserError, one_line
from utils.system.processes import starting

_EXACT = 2**24  # pixels up to which OpenCV's float32 counts are exact

ReadLabel = Callable[[Path], LabelMap]
"""A file as label ids [H, W]."""
Task = tuple[Path, ReadLabel | None]
"""A file and, for a label, how it is read."""


@dataclass(frozen=True)
class File:
    """What was found in a file: its size in pixels, or what is wrong with it; for a label, the pixels of each id."""

    size: Size = (0, 0)
    fault: str | None = None
    ids: tuple[int, ...] = ()
    pixels: tuple[int, ...] = ()


def examine(task: Task) -> File:
    path, read_label = task
    try:
        if read_label is None:
            return File(check_image(path))
        label = read_label(path)
    except UserError as error:
        return File(fault=one_line(error))
    counts = id_counts(label)
    ids = np.flatnonzero(counts)
    return File(label.shape[::-1], None, tuple(ids.tolist()), tuple(counts[ids].tolist()))


def id_counts(label: LabelMap) -> npt.NDArray[np.int64]:
    """Pixels of every id [256]."""
    counts = np.zeros(256, np.int64)
    rows = max(1, _EXACT // label.shape[1])
    for top in range(0, len(label), rows):
        part = cv2.calcHist([label[top : top + rows]], [0], None, [256], [0, 256])
        counts += part.ravel().astype(np.int64)
    return counts


def train_ids_instead(label_ids: LabelMap, counts: npt.NDArray[np.int64]) -> str | None:
    """Why labels seem to hold train ids although the reader expects other ids; None without evidence.

    The evidence: they hold no other ids, most classes are absent, and, read as label ids, most pixels would belong to
    no class, under three or more ids. label_ids: train ids [256] of label ids; counts: pixels of every id [256].
    """
    of_class = label_ids != IGNORE
    number = int(label_ids[of_class].max(initial=0)) + 1
    absent = number - np.unique(label_ids[(counts > 0) & of_class]).size
    if counts[number:IGNORE].any() or 2 * absent <= number or np.array_equal(label_ids[:number], np.arange(number)):
        return None
    lost = np.flatnonzero(np.where(of_class, 0, counts)[:number])
    if lost.size < 3 or 2 * counts[lost].sum() <= counts[:number].sum():
        return None
    return (
        f"the labels hold only ids 0 to {number - 1}, and {absent} of {number} classes are absent, as if these were "
        f"train ids; expected label ids, of which {', '.join(map(str, lost[:8]))} belong to no class "
        f"({percent(counts[lost].sum() / counts[:number].sum())} of the pixels): use the labels as they were "
        f"downloaded, give --classes FILE with these ids, or name the files NAME{TRAIN_ID_END}.png"
    )


def percent(share: float) -> str:
    """A share from 0 to 1 in percent, for messages."""
    return f"{100 * share:.2f} %" if share == 0 or share >= 1e-4 else "< 0.01 %"


def digest(path: Path) -> bytes:
    """A hash of a file's content; that of nothing if it cannot be read, which `examine` reports."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return os.fsencode(path)


Map = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]


@contextmanager
def mapper(workers: int) -> Iterator[Map]:
    """`map` over this many processes, in order; 0 uses only the current process."""
    if workers == 0:
        yield map
        return
    with ProcessPoolExecutor(workers, starting()) as pool:
        try:
            yield lambda function, items: pool.map(function, items, chunksize=8)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class Beside(NamedTuple):
    """Files beside the labels of a data set: labels without an image, and files in formats that are not read. images:
    the folder in which the images were looked for."""

    strays: list[Path]
    unread: list[Path]
    images: Path


def beside_labels(data: SegmentationDataset) -> Beside:
    """A label is a stray if its image does not exist, listed or not. A single image has nothing beside it."""
    images = _common(data.image_path(name) for name in data.names)
    if data.single:
        return Beside([], [], images)
    own = {data.label_path(name) for name in data.names}
    labels = _common(own)
    paths = [labels / name for name in image_names(labels, (*IMAGE_SUFFIXES, *OTHER_SUFFIXES))]
    unread = [path for path in paths if path.suffix.lower() not in LABEL_SUFFIXES] if labels != images else []
    keys = {path: key for path in paths if path not in own and (key := data.label_key(path, labels)) is not None}
    known = {data.key(name) for name in image_names(images)} if keys else ()
    return Beside([path for path, key in keys.items() if key not in known], unread, images)


def unread_formats(files: Sequence[Path]) -> list[str]:
    """A line about files in formats that are not read, if there are any."""
    return [f"files in formats that are not read: {len(files)}, first {files[0]}; convert them to PNG"] if files else []


def _common(paths: Iterable[Path]) -> Path:
    return Path(os.path.commonpath({path.parent for path in paths}))
