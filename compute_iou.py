"""IoU of saved masks with ground truth, per class and over the class sets of the task.

A mask is KEY.png in the folder, as evaluate_cityscapes.py writes it, or lies somewhere below it, such as in CITY/. For
Cityscapes it may have any name of the official evaluation, such as CITY_000000_000019_pred.png. It holds train ids,
label ids (--pred-ids label), or the colours of the classes. The confusion matrix is that of the official Cityscapes
evaluation, pixel for pixel: a pixel predicted as no class counts as missed.

Examples:
  python compute_iou.py data/Cityscapes/gtFine/val result/cityscapes --workers 4
  python compute_iou.py data/Cityscapes/gtFine/val submission --pred-ids label
  python compute_iou.py data/CamVid/trainannot result/camvid_day_to_dusk --preset camvid_day_to_dusk --json scores.json

Where the task scores a list of images (--data-list-target-test, of a preset or given), only their masks count. The list
is looked for in the folder of ground truth, the one above it, and --data-dir-target.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import utils.system.machine  # noqa: F401 - before torch

import numpy as np
from tqdm import tqdm

from dataset import READERS
from dataset.base import SegmentationDataset
from dataset.check.examine import train_ids_instead
from dataset.classes import ClassTable
from dataset.labels import binary_masks
from dataset.reading import contents
from utils.options import config
from utils.options.config import Options
from utils.prediction import saved_masks
from utils.prediction.metrics import ConfusionMatrix
from utils.prediction.saved_masks import Seen, count_pairs
from utils.setup import build
from utils.system import logs
from utils.system.errors import UserError
from utils.system.files import check_can_write, write_json
from utils.system.logs import logger


def main(argv: Sequence[str] | None = None) -> None:
    options, given, folders = config.parse("iou", argv, description=__doc__, positional=("gt_dir", "pred_dir"))
    logs.setup()
    if options.json:
        check_can_write("--json", Path(options.json))
    classes = build.classes(options)
    reader = READERS[options.target]
    truth, truth_ids = ground_truth(reader, folders.gt_dir, options.gt_ids)
    names = scored_list(options, folders.gt_dir, by_user="data_list_target_test" in given)
    if names is not None:
        keys = reader.listed_keys(names, truth)
        unlabelled = [key for key in keys if key not in truth]
        if unlabelled:
            raise UserError(
                f"{names}: {len(unlabelled)} of {len(keys)} names without a label in {folders.gt_dir}, first "
                f"{unlabelled[0]}; give the folder of their labels, or another --data-list-target-test"
            )
        truth = {key: truth[key] for key in keys}
    masks = predictions(reader, Path(folders.pred_dir), truth, Path(folders.gt_dir), names)
    counter = saved_masks.counter(
        reader,
        classes,
        truth_ids=truth_ids,
        predicted_ids=options.pred_ids,
        ignore_label=options.ignore_label,
        resize=options.resize_pred == "nearest",
    )
    pairs = [(path, masks[key]) for key, path in truth.items()]
    scores = ConfusionMatrix(classes.num_classes, options.ignore_label)
    seen: Seen | None = None
    for found in tqdm(count_pairs(counter.seen, pairs, options.workers), total=len(pairs), disable=None, leave=False):
        seen = found if seen is None else seen + found
    assert seen is not None, "a folder without labels is refused above"
    scores.add(seen.by_class)
    saved_masks.refuse_other_ids(counter, seen, Path(folders.pred_dir), options.pred_ids)
    if truth_ids == "label":
        announce(reader, classes, seen, folders.gt_dir)
    print(f"IoU in percent over {len(truth)} images of {folders.gt_dir}")
    print(scores.table(classes))
    if options.json:
        write_json(Path(options.json), {"images": len(truth), **scores.as_dict(classes)})


def announce(reader: type[SegmentationDataset], classes: ClassTable, seen: Seen, folder: str) -> None:
    """Log what makes the ids of the ground truth look wrong, if anything does."""
    label_ids, found = reader.label_ids(classes), np.flatnonzero(seen.truth).tolist()
    faults = binary_masks(classes, label_ids, found, reader.binary_remedy), train_ids_instead(label_ids, seen.truth)
    for line in faults:
        if line:
            logger.info("attention: %s: %s", folder, line)


def scored_list(options: Options, folder: str, *, by_user: bool) -> Path | None:
    """The list of images to score, `folder` being that of ground truth; None for all that have a label.

    A list that the preset alone names may be nowhere; UserError where the user's is, unless the reader makes it of the
    tree.
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
                "name a line: name it with its folder, or leave the option out"
            )
        logger.info("no list %s of the preset (looked for %s): all labels of %s are scored", name, searched, folder)
    return found


def ground_truth(reader: type[SegmentationDataset], folder: str, ids: str) -> tuple[dict[str, Path], str]:
    """Files of ground truth by key, and the ids that they hold: "label" or "train"."""
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
    """Predicted masks by key, one for each of `truth`, which is below the folder `labels` and cut to the list `names`.

    UserError where one is missing, or is the label itself.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: folder of predictions not found; expected masks KEY.png, see evaluate_cityscapes.py"
        )
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
            raise UserError(f"{path}: a label and, in {folder}, a prediction; expected two folders apart")
    return masks


if __name__ == "__main__":
    config.run(main)
