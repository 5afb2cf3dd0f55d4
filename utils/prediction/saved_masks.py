"""Scores of saved masks: the ids in the files are counted as they are, and the counts are mapped to classes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from dataset.base import SegmentationDataset
from dataset.check.examine import percent
from dataset.classes import IGNORE, ClassTable, LabelMap, id_map_of, label_colours
from dataset.labels import LABEL_SUFFIXES, ColourIds, colour_ids
from dataset.reading import image_names, read_ids
from utils.system.errors import UserError
from utils.system.processes import starting

IDS = 256
_UNKNOWN = -1
_EXACT = 2**24  # pixels up to which OpenCV's float32 counts are exact

Lookup = npt.NDArray[np.int16]
Counts = npt.NDArray[np.int64]
Found = TypeVar("Found")
Pair = tuple[Path, Path]
"""Files of ground truth and prediction."""


def find_predictions(reader: type[SegmentationDataset], folder: Path, keys: Collection[str]) -> dict[str, Path]:
    """Key -> predicted mask, for those of `keys` that have one: KEY.png in the folder, or else a mask anywhere below it
    that is named after the image, or else a coloured mask NAME_color.png.

    Raises UserError if two of them belong to the same image.
    """
    found = {key: path for key in keys if (path := folder / f"{key}.png").is_file()}
    for end in ("", "_color"):
        wanted = set(keys) - found.keys()
        for path in (folder / name for name in image_names(folder, LABEL_SUFFIXES)) if wanted else ():
            plain = path.with_stem(path.stem.removesuffix(end)) if path.stem.endswith(end) else None
            key = None if plain is None else reader.prediction_key(plain, folder)
            if key not in wanted:
                continue
            if key in found:
                raise UserError(
                    f"{path}: {found[key]} is also a prediction of {key}; expected one per label: move the other away"
                )
            found[key] = path
    return found


def joint_counts(truth: LabelMap, prediction: LabelMap) -> Counts:
    """How often each pair of ids occurs, [256, 256]; every pixel counts once. truth, prediction: uint8 [H, W]."""
    total = np.zeros((IDS, IDS), np.int64)
    rows = max(1, _EXACT // truth.shape[1])
    for top in range(0, len(truth), rows):
        maps = [truth[top : top + rows], prediction[top : top + rows]]
        total += cv2.calcHist(maps, [0, 1], None, [IDS, IDS], [0, IDS, 0, IDS]).astype(np.int64)
    return total


def classes_of_label_ids(id_map: LabelMap, num_classes: int, largest_id: int) -> Lookup:
    """Class of every label id, `num_classes` for no class, -1 above `largest_id`."""
    lookup = np.where(id_map < num_classes, id_map, num_classes).astype(np.int16)
    lookup[largest_id + 1 :] = _UNKNOWN
    return lookup


def classes_of_train_ids(num_classes: int, ignore_label: int, known: int) -> Lookup:
    """Class of every train id, `num_classes` for the ignore label, 255 and other ids below `known`, -1 for the rest."""
    lookup = np.full(IDS, _UNKNOWN, np.int16)
    lookup[:known] = num_classes
    lookup[:num_classes] = np.arange(num_classes)
    lookup[[ignore_label, IGNORE]] = num_classes
    return lookup


@dataclass(frozen=True)
class Seen:
    """Counts of one or several pairs: by class [C, C + 1]; the pixels of every id [256] in truth and prediction; and
    how many pixels would be right if the predicted ids were of the other kind."""

    by_class: Counts
    truth: Counts
    predicted: Counts
    other_hits: int

    def __add__(self, more: Seen) -> Seen:
        return Seen(
            self.by_class + more.by_class,
            self.truth + more.truth,
            self.predicted + more.predicted,
            self.other_hits + more.other_hits,
        )


@dataclass(frozen=True)
class PairCounter:
    """Counts one pair of files by class (`seen`): [C, C + 1], rows the truth, last column no class.

    truth, prediction: class of every id (C: none, -1: unknown). other: class of predicted ids if they were of the other
    kind, such as label ids instead of train ids. read_truth: reads ground truth. colours: the ids of coloured
    predictions. resize: whether a prediction of another size is resized (nearest). Raises UserError, naming the file,
    for a file that cannot be read, another size, or an unknown id; where the truth is ignored, any id may be predicted.
    """

    num_classes: int
    read_truth: Callable[[Path], LabelMap]
    truth: Lookup
    prediction: Lookup
    other: Lookup
    colours: ColourIds
    resize: bool

    def seen(self, pair: Pair) -> Seen:
        """The counts of a pair with those of its ids."""
        truth, prediction = self.read_truth(pair[0]), read_ids(pair[1], "prediction", self.colours)
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
        pixels = counts[truth_ids[counted], predicted_ids[counted]]
        np.add.at(result, (rows[counted], columns[counted]), pixels)
        hits = int(pixels[self.other[predicted_ids[counted]] == rows[counted]].sum())
        return Seen(result, counts.sum(1), counts.sum(0), hits)

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

    Predicted label ids that belong to no class of the table count as no class, as in the official evaluation; among
    train ids, only the ignore label and 255 do.
    """
    number = table.num_classes
    if truth_ids == "label":
        largest = reader.largest_id if table.label_ids is None else IDS - 1
        truth = classes_of_label_ids(reader.label_ids(table), number, largest)
    else:
        truth = classes_of_train_ids(number, ignore_label, getattr(reader, "table", table).num_classes)
    prediction = classes_of_label_ids(reader.label_ids(table), number, IDS - 1)
    other = classes_of_train_ids(number, ignore_label, number)
    label_ids, coloured = reader.label_ids(table), table
    if predicted_ids == "train":
        prediction, other = other, prediction
        label_ids, coloured = id_map_of({i: i for i in range(number)}), replace(table, label_ids=None)
    if table.label_colours is None:
        coloured = replace(coloured, label_colours=label_colours(table.palette))
    read_truth = reader.decoder(table) if truth_ids == "label" else read_ids
    return PairCounter(number, read_truth, truth, prediction, other, colour_ids(coloured, label_ids, IGNORE), resize)


