"""`compute_iou.py` on small masks: which labels are scored, and where their predictions may lie."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import compute_iou
from dataset.classes import CITYSCAPES
from tests.messages import says
from utils.options import config

AERIAL = ("--preset", "mrd_to_deepglobe")
CAMVID = ("--preset", "camvid_day_to_dusk")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(path: str | Path, ids: list[int]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([ids], np.uint8)).save(path, "PNG")


def scores(*arguments: str) -> dict:
    compute_iou.main([*arguments, "--json", "scores.json"])
    return json.loads(Path("scores.json").read_text())


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        config.run(lambda: compute_iou.main([*arguments, "--json", "scores.json"]))
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert not Path("scores.json").exists()
    return error


# Lists


def tiles() -> None:
    for name, ids in (("a", [0, 1, 1]), ("b", [1, 1, 0])):
        save(f"far/tiles/SegmentationClass/{name}.png", ids)
        save(f"masks/{name}.png", [0, 1, 1])


@pytest.mark.parametrize("folder", ["far/tiles", "far/tiles/SegmentationClass", "."])
def test_the_list_of_a_preset_lies_with_the_ground_truth_or_above_it(folder, monkeypatch):
    tiles()
    Path("far/tiles/val.txt").write_text("a\n")
    masks = Path("masks").absolute()
    if folder == ".":
        monkeypatch.chdir("far/tiles/SegmentationClass")
    found = scores(folder, str(masks), *AERIAL)
    assert found["images"] == 1 and found["confusion"] == [[1, 0], [0, 2]]


def test_camvids_list_lies_above_its_annotations():
    save("far/CamVid/trainannot/0001TP_1.png", [3, 8])
    save("far/CamVid/trainannot/0006R0_1.png", [3, 8])
    Path("far/CamVid/train_dusk.txt").write_text("train/0001TP_1\n")
    save("masks/0001TP_1.png", [3, 8])
    found = scores("far/CamVid/trainannot", "masks", *CAMVID)
    assert found["images"] == 1 and found["iou"]["car"] == 1.0


@pytest.mark.parametrize("given", [(), ("--data-list-target-test", "train_dusk.txt")])
def test_camvids_list_follows_from_the_tree_where_there_is_none(given):
    for name in ("0001TP_1", "0006R0_1"):
        save(f"far/CamVid/trainannot/{name}.png", [3, 8])
        save(f"far/CamVid/train/{name}.png", [0, 0])
    save("masks/0001TP_1.png", [3, 8])
    assert scores("far/CamVid/trainannot", "masks", *CAMVID, *given)["images"] == 1
    Path("elsewhere").mkdir()
    Path("far/CamVid/trainannot").rename("elsewhere/labels")
    folders = ("elsewhere/labels", "masks", "--data-dir-target", "far/CamVid")
    assert scores(*folders, *CAMVID, *given)["images"] == 1


def test_without_the_presets_list_all_labels_are_scored_and_the_log_says_so(capsys):
    tiles()
    found = scores("far/tiles", "masks", *AERIAL)
    assert found["images"] == 2 and found["confusion"] == [[1, 1], [1, 3]]
    said = [line for line in capsys.readouterr().out.splitlines() if "no list val.txt of the preset" in line]
    places = "far/tiles/val.txt, far/tiles/../val.txt, data/DeepGlobe/val.txt"
    assert len(said) == 1 and says(said[0], f"{places}): all labels of far/tiles")


def test_a_given_list_may_lie_with_the_ground_truth_and_must_be_somewhere(capsys):
    tiles()
    given = ("far/tiles", "masks", *AERIAL, "--data-list-target-test")
    said = refused(capsys, *given, "test.txt")
    places = "test.txt, far/tiles/test.txt, far/tiles/../test.txt, data/DeepGlobe/test.txt"
    assert says(said, f"--data-list-target-test: test.txt not found ... {places})")
    assert "leave the option out" in said
    # The preset's own list is an error too if it is given explicitly.
    assert "--data-list-target-test: val.txt not found" in refused(capsys, *given, "val.txt")
    Path("far/tiles/test.txt").write_text("b\n")
    assert scores(*given, "test.txt")["confusion"] == [[0, 1], [1, 1]]


# Predictions

FRAMES = ("bochum_000000_000313", "bochum_000001_000313")


def street(*ends: str) -> None:
    """Two labels (road and car; road and sky), and predictions with one wrong pixel, named by `ends`."""
    for frame, ids, predicted, end in zip(FRAMES, ([7, 26], [7, 23]), ([0, 13], [0, 0]), ends):
        save(f"gtFine/bochum/{frame}_gtFine_labelIds.png", ids)
        save(f"masks/{end.format(frame)}", predicted)


@pytest.mark.parametrize(
    "ends",
    [
        ("{}_leftImg8bit.png", "{}_leftImg8bit.png"),
        ("bochum/{}_leftImg8bit.png", "bochum/{}_leftImg8bit.png"),
        ("{}_leftImg8bit.png", "bochum/{}_leftImg8bit.PNG"),
        ("{}_pred.png", "{}_pred_labelTrainIds.png"),
        ("bochum/{}.png", "bochum/deep/{}-x.PNG"),
    ],
)
def test_predictions_in_every_official_place_and_name(ends):
    street(*ends)
    for frame in FRAMES:  # the names that evaluate_cityscapes.py writes
        save(f"masks/{frame}_leftImg8bit_color.png", [9, 9])
    found = scores("gtFine", "masks")
    assert found["images"] == 2
    assert {k: v for k, v in found["iou"].items() if v is not None} == {"road": 2 / 3, "car": 1.0, "sky": 0.0}


def test_a_frame_is_not_taken_for_one_with_a_longer_number(capsys):
    street("{}_pred.png", "{}0_pred.png")
    said = refused(capsys, "gtFine", "masks")
    assert says(said, f"masks: 1 of 2 ... missing, ... {FRAMES[1]}_leftImg8bit.png")


def test_two_predictions_of_an_image_are_refused(capsys):
    street("a/{}_pred.png", "{}.png")
    save(f"masks/b/{FRAMES[0]}_leftImg8bit.png", [0, 0])
    said = refused(capsys, "gtFine", "masks")
    assert f"masks/b/{FRAMES[0]}_leftImg8bit.png: masks/a/{FRAMES[0]}_pred.png is also a prediction of" in said
    save(f"masks/{FRAMES[0]}_leftImg8bit.png", [0, 13])  # the exact name in the folder itself is preferred
    assert scores("gtFine", "masks")["iou"]["car"] == 1.0


def test_labels_below_the_folder_of_predictions_are_no_predictions(capsys):
    street("{}.png", "{}.png")
    said = refused(capsys, "gtFine/bochum", "gtFine", "--pred-ids", "label")
    assert says(said, f"gtFine/bochum/{FRAMES[0]}_gtFine_labelIds.png: is a label ... gtFine, also a prediction")


def test_predictions_of_own_images_may_lie_in_subfolders():
    Path("classes.yaml").write_text("classes: [{name: ground, kind: stuff}, {name: cow, kind: thing}]\n")
    for camera, truth, predicted in (("east", [0, 1], [0, 1]), ("west", [1, 1], [1, 0])):
        save(f"mine/labels/{camera}/1.png", truth)
        save(f"masks/{camera}/1.PNG", predicted)
    found = scores("mine/labels", "masks", "--preset", "own_images", "--classes", "classes.yaml")
    assert found["confusion"] == [[1, 0], [1, 2]]


def coloured(path: str, ids: list[int], mode: str = "RGB") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    palette = [*CITYSCAPES.palette, (0, 0, 0)]
    Image.fromarray(np.array([[palette[i] for i in ids]], np.uint8)).convert(mode).save(path)


@pytest.mark.parametrize("ids", ["train", "label"])
@pytest.mark.parametrize("name", ["{}_leftImg8bit.png", "{}_leftImg8bit_color.png", "bochum/{}_pred.tif"])
def test_coloured_predictions_are_scored_by_the_colours_of_the_classes(capsys, ids, name):
    street("x/{}.png", "x/{}.png")
    for frame, predicted in zip(FRAMES, ([0, 13], [0, 19])):  # the last id belongs to no class
        coloured(f"coloured/{name.format(frame)}", predicted, "RGBA" if ids == "label" else "RGB")
    found = scores("gtFine", "coloured", "--pred-ids", ids)
    assert found["iou"]["road"] == found["iou"]["car"] == 1.0 and found["iou"]["sky"] == 0.0
    assert sum(found["no_class"]) == 1
    assert found["averaged"] == {"19": 3, "16": 3, "13": 3}
    assert "(over 3 of 19, " in capsys.readouterr().out


def test_train_ids_and_label_ids_are_not_taken_for_each_other(capsys):
    street("{}.png", "{}.png")
    said = refused(capsys, "gtFine", "masks", "--pred-ids", "label")
    assert says(said, "masks: ... ids 0, 13; ... as label ids, 0.00 % ... right")
    assert "but read as train ids, 75.00 %" in said and said.endswith("give --pred-ids train\n")
    for frame in FRAMES:  # ids that could be label ids or train ids
        save(f"gtFine/bochum/{frame}_gtFine_labelIds.png", [7, 11])
        save(f"masks/{frame}.png", [7, 11])
    assert refused(capsys, "gtFine", "masks").endswith("give --pred-ids label\n")
    assert scores("gtFine", "masks", "--pred-ids", "label")["means"]["19"] == 1.0


def test_bad_predictions_of_the_kind_that_was_named_are_scored():
    street("{}.png", "{}.png")
    for frame, ids in zip(FRAMES, ([8, 7], [0, 8])):
        save(f"masks/{frame}.png", ids)
    assert scores("gtFine", "masks", "--pred-ids", "label")["means"]["19"] == 0.0


def test_masks_of_0_and_255_are_refused_as_predictions_and_announced_as_labels(capsys):
    tiles()
    for name in "ab":
        save(f"binary/{name}.png", [0, 255, 255])
    said = refused(capsys, "far/tiles", "binary", *AERIAL)
    assert "binary: found predictions of 0 and 255" in said
    scores("binary", "masks", *AERIAL)
    assert "attention: binary: masks of 0 and 255" in capsys.readouterr().out
    Path("classes.yaml").write_text(
        "classes: [{name: ground, id: 0, kind: stuff}, {name: house, id: 255, kind: thing}]\n"
    )
    own = ("--preset", "own_images", "--classes", "classes.yaml")
    assert scores("binary", "masks", *own)["confusion"] == [[2, 0], [0, 4]]
    shutil.copytree("binary", "predicted")
    assert scores("binary", "predicted", *own, "--pred-ids", "label")["means"] == {"2": 1.0}
    Path("scores.json").unlink()
    assert says(refused(capsys, "binary", "predicted", *own), "--pred-ids label ... --classes FILE ... id: 255\n")


def test_predictions_that_are_no_images_are_named(capsys):
    street("x/{}.png", "x/{}.png")
    Path("arrays").mkdir()
    for frame in FRAMES:
        np.save(f"arrays/{frame}.npy", np.zeros((1, 2)))
    said = refused(capsys, "gtFine", "arrays")
    assert "arrays: 2 of 2 predictions missing" in said and f"holds {FRAMES[0]}.npy, {FRAMES[1]}.npy" in said


@pytest.mark.parametrize(("mode", "suffix", "said"), [("RGB", "PNG", "of mode RGB"), ("L", "JPEG", "a JPEG")])
def test_a_prediction_of_a_wrong_kind_is_called_one(capsys, mode, suffix, said):
    street("{}.png", "{}.png")
    Image.new(mode, (2, 1), "#010203").save(f"masks/{FRAMES[1]}.png", suffix)
    assert f"masks/{FRAMES[1]}.png: prediction {said}" in refused(capsys, "gtFine", "masks")
