"""The table of README is made from tables and records, not typed."""

from __future__ import annotations

import json
from pathlib import Path

from bench import front_page, real
from bench.front_page import cell, cost_table, table
from bench.results import PAGE as PAGE_OF_RESULTS

PAGE = """
<!-- camvid -->
| mIoU | seed1 | seed2 | mean ± std | over source only |
|---|---|---|---|---|
| source only | 39.2 | 40.1 | 39.6 ± 0.7 | 0.0 ± 0.0 |
| step 2 after it, with the paper's weights too | 43.3 | 42.9 | 43.1 ± 0.3 | 3.5 ± 1.0 |

Minutes of training, mean over the seeds: pretrain 27, source_only 12, step1_stopped 9, step2 14.
<!-- end camvid -->
<!-- iteration -->
| stage, network, source / target | kinds | wall | peak |
|---|---|---|---|
| 1, resnet101, 320x180 / 256x128 | full / plain | 2.675 / 2.567 s | 1281 / 1229 MiB |
| 2, mobilenet_v2, 640x360 / 640x360 | plus / full | 1.169 / 0.823 s | 854 / 867 MiB |
<!-- end iteration -->
<!-- predicting -->
| network and size of its input | ms | CPU ms |
|---|---|---|
| mobilenet_v2, 640x360, stride 16 | 131 | 130 |
<!-- end predicting -->
<!-- train_speed options -->
| stage | option | with | ratio |
|---|---|---|---|
| 1 | `--amp bf16` | 1.784 s | 0.61 |
| 2 | `--amp bf16` | 1.782 s | 0.70 |
<!-- end train_speed options -->
"""


def test_mean_and_gain_are_those_of_the_table_if_it_has_them(tmp_path: Path) -> None:
    """Computed from the rounded scores, they would be 39.7 and 3.4."""
    [row] = [line.strip("| ").split(" | ") for line in table(PAGE, tmp_path) if "dusk" in line]
    assert row[2:5] == ["39.6 (2 seeds)", "43.1 (2 seeds), +3.5", "not run"]


def test_the_gain_is_over_the_seeds_of_both() -> None:
    assert cell({1: 40.0, 2: 44.0}, {2: 41.0, 3: 0.0}) == "42.0 (2 seeds), +3.0 (1 seed)"
    assert cell({1: 40.0, 2: 44.0}, {1: 39.0, 2: 41.0}) == "42.0 (2 seeds), +2.0"
    assert cell({1: 40.0}) == "40.0 (1 seed)"
    assert cell({}) == "not run"


def test_rows_of_pages_and_records(tmp_path: Path) -> None:
    for pair, plus in (("camvid_to_idd", "plus_adamw"), ("carla_to_cityscapes", "plus_lab_adamw")):
        for arm, miou in (("source_only", 0.2), ("source_only_adamw", 0.25), (plus, 0.3)):
            folder = tmp_path / "real" / pair / arm
            folder.mkdir(parents=True)
            (folder / "seed1.json").write_text(json.dumps({"miou": miou}))
    by_adamw = {"source_only_AdamW": 0.33, "plus": 0.4}
    first, second = {"source_only": 0.3, "step2": 0.35}, {"source_only": 0.32, "step2": 0.36, **by_adamw}
    for seed, scores in enumerate((first, second)):
        folder = tmp_path / "builtin" / f"seed{seed}"
        folder.mkdir(parents=True)
        for arm, miou in scores.items():
            (folder / f"{arm}.json").write_text(json.dumps({"means": {"19": miou, "16": 0.0}}))
    rows = [line.strip("| ").split(" | ") for line in table(PAGE, tmp_path)]
    assert rows[2][2:] == [
        "31.0 (2 seeds)",
        "35.5 (2 seeds), +4.5",
        "33.0 (1 seed)",
        "not run",
        "40.0 (1 seed), +7.0",
        "not run",
    ]
    assert rows[3][0] == "CARLA to Cityscapes (256); class balance and plus on `lab` images"
    assert rows[4][0] == "CamVid to India Driving Dataset"
    assert (
        rows[3][2:]
        == rows[4][2:]
        == ["20.0 (1 seed)", "not run", "25.0 (1 seed)", "not run", "30.0 (1 seed), +5.0", "not run"]
    )
    assert all(len(row) == 3 + len(front_page.ARMS) for row in rows[2:])


def test_costs_are_those_of_the_sections() -> None:
    rows = [line.strip("| ").split(" | ") for line in cost_table(PAGE)]
    assert rows[5][1].endswith(" minutes") and rows[8][1] == "100 ms and 42 ms"
    assert [row[1] for row in rows[2:5]] == ["2.7 s, 1281 MiB", "0.6 times as long", "27 + 9 + 14 minutes"]
    assert [row[1] for row in rows[6:8]] == ["1.2 s, 854 MiB", "131 ms"]


def test_readme_and_results_show_the_scores_that_are_kept() -> None:
    readme, page = (path.read_text(encoding="utf-8") for path in (front_page.README, PAGE_OF_RESULTS))
    assert "\n".join(table(page, real.SCORES.parent)) in readme and "\n".join(cost_table(page)) in readme
    assert "\n".join(real.table(real.SCORES)) in page
    assert "\n".join(real.not_run(real.SCORES)) in page
