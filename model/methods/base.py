"""The interface between a method and the trainer, which knows nothing else about the method."""

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
    another network to the segmenter's device. gather: see `SourceMemory`; None if there is only one process. imagenet:
    the frozen ImageNet network for `--lambda-imagenet`, if that is above 0. class_weights: [C] float32 on the
    segmenter's device, factors on the source cross-entropy of each class; None: all are 1.
    """

    segmenter: DeepLab
    split: ClassSplit
    options: Any
    place: Callable[[nn.Module], nn.Module] = _as_it_is
    gather: Gather | None = None
    imagenet: DeepLab | None = None
    class_weights: Tensor | None = None


@dataclass(frozen=True)
class Step:
    """One pass of training: the number of its step, counted from 0, and its own seed.

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
        name: the name in checkpoints and log lines.
        networks: everything with weights; "segmenter" is the one that predicts. All of them are saved.
        class_weights: see `Context`.
        optimizers: one per player ("segmenter", "discriminator"). The trainer clears the gradients before each step and
            applies every optimiser after it.
    """

    name: str
    uses_target: bool = True

    def __init__(self, context: Context) -> None:
        self.options = context.options
        self.class_weights = context.class_weights
        self.networks = nn.ModuleDict({"segmenter": context.segmenter})
        self.optimizers: dict[str, Optimizer] = {"segmenter": segmenter_optimizer(context.segmenter, context.options)}

    @classmethod
    def uses_target_labels(cls, options: Any) -> bool:
        """Whether target batches must have pseudo-labels as their "label"."""
        return False

    @property
    def segmenter(self) -> DeepLab:
        segmenter = self.networks["segmenter"]
        assert isinstance(segmenter, DeepLab)
        return segmenter

    def set_training_mode(self) -> None:
        """Put the networks into the mode for training."""
        self.networks.train()
        set_training_mode(self.segmenter, self.options.bn)

    def rate(self, step: int) -> float:
        """Factor on every learning rate at a step (by default the paper's poly decay, with a warm-up)."""
        return poly(step, self.options)

    def iteration(self, source: Batch, target: Batch | None, backward: Backward, step: Step) -> Losses:
        """Forward and backward of one pass. Gradients accumulate; no optimiser makes a step.

        target: None for a method that does not use the target. The images of both domains may differ in size.
        """
        raise NotImplementedError

    def after_step(self, step: int) -> None:
        """Called after the optimisers have made their step."""

    def averaged(self) -> list[Tensor]:
        """Buffers that differ between processes after an iteration; all processes continue with their mean."""
        return [] if self.options.bn == "frozen" else running_statistics(self.segmenter)

    def state_dict(self) -> dict[str, Any]:
        """State in addition to networks and optimisers: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state. Raises ValueError or KeyError if it was made with other options."""
        if state:
            raise ValueError(f"a state of {', '.join(state)}, expected none")

    def counts(self) -> dict[str, Tensor]:
        """Whole numbers for the log, each a tensor of one element."""
        return {}

    def totals(self) -> dict[str, int]:
        """The largest possible value of each of the `counts`, if known."""
        return {}

    def warnings(self, names: Sequence[str]) -> list[str]:
        """What looks wrong at the time of a log line, one sentence each. names: of the classes."""
        return []

    def panels(self, source: Batch, target: Batch | None, step: Step) -> dict[str, Tensor]:
        """Pictures of a step's first images, for a person to look at. Called in eval mode and without gradients.

        Each is an RGB image (uint8 [3, H, W]), labels (integers [H, W]) or a confidence from 0 to 1 (floating point
        [H, W]), or a batch of these. Names that share the part before a slash show the same pixels.
        """
        return {}
