"""Restyle the source images as target images with CycleGAN, before a segmenter is trained (the paper's image level).

`train` learns from unpaired images of both domains, without labels. `apply` writes the restyled source images, under
the same names and at the same sizes, into a folder that is then given as --data-dir. Both can be stopped and resumed.

Examples:
  python restyle_source.py train                                      # GTA5 -> Cityscapes
  python restyle_source.py train --semantic snapshots/gta5_to_cityscapes/source_only/last.pth   # keep classes in place
  python restyle_source.py train --continue-train                     # resume from last.pth
  python restyle_source.py apply                                      # -> data/restyled/gta5_to_cityscapes
  python train_step1.py --data-dir data/restyled/gta5_to_cityscapes --data-dir-labels data/gta5_deeplab
  torchrun --standalone --nproc-per-node 4 restyle_source.py train    # on four GPUs
"""

from __future__ import annotations

from utils.system.machine import set_up  # before all others

import sys
from collections.abc import Sequence

from utils.options import config
from utils.system import logs
from utils.system.errors import UserError
from utils.system.logs import logger

PARTS = ("train", "apply")


def main(argv: Sequence[str] | None = None) -> None:
    part, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if part in ("-h", "--help"):
        print(f"usage: restyle_source.py {{{','.join(PARTS)}}} [options], or {{{','.join(PARTS)}}} --help\n\n{__doc__}")
        return
    if part not in PARTS:
        raise UserError(f"restyle_source.py: found {part!r}, expected one of {', '.join(PARTS)} first")
    (train if part == "train" else apply)(rest)


def train(argv: Sequence[str]) -> None:
    options, _, _ = config.parse("restyle_train", argv, description=__doc__)
    from utils.setup import data_sets, early, translation  # torch is imported once the command line is read
    from utils.system import distributed
    from utils.training.run import train as run
    from utils.training.trainer import Data, Trainer

    distributed.start(options.cpu)
    logs.setup()
    set_up(options)
    early.refuse(options, "restyle_train")
    data = Data(*translation.both_domains(options))
    data_sets.check_files(options, data.skipped, data.source, data.target)
    run(Trainer(options, translation.cyclegan(options), data), "restyle_train")


def apply(argv: Sequence[str]) -> None:
    options, given, _ = config.parse("restyle_apply", argv, description=__doc__)
    from utils.setup import early, translation  # torch is imported once the command line is read
    from utils.system import distributed

    distributed.start(options.cpu)
    logs.setup()
    set_up(options)
    early.refuse(options, "restyle_apply")
    state = translation.trained(options)
    options = translation.with_trained_size(options, given, state)
    images = translation.source_data(options, augmented=False)
    generator = translation.generator(options, state)
    translation.restyle_all(options, generator, images)
    logger.info("restyled images in %s", options.out)


if __name__ == "__main__":
    config.run(main)
