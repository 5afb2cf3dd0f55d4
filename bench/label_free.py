"""How well the label-free scores rank checkpoints, compared with the mIoU on target labels (Spearman).

    python bench/label_free.py snapshots/own_images/step1 snapshots/own_images/step2
    python bench/label_free.py snapshots/own_images/step1 --keep "own images, stage 1"   # in bench/scores/label_free
    python bench/label_free.py --table                                                   # bench/RESULTS.md

The script reads the log.jsonl of every given run. All checkpoints that were scored both ways are ranked together; the
labels serve only this comparison. A correlation of 1 means the same order, 0 no relation, -1 the reverse order; "-"
means fewer than three checkpoints, or a score that is the same for all.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

from bench.results import write_section
from utils.reporting.sinks import read_records
from utils.system.errors import UserError
from utils.system.files import write_json

KEPT = Path(__file__).resolve().parent / "scores" / "label_free"
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


def table(folder: Path = KEPT) -> list[str]:
    """All records that were kept, one row each."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    lines = [f"| Spearman with mIoU | checkpoints | runs | {' | '.join(SCORES)} |", "|---" * (3 + len(SCORES)) + "|"]
    for record in records:
        cells = " | ".join(shown(record[name]) for name in SCORES)
        lines.append(f"| {record['title']} | {record['checkpoints']} | {record['runs']} | {cells} |")
    return lines


def shown(correlation: float | None) -> str:
    return "-" if correlation is None or math.isnan(correlation) else f"{correlation:+.2f}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of runs, each with its log.jsonl")
    parser.add_argument("--keep", metavar="TITLE", help="keep the result under this title in bench/scores/label_free")
    parser.add_argument("--table", action="store_true", help="write the section of bench/RESULTS.md from what was kept")
    arguments = parser.parse_args(argv)
    if arguments.table:
        write_section("label_free", "python bench/label_free.py --table", table())
        return
    runs = arguments.runs
    missing = [run for run in runs if not (run / "log.jsonl").is_file()]
    if missing or not runs:
        found = f"{missing[0]}: no log.jsonl in it" if missing else "found no run"
        raise UserError(f"{found}; expected the folder of a run")
    scored = [scores for run in runs for scores in checkpoints(read_records(run / "log.jsonl"))]
    correlations = rank_correlations(scored)
    print(
        f"{len(scored)} checkpoints of {len(runs)} runs: Spearman with mIoU: "
        f"{', '.join(f'{name} {shown(value)}' for name, value in correlations.items())}"
    )
    if arguments.keep:
        known = {name: None if math.isnan(value) else round(value, 3) for name, value in correlations.items()}
        KEPT.mkdir(parents=True, exist_ok=True)
        path = KEPT / f"{re.sub(r'[^a-z0-9]+', '_', arguments.keep.lower())}.json"
        write_json(path, {"title": arguments.keep, "checkpoints": len(scored), "runs": len(runs), **known})


if __name__ == "__main__":
    main()
