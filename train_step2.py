"""Stage 2: self-training on pseudo-labels together with the terms of stage 1, starting from the weights of stage 1.

Examples:
  python train_step2.py                                        # after train_step1.py and Generate_Pseudo_Label.py
  python train_step2.py --restore-from snapshots/gta5_to_cityscapes/step1/last.pth --ssl-target-dir target_ssl_gt
  python train_step2.py --preset own_images                    # after train_step1.py: --method plus, with a teacher
  python train_step2.py --method released                      # what the published code computes
  python train_step2.py --continue-train                       # resume from last.pth
  torchrun --standalone --nproc-per-node 4 train_step2.py      # on four GPUs
"""

from __future__ import annotations

import utils.system.machine  # noqa: F401 - before all others

from collections.abc import Sequence

from utils.options import config


def main(argv: Sequence[str] | None = None) -> None:
    options, given, _ = config.parse("step2", argv, description=__doc__)
    from utils.training import stage  # which imports torch: after the command line, so that --help is quick

    stage.run("step2", options, given)


if __name__ == "__main__":
    config.run(main)
