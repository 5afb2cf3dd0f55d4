"""The official evaluation script of Cityscapes accepts a folder of label ids that `evaluate_cityscapes.py` wrote."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.classes import CITYSCAPES
from tests.scripts import STEP1, TRUTH, call, exit_code, mask

SCRIPT = "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling"


@pytest.mark.skipif(not hasattr(np, "in1d"), reason="the script calls np.in1d; requirements.txt has a NumPy with it")
def test_the_official_script_takes_the_folder_and_finds_the_same_scores(after_stage1):
    call("evaluate", "--restore-from", str(STEP1 / "last.pth"), "--save", "sent", "--save-ids", "label",
         "--json", "ours.json")  # fmt: skip
    labels = Path("official/gtFine/val")
    shutil.copytree(TRUTH, labels)
    for path in labels.rglob("*_labelIds.png"):
        ids = mask(path).astype(np.uint16)
        instances = np.where(ids >= 24, 1000 * ids, ids)  # one instance of each thing
        Image.fromarray(instances).save(path.with_name(path.name.replace("labelIds", "instanceIds")))
    Path("export").mkdir()
    folders = {"CITYSCAPES_DATASET": "official", "CITYSCAPES_RESULTS": "sent", "CITYSCAPES_EXPORT_DIR": "export"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", SCRIPT], env=os.environ | folders, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    official = json.loads(Path("export/resultPixelLevelSemanticLabeling.json").read_text())
    ours = json.loads(Path("ours.json").read_text())
    for name in CITYSCAPES.names:
        theirs = official["classScores"][name]
        assert (None if math.isnan(theirs) else theirs) == ours["iou"][name]
    assert official["averageScoreClasses"] == pytest.approx(ours["means"]["19"], rel=1e-12)


def test_coloured_masks_of_before_are_not_left_beside_label_ids(after_stage1, capsys):
    start = ("--restore-from", str(STEP1 / "last.pth"), "--save", "masks")
    call("evaluate", *start)
    colours = sorted(Path("masks").glob("*_color.png"))
    assert colours
    assert exit_code("evaluate", *start, "--save-ids", "label") == 2
    assert f"--save: found the coloured mask {colours[0]}" in capsys.readouterr().err
    for path in colours:
        path.unlink()
    call("evaluate", *start, "--save-ids", "label")
    assert not list(Path("masks").glob("*_color.png"))
