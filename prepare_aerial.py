"""Build an aerial data set from its public download: tiles, masks, lists, and a manifest with counts and checksums.

Tiles of 512x512 cover every original. Tiles that are mostly blank (white, no data) are dropped; in the masks of the
others, blank areas become 255. All tiles of an original are in one split:

  iaild      the first five images of each city are for validation, as Inria's authors suggest; images without masks
             are left out
  mbd, mrd   as distributed: train, valid and test
  deepglobe  the tenth of the images with the smallest CRC-32 of their id is for validation (only the train part of the
             download has masks)

A stopped run continues where it was. data/README.md gives the sizes on disk and the layouts of the downloads.

Examples:
  python prepare_aerial.py iaild ~/Downloads/AerialImageDataset          # -> data/IAILD
  python prepare_aerial.py mrd ~/Downloads/mass_roads --workers 8        # -> data/MRD
  python prepare_aerial.py mrd ~/Downloads/mass_roads --split published --out data/MRD_published
  python prepare_aerial.py mrd --verify                                  # checks that no tile has changed
"""

from __future__ import annotations

import utils.system.machine  # noqa: F401 - before all others

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from dataset.aerial_downloads import KINDS, find_originals
from dataset.aerial_tiles import SPLITS, Settings, prepare, verify
from utils.options import config, parsing
from utils.system import lock, logs
from utils.system.errors import UserError
from utils.system.logs import logger


def _parser() -> argparse.ArgumentParser:
    first_line, _, rest = (__doc__ or "").partition("\n")
    parser = parsing.Parser(
        description=first_line, epilog=rest, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Settings("")
    parser.add_argument("dataset", choices=tuple(KINDS), help="which data set")
    parser.add_argument(
        "download", metavar="DOWNLOAD", type=Path, nargs="?", help="folder of the unpacked download (not with --verify)"
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="folder to build [data/IAILD, data/MBD, data/MRD or data/DeepGlobe]"
    )
    parser.add_argument(
        "--tile", metavar="N", type=int, default=default.tile, help="side of a tile in pixels [%(default)s]"
    )
    parser.add_argument(
        "--overlap",
        metavar="N",
        type=int,
        default=default.overlap,
        help="smallest overlap of neighbouring tiles in pixels; larger if the tiles do not fit exactly [%(default)s]",
    )
    parser.add_argument(
        "--split",
        choices=("original", "published"),
        default="original",
        help="published: the training list also contains the validation tiles, for comparison [%(default)s]",
    )
    parser.add_argument(
        "--blank-min",
        metavar="N",
        type=int,
        help=f"smallest white area at the edge that counts as blank, in pixels; 0: nothing counts as blank "
        f"[mbd, mrd: {default.blank_min}; iaild, deepglobe: 0, because they have no blank areas]",
    )
    parser.add_argument(
        "--max-blank",
        metavar="X",
        type=float,
        default=default.max_blank,
        help="drop tiles of which more than this share is blank [%(default)s]",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=min(4, os.cpu_count() or 1),
        help="number of images that are cut at a time [%(default)s]",
    )
    parser.add_argument(
        "--verify", action="store_true", help="only compare the files in --out with the checksums of the manifest [off]"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(argv)
    logs.setup()
    kind = KINDS[given.dataset]
    out = given.out or Path("data") / kind.folder
    if given.workers < 1:
        raise UserError(f"--workers: found {given.workers}, expected at least 1")
    if given.verify:
        logger.info("%s: %d tiles, all as in the manifest", out, verify(out))
        return
    if given.download is None:
        raise UserError("DOWNLOAD: found none, expected the folder of the unpacked download; give it, or --verify")
    blank_min = given.blank_min
    if blank_min is None:
        blank_min = Settings("").blank_min if kind.blank else 0
    settings = Settings(given.dataset, given.tile, given.overlap, blank_min, given.max_blank)
    settings.check()
    originals, alone = find_originals(kind, given.download)
    if alone:
        logger.info("attention: %d masks without an image are not used; %s is the first", len(alone), alone[0])
    with lock.held(out):
        manifest = prepare(
            originals,
            settings,
            out,
            published_split=given.split == "published",
            workers=given.workers,
            masks_alone=len(alone),
        )
    counts = manifest["counts"]
    for split in SPLITS:
        tiles = manifest["lists"].get(split, {"tiles": 0})["tiles"]
        logger.info("%-5s %5d images, %6d tiles in the list", split, counts["originals"][split], tiles)
    logger.info(
        "%s: %d tiles, %d blank ones dropped; %.2f %% foreground, %.2f %% ignored",
        out, counts["tiles"], counts["dropped"],
        *(100 * counts[name] / max(counts["pixels"], 1) for name in ("foreground", "ignored")),
    )  # fmt: skip


if __name__ == "__main__":
    config.run(main)
