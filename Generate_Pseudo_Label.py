"""Pseudo-labels for the target training images, from the weights of stage 1.

A pixel keeps its predicted class where its confidence reaches the class's threshold: the median confidence of
all pixels predicted as that class, at most 0.9. Masks of train ids (255: rejected) go to --ssl-target-dir, which
needs 3 bytes a pixel for the time being (4.7 GB for Cityscapes).

Examples:
  python Generate_Pseudo_Label.py
  python Generate_Pseudo_Label.py --preset builtin --restore-from snapshots/builtin/step1/last.pth
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from utils import build, config, logs
from utils.evaluation import predict
from utils.logs import logger
from utils.pseudo_labels import confidence, write_pseudo_labels
from utils.skipped import Skipped


def main(argv: Sequence[str] | None = None) -> None:
    options, given, _ = config.parse("pseudo", argv, description=__doc__)
    logs.setup()
    classes = build.classes(options)
    images = build.target_data(options, classes, augmented=False)
    skipped = Skipped()
    build.check_files(options, skipped, images)
    segmenter = build.segmenter(options, given, classes)
    predictions = (
        (images.key(sample["name"]), *confidence(logits, tuple(sample["image"].shape[1:])))
        for sample, logits in predict(
            segmenter, images, amp=options.amp, num_workers=options.num_workers, skipped=skipped
        )
    )
    folder = Path(options.ssl_target_dir)
    thresholds, kept, predicted = write_pseudo_labels(predictions, classes.num_classes, folder, options.ignore_label)
    for name, threshold, n_kept, n in zip(classes.names, thresholds, kept, predicted, strict=True):
        logger.info("%-14s threshold %.4f  kept %5.1f %% of %d pixels", name, threshold, 100 * n_kept / max(n, 1), n)
    skipped.list_in(folder)
    logger.info("%d pseudo-labels in %s", len(images) - len(skipped.reasons), folder)


if __name__ == "__main__":
    config.run(main)
