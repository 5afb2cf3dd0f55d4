"""IoU of saved masks KEY.png with ground truth, per class and over the class sets of the task.

Masks hold train ids, as evaluate_cityscapes.py writes them, or label ids (--pred-ids label). The confusion matrix is
that of the official Cityscapes evaluation, pixel for pixel: a pixel predicted as no class counts as missed.

Examples:
  python compute_iou.py data/Cityscapes/gtFine/val result/cityscapes --workers 4
  python compute_iou.py data/Cityscapes/gtFine/val submission --pred-ids label
  python compute_iou.py data/CamVid/trainannot result/camvid_day_to_dusk --preset camvid_day_to_dusk --json scores.json

Where the task scores a list of images (--data-list-target-test, of a preset or given), only their masks count.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from dataset import READERS
from dataset.base import SegmentationDataset
from dataset.reading import read_list
from utils import build, config, saved_masks
from utils.errors import UserError
from utils.files import check_can_write, write_json
from utils.metrics import ConfusionMatrix
from utils.saved_masks import count_pairs


def main(argv: Sequence[str] | None = None) -> None:
    options, _, folders = config.parse("iou", argv, description=__doc__, positional=("gt_dir", "pred_dir"))
    if options.json:
        check_can_write("--json", Path(options.json))
    classes = build.classes(options)
    reader = READERS[options.target]
    truth, truth_ids = ground_truth(reader, folders.gt_dir, options.gt_ids)
    names = build.list_file(options, "data_list_target_test")
    if names is not None:
        keys = [reader.key(name) for name in read_list(names)]
        unlabelled = [key for key in keys if key not in truth]
        if unlabelled:
            raise UserError(
                f"{names}: {len(unlabelled)} of {len(keys)} names without a label in {folders.gt_dir}, first "
                f"{unlabelled[0]}; give the folder of their labels, or another --data-list-target-test"
            )
        truth = {key: truth[key] for key in keys}
    predictions = Path(folders.pred_dir)
    if not predictions.is_dir():
        raise UserError(
            f"{predictions}: folder of predictions not found; expected masks KEY.png, see evaluate_cityscapes.py"
        )
    if os.path.samefile(predictions, folders.gt_dir):
        raise UserError(f"{predictions}: given as labels and as predictions; expected two folders")
    missing = [key for key in truth if not (predictions / f"{key}.png").is_file()]
    if missing:
        raise UserError(
            f"{predictions}: {len(missing)} of {len(truth)} predictions missing, first {missing[0]}.png; "
            f"expected one for every label of {names or folders.gt_dir}"
        )
    counter = saved_masks.counter(
        reader,
        classes,
        truth_ids=truth_ids,
        predicted_ids=options.pred_ids,
        ignore_label=options.ignore_label,
        resize=options.resize_pred == "nearest",
    )
    pairs = [(path, predictions / f"{key}.png") for key, path in truth.items()]
    scores = ConfusionMatrix(classes.num_classes, options.ignore_label)
    for counts in tqdm(count_pairs(counter, pairs, options.workers), total=len(pairs), disable=None, leave=False):
        scores.add(counts)
    print(f"IoU in percent over {len(truth)} images of {folders.gt_dir}")
    print(scores.table(classes))
    if options.json:
        write_json(Path(options.json), {"images": len(truth), **scores.as_dict(classes)})


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


if __name__ == "__main__":
    config.run(main)
