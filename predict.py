"""Predict images, folders, videos or a camera with a checkpoint, and write label maps and pictures of them.

Every kind of output has its own folder below --out, with the same subfolders as the input:
  ids/         PNG whose values are the indices of the classes, which predict.json lists
  colours/     the same in the colours of the classes; a video for a video
  overlay/     the image, with the colours over it and a legend; a video for a video
  confidence/  PNG with the probability of the predicted class, times 255 (only if --write names it)
Videos keep their frame rate, but not their sound; they are written as MPEG-4 Part 2 (codec mp4v) in .mp4 files.

Classes, sizes and normalisation come from the checkpoint. For the network, each image is resized so that it keeps its
shape and has about as many pixels as the training images (our choice); the mask has the size of the image. Photographs
are rotated as their EXIF orientation says. If a run was stopped, give the same command again to continue it.

Examples:
  python predict.py snapshots/builtin/step2/last.pth photo.jpg
  python predict.py last.pth photos/ "more/**/*.png" --out result/photos --flip --scales 0.75,1,1.25
  python predict.py last.pth drive.mp4 --write overlay --batch-size 8 --amp bf16
  python predict.py last.pth 0                                # camera 0, until Ctrl-C
"""

from __future__ import annotations

import utils.system.machine  # noqa: F401 - before all others

import argparse
from collections.abc import Sequence
from pathlib import Path

from utils.options import config, parsing
from utils.system import lock, logs
from utils.system.logs import logger
from utils.system.skipped import Skipped


def _parser() -> argparse.ArgumentParser:
    parser = parsing.parser(__doc__)
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a checkpoint of the training scripts, such as last.pth"
    )
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="an image, a folder (with all folders below it), a pattern in quotes, a video, or the number of a camera",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("result/predict"), help="folder to write to [%(default)s]"
    )
    parser.add_argument(
        "--write",
        metavar="KINDS",
        type=parsing.names("ids", "colours", "overlay", "confidence"),
        default=("ids", "colours", "overlay"),
        help="what to write: some of ids,colours,overlay,confidence [ids,colours,overlay]",
    )
    parser.add_argument(
        "--scales",
        metavar="S,S,...",
        type=parsing.checked(parsing.numbers, parsing.are_scales),
        default=(1.0,),
        help="predict at these scales, such as 0.75,1,1.25, and average the probabilities [1]",
    )
    parser.add_argument(
        "--flip", action="store_true", help="predict mirrored images too, and average the probabilities [off]"
    )
    parser.add_argument(
        "--input-size",
        metavar="W,H",
        type=parsing.checked(parsing.pair, parsing.is_size),
        help="resize every image to exactly this size for the network, whatever its shape [about the size in the "
        "checkpoint, with the shape of each image]",
    )
    parser.add_argument(
        "--batch-size", metavar="N", type=parsing.at_least(1), default=1, help="images per forward pass [%(default)s]"
    )
    parser.add_argument(
        "--num-workers",
        metavar="N",
        type=parsing.at_least(1),
        default=2,
        help="threads that read images ahead [%(default)s]",
    )
    parser.add_argument(
        "--frames", metavar="N", type=parsing.at_least(1), help="predict only the first N frames of a video or camera"
    )
    parser.add_argument("--amp", choices=("off", "bf16", "fp16"), default="off", help="mixed precision [%(default)s]")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU [off]")
    parser.add_argument(
        "--skip-bad-images",
        action="store_true",
        help="leave out images and videos that cannot be read, and list them in skipped_images.txt [off]",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what an earlier run has written to --out [off]"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(argv)
    logs.setup()
    from utils.prediction import inputs  # torch is imported once the command line is read

    sources = inputs.find(given.inputs, given.out)
    from utils.prediction.any_size import Predictor
    from utils.prediction.evaluation import Variants
    from utils.prediction.loading import load, pick_device
    from utils.prediction.pseudo_labels import fingerprint
    from utils.prediction.streams import predict_all
    from utils.prediction.writing import Output

    segmenter, classes, size = load(given.checkpoint, pick_device(given.cpu, given.amp))
    predictor = Predictor(
        segmenter,
        given.input_size or size,
        Variants(given.scales, given.flip),
        given.amp,
        exact=given.input_size is not None,
        confidence="confidence" in given.write,
    )
    settings = {
        "checkpoint": given.checkpoint,
        "weights": fingerprint(segmenter),
        "size": predictor.size,
        "exact": predictor.exact,
        "scales": given.scales,
        "flip": given.flip,
        "amp": given.amp,
    }
    with lock.held(given.out):
        output = Output(given.out, given.write, classes, settings, overwrite=given.overwrite)
        skipped = Skipped()
        skipped.list_in(given.out)
        logger.info("%d inputs, %d classes: %s", len(sources), classes.num_classes, ", ".join(classes.names))
        said = predict_all(
            sources,
            predictor,
            output,
            batch_size=given.batch_size,
            threads=given.num_workers,
            skip_bad=given.skip_bad_images,
            skipped=skipped,
            most_frames=given.frames,
        )
    logger.info("%s; %d skipped; written to %s", said, len(skipped.reasons), given.out)


if __name__ == "__main__":
    config.run(main)
