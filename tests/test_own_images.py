"""The scripts on folders of images: a class table from a file, and a target with no, some or all labels."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.messages import says
from tests.scripts import call, exit_code, mask, state, steps
from utils.options import config
from utils.setup import data_sets
from utils.system.errors import UserError

CLASSES = """
name: yard
classes:
  - {name: ground, id: 10, color: [10, 20, 30], kind: stuff}
  - {name: cow, id: 20, color: [200, 0, 0], kind: thing}
  - {name: wall, id: 30, color: [0, 0, 200], kind: stuff}
ignore: [7]
"""
OWN = ("--preset", "own_images", "--target", "folder:camera", "--input-size-target", "64,48")
TRAIN = (
    *(*OWN, "--source", "folder:game", "--input-size", "64,48", "--backbone", "tiny", "--output-stride", "8"),
    *("--restore-from", "none", "--num-steps", "2", "--warmup-steps", "0", "--log-every", "1", "--num-prototype", "1"),
)
STEP1 = Path("snapshots/own_images/step1")


def draw(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def label(path: Path) -> None:
    ids = np.repeat(np.array([10, 20, 30, 7], np.uint8), 20)[None].repeat(60, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)


@pytest.fixture
def yard(run_folder) -> Path:
    """A labelled folder `game`, an unlabelled one `camera`, and classes.yaml, in the current folder."""
    for i in range(3):
        draw(Path(f"game/images/{i}.png"), i)
        label(Path(f"game/labels/{i}.png"))
        draw(Path(f"camera/images/east/{i}.jpg"), 10 + i)
    Path("classes.yaml").write_text(CLASSES)
    return run_folder


def test_all_stages_of_the_paper_on_a_target_without_labels(yard, capsys):
    call("step1", *TRAIN, "--method", "paper", "--classes", "classes.yaml")
    assert {"seg", "adv_target"} <= set(steps(STEP1)[0])
    assert not [record for record in steps(STEP1) if "miou" in record]
    memory = state(STEP1)["state"]["memory"]
    assert (len(memory["stuff"]["count"]), len(memory["things"]["count"])) == (2, 1)
    assert says(capsys.readouterr().out, "no scores while training: ... 3 images of camera")
    # From here on the classes come from the checkpoint.
    call("pseudo", *OWN)
    labels = sorted(Path("target_ssl_gt/own_images").glob("*.png"))
    assert [path.name for path in labels] == ["east_0.png", "east_1.png", "east_2.png"]
    call("step2", *TRAIN[: TRAIN.index("--restore-from")], "--method", "paper", "--num-steps", "1")
    call("evaluate", *OWN, "--json", "scores.json")
    said = capsys.readouterr().out
    assert says(said, "no scores ... 3 of 3 images of camera") and "IoU" not in said
    assert not Path("scores.json").exists()
    masks = Path("result/own_images")
    assert len(list(masks.iterdir())) == 6
    ids = mask(masks / "east_1.png")
    assert ids.shape == (60, 80) and ids.max() <= 2
    colours = np.array([[10, 20, 30], [200, 0, 0], [0, 0, 200]])
    assert np.array_equal(np.array(Image.open(masks / "east_1_color.png").convert("RGB")), colours[ids])
    # Once some images have labels, these are scored.
    label(Path("camera/labels/east/1.png"))
    call("evaluate", *OWN, "--json", "scores.json")
    said = capsys.readouterr().out
    assert "on 1 images of camera" in said and says(said, "no scores ... 2 of 3 images of camera")
    scores = json.loads(Path("scores.json").read_text())
    assert (scores["images"], scores["classes"]) == (1, ["ground", "cow", "wall"])
    assert [sum(row) for row in scores["confusion"]] == [1200, 1200, 1200]
    call("evaluate", *OWN, "--save", "label_ids", "--save-ids", "label", "--classes", "classes.yaml")
    assert np.array_equal(mask(Path("label_ids/east_1.png")), np.array([10, 20, 30])[mask(masks / "east_1.png")])
    call("iou", "camera/labels", str(masks), *OWN[:4], "--classes", "classes.yaml", "--json", "again.json")
    assert json.loads(Path("again.json").read_text())["confusion"] == scores["confusion"]


def test_by_default_stage_1_learns_the_source_and_stage_2_has_a_teacher(yard):
    call("step1", *TRAIN, "--classes", "classes.yaml", "--image-level", "lab", "--num-steps-stop", "1")
    saved = state(STEP1)
    assert {"adv_target", "adv_cls"}.isdisjoint(steps(STEP1)[0]) and "memory" not in saved["state"]
    assert (saved["options"]["bn"], saved["options"]["image_level"], saved["networks"].keys()) == (
        "source",
        "lab",
        set(),
    )
    call("step2", *TRAIN[: TRAIN.index("--restore-from")], "--num-steps", "1", "--image-level", "lab")
    assert {"pseudo", "mix", "sure"} <= set(steps(Path("snapshots/own_images/step2"))[0])
    call("evaluate", *OWN)
    assert len(list(Path("result/own_images").iterdir())) == 6


def test_the_baseline_of_the_default_method_takes_all_its_steps():
    plus, baseline, paper = (
        config.resolve("step1", {"preset": "own_images", **given})
        for given in ({}, {"source_only": True}, {"method": "paper"})
    )
    assert (plus.num_steps, plus.num_steps_stop, baseline.num_steps_stop, paper.num_steps_stop) == (
        4000,
        2000,
        4000,
        4000,
    )
    assert plus.num_steps_stop is not None
    assert config.resolve("step1", {"preset": "own_images", "num_steps": 10}).num_steps_stop == 5  # half of 10
    assert config.resolve("step1", {"preset": "own_images", "num_steps": 1}).num_steps_stop == 1
    rest = config.resolve("step2", {"preset": "own_images"})
    assert rest.num_steps == plus.num_steps - plus.num_steps_stop
    reached = plus.learning_rate * (1 - plus.num_steps_stop / plus.num_steps) ** plus.power
    assert rest.learning_rate == pytest.approx(reached, rel=0.05)


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("step1", TRAIN, "--classes: not given, ... 'folder'"),
        ("step1", (*TRAIN, "--classes", "none.yaml"), "none.yaml: cannot be read"),
        ("step1", ("--source", "mars"), "--source: found mars, ... gta5, synthia"),
        ("step1", ("--source", "folder:"), "--source: found 'folder:', ... READER:PATH"),
        ("step1", ("--source", "folder:a", "--data-dir", "b"),
         "--source folder:a: found --data-dir b too"),
        ("step1", (*TRAIN, "--classes", "classes.yaml", "--target", "folder:nowhere"),
         "nowhere: data folder ... images/NAME.png"),
        ("iou", ("a", "b", "--target", "folder:camera"), "--classes: not given"),
    ],
)  # fmt: skip
def test_bad_input(yard, capsys, script, arguments, said):
    if script == "iou":
        arguments = (*arguments, "--preset", "own_images")
    assert exit_code(script, *arguments) == 2
    error = capsys.readouterr().err
    assert says(error, said) and error.count("\n") == 1


def test_a_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    domains = ["--source", "folder:~/game", "--target", "folder:~x/a"]
    options, _, _ = config.parse("step1", ["--preset", "own_images", *domains])
    assert (options.data_dir, options.data_dir_target) == ("/home/me/game", "~x/a")


def test_classes_without_label_ids_are_not_saved_as_such(yard):
    Path("plain.yaml").write_text(re.sub("id: .., |ignore.*", "", CLASSES))
    options, _, _ = config.parse("evaluate", [*OWN, "--classes", "plain.yaml", "--save-ids", "label"])
    with pytest.raises(UserError, match=r"--save-ids: found label, .* yard .*no label ids"):
        data_sets.saved_ids(options, data_sets.class_table(options))


@pytest.mark.parametrize("target", ["cityscapes:city", "folder:camera"])
def test_a_checkpoint_of_other_classes_is_refused_where_labels_mean_something_else(run_folder, target):
    table = {"classes": [{"name": name, "kind": "stuff"} for name in "abc"]}
    content = {"format": "bafft", "architecture": {}, "segmenter": {"x": torch.zeros(1)}, "classes": table}
    torch.save(content, "abc.pth")
    options, _, _ = config.parse("evaluate", ["--target", target, "--restore-from", "abc.pth"])
    if target == "folder:camera":
        assert data_sets.class_table(options).names == ("a", "b", "c")
    else:
        with pytest.raises(UserError, match=r"abc\.pth: .*3 classes .* not those of cityscapes"):
            data_sets.class_table(options)
    torch.save(content | {"classes": {"classes": [1, 2]}}, "bad.pth")
    options = replace(options, restore_from="bad.pth")
    with pytest.raises(UserError, match=r"bad\.pth, .*class 0: found 1; .* name, kind"):
        data_sets.class_table(options)
