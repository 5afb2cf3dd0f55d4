"""The training loop of both stages: schedule, optimisers, log, checkpoints, scores."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset.base import EndlessSampler, SegmentationDataset
from dataset.skip import Replacing
from dataset.tables import plain
from model.adaptation import Adaptation, Batch
from model.batchnorm import running_statistics, set_training_mode
from model.deeplab import DeepLab
from model.discriminator import FeatureDiscriminator, OutputDiscriminator
from model.memory import SourceMemory
from model.regions import ClassSplit
from model.transfer import to_host
from utils import build, checkpoint, config, distributed
from utils.config import Options
from utils.errors import UserError
from utils.evaluation import evaluate
from utils.logs import JsonLines, logger, revision
from utils.precision import Precision
from utils.skipped import Skipped

# Of an optimiser's group, from the options also on resuming.
_SETTINGS = ("base_lr", "momentum", "weight_decay", "fused")


def poly(step: int, options: Options) -> float:
    """Factor on every learning rate: (1 - i/N)^power, rising linearly over the first `--warmup-steps`."""
    factor = (1 - step / options.num_steps) ** options.power
    return factor * min(1.0, (step + 1) / options.warmup_steps) if options.warmup_steps else factor


@dataclass
class Data:
    """source: labelled; target: unlabelled or with pseudo-labels, None for source only; test: for scores, if any;
    skipped: the bad images of all three."""

    source: SegmentationDataset
    target: SegmentationDataset | None = None
    test: SegmentationDataset | None = None
    skipped: Skipped = field(default_factory=Skipped, kw_only=True)


class Trainer:
    """Everything that a stage's training state consists of, and the loop over it."""

    def __init__(self, options: Options, stage: str, segmenter: DeepLab, data: Data) -> None:
        self.options, self.stage, self.segmenter, self.data = options, stage, segmenter, data
        self.device = next(segmenter.parameters()).device
        self.folder = Path(options.snapshot_dir)
        self.step = 0
        self.best = -1.0
        if options.select_on_target_labels and data.test is None:
            raise UserError(
                f"--select-on-target-labels: no labels for split {options.set!r} of {options.data_dir_target}; "
                f"expected some to select on: leave the flag out"
            )
        terms = build.terms(options, stage)
        table = data.source.table
        backbone, classifier = segmenter.parameter_groups()
        self.optimizer = torch.optim.SGD(
            [
                {"params": backbone, "base_lr": options.learning_rate * options.backbone_lr_mult},
                {"params": classifier, "base_lr": options.learning_rate * 10},
            ],
            lr=options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            fused=True,
        )
        self.optimizers: dict[str, torch.optim.Optimizer] = {"segmenter": self.optimizer}
        self.discriminators = nn.ModuleDict()
        self.memory: SourceMemory | None = None
        if data.target is not None:
            if terms.adversarial:
                self.discriminators["output"] = OutputDiscriminator(table.num_classes, options.discriminator_width)
            if terms.feature_adversarial:
                self.discriminators["feature"] = FeatureDiscriminator(
                    segmenter.feature_dim, options.discriminator_width
                )
            build.placed(self.discriminators, options)
            if terms.matching:
                split = ClassSplit(table.num_classes, table.stuff, table.things)
                gather = distributed.gather if distributed.size() > 1 else None
                self.memory = SourceMemory(split, segmenter.feature_dim, options.num_prototype, self.device, gather)
        if len(self.discriminators):
            self.optimizers["discriminator"] = torch.optim.Adam(
                [{"params": list(self.discriminators.parameters()), "base_lr": options.learning_rate_D}],
                lr=options.learning_rate_D,
                betas=(0.9, 0.99),
                fused=True,
            )
        networks = {"segmenter": segmenter, **self.discriminators}
        self.precision = Precision(options.amp, self.device, networks, self.optimizers)
        if options.compile:
            segmenter.compile()
        self.adaptation = Adaptation(
            segmenter, self.discriminators, self.memory, terms, amp_dtype=self.precision.autocast
        )
        if distributed.rank():  # the networks are built: from here on each process has its own random numbers
            build.seed_everything(options.random_seed + distributed.rank())

    def run(self) -> None:
        """Train from the current step to `--num-steps-stop`, or, with `--continue-train`, from where a run stopped."""
        options = self.options
        writer = _summary_writer(options)
        here = self._resume()
        # The first batch is read before anything is written: data that cannot be read at all leaves nothing behind.
        batches = self._batches()
        batches = chain(list(islice(batches, 1)), batches)
        distributed.check_equal(lambda: self._inputs() | self._sums())
        log = board = None
        if distributed.is_main():
            self._open_folder(keep=here)
            log = JsonLines(self.folder / "log.jsonl", up_to=self.step if here else 0)
            board = writer(options.log_dir, purge_step=self.step + 1) if writer else None
        meter = Meter(self.step)
        set_training_mode(self.segmenter, options.bn)
        planned = range(self.step, options.num_steps_stop or 0)
        bar = tqdm(planned, desc=self.stage, disable=distributed.no_bar(), leave=False)
        for step in bar:
            meter.add(self._iterate(step, batches))
            self.step = step + 1
            done = self.step == options.num_steps_stop
            save = done or self.step % options.save_pred_every == 0
            if save or self.step % options.log_every == 0:  # looks at the losses, so that no broken network is saved
                record = self._record(meter)
                if log is not None:
                    log.write(record)
                logger.info("%s", self._line(record))
                _to_board(board, record)
            if save:
                self._save(log, board)
        logger.info("%s done: %s", self.stage, self.folder / "last.pth")

    def _iterate(self, step: int, batches: Iterator[tuple[Batch, Batch | None]]) -> dict[str, Tensor]:
        factor = poly(step, self.options)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
        total: dict[str, Tensor] = {}
        for _ in range(self.options.iter_size):
            source, target = next(batches)
            losses = self.adaptation.iteration(source, target, self._backward, matching=step > 0)
            for name, value in losses.items():
                total[name] = total.get(name, 0) + value / self.options.iter_size
        distributed.average(self._averaged())
        self.precision.step()
        return total

    def _averaged(self) -> Iterator[Tensor]:
        """What an iteration makes different in each process, and must be the same for the next one."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                yield from (p.grad for p in group["params"] if p.grad is not None)
        if self.options.bn != "frozen":
            yield from running_statistics(self.segmenter)

    def _backward(self, loss: Tensor, player: str) -> None:
        self.precision.backward(loss / self.options.iter_size, player)

    def _batches(self) -> Iterator[tuple[Batch, Batch | None]]:
        source = self._endless(self.data.source, self.options.random_seed)
        if self.data.target is None:
            return ((batch, None) for batch in source)
        return zip(source, self._endless(self.data.target, self.options.random_seed + 1), strict=True)

    def _endless(self, dataset: SegmentationDataset, seed: int) -> Iterator[Batch]:
        options = self.options
        rank, size = distributed.rank(), distributed.size()
        drawn = self.step * options.iter_size * options.batch_size * size
        loader = DataLoader(
            Replacing(dataset) if dataset.skip_bad else dataset,
            batch_sampler=EndlessSampler(len(dataset), options.batch_size, seed, start=drawn, rank=rank, size=size),
            num_workers=options.num_workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else a loader draws from the state that training goes on with
        )
        for batch in loader:
            self.data.skipped.add(line for reasons in batch.get("skipped", ()) for line in reasons.splitlines())
            yield {key: batch[key].to(self.device, non_blocking=True) for key in ("image", "label") if key in batch}

    def _record(self, meter: Meter) -> dict[str, Any]:
        """What is logged: means of every term since the last line, rates, and how many classes are ready."""
        self._share_skipped()
        losses, rate = meter.flush(self.step)
        record: dict[str, Any] = {"step": self.step, **losses}
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            raise UserError(self._not_finite(", ".join(bad)))
        for player, optimizer in self.optimizers.items():
            record[f"lr_{player}"] = optimizer.param_groups[0]["lr"]
        for player, count in self.precision.skipped().items():
            record[f"skipped_{player}"] = int(to_host(count))
        record["lr_classifier"] = self.optimizer.param_groups[1]["lr"]
        if self.memory is not None:
            ready = to_host(torch.stack([self.memory.stuff.ready.sum(), self.memory.things.ready.sum()]))
            record |= {"ready_stuff": int(ready[0]), "ready_things": int(ready[1])}
        return record | {"iterations_per_s": round(rate, 3)}

    def _share_skipped(self) -> None:
        for reasons in distributed.objects(self.data.skipped.reasons):
            self.data.skipped.add(reasons)

    def _not_finite(self, what: str) -> str:
        last = self.folder / "last.pth"
        kept = f"the last good checkpoint is {last}" if last.exists() else "no checkpoint was written"
        return f"step {self.step}: {what} not finite; expected a number: lower --learning-rate or use --amp off; {kept}"

    def _line(self, record: dict[str, Any]) -> str:
        stop = self.options.num_steps_stop or 0
        rate = record["iterations_per_s"]
        left = timedelta(seconds=round((stop - self.step) / max(rate, 1e-9)))
        skipped = ("step", "iterations_per_s", "ready_stuff", "ready_things")
        terms = "  ".join(f"{k} {v:.4g}" for k, v in record.items() if k not in skipped and not k.startswith("lr_"))
        ready = ""
        if self.memory is not None:
            split = self.memory.split
            ready = (
                f"  ready {record['ready_stuff']}/{len(split.stuff)} stuff"
                f" {record['ready_things']}/{len(split.things)} things"
            )
        return f"{self.stage} {self.step}/{stop}  {terms}{ready}  {rate:.2f} it/s  {left} left"

    def _inputs(self) -> dict[str, Any]:
        """What every process must have been given alike."""
        target = self.data.target
        options = {config.flag(name): value for name, value in self.options.as_dict().items()}
        return options | {
            "source images": self.data.source.names,
            "target images": target.names if target else [],
            "step": self.step,
        }

    def _sums(self) -> dict[str, str]:
        """Sums over what every process must hold alike at the end of any iteration."""
        weights = [*self.segmenter.state_dict().values(), *self.discriminators.state_dict().values()]
        buffers = [self.memory.stuff, self.memory.things] if self.memory else []
        entries = [values for buffer in buffers for values in buffer.state_dict().values()]
        held = {"weights": weights, "source memory": entries}
        return {name: repr(sum(float(v.double().sum()) for v in values)) for name, values in held.items()}

    def _save(self, log: JsonLines | None, board: Any) -> None:
        """Write last.pth, score the network where the target has labels, and keep the best on request."""
        weights = [value for value in self.segmenter.state_dict().values() if value.is_floating_point()]
        if not torch.stack([value.isfinite().all() for value in weights]).all():
            raise UserError(self._not_finite("weights"))  # after a loss that still was
        distributed.check_equal(self._sums)
        self._write("last.pth", self.state_dict())
        if self.data.test is None:
            return
        options = self.options
        scores = evaluate(
            self.segmenter, self.data.test, amp=options.amp, num_workers=options.num_workers, skipped=self.data.skipped
        )
        set_training_mode(self.segmenter, self.options.bn)
        table = self.data.test.table
        name, ids = next(iter(table.subsets.items()))
        miou = scores.mean(ids)
        logger.info("%s %d  target mIoU %.2f (%s classes)", self.stage, self.step, 100 * miou, name)
        record = {"step": self.step, "miou": None if math.isnan(miou) else miou, "classes": name}
        if log is not None:
            log.write(record)
        _to_board(board, record)
        if self.options.select_on_target_labels and miou > self.best:
            self.best = miou
            self._write("best.pth", self.state_dict() | {"selected_by": "target labels"})
            self._write("last.pth", self.state_dict())  # knows the best score too, for resuming

    def _write(self, name: str, state: checkpoint.State) -> None:
        if distributed.is_main():
            checkpoint.save(self.folder / name, state)

    def _resume(self) -> bool:
        """Take up the run of `--continue-train`, if any: True where it goes on in its own folder.

        Raises UserError where another run would be written over.
        """
        path, last = build.resumed_from(self.options), self.folder / "last.pth"
        here = path is not None and path.resolve().parent == self.folder.resolve()
        if last.exists() and not here and not self.options.overwrite:
            raise UserError(
                f"--snapshot-dir: {last} is there from an earlier run; expected a new folder: add --continue-train to "
                f"resume it, --overwrite to replace it, or choose another --snapshot-dir"
            )
        if path is not None:
            state = checkpoint.load(path, self.stage, self.segmenter.architecture)
            self.load_state_dict(state, path)
            logger.info("continued from %s at step %d", path, self.step)
            for line in config.changes(state.get("options", {}), self.options, self.stage):
                logger.info("changed since that checkpoint: %s", line)
        return here

    def _open_folder(self, keep: bool) -> None:
        """Make the folder, without the checkpoints of another run, and note the configuration."""
        checkpoint.make_folder(self.folder)
        if not keep:
            for name in ("last.pth", "best.pth"):
                (self.folder / name).unlink(missing_ok=True)
        config.save(self.options, self.folder)
        self.data.skipped.list_in(self.folder, go_on=keep)
        logger.info("revision %s, torch %s, %s", revision(), torch.__version__, _device_name(self.device))
        logger.info("options (saved in %s)\n%s", self.folder / "config.json", config.describe(self.options, self.stage))

    def state_dict(self) -> checkpoint.State:
        """Everything that training goes on from. Of several processes all must call it."""
        rng, *rng_of_others = distributed.objects(checkpoint.rng_state())
        return {
            "stage": self.stage,
            "architecture": self.segmenter.architecture,
            "classes": plain(self.data.source.table),
            "segmenter": self.segmenter.state_dict(),
            "discriminators": self.discriminators.state_dict(),
            "memory": self.memory.state_dict() if self.memory else None,
            "optimizer": {player: optimizer.state_dict() for player, optimizer in self.optimizers.items()},
            "scalers": self.precision.state_dict(),
            "step": self.step,
            "best": self.best,
            "rng": rng,
            "rng_of_others": rng_of_others,
            "options": self.options.as_dict(),
        }

    def load_state_dict(self, state: checkpoint.State, path: Path) -> None:
        """Take over a whole training state; rates, momentum and weight decay stay those of the options.

        UserError when it was made with other terms or memory sizes.
        """
        try:
            self.discriminators.load_state_dict(state["discriminators"])
            if (self.memory is None) != (state["memory"] is None):
                raise ValueError("a memory on one side only")
            if self.memory is not None:
                self.memory.load_state_dict(state["memory"])
            for player, optimizer in self.optimizers.items():
                own = [{k: group[k] for k in _SETTINGS if k in group} for group in optimizer.param_groups]
                optimizer.load_state_dict(state["optimizer"][player])
                for group, settings in zip(optimizer.param_groups, own, strict=True):
                    group.update(settings)
                _lay_out(optimizer)
            self.precision.load_state_dict(state["scalers"])
            self.segmenter.load_state_dict(state["segmenter"])
            self.step, self.best = state["step"], state["best"]
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


class Meter:
    """Sums of the losses since the last flush, kept on the device until then."""

    def __init__(self, step: int) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._step, self._since = step, time.perf_counter()

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def flush(self, step: int) -> tuple[dict[str, float], float]:
        """Mean of every term, and iterations a second, since the last call."""
        sums = torch.stack([self._sums[name].float() for name in self._sums])
        distributed.average([sums])
        values = to_host(sums)
        means = {name: float(v) / self._counts[name] for name, v in zip(self._sums, values, strict=True)}
        now = time.perf_counter()
        rate = (step - self._step) / (now - self._since)
        self._sums, self._counts, self._step, self._since = {}, {}, step, now
        return means, rate


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Keep the state in memory as its parameter is: a fused step reads both in the order of memory."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _summary_writer(options: Options) -> Any:
    """The class that writes TensorBoard files; None where they are not wanted."""
    if not options.tensorboard:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("--tensorboard: the package tensorboard is missing; pip install tensorboard") from error
    return SummaryWriter


def _to_board(board: Any, record: dict[str, Any]) -> None:
    if board is not None:
        for name, value in record.items():
            if name != "step" and isinstance(value, (int, float)):
                board.add_scalar(name, value, record["step"])
        board.flush()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
