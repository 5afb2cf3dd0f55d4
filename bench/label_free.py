"""How well the label-free scores rank checkpoints, compared with the mIoU on target labels (Spearman).

    python bench/label_free.py snapshots/own_images/step1 snapshots/own_images/step2

The script reads the log.jsonl of every given run. All checkpoints that were scored both ways are ranked together; the
labels serve only this comparison. A correlation of 1 means the same order, 0 no relation, -1 the reverse order; "-"
means fewer than three checkpoints, or a score that is the same for all.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.reporting.sinks import read_records
from utils.system.errors import UserError

SCORES = ("snd", "infomax", "agreement")


def checkpoints(records: Iterable[dict[str, Any]]) -> list[dict[str, float]]:
    """The scores of every step of a run that has both "miou" and those without labels."""
    of_step: dict[int, dict[str, float]] = {}
    for record in records:
        found = {key: record[key] for key in ("miou", *SCORES) if record.get(key) is not None}
        of_step.setdefault(record["step"], {}).update(found)
    return [scores for scores in of_step.values() if scores.keys() == {"miou", *SCORES}]


def rank_correlations(scored: Sequence[dict[str, float]]) -> dict[str, float]:
    """Spearman's correlation of each score with the mIoU; NaN for fewer than three checkpoints or equal scores."""
    if len(scored) < 3:
        return dict.fromkeys(SCORES, math.nan)
    truth = [scores["miou"] for scores in scored]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        return {name: float(stats.spearmanr([scores[name] for scores in scored], truth).statistic) for name in SCORES}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, each with its log.jsonl")
    runs = parser.parse_args(argv).runs
    missing = [run for run in runs if not (run / "log.jsonl").is_file()]
    if missing:
        raise UserError(f"{missing[0]}: no log.jsonl in it; expected the folder of a run")
    scored = [scores for run in runs for scores in checkpoints(read_records(run / "log.jsonl"))]
    correlations = rank_correlations(scored)
    shown = (f"{name} {'-' if math.isnan(value) else f'{value:+.2f}'}" for name, value in correlations.items())
    print(f"{len(scored)} checkpoints of {len(runs)} runs: Spearman with mIoU: {', '.join(shown)}")


if __name__ == "__main__":
    main()