def refuse_other_ids(counter: PairCounter, seen: Seen, folder: Path, predicted_ids: str) -> None:
    """Raises UserError if predictions evidently hold other ids than `predicted_ids` says.

    The evidence: read as the other kind, all ids are known and at least ten times as many pixels are right; and these
    are a quarter of all pixels, or most predicted ids belong to no class. Masks of 0 and 255 for two classes are
    refused too.
    """
    ids = np.flatnonzero(seen.predicted)
    hits, counted = int(np.trace(seen.by_class)), int(seen.by_class.sum())
    no_class = int(seen.by_class[:, -1].sum())
    fits = bool((counter.other[ids] != _UNKNOWN).all())
    right = seen.other_hits
    if fits and right > 10 * hits and (4 * right > counted or 2 * no_class > counted):
        kind = {"label": "train", "train": "label"}[predicted_ids]
        raise UserError(
            f"{folder}: found predictions with ids {_some(ids)}; read as {predicted_ids} ids, "
            f"{percent(hits / counted)} of the pixels are right, but read as {kind} ids, {percent(right / counted)}; "
            f"expected --pred-ids to say what the files hold: give --pred-ids {kind}"
        )
    if ids.tolist() == [0, IGNORE] and counter.num_classes == 2 and counter.prediction[IGNORE] == 2:
        raise UserError(
            f"{folder}: found predictions of 0 and 255 without a 1, and 255 is not a class; expected 0 and 1: convert "
            f"them, or give --pred-ids label and --classes FILE with id: 255"
        )


def _some(ids: npt.NDArray[np.intp]) -> str:
    return ", ".join(map(str, ids[:8])) + (", ..." if ids.size > 8 else "")


def count_pairs(count: Callable[[Pair], Found], pairs: Sequence[Pair], workers: int = 1) -> Iterator[Found]:
    """The result of `count` (a `PairCounter`, or its method `seen`) for every pair in turn, by `workers` processes."""
    if workers <= 1 or len(pairs) <= 1:
        yield from map(count, pairs)
        return
    with ProcessPoolExecutor(min(workers, len(pairs)), starting()) as pool:
        yield from pool.map(count, pairs, chunksize=max(1, min(16, len(pairs) // (4 * workers))))
