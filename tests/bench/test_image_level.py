"""The benchmark of the image level reports what each way costs."""

from __future__ import annotations

import json

from bench.image_level import APPLY, IN_TRAINING, STEP, main, table


def test_every_way_has_its_figures(capsys) -> None:
    main(["--size", "64,48", "--crop", "32,32", "--widths", "0.05", "--rounds", "1"])
    *lines, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    assert {way: set(seconds) for way, seconds in found["processor_s"].items()} == {
        "`lab`": {IN_TRAINING},
        "`fda`": {IN_TRAINING},
        "CycleGAN, width 0.05": {STEP, APPLY},
    }
    assert all(number > 0 for seconds in found["processor_s"].values() for number in seconds.values())
    assert lines == table(found)


def test_a_way_has_a_dash_where_it_costs_nothing() -> None:
    seconds = {"`lab`": {IN_TRAINING: 0.024}, "CycleGAN, all channels": {STEP: 5.9123, APPLY: 1.19}}
    *_, lab, cyclegan = table({"size": [8, 6], "crop": [4, 4], "rounds": 3, "processor_s": seconds})
    assert lab == "| `lab` | 0.024 | – | – |" and cyclegan == "| CycleGAN, all channels | – | 5.91 | 1.19 |"
