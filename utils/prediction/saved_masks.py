"""Scores of saved masks: the ids in the files are counted as they are, and mapped to classes on the counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset.base import SegmentationDataset
from dataset.classes import IGNORE, ClassTable, LabelMap
from dataset.reading import image_names, read_ids
from utils.system.errors import UserError

IDS = 256
_UNKNOWN = -1
_EXACT = 2**24  # pixels up to which OpenCV's float32 counts are exact

Lookup = npt.NDArray[np.int16]
Counts = npt.NDArray[np.int64]
Pair = tuple[Path, Path]
"""Files of ground truth and prediction."""


def find_predictions(reader: type[SegmentationDataset], folder: Path, keys: Collection[str]) -> dict[str, Path]:
    """Key -> predicted mask, for those of `keys` that have one: KEY.png in the folder, or else a PNG anywhere below it
    that is named after the image. UserError where two of those are of one image."""
    found = {key: path for key in keys if (path := folder / f"{key}.png").is_file()}
    wanted = set(keys) - found.keys()
    for path in (folder / name for name in image_names(folder)) if wanted else ():
        key = reader.prediction_key(path, folder) if path.suffix.lower() == ".png" else None
        if key not in wanted:
            continue
        if key in found:
            raise UserError(f"{path}: {found[key]} is a prediction of {key} too; expected one: move the other away")
        found[key] = path
    return found


def joint_counts(truth: LabelMap, prediction: LabelMap) -> Counts:
    """How often each pair of ids meets, [256, 256]; every pixel counts once. truth, prediction: uint8 [H, W]."""
    total = np.zeros((IDS, IDS), np.int64)
    rows = max(1, _EXACT // truth.shape[1])
    for top in range(0, len(truth), rows):
        maps = [truth[top : top + rows], prediction[top : top + rows]]
        total += cv2.calcHist(maps, [0, 1], None, [IDS, IDS], [0, IDS, 0, IDS]).astype(np.int64)
    return total


def label_id_lookup(id_map: LabelMap, num_classes: int, largest_id: int) -> Lookup:
    """Class of every label id, `num_classes` for no class, -1 above `largest_id`."""
    lookup = np.where(id_map < num_classes, id_map, num_classes).astype(np.int16)
    lookup[largest_id + 1 :] = _UNKNOWN
    return lookup


def train_id_lookup(num_classes: int, ignore_label: int, known: int) -> Lookup:
    """Class of every train id, `num_classes` for the ignore label, 255 and other ids below `known`, -1 for the rest."""
    lookup = np.full(IDS, _UNKNOWN, np.int16)
    lookup[:known] = num_classes
    lookup[:num_classes] = np.arange(num_classes)
    lookup[[ignore_label, IGNORE]] = num_classes
    return lookup


@dataclass(frozen=True)
class PairCounter:
    """Counts one pair of files by class: calling it gives [C, C + 1], rows the truth, last column no class.

    truth, prediction: class of every id (C: none, -1: unknown); read_truth: reads ground truth; resize: whether a
    prediction of another size is resized (nearest). UserError, naming the file, for one that cannot be read, another
    size, or an unknown id; below ignored truth any id may be predicted.
    """

    num_classes: int
    read_truth: Callable[[Path], LabelMap]
    truth: Lookup
    prediction: Lookup
    resize: bool

    def __call__(self, pair: Pair) -> Counts:
        truth, prediction = self.read_truth(pair[0]), read_ids(pair[1], "prediction")
        height, width = truth.shape
        if prediction.shape != truth.shape:
            if not self.resize:
                raise UserError(
                    f"{pair[1]}: {prediction.shape[1]}x{prediction.shape[0]} pixels, expected {width}x{height} as in "
                    f"{pair[0]}; predict at the labels' size, or allow --resize-pred nearest"
                )
            prediction = np.array(Image.fromarray(prediction).resize((width, height), Image.Resampling.NEAREST))
        counts = joint_counts(truth, prediction)
        truth_ids, predicted_ids = np.nonzero(counts)
        rows, columns = self.truth[truth_ids], self.prediction[predicted_ids]
        self._refuse(pair[0], truth_ids[rows == _UNKNOWN], self.truth, "label", "--gt-ids")
        counted = rows < self.num_classes
        strange = predicted_ids[counted & (columns == _UNKNOWN)]
        self._refuse(pair[1], strange, self.prediction, "prediction", "--pred-ids")
        result = np.zeros((self.num_classes, self.num_classes + 1), np.int64)
        np.add.at(result, (rows[counted], columns[counted]), counts[truth_ids[counted], predicted_ids[counted]])
        return result

    def _refuse(self, path: Path, found: npt.NDArray[np.intp], lookup: Lookup, kind: str, flag: str) -> None:
        if found.size:
            known = np.flatnonzero(lookup != _UNKNOWN)
            last = known[np.flatnonzero(np.diff(known, append=2 * IDS) > 1)[0]]
            raise UserError(
                f"{path}: {kind}: id {found.max()} found, expected ids 0 to {last} or {IGNORE}: check the number of "
                f"classes, and whether {flag} says what the files hold (label or train ids)"
            )


def counter(
    reader: type[SegmentationDataset],
    table: ClassTable,
    *,
    truth_ids: str,
    predicted_ids: str,
    ignore_label: int = IGNORE,
    resize: bool = False,
) -> PairCounter:
    """The counter for a data set's files. truth_ids, predicted_ids: "label" or "train", what the files hold.

    Predicted label ids that are no class of the table count as no class, as in the official evaluation; of train ids
    only the ignore label and 255 do.
    """
    number = table.num_classes
    if truth_ids == "label":
        largest = reader.largest_id if table.label_ids is None else IDS - 1
        truth = label_id_lookup(reader.label_ids(table), number, largest)
    else:
        truth = train_id_lookup(number, ignore_label, getattr(reader, "table", table).num_classes)
    if predicted_ids == "label":
        prediction = label_id_lookup(reader.label_ids(table), number, IDS - 1)
    else:
        prediction = train_id_lookup(number, ignore_label, number)
    read_truth = reader.read_label if truth_ids == "label" else read_ids
    return PairCounter(number, read_truth, truth, prediction, resize)


def count_pairs(counter: PairCounter, pairs: Sequence[Pair], workers: int = 1) -> Iterator[Counts]:
    """The counts of every pair in turn, read by `workers` processes."""
    if workers <= 1 or len(pairs) <= 1:
        yield from map(counter, pairs)
        return
    with ProcessPoolExecutor(min(workers, len(pairs))) as pool:
        yield from pool.map(counter, pairs, chunksize=max(1, min(16, len(pairs) // (4 * workers))))
