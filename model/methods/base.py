"""The interface between a method and the trainer, which knows nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from model.methods.optimizers import poly, segmenter_optimizer
from model.networks.batchnorm import running_statistics, set_training_mode
from model.networks.deeplab import DeepLab
from model.terms.memory import Gather
from model.terms.regions import ClassSplit

Batch = dict[str, Tensor]
"""One domain's images: "image" [B, 3, H, W] uint8 RGB, and "label" [B, H, W] of train ids if there are labels."""
Losses = dict[str, Tensor]
"""Every term of an iteration by its name, unweighted and detached."""
Backward = Callable[[Tensor, str], None]
"""(weighted loss, player): adds the gradient of the loss to that player's parameters."""
Network = TypeVar("Network", bound=nn.Module)


def _as_it_is(network: Network) -> Network:
    return network


@dataclass(frozen=True)
class Context:
    """What a method is built from.

    segmenter: already on its device. options: the hyper-parameters, as attributes named like the options. place: moves
    a further network to the segmenter's device. gather: see `SourceMemory`; None if there is only one process.
    imagenet: the frozen network whose features `--lambda-imagenet` keeps things close to, if that is above 0.
    """

    segmenter: DeepLab
    split: ClassSplit
    options: Any
    place: Callable[[nn.Module], nn.Module] = _as_it_is
    gather: Gather | None = None
    imagenet: DeepLab | None = None


@dataclass(frozen=True)
class Step:
    """One pass of training: the running number of its step from 0, and a seed of its own.

    The seed differs between steps, between the passes of `--iter-size` and between processes; it is the same when a
    resumed run repeats the step.
    """

    number: int
    seed: int = 0

    def generator(self) -> torch.Generator:
        """A new random generator on the CPU. Every random decision of a method is drawn from it."""
        return torch.Generator().manual_seed(self.seed)


class Method:
    """Networks, their optimisers, and what one iteration computes with them.

    This class trains a segmenter; a subclass adds further networks and optimisers, or replaces them.

    Attributes:
        name: in checkpoints and log lines.
        networks: everything with weights; "segmenter" is the one that predicts. All of them are saved.
        optimizers: by player ("segmenter", "discriminator"): the trainer clears the gradients before a step and steps
            every optimiser after it.
    """

    name: str
    uses_target: bool = True

    def __init__(self, context: Context) -> None:
        self.options = context.options
        self.networks = nn.ModuleDict({"segmenter": context.segmenter})
        self.optimizers: dict[str, Optimizer] = {"segmenter": segmenter_optimizer(context.segmenter, context.options)}

    @classmethod
    def uses_target_labels(cls, options: Any) -> bool:
        """Are the target's batches to bring pseudo-labels as their "label"?"""
        return False

    @property
    def segmenter(self) -> DeepLab:
        segmenter = self.networks["segmenter"]
        assert isinstance(segmenter, DeepLab)
        return segmenter

    def set_training_mode(self) -> None:
        """Put the networks into the mode that training wants."""
        self.networks.train()
        set_training_mode(self.segmenter, self.options.bn)

    def rate(self, step: int) -> float:
        """Factor on every learning rate at a step (by default the paper's poly decay, with a warm-up)."""
        return poly(step, self.options)

    def iteration(self, source: Batch, target: Batch | None, backward: Backward, step: Step) -> Losses:
        """Forward and backward of one pass; gradients accumulate, and no optimiser steps.

        target: None for a method that does not use the target. The images of both domains may differ in size.
        """
        raise NotImplementedError

    def after_step(self, step: int) -> None:
        """Called once the optimisers have made their step."""

    def averaged(self) -> list[Tensor]:
        """Buffers that differ between processes after an iteration, and whose mean all processes go on with."""
        return [] if self.options.bn == "frozen" else running_statistics(self.segmenter)

    def state_dict(self) -> dict[str, Any]:
        """State beside networks and optimisers, of tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state over. Raises ValueError or KeyError if it was made with other options."""
        if state:
            raise ValueError(f"a state of {', '.join(state)}, expected none")

    def counts(self) -> dict[str, Tensor]:
        """Whole numbers for the log, each a tensor of one element."""
        return {}

    def totals(self) -> dict[str, int]:
        """Of how many each of the `counts` is, where that is known."""
        return {}

    def warnings(self, names: Sequence[str]) -> list[str]:
        """What looks wrong at a log line, one sentence each; `names` are those of the classes."""
        return []

    def panels(self, source: Batch, target: Batch | None, step: Step) -> dict[str, Tensor]:
        """What a person would want to see of a step's first images, called in eval mode and without gradients.

        Each is an RGB image (uint8 [3, H, W]), labels (integers [H, W]) or a confidence from 0 to 1 (floating point
        [H, W]), or a batch of these. Names that share the part before a slash show the same pixels.
        """
        return {}
