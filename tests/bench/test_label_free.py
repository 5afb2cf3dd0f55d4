"""Rank correlations of the scores without labels, by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bench import label_free
from bench.label_free import checkpoints, main, rank_correlations
from utils.system.errors import UserError

RECORDS: list[dict[str, Any]] = [
    {"step": 1, "seg": 2.0},
    {"step": 1, "snd": 1.0, "infomax": 0.1, "agreement": 0.5},
    {"step": 1, "miou": 0.2},
    {"step": 2, "miou": 0.3},
    {"step": 2, "snd": 3.0, "infomax": 0.4, "agreement": 0.5},
    {"step": 3, "miou": 0.25},
    {"step": 3, "snd": 2.0, "infomax": 0.05, "agreement": 0.5},
    {"step": 4, "miou": 0.9},
    {"step": 5, "miou": None, "snd": 1.0, "infomax": 0.1, "agreement": 0.5},
]


def test_correlations_by_hand() -> None:
    scored = checkpoints(RECORDS)
    assert [scores["miou"] for scores in scored] == [0.2, 0.3, 0.25]
    found = rank_correlations(scored)
    # Ranks of the mIoU 1 3 2, of InfoMax 2 3 1: 1 - 6 (1 + 0 + 1) / (3 * 8)
    assert found["snd"] == pytest.approx(1) and found["infomax"] == pytest.approx(0.5)
    assert math.isnan(found["agreement"]) and math.isnan(rank_correlations(scored[:2])["snd"])


def test_reads_the_logs_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    main([str(tmp_path)])
    said = "3 checkpoints of 1 runs: Spearman with mIoU: snd +1.00, infomax +0.50, agreement -"
    assert capsys.readouterr().out.strip() == said
    monkeypatch.setattr(label_free, "KEPT", tmp_path / "kept")
    main([str(tmp_path), "--keep", "A pair: plus"])
    assert label_free.table(tmp_path / "kept")[-1] == "| A pair: plus | 3 | 1 | +1.00 | +0.50 | - |"
    with pytest.raises(UserError, match=r"no log\.jsonl"):
        main([str(tmp_path / "none")])
