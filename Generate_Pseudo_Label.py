"""Make pseudo-labels for the target training images with the weights of stage 1.

A pixel keeps its predicted class if its confidence reaches the threshold of the class: the median confidence of all
pixels predicted as that class, at most 0.9. Masks of train ids (255: rejected) are written to --ssl-target-dir. While
the script runs, it needs 3 bytes per pixel there (4.7 GB for Cityscapes); they are freed even after an error or Ctrl-C.
If the script is killed, the same command continues where it stopped.

Examples:
  python Generate_Pseudo_Label.py
  python Generate_Pseudo_Label.py --preset builtin --restore-from snapshots/builtin/step1/last.pth
  torchrun --standalone --nproc-per-node 4 Generate_Pseudo_Label.py   # on four GPUs
"""

from __future__ import annotations

from utils.system.machine import set_up  # before all others

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.options import config
from utils.options.table import Options
from utils.system import logs
from utils.system.logs import logger
from utils.system.skipped import Skipped

if TYPE_CHECKING:
    from dataset.base import SegmentationDataset
    from model.networks.deeplab import DeepLab
    from utils.prediction.pseudo_labels import Prediction


def main(argv: Sequence[str] | None = None) -> None:
    options, given, _ = config.parse("pseudo", argv, description=__doc__)
    from model.networks.high_resolution import read_size  # torch is imported once the command line is read
    from utils.prediction.evaluation import predict
    from utils.prediction.pseudo_labels import confidence, write_pseudo_labels
    from utils.reporting import notes
    from utils.setup import data_sets, early, networks
    from utils.system import distributed, lock

    distributed.start(options.cpu)
    logs.setup()
    set_up(options)
    early.refuse(options, "pseudo")
    options = networks.with_input_size(options, given)
    classes = data_sets.class_table(options)
    images = data_sets.target_data(options, classes, augmented=False)
    assert options.ssl_target_dir is not None  # only `--method plus` goes without
    folder = Path(options.ssl_target_dir)
    data_sets.check_output("ssl_target_dir", folder, images)
    skipped = Skipped()
    data_sets.check_files(options, skipped, images)
    segmenter = networks.segmenter(options, given, classes, needs_classifier=True)
    numbers = {name: number for number, name in enumerate(images.names)}
    earlier = sum((folder / f"{images.key(name)}.png").exists() for name in images.names)
    if earlier:
        logger.info("%s: the %d masks of an earlier run are replaced when all are made", folder, earlier)
    width, height = read_size(options.input_size_target, options.high_resolution_crops)

    def predictions(chosen: Sequence[int]) -> Iterator[Prediction]:
        for sample, (logits,) in predict(
            segmenter,
            images,
            amp=options.amp,
            num_workers=options.num_workers,
            batch_size=options.batch_size,
            indices=chosen,
            skipped=skipped,
        ):
            yield numbers[sample["name"]], *confidence(logits, (height, width))

    with lock.held_for_all(folder):
        result = write_pseudo_labels(
            predictions,
            [images.key(name) for name in images.names],
            classes.num_classes,
            folder,
            options.ignore_label,
            identity=identity(options, images, segmenter),
            pixels=width * height,
            batch_size=options.batch_size,
        )
        if distributed.is_main():
            skipped.list_in(folder)
            notes.write_pseudo_label_note(folder, result, classes)  # for the report of stage 2
    rows = zip(classes.names, result.thresholds, result.kept, result.predicted, strict=True)
    for name, threshold, n_kept, n in rows:
        logger.info("%-14s threshold %.4f  kept %5.1f %% of %d pixels", name, threshold, 100 * n_kept / max(n, 1), n)
    logger.info("%d pseudo-labels in %s", result.masks, folder)
    missing = [name for name, n_kept in zip(classes.names, result.kept, strict=True) if not n_kept]
    if missing:
        logger.warning(
            "these pseudo-labels have no pixel of: %s. Stage 2 cannot learn that from the target. If target images "
            "show it, train stage 1 for longer or on restyled source images (--image-level), or run train_step2.py "
            "--method plus, which pastes all source classes into target images",
            ", ".join(missing),
        )


def identity(options: Options, images: SegmentationDataset, segmenter: DeepLab) -> dict[str, Any]:
    """Everything that the predictions depend on."""
    import torch

    from utils.prediction.pseudo_labels import fingerprint

    files = [os.stat(path) if path.is_file() else None for path in map(images.image_path, images.names)]
    return {
        "weights": fingerprint(segmenter),
        "architecture": segmenter.architecture,
        "options": [options.input_size_target, options.amp, options.batch_size, options.tf32],
        "device": [segmenter.input_mean.device.type, torch.__version__],
        "root": str(images.root.resolve()),
        "images": [[found.st_size, found.st_mtime_ns] if found else None for found in files],
    }


if __name__ == "__main__":
    config.run(main)
