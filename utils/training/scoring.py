"""The scores of a run's checkpoints, and what follows from them: log lines, warnings, best.pth and selected.pth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.prediction.evaluation import evaluate
from utils.prediction.label_free import LabelFree, label_free
from utils.prediction.metrics import ConfusionMatrix, number_or_none
from utils.reporting import notes
from utils.states import checkpoint
from utils.system import distributed
from utils.system.errors import UserError
from utils.training.trainer import Trainer

BEST, SELECTED = "best.pth", "selected.pth"
"""The checkpoints that are kept for the highest score against target labels, and for the highest without labels."""
NOTICEABLE = 0.001  # share of the pixels that a class must have had, so that its disappearance is told


@dataclass(frozen=True)
class Scores:
    """labelled: against the target's labels; unlabelled: without labels. None is what the run does not compute."""

    labelled: ConfusionMatrix | None
    unlabelled: LabelFree | None


@dataclass(frozen=True)
class Outcome:
    """What follows from the scores of a checkpoint.

    records: log lines. warnings: a sentence each. kept: the names under which the checkpoint is kept because no other
    of this run scored higher, each with what was compared.
    """

    records: list[dict[str, Any]]
    warnings: list[str]
    kept: dict[str, str]


class Scoring:
    """Scores a trainer's network, and remembers what later scores are compared with.

    Attributes:
        possible: whether there is anything to score on.
        due: whether last.pth was written but not yet scored.
        highest: the score of the checkpoint that has each name.
    """

    def __init__(self, trainer: Trainer) -> None:
        """Raises UserError if `--select-on-target-labels` is given and there are no such labels."""
        options, data = trainer.options, trainer.data
        if options.select_on_target_labels and data.test is None:
            raise UserError(
                f"--select-on-target-labels: no labels for split {options.set!r} of {options.data_dir_target}; "
                f"expected some to select on: leave the flag out"
            )
        self._trainer = trainer
        self.possible = data.test is not None or data.unlabelled is not None
        self.due = False
        self.highest = dict.fromkeys((BEST, SELECTED), -math.inf)
        self._shares: list[float] = []  # of target pixels for which each class was predicted at the last score

    def measure(self) -> Scores:
        """Score the network as it is. If there are several processes, all must call it."""
        trainer, labelled = self._trainer, None
        options, data = trainer.options, trainer.data
        if data.test is not None:
            labelled = evaluate(
                trainer.method.segmenter,
                data.test,
                amp=options.amp,
                num_workers=options.num_workers,
                skipped=data.skipped,
            )
        return Scores(labelled, self._label_free())

    def _label_free(self) -> LabelFree | None:
        """The label-free scores, on images that are spread evenly over the target's list."""
        images, options = self._trainer.data.unlabelled, self._trainer.options
        if images is None:
            return None
        found = None
        if distributed.is_main():
            number = min(options.label_free_images, len(images))
            chosen = np.linspace(0, len(images) - 1, number).round().astype(int).tolist()
            found = label_free(
                self._trainer.method.segmenter, images, chosen, amp=options.amp, num_workers=options.num_workers
            )
        return distributed.objects(found)[0]

    def accept(self, scores: Scores) -> Outcome:
        """Take the scores for those of last.pth, and remember them."""
        self.due = False
        step, options = self._trainer.steps, self._trainer.options
        outcome = Outcome([], [], {})
        if scores.unlabelled is not None:
            values = {name: getattr(scores.unlabelled, name) for name in ("snd", "infomax", "agreement")}
            outcome.records.append({"step": step} | {name: number_or_none(value) for name, value in values.items()})
            outcome.warnings.extend(self._disappeared(scores.unlabelled))
            if self._is_higher(SELECTED, values.get(options.select_by, -math.inf)):
                outcome.kept[SELECTED] = options.select_by
        if scores.labelled is not None:
            test, source = self._trainer.data.test, self._trainer.data.source
            assert test is not None
            main = test.table.main_subset(np.delete(source.train_ids(), list(source.absent_ids)).tolist())
            outcome.records.append(notes.score_record(step, scores.labelled, test.table, main))
            miou = scores.labelled.mean(test.table.subsets[main])
            if options.select_on_target_labels and self._is_higher(BEST, miou):
                outcome.kept[BEST] = "target labels"
        return outcome

    def _is_higher(self, name: str, score: float) -> bool:
        """Whether a score is higher than that of the checkpoint of this name; it is remembered then."""
        higher = score > self.highest[name]
        if higher:
            self.highest[name] = score
        return higher

    def _disappeared(self, scores: LabelFree) -> list[str]:
        """A warning for each class that was predicted at the previous score and is no longer predicted."""
        before, self._shares = self._shares, scores.share.tolist()
        names = self._trainer.data.source.table.names
        return [
            f"no pixel of {scores.images} target images is {name} any more ({share:.1%} of their pixels were): the "
            f"network forgets a class"
            for name, share, now in zip(names, before, self._shares)
            if share >= NOTICEABLE and now == 0
        ]

    def forget(self, name: str) -> None:
        """Keep the next checkpoint under this name, whatever its score is."""
        self.highest[name] = -math.inf

    def state_dict(self) -> dict[str, Any]:
        highest = {"best": self.highest[BEST], "selected": self.highest[SELECTED]}
        return {**highest, "shares": self._shares, "score_due": self.due}

    def load_state_dict(self, state: checkpoint.State) -> None:
        """state: that of a whole run."""
        self.highest[BEST] = state.get("best", -math.inf)
        self._shares = state.get("shares", [])
        # Two kinds of scores cannot be compared.
        if state.get("options", {}).get("select_by") == self._trainer.options.select_by:
            self.highest[SELECTED] = state.get("selected", -math.inf)
        self.due = state.get("score_due", False) and self.possible
