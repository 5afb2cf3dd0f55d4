"""`python -m dataset.builtin --root data/builtin` draws the built-in benchmark."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from utils.options import config, parsing
from utils.system import logs

from .write import Parameters, write_benchmark


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected W,H, for example 256,128") from None
    return width, height


def _parser() -> argparse.ArgumentParser:
    default = Parameters()
    parser = parsing.Parser(
        prog="python -m dataset.builtin",
        description="Draw two domains of street scenes (a game and a camera) with the 19 Cityscapes classes, "
        "and write them in the folder layouts and label ids of GTA5 and Cityscapes. "
        "The same options give the same pictures.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--root", default="data/builtin", help="folder to write gta5_deeplab/ and Cityscapes/ into")
    parser.add_argument("--seed", type=int, default=default.seed, help="seed; another one gives other streets")
    parser.add_argument("--source", type=int, default=default.source, help="number of labelled images of the game")
    parser.add_argument(
        "--target-train", type=int, default=default.target_train, help="number of camera images to adapt to"
    )
    parser.add_argument(
        "--target-val", type=int, default=default.target_val, help="number of camera images to evaluate on"
    )
    parser.add_argument(
        "--size",
        type=_size,
        default="{},{}".format(*default.size),
        metavar="W,H",
        help="size of the images in pixels; objects scale with W",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(argv)
    logs.setup()
    write_benchmark(**vars(given))


if __name__ == "__main__":
    config.run(main)
