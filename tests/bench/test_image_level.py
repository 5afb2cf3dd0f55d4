"""The benchmark of the image level reports what each form costs."""

from __future__ import annotations

import json

from bench.image_level import main


def test_every_way_has_a_figure(tmp_path, capsys) -> None:
    path = tmp_path / "costs.json"
    main(["--size", "64,48", "--crop", "32,32", "--widths", "0.05", "--rounds", "1", "--json", str(path)])
    found = json.loads(path.read_text())
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found
    ways = {"lab, an image", "fda, an image", "CycleGAN width 0.05, a step", "CycleGAN width 0.05, an image"}
    assert found["processor_s"].keys() == ways and all(seconds > 0 for seconds in found["processor_s"].values())
