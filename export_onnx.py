"""Export the segmenter of a checkpoint to ONNX, and compare the file, run by onnxruntime, with PyTorch.

The network takes uint8 RGB images [B, 3, H, W] of any batch size and image size, and normalises them itself. It returns
float32 logits [B, C, h, w] at about 1/8 of the size; with --upsample, logits at the size of the images; with --argmax,
which up-samples too, uint8 labels [B, H, W]. The metadata of the file hold the names and colours of the classes, the
image size that the network was trained with, and the normalisation.

The comparison uses the --images, or else synthetic frames, at two sizes and as a batch. It prints the largest
difference of the logits, the share of labels that agree, and the time per image of both. A file that differs is not
kept: 99.9 % of the labels must be equal, and logits may differ by 1e-3 of their size (the median over the pixels of the
largest absolute logit), or by 1e-3 if that is below 1.

Examples:
  python export_onnx.py snapshots/builtin/step2/last.pth
  python export_onnx.py last.pth --out road.onnx --argmax --images photos/
"""

from __future__ import annotations

import utils.system.machine  # noqa: F401 - before all others

import argparse
from collections.abc import Sequence
from pathlib import Path

from utils.options import config, parsing
from utils.system import logs
from utils.system.errors import UserError
from utils.system.files import check_can_write, staged
from utils.system.logs import logger


def _parser() -> argparse.ArgumentParser:
    parser = parsing.parser(__doc__)
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a checkpoint of the training scripts, such as last.pth"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="file to write [CHECKPOINT with the extension .onnx]")
    parser.add_argument("--upsample", action="store_true", help="return logits at the size of the images [off]")
    parser.add_argument("--argmax", action="store_true", help="return the label of each pixel instead of logits [off]")
    parser.add_argument(
        "--images", metavar="INPUT", help="image, folder, pattern or video to compare on [synthetic frames]"
    )
    parser.add_argument(
        "--count", metavar="N", type=parsing.at_least(1), default=4, help="number of frames to compare [%(default)s]"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(argv)
    logs.setup()
    from utils.prediction import onnx  # torch is imported once the command line is read
    from utils.prediction.loading import load

    onnx.check_packages()
    segmenter, classes, size = load(given.checkpoint)
    out = given.out or Path(given.checkpoint).with_suffix(".onnx")
    check_can_write("--out", out)
    if out.exists() and out.samefile(given.checkpoint):
        raise UserError(f"--out: {out} is the checkpoint itself, expected a file to write: choose another one")
    frames = onnx.frames(given.images, given.count, size)
    kind = "labels" if given.argmax else "upsampled" if given.upsample else "logits"
    with staged(out.parent) as scratch:
        onnx.export(segmenter, classes, size, kind, scratch / out.name)
        found = onnx.compare(segmenter, kind, scratch / out.name, frames)
        logger.info("%s", found)
        if not found.agrees:
            raise UserError(
                f"{out}: not kept, because onnxruntime and PyTorch differ ({found}); expected them to agree"
            )
    logger.info("written to %s, %.3g MB", out, out.stat().st_size / 1e6)


if __name__ == "__main__":
    config.run(main)
