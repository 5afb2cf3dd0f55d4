"""A training run: the loop over a trainer's steps, with folder, log, checkpoints, and all ways to end."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import torch
from tqdm import tqdm

from model.networks.deeplab import DeepLab
from utils.options import config
from utils.options.flags import flag
from utils.reporting import notes, pictures, report
from utils.reporting.cost import Cost
from utils.reporting.report import Report
from utils.reporting.sinks import Console, JsonLines, Pictures, Sink, TensorBoard
from utils.setup import early, networks
from utils.states import checkpoint
from utils.system import distributed, interrupt, lock
from utils.system.errors import UserError, one_line
from utils.system.files import check_can_write, remove_leftovers
from utils.system.logs import logger, revision
from utils.system.transfer import to_host
from utils.training import faults
from utils.training.finite import copied
from utils.training.scoring import BEST, SELECTED, Scoring
from utils.training.trainer import Trainer

_UNREADABLE = 2**10  # above all signals
HOPELESS = 50  # skipped steps in a row, after which the scale of the loss has decreased by 2**50


def train(trainer: Trainer, script: str) -> None:
    """Train from the current step, or, with `--continue-train`, from where a run stopped, to `--num-steps-stop`.

    script: the one whose options are shown and compared. Raises Interrupted after a signal, when the step is finished
    and saved.
    """
    run = Run(trainer, script)
    with lock.held_for_all(run.folder), interrupt.StopRequest() as stop:
        run.loop(stop)


class Run:
    """What the loop keeps in addition to the trainer: the folder, the scores, the outputs, and what was logged."""

    def __init__(self, trainer: Trainer, script: str) -> None:
        self.trainer, self.options, self.script = trainer, trainer.options, script
        self.name = trainer.method.name
        self.folder = Path(self.options.snapshot_dir)
        self.scoring = Scoring(trainer)
        self.warned: set[str] = set()
        self.logged = 0  # step of the last line
        self.only_skipped: dict[str, int] = {}  # steps in a row that each player skipped, as of the last log line
        self.kept: checkpoint.State | None = None  # state of the last step that is known to be good
        self.log: JsonLines | None = None
        self.sinks: list[Sink] = []  # of one process

    def loop(self, stop: interrupt.StopRequest) -> None:
        trainer, options = self.trainer, self.options
        if options.tensorboard:
            TensorBoard.check()
        if options.tensorboard and distributed.is_main():
            check_can_write("--log-dir", Path(options.log_dir), folder=True)
        here = self._resume()
        with stop.at_once():
            # The first batch is read before anything is written: a run whose data cannot be read leaves no files.
            if trainer.steps < self._last_step:
                trainer.read_ahead()
            distributed.check_equal(lambda: self._inputs() | trainer.digests())
        if here and trainer.steps >= self._last_step and not self.scoring.due:
            logger.info(
                "attention: %s is already at step %d of %d, so nothing is trained and no file changes; to train on, "
                "give a larger --num-steps or --num-steps-stop",
                self.folder / "last.pth",
                trainer.steps,
                self._last_step,
            )
            return
        if here:
            self._step_back()
        self._keep()
        if distributed.is_main():
            self._open_folder(keep=here)
            self.log = JsonLines(self.folder / "log.jsonl", self._belongs if here else lambda _: False)
            self.sinks = self._outputs(self.log)
        trainer.method.set_training_mode()
        if self.scoring.due:
            self._score(stop)
            self._keep()
        trainer.meter.start(trainer.steps)
        bar = tqdm(range(trainer.steps, self._last_step), desc=self.name, disable=distributed.no_bar(), leave=False)
        for _ in bar:
            trainer.step()
            unreadable = self._read_ahead()
            # The same decision for all processes, so that they stay together.
            signal = distributed.largest(_UNREADABLE if unreadable else stop.number or 0)
            save = trainer.steps == self._last_step or trainer.steps % options.save_pred_every == 0
            log_due = save or trainer.steps % options.log_every == 0
            # Not after each step, which would wait for a GPU; a bad value stays bad until then.
            look = log_due or signal
            if look and not trainer.finite():
                assert self.kept is not None
                raise faults.find(trainer, self.kept, self.folder)
            if log_due:
                self._tell(self._record())
                self._warn(trainer.method.warnings(trainer.data.source.table.names))
            if save:
                self._save(stop, score=not signal)
            elif signal:
                self._write_last()
            if signal:
                distributed.barrier()  # otherwise, the first process would be ended while it writes its report
            if signal == _UNREADABLE:
                self._end_with(unreadable)
            if signal:
                raise interrupt.Interrupted(signal, self._resumable())
            if look:
                self._keep()
        for sink in self.sinks:
            sink.close()
        logger.info("%s done: %s", self.name, self.folder / "last.pth")
        if options.deterministic:
            logger.info("sha256 of its content: %s", checkpoint.digest(self.state_dict()))

    def _read_ahead(self) -> Exception | None:
        """Read the data of the next step, if there is one; returns the error if that fails."""
        try:
            if self.trainer.steps < self._last_step:
                self.trainer.read_ahead()
        except Exception as error:  # whatever the error is, the steps made so far are worth saving
            return error
        return None

    def _end_with(self, unreadable: Exception | None) -> NoReturn:
        """End a saved run whose data can no longer be read, in this process or in another one."""
        if isinstance(unreadable, UserError):
            raise UserError(f"{one_line(unreadable)}; {self._resumable()}") from unreadable
        if unreadable is not None:
            logger.info("%s", self._resumable())
            raise unreadable
        distributed.barrier()  # which ends with the process that raises
        raise AssertionError("a process that could not read its data has continued")

    def _outputs(self, log: JsonLines) -> list[Sink]:
        options, start = self.options, self.trainer.steps
        console = Console(self.name, self._last_step, self.trainer.method.totals())
        images = options.batch_size * options.iter_size * distributed.size()
        domains = 1 if self.trainer.data.target is None else 2
        files = max(1, options.keep_last) + options.select_on_target_labels + (options.select_by != "none")
        disk, free = files * checkpoint.nbytes(self.kept or {}), shutil.disk_usage(self.folder).free
        cost = Cost(start, self._last_step, images, domains, disk, free)
        board = [TensorBoard(Path(options.log_dir), start)] if options.tensorboard else []
        pages = [Pictures(self.folder), Report(self.folder)] if options.report else []
        return [log, console, cost, *board, *pages]

    @property
    def _last_step(self) -> int:
        return self.options.num_steps_stop or 0

    # The beginning.

    def _resume(self) -> bool:
        """Load the run of `--continue-train`, if any. Returns True if it continues in its own folder.

        Raises UserError if another run would be overwritten, or if there is nothing left to do or to write.
        """
        path, last = networks.resumed_from(self.options), self.folder / "last.pth"
        here = path is not None and path.resolve().parent == self.folder.resolve()
        early.refuse_used(self.folder, path, overwrite=self.options.overwrite)
        if path is not None:
            method = self.trainer.method
            architecture = method.segmenter.architecture if "segmenter" in method.networks else {}
            state = checkpoint.load(path, self.name, architecture)
            for line in config.changes(state.get("options", {}), self.options, self.script):
                logger.info("attention: changed since that checkpoint: %s", line)
            self.load_state_dict(state, path)
            if not here:  # best.pth and selected.pth are in the other folder
                self.scoring.forget(BEST)
                self.scoring.forget(SELECTED)
            if self.trainer.steps >= self._last_step and path.resolve() != last.resolve():
                raise UserError(
                    f"--continue-train: {path} is at step {self.trainer.steps}, expected one before step "
                    f"{self._last_step}, where this run stops; give a later --num-steps-stop, or load only its weights "
                    f"with --restore-from"
                )
            logger.info("continued from %s at step %d", path, self.trainer.steps)
        return here

    def _step_back(self) -> None:
        """If the run continues in its folder from another checkpoint than last.pth, make this one last.pth, and remove
        best.pth and selected.pth, with their scores, if they were saved after it.

        last.pth comes first: if the run is killed before its next checkpoint, the same state is resumed.
        """
        last, path = self.folder / "last.pth", networks.resumed_from(self.options)
        assert path is not None
        if path.resolve() == last.resolve():
            return
        later: list[str] = []
        if distributed.is_main():
            found = [name for name in (BEST, SELECTED) if (self.folder / name).exists()]
            later = [name for name in found if checkpoint.read(self.folder / name)["step"] > self.trainer.steps]
        for name in distributed.objects(later)[0]:  # all processes have the same scores
            self.scoring.forget(name)
        self._write_last()
        for name in later:
            (self.folder / name).unlink()

    def _inputs(self) -> dict[str, Any]:
        """What must be the same in every process."""
        data = self.trainer.data
        options = {flag(name): value for name, value in self.options.as_dict().items()}
        return options | {
            "source images": data.source.names,
            "target images": data.target.names if data.target else [],
            "step": self.trainer.steps,
        }

    def _open_folder(self, keep: bool) -> None:
        """Create the folder, remove the checkpoints of another run, and save the configuration."""
        remove_leftovers(self.folder)
        if not keep:
            named = [self.folder / name for name in ("last.pth", BEST, SELECTED, faults.NAME)]
            for path in named + checkpoint.numbered(self.folder):
                path.unlink(missing_ok=True)
            report.clear(self.folder)
        config.save(self.options, self.folder)
        self.trainer.data.skipped.list_in(self.folder, go_on=keep)
        logger.info("revision %s, torch %s, %s", revision(), torch.__version__, notes.device_name(self.trainer.device))
        shown = config.describe(self.options, self.script)
        logger.info("options (saved in %s)\n%s", self.folder / "config.json", shown)
        images = self.options.batch_size * self.options.iter_size * distributed.size()
        domains = "of each domain " if self.trainer.data.target is not None else ""
        logger.info("processes %d, images %sper step: %d", distributed.size(), domains, images)
        if self.options.report:
            report.begin(
                self.folder,
                self.options,
                self.script,
                self._images(),
                self._segmenter(),
                self.trainer.device,
                step=self.trainer.steps if keep else 0,
                processes=distributed.size(),
            )

    def _belongs(self, record: dict[str, Any]) -> bool:
        """Whether a line of the log belongs to the loaded state."""
        scores = "miou" in record or "snd" in record
        again = self.scoring.due and record["step"] == self.trainer.steps and scores
        return record["step"] <= self.trainer.steps and not again

    # What is logged.

    def _warn(self, lines: Iterable[str]) -> None:
        """Log each warning once."""
        for line in (line for line in lines if line not in self.warned):
            self.warned.add(line)
            logger.warning("%s %d: %s", self.name, self.trainer.steps, line)

    def _tell(self, record: dict[str, Any]) -> None:
        for sink in self.sinks:
            sink.record(record)

    def _record(self) -> dict[str, Any]:
        """The content of a log line: the mean of every term since the last line, rates, and the method's counts."""
        trainer = self.trainer
        for reasons in distributed.objects(trainer.data.skipped.reasons):
            trainer.data.skipped.add(reasons)
        steps = trainer.steps - self.logged
        self.logged = trainer.steps
        losses, rates = trainer.meter.flush(trainer.steps)
        record: dict[str, Any] = {"step": trainer.steps, **losses}
        for player, optimizer in trainer.method.optimizers.items():
            for group in optimizer.param_groups:
                record[f"lr_{group.get('name', player)}"] = group["lr"]
        for player, count in trainer.precision.skipped().items():
            record[f"skipped_{player}"] = skipped = int(to_host(count))
            self.only_skipped[player] = self.only_skipped.get(player, 0) + steps if skipped == steps else 0
            if self.only_skipped[player] >= HOPELESS:
                raise UserError(
                    f"step {trainer.steps}: the last {self.only_skipped[player]} steps of the {player} were all "
                    f"skipped because of an overflow, expected few; use --amp bf16 or off and --continue-train"
                )
        counts = trainer.method.counts()
        if counts:
            values = to_host(torch.stack([count.long() for count in counts.values()]))
            record |= {name: int(value) for name, value in zip(counts, values, strict=True)}
        return record | rates

    # What is saved.

    def _save(self, stop: interrupt.StopRequest, *, score: bool) -> None:
        """Write last.pth, score the network, and keep the best on request.

        score: False leaves the score to the resumed run.
        """
        distributed.check_equal(self.trainer.digests)
        self.scoring.due = self.scoring.possible
        self._write_last()
        if self.scoring.due and score:
            self._score(stop)
        if self.options.report and distributed.is_main():
            self._show()
        self.trainer.meter.start(self.trainer.steps)

    def _show(self) -> None:
        """Pictures of this step for the outputs, and the report."""
        trainer, segmenter = self.trainer, self._segmenter()
        notes.progress(self.folder, trainer.steps, trainer.device)
        if segmenter is not None:
            memory = getattr(trainer.method, "memory", None)
            step, last = trainer.steps, trainer.steps == self._last_step
            report.look(
                self.folder, self.options, self._images(), segmenter, step, self.sinks, memory=memory, last=last
            )
        with report.harmless("pictures of the method"):
            for name, panel in trainer.panels().items():
                picture = pictures.picture(panel.cpu(), trainer.data.source.table)
                for sink in self.sinks:
                    sink.panel(trainer.steps, name, picture)
        for sink in self.sinks:
            sink.flush()

    def _images(self) -> report.Images:
        data = self.trainer.data
        return report.Images(data.source, data.target, data.test)

    def _segmenter(self) -> DeepLab | None:
        method = self.trainer.method
        return method.segmenter if "segmenter" in method.networks else None

    def _write_last(self) -> None:
        if self.log is not None:
            self.log.sync()
        checkpoint.save_for_all(self.folder / "last.pth", self.state_dict())
        if distributed.is_main():
            checkpoint.keep_last(self.folder, self.trainer.steps, self.options.keep_last)

    def _score(self, stop: interrupt.StopRequest) -> None:
        """Score the network of last.pth, which is then written again, so that a resumed run knows the score.

        A signal does not wait for the end of it; the resumed run scores instead.
        """
        try:
            with stop.at_once():
                scores = self.scoring.measure()
        except interrupt.Interrupted as error:
            raise interrupt.Interrupted(error.code - 128, self._resumable()) from None
        outcome = self.scoring.accept(scores)
        for record in outcome.records:
            self._tell(record)
        self._warn(outcome.warnings)
        test = self.trainer.data.test
        if test is not None and scores.labelled is not None and self.options.report and distributed.is_main():
            notes.write_scores(self.folder, self.trainer.steps, scores.labelled, test.table)
        for name, chosen_by in outcome.kept.items():
            checkpoint.save_for_all(self.folder / name, self.state_dict() | {"selected_by": chosen_by})
        self._write_last()

    def _resumable(self) -> str:
        return (
            f"step {self.trainer.steps} is saved in {self.folder / 'last.pth'}; to go on, repeat the command with "
            f"--continue-train, without --overwrite or --restore-from"
        )

    def _keep(self) -> None:
        self.kept = copied(self.state_dict(), self.kept)

    def state_dict(self) -> checkpoint.State:
        """The state of the trainer and of the loop. If there are several processes, all must call it."""
        return self.trainer.state_dict() | self.scoring.state_dict() | {"logged": self.logged}

    def load_state_dict(self, state: checkpoint.State, path: Path) -> None:
        """See `Trainer.load_state_dict`."""
        self.trainer.load_state_dict(state, path)
        self.scoring.load_state_dict(state)
        self.logged = state.get("logged", self.trainer.steps)
