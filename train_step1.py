"""Stage 1: train on the source, with adversarial, category and instance alignment of the target.

Examples:
  python train_step1.py                                        # GTA5 -> Cityscapes, as in the paper
  python train_step1.py --preset synthia_to_cityscapes --amp bf16
  python train_step1.py --source-only                          # the baseline that never sees a target image
  python train_step1.py --method released                      # what the published code computes
  python train_step1.py --continue-train                       # resume from last.pth
  torchrun --standalone --nproc-per-node 4 train_step1.py      # on four GPUs
"""

from __future__ import annotations

import utils.system.machine  # noqa: F401 - before all others

from collections.abc import Sequence

from utils.options import config


def main(argv: Sequence[str] | None = None) -> None:
    options, given, _ = config.parse("step1", argv, description=__doc__)
    from utils.training import stage  # which imports torch: after the command line, so that --help is quick

    stage.run("step1", options, given)


if __name__ == "__main__":
    config.run(main)
