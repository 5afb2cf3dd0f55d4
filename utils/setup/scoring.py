"""The files that `compute_iou.py` compares: ground truth, limited to a list if there is one, and predicted masks."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from dataset import READERS
from dataset.base import SegmentationDataset
from dataset.check.examine import train_ids_instead
from dataset.classes import ClassTable
from dataset.labels import binary_masks
from dataset.reading import contents
from utils.options.table import Options
from utils.prediction import saved_masks
from utils.prediction.saved_masks import Seen
from utils.system.errors import UserError, require_folder
from utils.system.logs import logger


def announce(reader: type[SegmentationDataset], classes: ClassTable, seen: Seen, folder: str) -> None:
    """Log the reason if the ids of the ground truth look wrong."""
    label_ids, found = reader.label_ids(classes), np.flatnonzero(seen.truth).tolist()
    faults = binary_masks(classes, label_ids, found, reader.binary_remedy), train_ids_instead(label_ids, seen.truth)
    for line in faults:
        if line:
            logger.info("attention: %s: %s", folder, line)


def scored_list(options: Options, folder: str, *, by_user: bool) -> Path | None:
    """The list of images to score; None for all that have a label. folder: that of ground truth.

    A list that only the preset names may be missing. Raises UserError if the user's list is missing, unless the reader
    derives it from the folders.
    """
    name = options.data_list_target_test
    if name is None:
        return None
    near = [Path(place) / name for place in (folder, f"{folder}/..", options.data_dir_target)]
    places = [Path(name), *near] if by_user else near
    found = next((path for path in places if os.path.lexists(path)), None)
    made = READERS[options.target].tree_lists.get(name)
    if found is None and made:
        found = next((path for path in near if made(path.parent)), None)
    if found is None:
        searched = ", ".join(map(str, dict.fromkeys(places)))
        if by_user:
            raise UserError(
                f"--data-list-target-test: {name} not found (looked for {searched}); expected a text file with one "
                "name per line: name it with its folder, or leave the option out"
            )
        logger.info("no list %s of the preset (looked for %s): all labels of %s are scored", name, searched, folder)
    return found


def ground_truth(reader: type[SegmentationDataset], folder: str, ids: str) -> tuple[dict[str, Path], str]:
    """Files of ground truth by key, and the kind of ids that they hold: "label" or "train"."""
    if ids != "auto":
        return reader.ground_truth(folder, train_ids=ids == "train"), ids
    try:
        return reader.ground_truth(folder), "label"
    except UserError:
        with suppress(UserError):
            return reader.ground_truth(folder, train_ids=True), "train"
        raise


def predictions(
    reader: type[SegmentationDataset], folder: Path, truth: dict[str, Path], labels: Path, names: Path | None
) -> dict[str, Path]:
    """Predicted masks by key, one for each of `truth`. labels: the folder of `truth`; names: the list that it is
    limited to.

    Raises UserError if one is missing, or is the label itself.
    """
    require_folder(folder, "folder of predictions", "masks KEY.png, see evaluate_cityscapes.py")
    if os.path.samefile(folder, labels):
        raise UserError(f"{folder}: given as labels and as predictions; expected two folders")
    masks = saved_masks.find_predictions(reader, folder, truth)
    missing = [key for key in truth if key not in masks]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(truth)} predictions missing, first {missing[0]}.png; "
            f"expected a PNG, TIFF or BMP of ids or of the classes' colours for every label of {names or labels}; the "
            f"folder holds {contents(folder)}"
        )
    for key, path in truth.items():
        if os.path.realpath(path) == os.path.realpath(masks[key]):
            raise UserError(
                f"{path}: is a label and, through {folder}, also a prediction; expected two separate folders: give "
                "another folder of predictions"
            )
    return masks
