"""Stage 2: self-training on pseudo-labels, from the weights of stage 1, beside the terms of stage 1.

Examples:
  python train_step2.py                                        # after train_step1.py and Generate_Pseudo_Label.py
  python train_step2.py --restore-from snapshots/gta5_to_cityscapes/step1/last.pth --ssl-target-dir target_ssl_gt
  python train_step2.py --method released                      # what the published code computes
  python train_step2.py --continue-train                       # resume from last.pth
  torchrun --standalone --nproc-per-node 4 train_step2.py      # on four GPUs
"""

from __future__ import annotations

from collections.abc import Sequence

from utils.system.machine import set_up  # before torch

from utils.options import config
from utils.setup import build
from utils.system import distributed, logs
from utils.training.trainer import Data, Trainer


def main(argv: Sequence[str] | None = None) -> None:
    options, given, _ = config.parse("step2", argv, description=__doc__)
    distributed.start(options.cpu)
    logs.setup()
    set_up(options)
    classes = build.classes(options, training=True)
    data = Data(
        source=build.source_data(options, classes),
        target=build.target_data(options, classes, pseudo_labels=True),
        test=build.test_data_if_any(options, given, classes),
    )
    build.check_files(options, data.skipped, data.source, data.target, data.test)
    segmenter = build.segmenter(options, given, classes, needs_classifier=True)
    Trainer(options, "step2", segmenter, data).run()


if __name__ == "__main__":
    config.run(main)
