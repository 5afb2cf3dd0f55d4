"""What a run looks at before it starts, beside the headers of its files: the ids of some labels, and partners."""

from __future__ import annotations

import os

import numpy as np

from dataset.base import SegmentationDataset
from dataset.check.examine import id_counts, strays, train_ids_instead
from utils.system.errors import UserError

LABELS = 8


def quick_check(data: SegmentationDataset) -> list[str]:
    """What is odd about the labels of a data set, a line each: ids outside the class table, or train
    ids in the place of label ids, in `LABELS` of them, spread over the list, and labels without an image. A label that
    cannot be read is left to the reader.

    Raises UserError where none of these labels has a pixel of a class.
    """
    if data.labels is False or data.pseudo_label_dir is not None:
        return []
    return [*_odd_ids(data), *_strays(data)]


def void_alone(data: SegmentationDataset) -> bool:
    """Whether there are labels, all sound and of pixels known to be of no class, as those of the test images of
    Cityscapes."""
    names, void = data.labelled_names(), data.known_void()
    try:
        return bool(names) and all(
            data.header_fault(name) is None and void[data.read_label(data.label_path(name))].all() for name in names
        )
    except UserError:
        return False


def _odd_ids(data: SegmentationDataset) -> list[str]:
    paths = [path for name in data.names if os.path.isfile(path := data.label_path(name))]
    paths = paths[:: max(1, len(paths) // LABELS)][:LABELS]
    counts = np.zeros(256, np.int64)
    for path in paths:
        try:
            counts += id_counts(data.read_label(path))
        except UserError:
            continue
    found = ", ".join(map(str, np.flatnonzero(counts)[:8]))
    if found and not counts[data.train_ids() != data.ignore_label].any():
        raise UserError(
            f"{paths[0]}: of the label ids {found} in this and other labels none is of a class of {data.table.name}; "
            f"expected those of the class table: give another --classes, or convert the labels"
        )
    swapped = train_ids_instead(data, counts)
    lines = [f"{swapped} ({len(paths)} labels looked at)"] if swapped else []
    odd = np.flatnonzero(np.where(data.known_ids(), 0, counts))
    if not odd.size:
        return lines
    share = 100 * counts[odd].sum() / counts.sum()
    return [
        *lines,
        f"label ids {', '.join(map(str, odd[:8]))} are not in the class table of {data.table.name} and ignored "
        f"({share:.2g} % of the pixels of {len(paths)} labels)",
    ]


def _strays(data: SegmentationDataset) -> list[str]:
    found = strays(data)
    if not found.labels:
        return []
    return [f"{len(found.labels)} labels have no image in {found.images}, first {found.labels[0]}"]
