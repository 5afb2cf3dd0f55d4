"""The state of a training run, and its step. The method says what a step computes; `utils.training.run` is the loop."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch._functorch import config as aot_autograd
from torch.utils.data import DataLoader

from dataset.base import SegmentationDataset
from dataset.class_pixels import Pixels
from dataset.class_sampler import RareClassSampler
from dataset.sampler import EndlessSampler
from dataset.skip import Replacing
from dataset.tables import plain_values
from model.methods.base import Batch, Method, Step
from model.networks.batchnorm import evaluating
from utils.options.table import Options
from utils.states import checkpoint
from utils.system import distributed, interrupt, machine
from utils.system.errors import UserError
from utils.system.logs import logger
from utils.system.precision import Precision
from utils.system.skipped import Skipped
from utils.training.finite import all_finite
from utils.training.meter import Meter
from utils.training.optimizers import set_rates, take_over

Pair = tuple[Batch, Batch | None]


@dataclass
class Data:
    """source: labelled; target: unlabelled or with pseudo-labels, None for a method without a target; test: for scores,
    if any; source_pixels: the counts of `class_pixels` if an option needs them; unlabelled: the target without random
    changes, for label-free scores; skipped: the bad images of all three."""

    source: SegmentationDataset
    target: SegmentationDataset | None = None
    test: SegmentationDataset | None = None
    source_pixels: Pixels | None = field(default=None, kw_only=True)
    unlabelled: SegmentationDataset | None = field(default=None, kw_only=True)
    skipped: Skipped = field(default_factory=Skipped, kw_only=True)


class Trainer:
    """A method, its data, and everything that its training state consists of.

    Attributes:
        steps: number of steps made so far.
        meter: collects what is logged about the steps since the last log line.
    """

    def __init__(self, options: Options, method: Method, data: Data) -> None:
        self.options, self.method, self.data = options, method, data
        self.device = next(method.networks.parameters()).device
        self.steps = 0
        self._began = (0, 0)  # step from which this process trains, and samples of each domain drawn before it
        self._loaded: Iterator[Pair] | None = None
        self._ahead: list[Pair] | None = None  # the batches that `read_ahead` has read
        self._last: tuple[Batch, Batch | None, Step] | None = None  # what the last pass was computed from
        self.precision = Precision(options.amp, self.device, dict(method.networks.items()), method.optimizers)
        self.meter = Meter(overflows=self.precision.skips_overflows)
        if options.compile:  # one graph per image size of the domains, because a common graph is slower
            if options.log_gradients:  # a measured step needs the graph twice; its buffers must not be used anew
                aot_autograd.donated_buffer = False
            method.segmenter.compile(dynamic=False, mode=options.compile_mode)
        if distributed.rank():  # the networks are built; from now on, each process has its own random numbers
            machine.seed_everything(options.random_seed + distributed.rank())

    def step(self, pairs: Iterable[Pair] | None = None) -> dict[str, Tensor]:
        """One step of every optimiser; returns the mean of every term over its passes.

        pairs: a source and a target batch for each of the `--iter-size` passes; by default the next ones of the data.
        """
        options, optimizers = self.options, self.method.optimizers
        set_rates(optimizers.values(), self.method.rate(self.steps))
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        if pairs is None:
            self.read_ahead()
            pairs, self._ahead = self._ahead, None
        batches = iter(pairs or ())
        dtype, total = self.precision.autocast, dict[str, Tensor]()
        for number in range(options.iter_size):
            self._last = source, target, own = *next(batches), self._pass(number)
            if options.compile_mode == "reduce-overhead":  # nothing reads the maps of the pass before any more
                torch.compiler.cudagraph_mark_step_begin()
            with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
                losses = self.method.iteration(source, target, self._backward, own)
            for name, value in losses.items():
                total[name] = total.get(name, 0) + value / options.iter_size
        groups = [group for optimizer in optimizers.values() for group in optimizer.param_groups]
        distributed.average_gradients([p for group in groups for p in group["params"]], self.method.averaged())
        self.precision.step()
        self.method.after_step(self.steps)
        self.steps += 1
        self.meter.add(total)
        return total

    def _pass(self, number: int) -> Step:
        place = (self.options.random_seed, self.steps, number, distributed.rank())
        seed = int.from_bytes(hashlib.sha256(repr(place).encode()).digest()[:7], "big")
        return Step(self.steps, seed)

    def _backward(self, loss: Tensor, player: str) -> None:
        with torch.autocast(self.device.type, enabled=False):
            self.precision.backward(loss / self.options.iter_size, player)

    @torch.no_grad()
    def panels(self) -> dict[str, Tensor]:
        """What the method shows of the last pass (`Method.panels`)."""
        if self._last is None:
            return {}
        dtype = self.precision.autocast
        with evaluating(self.method.networks), torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            return self.method.panels(*self._last)

    # The data.

    def read_ahead(self) -> None:
        """Read all batches of the next step in advance, so that a reading error occurs here, between two steps."""
        if self._ahead is None:
            with self.meter.waiting():
                self._ahead = list(islice(self._batches(), self.options.iter_size))

    def _batches(self) -> Iterator[Pair]:
        """Endless batches from the current step on."""
        if self._loaded is None:
            source = self._endless(self.data.source, self.options.random_seed)
            if self.data.target is None:
                self._loaded = ((batch, None) for batch in source)
            else:
                self._loaded = zip(source, self._endless(self.data.target, self.options.random_seed + 1), strict=True)
        return self._loaded

    def _endless(self, dataset: SegmentationDataset, seed: int) -> Iterator[Batch]:
        loader = DataLoader(
            Replacing(dataset) if dataset.skip_bad else dataset,
            batch_sampler=self._sampler(dataset, seed),
            num_workers=self.options.num_workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # otherwise, a loader would draw from the random state of training
        )
        for batch in interrupt.shielded(loader):
            self.data.skipped.add(line for reasons in batch.get("skipped", ()) for line in reasons.splitlines())
            yield {key: batch[key].to(self.device, non_blocking=True) for key in ("image", "label") if key in batch}

    def _sampler(self, dataset: SegmentationDataset, seed: int) -> EndlessSampler:
        """The samples from the current step on."""
        place = {"start": self._drawn(), "rank": distributed.rank(), "size": distributed.size()}
        batch, temperature = self.options.batch_size, self.options.rare_class_temperature
        if dataset is self.data.source and temperature:
            assert self.data.source_pixels is not None
            return RareClassSampler(self.data.source_pixels, temperature, batch, seed, **place)
        return EndlessSampler(len(dataset), batch, seed, **place)

    def _drawn(self) -> int:
        """Samples of each domain that all processes have drawn up to the current step."""
        step, drawn = self._began
        return drawn + (self.steps - step) * self.options.iter_size * self.options.batch_size * distributed.size()

    def next_images(self) -> str:
        """The images of the next step, for a message."""
        parts = []
        for role, dataset, seed in (("source", self.data.source, 0), ("target", self.data.target, 1)):
            if dataset is not None:
                batches = islice(self._sampler(dataset, self.options.random_seed + seed), self.options.iter_size)
                parts.append(f"{role} " + " ".join(dataset.names[index] for batch in batches for index, _ in batch))
        return ", ".join(parts)

    # The state.

    def values(self) -> dict[str, Tensor]:
        """Weights and statistics of all networks, by name."""
        return {name: value for name, value in self.method.networks.state_dict().items() if value.is_floating_point()}

    def finite(self) -> bool:
        """Whether all values are finite that a bad loss or gradient would change, in every process."""
        own = all_finite([*self.meter.sums.values(), *self.values().values()])
        return not distributed.largest(int(not own))

    def digests(self) -> dict[str, str]:
        """Hashes of what must be the same in every process after any step."""
        state = {"weights": self.method.networks.state_dict(), "state of the method": self.method.state_dict()}
        return {name: checkpoint.digest(value) for name, value in state.items()}

    def state_dict(self) -> checkpoint.State:
        """Everything that is needed to resume training. If there are several processes, all must call it."""
        rng, *rng_of_others = distributed.objects(checkpoint.rng_state())
        networks = {name: network.state_dict() for name, network in self.method.networks.items()}
        segmenter = {}
        if "segmenter" in networks:  # under its own name, where code that only predicts looks for it
            segmenter = {"architecture": self.method.segmenter.architecture, "segmenter": networks.pop("segmenter")}
        return {
            "method": self.method.name,
            "classes": plain_values(self.data.source.table),
            "input_size": list(self.options.input_size_target),
            **segmenter,
            "networks": networks,
            "state": self.method.state_dict(),
            "optimizer": {player: optimizer.state_dict() for player, optimizer in self.method.optimizers.items()},
            "scalers": self.precision.state_dict(),
            "step": self.steps,
            "drawn": self._drawn(),
            "meter": self.meter.state_dict(),
            "rng": rng,
            "rng_of_others": rng_of_others,
            "options": self.options.as_dict(),
        }

    def load_state_dict(self, state: checkpoint.State, path: Path) -> None:
        """Restore a whole training state; rates, momentum and weight decay stay those of the options.

        Raises UserError if it was made with other terms or memory sizes.
        """
        try:
            networks = state["networks"] | ({"segmenter": state["segmenter"]} if "segmenter" in state else {})
            differing = self.method.networks.keys() ^ networks.keys()
            if differing:
                raise ValueError(f"{', '.join(sorted(differing))} in only one of the two")
            self.method.load_state_dict(state["state"])
            for player, optimizer in self.method.optimizers.items():
                take_over(optimizer, state["optimizer"][player])
            self.precision.load_state_dict(state["scalers"])
            for name, network in self.method.networks.items():
                network.load_state_dict(networks[name])
            self.steps = state["step"]
            # Early checkpoints have no count.
            self._began = (self.steps, state["drawn"]) if "drawn" in state else (0, 0)
            self._loaded = self._ahead = None
            self.meter.load_state_dict(state.get("meter", {}), self.device)
            states = [state["rng"], *state.get("rng_of_others", [])]
            if distributed.rank() < len(states):
                checkpoint.set_rng_state(states[distributed.rank()])
            if distributed.size() != len(states):
                logger.info("changed since that checkpoint: processes %d -> %d", len(states), distributed.size())
        except (KeyError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"--continue-train: {path} does not fit ({reason}); expected the options that it was trained with "
                f"(see config.json beside it)"
            ) from error
