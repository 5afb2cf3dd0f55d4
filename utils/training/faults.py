"""Finds the first step at which a value is no longer finite."""

from __future__ import annotations

import copy
from pathlib import Path

from torch import Tensor

from utils.states import checkpoint
from utils.system import distributed
from utils.system.errors import UserError
from utils.system.logs import logger
from utils.system.transfer import to_host
from utils.training.finite import copied, not_finite
from utils.training.trainer import Trainer

NAME = "nonfinite.pth"


def find(trainer: Trainer, good: checkpoint.State, folder: Path) -> UserError:
    """The error for a run with values that are not finite. It names the first bad step, which is found by repeating
    steps from the last good state.

    The state before that step is saved in `folder`/nonfinite.pth, from which the step can be repeated.
    """
    found, path, last = trainer.steps, folder / NAME, folder / "last.pth"
    checkpoint.save_for_all(path, good)
    trainer.load_state_dict(copy.deepcopy(good), path)
    if trainer.steps < found - 1:
        logger.info("not finite between step %d and %d: repeating these steps one by one", trainer.steps + 1, found)
    what = f"a value up to step {found} was not finite, but all are when the steps are repeated (see --deterministic)"
    while trainer.steps < found:
        images = trainer.next_images()
        losses = trainer.step()
        if not trainer.finite():
            faults = distributed.objects(_fault(trainer, losses, images))
            what = f"step {trainer.steps}: {max(faults)[1]}"  # of a process whose loss is not finite, if there is one
            break
        good = copied(good | trainer.state_dict(), good)
    checkpoint.save_for_all(path, good)
    other = f"the last good checkpoint is {last}" if last.exists() else "no other checkpoint was written"
    return UserError(
        f"{what}; --continue-train {path} repeats it from the state before: try a lower --learning-rate, or "
        f"--amp off; {other}"
    )


def _fault(trainer: Trainer, losses: dict[str, Tensor], images: str) -> tuple[bool, str]:
    """Whether a loss of the last step is not finite; and the words for what is not finite, the terms and images."""
    gradients = {
        f"gradient of {name}": parameter.grad
        for name, parameter in trainer.method.networks.named_parameters()
        if parameter.grad is not None
    }
    terms = not_finite(losses)
    broken = terms or not_finite(gradients) or not_finite(trainer.values())
    more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
    values = ", ".join(f"{name} {float(to_host(value)):.4g}" for name, value in losses.items())
    return bool(terms), f"{', '.join(broken[:3])}{more} not finite ({values}); images: {images}"
