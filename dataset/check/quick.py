"""What a run checks before it starts, besides the headers of its files: formats that are not read, the ids in some
labels, and lone labels."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataset.base import SegmentationDataset
from dataset.check.examine import beside_labels, id_counts, train_ids_instead, unread_formats
from dataset.classes import LabelMap
from dataset.reading import image_size
from utils.system.errors import UserError

LABELS = 8
MORE_LABELS = 64
DISTORTED = 0.2


def quick_check(data: SegmentationDataset) -> list[str]:
    """What is odd about the files of a data set, one line each: files in formats that are not read; in the labels, ids
    outside the class table, train ids instead of label ids, only one class; labels without an image. `LABELS` labels
    are examined, spread over the list, and more before a single class is reported. A label that cannot be read is left
    to the reader.

    Raises UserError if none of these labels shows a class, or if labels to train on are masks of 0 and 255.
    """
    if data.labels is False or data.pseudo_label_dir is not None:
        return unread_formats(data.unread)
    beside = beside_labels(data)
    lines = [*unread_formats([*data.unread, *beside.unread]), *_odd_ids(data)]
    if beside.strays:
        lines.append(f"labels without an image in {beside.images}: {len(beside.strays)}, first {beside.strays[0]}")
    return lines


def distortion(data: SegmentationDataset) -> str | None:
    """A line if resizing to `data.size` distorts the images by more than `DISTORTED`, for example because width and
    height are swapped; else None. It reads the headers of `LABELS` images, spread over the list."""
    if data.size is None:
        return None
    sizes = []
    for name in data.names[:: max(1, len(data.names) // LABELS)][:LABELS]:
        with suppress(UserError):
            sizes.append(image_size(data.image_path(name), "image"))
    if not sizes:
        return None
    width, height = data.size
    native = sorted(sizes, key=lambda size: size[0] / size[1])[len(sizes) // 2]  # of the median shape
    factor = _stretch(native, data.size)
    if factor <= 1 + DISTORTED:
        return None
    scale = math.sqrt(width * height / (native[0] * native[1]))
    fitting = ",".join(str(max(8, 8 * round(side * scale / 8))) for side in native)
    swapped = _stretch(native, (height, width)) <= 1 + DISTORTED
    advice = f"width and height seem to be swapped, give {height},{width}" if swapped else f"{fitting} keeps the shape"
    return (
        f"found width,height {width},{height}, which distorts images of {native[0]}x{native[1]} by "
        f"{100 * (factor - 1):.0f} %; {advice}"
    )


def _stretch(native: tuple[int, int], size: tuple[int, int]) -> float:
    """The factor, at least 1, by which one side is stretched more than the other."""
    factor = native[0] * size[1] / (native[1] * size[0])
    return max(factor, 1 / factor)


def void_alone(data: SegmentationDataset) -> bool:
    """Whether there are labels, and all of them can be read and hold only pixels that are known to belong to no class,
    as the labels of Cityscapes' test images do."""
    names, void = data.labelled_names(), data.known_void()
    try:
        return bool(names) and all(
            data.header_fault(name) is None and void[data.decode(data.label_path(name))].all() for name in names
        )
    except UserError:
        return False


def _odd_ids(data: SegmentationDataset) -> list[str]:
    counts, paths = _counted(data, LABELS)
    if _classes(data, counts).size == 1:
        counts, paths = _counted(data, MORE_LABELS)
    if not counts.any():
        return []
    found = ", ".join(map(str, np.flatnonzero(counts)[:8]))
    classes = _classes(data, counts)
    if not classes.size:
        raise UserError(
            f"{paths[0]}: none of the label ids {found} in this and other labels belongs to a class of "
            f"{data.table.name}; expected ids of the class table: give another --classes, or convert the labels"
        )
    binary = data.binary_fault(np.flatnonzero(counts).tolist())
    if binary and data.label_size == "input":
        raise UserError(f"{data.label_root}: {binary}")
    swapped = train_ids_instead(data.label_ids(data.table), counts)
    lines = [f"{found} ({len(paths)} labels examined)" for found in (binary, swapped) if found]
    if classes.size == 1 and not lines and data.label_size == "input":
        lines.append(
            f"the {len(paths)} labels examined show only one class, {data.table.names[classes[0]]} (ids {found})"
        )
    odd = np.flatnonzero(np.where(data.known_ids(), 0, counts))
    if not odd.size:
        return lines
    share = 100 * counts[odd].sum() / counts.sum()
    return [
        *lines,
        f"label ids {', '.join(map(str, odd[:8]))} are not in the class table of {data.table.name} and are ignored "
        f"({share:.2g} % of the pixels of {len(paths)} labels)",
    ]


def _counted(data: SegmentationDataset, number: int) -> tuple[npt.NDArray[np.int64], list[Path]]:
    """Pixels of every label id [256] in some labels, and those labels that could be read."""
    counts, read = np.zeros(256, np.int64), []
    for path in data.some_labels(number):
        with suppress(UserError):
            counts += id_counts(data.decode(path))
            read.append(path)
    return counts, read


def _classes(data: SegmentationDataset, counts: npt.NDArray[np.int64]) -> LabelMap:
    """The train ids that are counted."""
    found = data.train_ids()[counts > 0]
    return np.unique(found[found != data.ignore_label])
