"""Compare saved masks with ground truth: IoU per class, and its means over the class sets of the task.

Masks are files KEY.png, as evaluate_cityscapes.py writes them, in PRED_DIR or anywhere below it, such as in CITY/. For
Cityscapes they may have any name that the official evaluation accepts, such as CITY_000000_000019_pred.png. They hold
train ids, label ids (--pred-ids label), or the colours of the classes. The confusion matrix is that of the official
Cityscapes evaluation, pixel for pixel: a pixel that is predicted as no class counts as missed.

Examples:
  python compute_iou.py data/Cityscapes/gtFine/val result/cityscapes --workers 4
  python compute_iou.py data/Cityscapes/gtFine/val submission --pred-ids label
  python compute_iou.py data/CamVid/trainannot result/camvid_day_to_dusk --preset camvid_day_to_dusk --json scores.json

If there is a list of images to score (--data-list-target-test, given or set by the preset), only their masks count. The
list is looked for in GT_DIR, in the folder above it, and in --data-dir-target.
"""

from __future__ import annotations

import utils.system.machine  # noqa: F401 - before all others

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from dataset import READERS
from utils.options import config
from utils.system import logs
from utils.system.errors import UserError
from utils.system.files import check_can_write, write_json


def main(argv: Sequence[str] | None = None) -> None:
    options, given, folders = config.parse(
        "iou",
        argv,
        description=__doc__,
        positional={"gt_dir": "folder of the ground truth", "pred_dir": "folder of the predicted masks"},
    )
    from utils.prediction import saved_masks  # torch is imported once the command line is read
    from utils.prediction.metrics import ConfusionMatrix
    from utils.setup import data_sets, scoring

    logs.setup()
    if options.json:
        check_can_write("--json", Path(options.json))
    classes = data_sets.class_table(options)
    reader = READERS[options.target]
    truth, truth_ids = scoring.ground_truth(reader, folders.gt_dir, options.gt_ids)
    names = scoring.scored_list(options, folders.gt_dir, by_user="data_list_target_test" in given)
    if names is not None:
        keys = reader.listed_keys(names, truth)
        unlabelled = [key for key in keys if key not in truth]
        if unlabelled:
            raise UserError(
                f"{names}: {len(unlabelled)} of {len(keys)} names have no label in {folders.gt_dir}, for example "
                f"{unlabelled[0]}; give the folder of their labels, or another --data-list-target-test"
            )
        truth = {key: truth[key] for key in keys}
    masks = scoring.predictions(reader, Path(folders.pred_dir), truth, Path(folders.gt_dir), names)
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
    seen: saved_masks.Seen | None = None
    for found in tqdm(
        saved_masks.count_pairs(counter.seen, pairs, options.workers), total=len(pairs), disable=None, leave=False
    ):
        seen = found if seen is None else seen + found
    assert seen is not None, "a folder without labels is refused above"
    scores.add(seen.by_class)
    saved_masks.refuse_other_ids(counter, seen, Path(folders.pred_dir), options.pred_ids)
    if truth_ids == "label":
        scoring.announce(reader, classes, seen, folders.gt_dir)
    print(f"IoU in percent over {len(truth)} images of {folders.gt_dir}")
    print(scores.table(classes))
    if options.json:
        write_json(Path(options.json), {"images": len(truth), **scores.as_dict(classes)})


if __name__ == "__main__":
    config.run(main)
