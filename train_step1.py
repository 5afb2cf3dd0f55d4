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

import utils.system.machine  # noqa: F401 - before torch

from utils.options import config
from utils.training import stage


def main(argv: Sequence[str] | None = None) -> None:
    stage.run("step1", argv, __doc__)


if __name__ == "__main__":
    config.run(main)
