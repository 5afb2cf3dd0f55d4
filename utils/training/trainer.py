"""The training loop of both stages: iterations, log, checkpoints, scores, and stopping where numbers go wrong."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset.base import SegmentationDataset
from dataset.sampler import EndlessSampler
from dataset.skip import Replacing
from dataset.tables import plain
from model.methods.bafft import Adaptation, Batch
from model.networks.batchnorm import running_statistics, set_training_mode
from model.networks.deeplab import DeepLab
from model.networks.discriminator import FeatureDiscriminator, OutputDiscriminator
from model.terms.memory import SourceMemory
from model.terms.regions import ClassSplit
from utils.options import config
from utils.options.config import Options
from utils.options.flags import flag
from utils.prediction.evaluation import evaluate
from utils.reporting.sinks import JsonLines, TensorBoard
from utils.setup import build
from utils.states import checkpoint
from utils.system import distributed, interrupt, lock, machine
from utils.system.errors import UserError
from utils.system.files import check_can_write, remove_leftovers
from utils.system.logs import logger, revision
from utils.system.precision import Precision
from utils.system.skipped import Skipped
from utils.system.transfer import to_host
from utils.training.finite import all_finite, copied, not_finite
from utils.training.meter import Meter
from utils.training.optimizers import discriminator_optimizer, poly, segmenter_optimizer, set_rates, take_over

HOPELESS = 50  # steps left out in a row: the scale of the loss has then come down by 2**50


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
        self.began = (0, 0)  # step from which this process trains, and samples of each domain drawn before it
        self.best = -1.0
        self.score_due = False  # of a checkpoint that was written but not yet scored
        self.meter = Meter()
        self.logged = 0  # step of the last line
        self.only_skipped: dict[str, int] = {}  # steps of each player in a row that an overflow left out, by lines
        self.kept: checkpoint.State | None = None  # state of the last step that is known to be good
        if options.select_on_target_labels and data.test is None:
            raise UserError(
                f"--select-on-target-labels: no labels for split {options.set!r} of {options.data_dir_target}; "
                f"expected some to select on: leave the flag out"
            )
        terms = build.terms(options, stage)
        table = data.source.table
        self.optimizer = segmenter_optimizer(segmenter, options)
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
            build.to_device(self.discriminators, options)
            if terms.matching:
                split = ClassSplit(table.num_classes, table.stuff, table.things)
                gather = distributed.gather if distributed.size() > 1 else None
                self.memory = SourceMemory(split, segmenter.feature_dim, options.num_prototype, self.device, gather)
        if len(self.discriminators):
            self.optimizers["discriminator"] = discriminator_optimizer(self.discriminators, options)
        networks = {"segmenter": segmenter, **self.discriminators}
        self.precision = Precision(options.amp, self.device, networks, self.optimizers)
        if options.compile:
            segmenter.compile(dynamic=False)  # a graph for each domain's size: one for all takes longer
        self.adaptation = Adaptation(
            segmenter, self.discriminators, self.memory, terms, amp_dtype=self.precision.autocast
        )
        if distributed.rank():  # the networks are built: from here on each process has its own random numbers
            machine.seed_everything(options.random_seed + distributed.rank())

    def run(self) -> None:
        """Train from the current step to `--num-steps-stop`, or, with `--continue-train`, from where a run stopped.

        Raises Interrupted after a signal, once the iteration is finished and saved.
        """
        alone = lock.held(self.folder) if distributed.is_main() else nullcontext()
        with alone, interrupt.StopRequest() as stop:
            self._run(stop)

    def _run(self, stop: interrupt.StopRequest) -> None:
        options = self.options
        if options.tensorboard:
            TensorBoard.check()
        if options.tensorboard and distributed.is_main():
            check_can_write("--log-dir", Path(options.log_dir), folder=True)
        here = self._resume()
        with stop.at_once():
            # The first batch is read before anything is written: data that cannot be read at all leaves nothing behind.
            batches = self._batches()
            batches = chain(list(islice(batches, 1)), batches)
            distributed.check_equal(lambda: self._inputs() | self._sums())
        log = board = None
        if distributed.is_main():
            self._open_folder(keep=here)
            log = JsonLines(self.folder / "log.jsonl", self._holds if here else lambda _: False)
            board = TensorBoard(Path(options.log_dir), self.step) if options.tensorboard else None
        set_training_mode(self.segmenter, options.bn)
        if self.score_due:
            self._score(log, board, stop)
        self.meter.start(self.step)
        self._keep()
        planned = range(self.step, options.num_steps_stop or 0)
        bar = tqdm(planned, desc=self.stage, disable=distributed.no_bar(), leave=False)
        for step in bar:
            self.meter.add(self._iterate(step, batches))
            self.step = step + 1
            signal = distributed.largest(stop.number or 0)  # for all processes the same, or they would part
            save = self.step == options.num_steps_stop or self.step % options.save_pred_every == 0
            report = save or self.step % options.log_every == 0
            # Not after each step, which would wait for a GPU: what is broken stays so until then.
            look = report or signal
            if look and not self._finite():
                self._stop_on_fault()
            if report:
                record = self._record()
                if log is not None:
                    log.record(record)
                logger.info("%s", self._line(record))
                if board is not None:
                    board.record(record)
            if save:
                self._save(log, board, stop, score=not signal)
            elif signal:
                self._write_last(log)
            if signal:
                raise interrupt.Interrupted(signal, self._resumable())
            if look:
                self._keep()
        if log is not None:
            log.close()
        logger.info("%s done: %s", self.stage, self.folder / "last.pth")
        if options.deterministic:
            logger.info("sha256 of its content: %s", checkpoint.digest(self.state_dict()))

    def _iterate(self, step: int, batches: Iterator[tuple[Batch, Batch | None]]) -> dict[str, Tensor]:
        set_rates(self.optimizers.values(), poly(step, self.options))
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        total: dict[str, Tensor] = {}
        for _ in range(self.options.iter_size):
            with self.meter.waiting():
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
        loader = DataLoader(
            Replacing(dataset) if dataset.skip_bad else dataset,
            batch_sampler=self._sampler(dataset, seed),
            num_workers=self.options.num_workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else a loader draws from the state that training goes on with
        )
        for batch in interrupt.shielded(loader):
            self.data.skipped.add(line for reasons in batch.get("skipped", ()) for line in reasons.splitlines())
            yield {key: batch[key].to(self.device, non_blocking=True) for key in ("image", "label") if key in batch}

    def _sampler(self, dataset: SegmentationDataset, seed: int) -> EndlessSampler:
        """The samples from the current step on."""
        rank, size = distributed.rank(), distributed.size()
        return EndlessSampler(len(dataset), self.options.batch_size, seed, start=self._drawn(), rank=rank, size=size)

    def _drawn(self) -> int:
        """Samples of each domain that all processes have drawn up to the current step."""
        step, drawn = self.began
        return drawn + (self.step - step) * self.options.iter_size * self.options.batch_size * distributed.size()

    def _finite(self) -> bool:
        """Nothing that a loss or gradient which is no number leaves its mark on has such a mark, in any process."""
        own = all_finite([*self.meter.sums.values(), *self._values().values()])
        return not distributed.largest(int(not own))

    def _values(self) -> dict[str, Tensor]:
        """Weights and statistics."""
        named = self.segmenter.state_dict() | self.discriminators.state_dict(prefix="discriminators.")
        return {name: value for name, value in named.items() if value.is_floating_point()}

    def _keep(self) -> None:
        self.kept = copied(self.state_dict(), self.kept)

    def _stop_on_fault(self) -> NoReturn:
        """Go back to the last good state, and on from there to the first step that breaks; save the state before it."""
        assert self.kept is not None
        found, name = self.step, "nonfinite.pth"
        path, last = self.folder / name, self.folder / "last.pth"
        self._write(name, self.kept)
        self.load_state_dict(copy.deepcopy(self.kept), path)
        if self.step < found - 1:
            logger.info("not finite between step %d and %d: going through them one by one", self.step + 1, found)
        batches = self._batches()
        what = f"something up to step {found} was not finite, but is on repeating it (see --deterministic)"
        for step in range(self.step, found):
            losses = self._iterate(step, batches)
            self.meter.add(losses)
            if not self._finite():
                faults = distributed.objects(self._fault(losses))
                what = f"step {step + 1}: {max(faults)[1]}"  # of the process whose loss is not, if it is a loss
                break
            self.step = step + 1
            self._keep()
        self._write(name, self.kept)
        other = f"the last good checkpoint is {last}" if last.exists() else "no other checkpoint was written"
        raise UserError(
            f"{what}; --continue-train {path} repeats it from the state before: try a lower --learning-rate, or "
            f"--amp off; {other}"
        )

    def _fault(self, losses: dict[str, Tensor]) -> tuple[bool, str]:
        """Whether a loss of the step just made is no number; and what of it is none, its terms and images."""
        modules = {"": self.segmenter, "discriminators.": self.discriminators}
        gradients = {
            f"gradient of {prefix}{name}": parameter.grad
            for prefix, module in modules.items()
            for name, parameter in module.named_parameters()
            if parameter.grad is not None
        }
        terms = not_finite(losses)
        broken = terms or not_finite(gradients) or not_finite(self._values())
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        values = ", ".join(f"{name} {float(to_host(value)):.4g}" for name, value in losses.items())
        return bool(terms), f"{', '.join(broken[:3])}{more} not finite ({values}); images: {self._names()}"

    def _names(self) -> str:
        """The images of the next step, for a message."""
        parts = []
        for role, dataset, seed in (("source", self.data.source, 0), ("target", self.data.target, 1)):
            if dataset is not None:
                batches = islice(self._sampler(dataset, self.options.random_seed + seed), self.options.iter_size)
                parts.append(f"{role} " + " ".join(dataset.names[index] for batch in batches for index, _ in batch))
        return ", ".join(parts)

    def _record(self) -> dict[str, Any]:
        """What is logged: means of every term since the last line, rates, and how many classes are ready."""
        self._share_skipped()
        steps = self.step - self.logged
        self.logged = self.step
        losses, rates = self.meter.flush(self.step)
        record: dict[str, Any] = {"step": self.step, **losses}
        for player, optimizer in self.optimizers.items():
            record[f"lr_{player}"] = optimizer.param_groups[0]["lr"]
        for player, count in self.precision.skipped().items():
            record[f"skipped_{player}"] = skipped = int(to_host(count))
            self.only_skipped[player] = self.only_skipped.get(player, 0) + steps if skipped == steps else 0
            if self.only_skipped[player] >= HOPELESS:
                raise UserError(
                    f"step {self.step}: the last {self.only_skipped[player]} steps of the {player} were all left out "
                    f"for an overflow, expected few; use --amp bf16 or off and --continue-train"
                )
        record["lr_classifier"] = self.optimizer.param_groups[1]["lr"]
        if self.memory is not None:
            ready = to_host(torch.stack([self.memory.stuff.ready.sum(), self.memory.things.ready.sum()]))
            record |= {"ready_stuff": int(ready[0]), "ready_things": int(ready[1])}
        return record | rates

    def _share_skipped(self) -> None:
        for reasons in distributed.objects(self.data.skipped.reasons):
            self.data.skipped.add(reasons)

    def _line(self, record: dict[str, Any]) -> str:
        stop = self.options.num_steps_stop or 0
        rate = record["iterations_per_s"]
        left = timedelta(seconds=round((stop - self.step) / max(rate, 1e-9)))
        skipped = ("step", *Meter.RATES, "ready_stuff", "ready_things")
        terms = "  ".join(f"{k} {v:.4g}" for k, v in record.items() if k not in skipped and not k.startswith("lr_"))
        ready = ""
        if self.memory is not None:
            split = self.memory.split
            ready = (
                f"  ready {record['ready_stuff']}/{len(split.stuff)} stuff"
                f" {record['ready_things']}/{len(split.things)} things"
            )
        wait = f"  {record['data_wait']:.0%} waiting for images" if record["data_wait"] >= 0.05 else ""
        return f"{self.stage} {self.step}/{stop}  {terms}{ready}  {rate:.2f} it/s{wait}  {left} left"

    def _inputs(self) -> dict[str, Any]:
        """What every process must have been given alike."""
        target = self.data.target
        options = {flag(name): value for name, value in self.options.as_dict().items()}
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

    def _save(
        self, log: JsonLines | None, board: TensorBoard | None, stop: interrupt.StopRequest, *, score: bool
    ) -> None:
        """Write last.pth, score the network where the target has labels, and keep the best on request.

        score: False leaves that to the run that goes on.
        """
        distributed.check_equal(self._sums)
        self.score_due = self.data.test is not None
        self._write_last(log)
        if self.score_due and score:
            self._score(log, board, stop)

    def _write_last(self, log: JsonLines | None) -> None:
        if log is not None:
            log.sync()
        self._write("last.pth", self.state_dict())
        if distributed.is_main():
            checkpoint.keep_last(self.folder, self.step, self.options.keep_last)

    def _write(self, name: str, state: checkpoint.State) -> None:
        if distributed.is_main():
            checkpoint.save(self.folder / name, state)

    def _score(self, log: JsonLines | None, board: TensorBoard | None, stop: interrupt.StopRequest) -> None:
        """Score the network of last.pth, which is written anew, so that resuming knows of it.

        A signal does not wait for the end: the run that goes on scores.
        """
        test, options = self.data.test, self.options
        assert test is not None
        try:
            with stop.at_once():
                scores = evaluate(
                    self.segmenter, test, amp=options.amp, num_workers=options.num_workers, skipped=self.data.skipped
                )
        except interrupt.Interrupted as error:
            raise interrupt.Interrupted(error.code - 128, self._resumable()) from None
        source = self.data.source
        main = test.table.main_subset(np.delete(source.train_ids(), list(source.absent_ids)).tolist())
        others = {name: scores.mean(ids) for name, ids in test.table.subsets.items()}
        miou = others.pop(main)
        shown = ", ".join(f"{100 * mean:.2f} ({name} classes)" for name, mean in {main: miou, **others}.items())
        logger.info("%s %d  target mIoU %s", self.stage, self.step, shown)
        record = {"step": self.step, "miou": _number(miou), "classes": main}
        record |= {f"miou_{name}": _number(mean) for name, mean in others.items()}
        if log is not None:
            log.record(record)
        if board is not None:
            board.record(record)
        self.score_due = False
        if self.options.select_on_target_labels and miou > self.best:
            self.best = miou
            self._write("best.pth", self.state_dict() | {"selected_by": "target labels"})
        self._write_last(log)

    def _resumable(self) -> str:
        return (
            f"step {self.step} is saved in {self.folder / 'last.pth'}; to go on, repeat the command with "
            f"--continue-train, without --overwrite or --restore-from"
        )

    def _holds(self, record: dict[str, Any]) -> bool:
        """Does a line of the log belong to the state that is taken up?"""
        again = self.score_due and record["step"] == self.step and "miou" in record
        return record["step"] <= self.step and not again

    def _resume(self) -> bool:
        """Take up the run of `--continue-train`, if any: True where it goes on in its own folder.

        Raises UserError where another run would be written over, or nothing is left to do and to write.
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
            stop = self.options.num_steps_stop or 0
            if self.step >= stop and path.resolve() != last.resolve():
                raise UserError(
                    f"--continue-train: {path} is at step {self.step}, expected one before step {stop}, where this run "
                    f"stops; give a later --num-steps-stop, or take its weights alone with --restore-from"
                )
            logger.info("continued from %s at step %d", path, self.step)
            for line in config.changes(state.get("options", {}), self.options, self.stage):
                logger.info("changed since that checkpoint: %s", line)
        return here

    def _open_folder(self, keep: bool) -> None:
        """Make the folder, without the checkpoints of another run, and note the configuration."""
        remove_leftovers(self.folder)
        if not keep:
            named = [self.folder / name for name in ("last.pth", "best.pth", "nonfinite.pth")]
            for path in named + checkpoint.numbered(self.folder):
                path.unlink(missing_ok=True)
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
            "drawn": self._drawn(),
            "best": self.best,
            "score_due": self.score_due,
            "meter": self.meter.state_dict(),
            "logged": self.logged,
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
                take_over(optimizer, state["optimizer"][player])
            self.precision.load_state_dict(state["scalers"])
            self.segmenter.load_state_dict(state["segmenter"])
            self.step, self.best = state["step"], state["best"]
            self.began = (self.step, state["drawn"]) if "drawn" in state else (0, 0)  # there was no count at first
            self.score_due = state.get("score_due", False) and self.data.test is not None
            self.meter.load_state_dict(state.get("meter", {}), self.device)
            self.logged = state.get("logged", self.step)
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


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
