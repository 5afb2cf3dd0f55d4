"""Predict images with a checkpoint and save the masks; if there are labels, print the IoU per class and the means.

The script works for every preset, not only for Cityscapes. Classes and colours are those of the checkpoint.

Examples:
  python evaluate_cityscapes.py --restore-from snapshots/gta5_to_cityscapes/step2/last.pth
  python evaluate_cityscapes.py --preset builtin --json scores.json
  python evaluate_cityscapes.py --preset own_images --target folder:data/mycamera
  python evaluate_cityscapes.py --set test --save submission --save-ids label   # *_leftImg8bit.png for the server
  torchrun --standalone --nproc-per-node 4 evaluate_cityscapes.py   # on four GPUs, the same masks and scores
"""

from __future__ import annotations

from utils.system.machine import set_up  # before all others

from collections.abc import Sequence
from pathlib import Path

from utils.options import config
from utils.system import logs
from utils.system.files import check_can_write, write_json
from utils.system.skipped import Skipped


def main(argv: Sequence[str] | None = None) -> None:
    options, given, _ = config.parse("evaluate", argv, description=__doc__)
    from utils.prediction.evaluation import Variants, evaluate  # torch is imported once the command line is read
    from utils.prediction.pseudo_labels import fingerprint
    from utils.setup import data_sets, early, networks
    from utils.system import distributed

    distributed.start(options.cpu)
    logs.setup()
    set_up(options)
    early.refuse(options, "evaluate")
    options = networks.with_input_size(options, given)
    if options.json and distributed.is_main():
        check_can_write("--json", Path(options.json))
    classes = data_sets.class_table(options)
    images = data_sets.evaluation_data(options, classes)
    folder = None if options.save in (None, "none") else Path(str(options.save))
    if folder is not None:
        data_sets.check_output("save", folder, images, coloured=options.save_ids == "train")
    ids = data_sets.saved_ids(options, classes)
    skipped = Skipped()
    data_sets.check_files(options, skipped, images)
    segmenter = networks.segmenter(options, given, classes, needs_classifier=True)
    distributed.check_equal(lambda: {"weights": fingerprint(segmenter), "images": images.names})
    variants = Variants(options.scales, options.flip)
    scores = evaluate(
        segmenter,
        images,
        amp=options.amp,
        num_workers=options.num_workers,
        batch_size=options.batch_size,
        variants=variants,
        save=folder,
        save_ids=ids,
        skipped=skipped,
    )
    if not distributed.is_main():
        return
    if scores.images:
        print(f"IoU in percent of {options.restore_from} on {scores.images} images of {options.data_dir_target}")
    if variants != Variants():
        mirrored = ", of images and their mirror images" * options.flip
        print(f"probabilities averaged over the scales {', '.join(map(str, options.scales))}{mirrored}")
    if scores.images:
        print(scores.table(classes))
    unlabelled = len(images) - len(images.labelled_names())
    if unlabelled:
        print(f"no scores for {unlabelled} of {len(images)} images of {options.data_dir_target}: they have no labels")
    if folder is not None:
        skipped.list_in(folder)
        print(f"masks in {folder}")
    if options.json and not scores.images:
        print(f"{options.json} is not written, because there are no scores")
    elif options.json:
        result = {"checkpoint": options.restore_from, "images": scores.images, "skipped": skipped.reasons}
        if variants != Variants():
            result |= {"scales": options.scales, "flip": options.flip}
        result |= scores.as_dict(classes)
        write_json(Path(options.json), result)


if __name__ == "__main__":
    config.run(main)
