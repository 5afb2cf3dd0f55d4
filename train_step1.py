"""Stage 1: adversarial, category and instance alignment of a source-trained segmenter with the target.

Examples:
  python train_step1.py                                        # GTA5 -> Cityscapes, as in the paper
  python train_step1.py --preset synthia_to_cityscapes --amp bf16
  python train_step1.py --source-only                          # the baseline that never sees a target image
  python train_step1.py --method released                      # what the published code computes
  python train_step1.py --continue-train                       # resume from last.pth
  torchrun --standalone --nproc-per-node 4 train_step1.py      # on four GPUs
"""

from __future__ import annotations

from collections.abc import Sequence

from utils.system.machine import set_up  # before torch

from utils.options import config
from utils.setup import build
from utils.system import distributed, logs
from utils.training.trainer import Data, Trainer


def main(argv: Sequence[str] | None = None) -> None:
    options, given, _ = config.parse("step1", argv, description=__doc__)
    distributed.start(options.cpu)
    logs.setup()
    set_up(options)
    classes = build.classes(options, training=True)
    data = Data(
        source=build.source_data(options, classes),
        target=None if options.source_only else build.target_data(options, classes),
        test=build.test_data_if_any(options, given, classes),
    )
    build.check_files(options, data.skipped, data.source, data.target, data.test)
    segmenter = build.segmenter(options, given, classes)
    Trainer(options, "step1", segmenter, data).run()


if __name__ == "__main__":
    config.run(main)
