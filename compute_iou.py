"""IoU of saved masks (train ids, KEY.png) with ground truth, per class and over the class sets of the task.

Examples:
  python compute_iou.py data/Cityscapes/gtFine/val result/cityscapes
  python compute_iou.py data/CamVid/trainannot result/camvid_day_to_dusk --preset camvid_day_to_dusk --json scores.json

Where the task scores a list of images (--data-list-target-test, of a preset or given), only their masks count.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from dataset import READERS
from dataset.reading import read_ids, read_list
from utils import build, checkpoint, config
from utils.errors import UserError
from utils.metrics import ConfusionMatrix


def main(argv: Sequence[str] | None = None) -> None:
    options, _, folders = config.parse("iou", argv, description=__doc__, positional=("gt_dir", "pred_dir"))
    classes = build.classes(options)
    reader = READERS[options.target]
    truth = reader.ground_truth(folders.gt_dir)
    names = build.list_file(options.data_list_target_test, options.data_dir_target)
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
    missing = [key for key in truth if not (predictions / f"{key}.png").is_file()]
    if missing:
        raise UserError(
            f"{predictions}: {len(missing)} of {len(truth)} predictions missing, first {missing[0]}.png; "
            f"expected one for every label of {names or folders.gt_dir}"
        )
    scores = ConfusionMatrix(classes.num_classes, options.ignore_label)
    for key, path in tqdm(truth.items(), disable=None, leave=False):
        label = reader.load_label(path, options.ignore_label, classes)
        prediction = read_ids(predictions / f"{key}.png")
        if prediction.shape != label.shape:
            raise UserError(
                f"{predictions / key}.png: {prediction.shape[1]}x{prediction.shape[0]} pixels, expected "
                f"{label.shape[1]}x{label.shape[0]} as in {path}; predict at the labels' size"
            )
        try:
            scores.update(prediction, label)
        except UserError as error:
            raise UserError(f"{predictions / key}.png: {error}") from error
    print(f"IoU in percent over {len(truth)} images of {folders.gt_dir}")
    print(scores.table(classes))
    if options.json:
        checkpoint.write_json(Path(options.json), {"images": len(truth), **scores.as_dict(classes)})


if __name__ == "__main__":
    config.run(main)
