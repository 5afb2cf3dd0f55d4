"""Which scores are remembered, and which checkpoints are kept for them. The scripts' tests do the rest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from utils.prediction.label_free import LabelFree
from utils.training.scoring import BEST, SELECTED, Scores, Scoring


@pytest.fixture
def scoring() -> Scoring:
    """Of a run with three classes, at step 7, that selects by infomax."""
    options = SimpleNamespace(select_on_target_labels=False, select_by="infomax")
    source = SimpleNamespace(table=SimpleNamespace(names=("road", "sky", "car")))
    data = SimpleNamespace(test=None, unlabelled=["an image"], source=source)
    return Scoring(cast(Any, SimpleNamespace(options=options, data=data, steps=7)))


def unlabelled(infomax: float, share: tuple[float, float, float] = (0.5, 0.3, 0.2)) -> Scores:
    return Scores(None, LabelFree(snd=1.0, infomax=infomax, agreement=0.9, share=np.array(share), images=4))


def test_a_checkpoint_is_kept_if_no_earlier_one_scored_as_high(scoring):
    kept = [scoring.accept(unlabelled(infomax)).kept for infomax in (1.0, 1.0, 0.5, 1.5, float("nan"))]
    assert kept == [{SELECTED: "infomax"}, {}, {}, {SELECTED: "infomax"}, {}]
    assert scoring.state_dict() == {"best": -np.inf, "selected": 1.5, "shares": [0.5, 0.3, 0.2], "score_due": False}
    scoring.forget(SELECTED)
    assert scoring.accept(unlabelled(0.1)).kept == {SELECTED: "infomax"}


def test_a_score_is_a_log_line_and_is_no_longer_due(scoring):
    scoring.due = True
    outcome = scoring.accept(unlabelled(float("nan")))
    assert outcome.records == [{"step": 7, "snd": 1.0, "infomax": None, "agreement": 0.9}] and not scoring.due


def test_only_a_class_that_had_a_thousandth_of_the_pixels_is_missed(scoring):
    assert scoring.accept(unlabelled(1.0, (0.999, 0.001, 0.0))).warnings == []
    [said] = scoring.accept(unlabelled(1.0, (1.0, 0.0, 0.0))).warnings
    assert said == (
        "no pixel of 4 target images is sky any more (0.1% of their pixels were): the network forgets a class"
    )
    assert scoring.accept(unlabelled(1.0, (0.9995, 0.0005, 0.0))).warnings == []
    assert scoring.accept(unlabelled(1.0, (1.0, 0.0, 0.0))).warnings == []


@pytest.mark.parametrize(("other", "expected"), [("infomax", 1.0), ("snd", -np.inf)])
def test_a_score_of_another_kind_is_not_compared(scoring, other, expected):
    state = {"best": 0.4, "selected": 1.0, "shares": [1.0], "score_due": True, "options": {"select_by": other}}
    scoring.load_state_dict(state)
    assert scoring.highest == {BEST: 0.4, SELECTED: expected} and scoring.due
