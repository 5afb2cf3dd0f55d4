"""The reader of a user's own images."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset import Folder
from dataset.classes import IGNORE
from dataset.tables import parse_classes
from tests.labels import train_ids
from utils.system.errors import UserError

TABLE = parse_classes({"classes": [{"name": n, "kind": "stuff"} for n in ("ground", "sky")]}, "x")
WITH_IDS = parse_classes(
    {"classes": [{"name": "ground", "kind": "stuff", "id": [3, 4]}, {"name": "sky", "kind": "stuff", "id": 9}]}, "x"
)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def picture(value: int = 100) -> np.ndarray:
    return np.full((2, 3, 3), value, np.uint8)


@pytest.fixture
def root(tmp_path) -> Path:
    save(tmp_path / "images/day/0001.jpg", picture())
    save(tmp_path / "images/night/deep/0001.tif", picture(7))
    save(tmp_path / "images/0002.png", picture())
    for name in ("day/0001", "night/deep/0001", "0002"):
        save(tmp_path / f"labels/{name}.png", np.array([[0, 1, 255], [3, 4, 9]], np.uint8))
    return tmp_path


NAMES = ["0002.png", "day/0001.jpg", "night/deep/0001.tif"]
KEYS = ["0002", "day_0001", "night_deep_0001"]


def test_images_of_every_format_at_any_depth(root):
    data = Folder(root, table=TABLE)
    assert data.names == NAMES
    assert [data.key(name) for name in data.names] == KEYS
    assert data[2]["image"].tolist() == [[[7] * 3] * 2] * 3
    assert list(Folder.ground_truth(root / "labels")) == KEYS


def test_labels_hold_train_ids_unless_the_table_has_ids(root):
    assert Folder(root, table=TABLE)[1]["label"].tolist() == [[0, 1, IGNORE], [IGNORE] * 3]
    assert Folder(root, table=WITH_IDS)[1]["label"].tolist() == [[IGNORE] * 3, [0, 0, 1]]
    path = root / "labels/day/0001.png"
    assert train_ids(Folder, path, 200, WITH_IDS).tolist() == [[200] * 3, [0, 0, 1]]


def test_a_list_in_the_folder_is_its_split_and_a_given_list_comes_first(root):
    (root / "val.txt").write_text("night/deep/0001.tif\n0002.png\n")
    assert Folder(root, table=TABLE, split="val").names == ["night/deep/0001.tif", "0002.png"]
    assert Folder(root, table=TABLE, split="train").names == NAMES
    (root / "some.txt").write_text("day/0001.jpg\n")
    assert Folder(root, root / "some.txt", split="val", table=TABLE).names == ["day/0001.jpg"]


def test_another_split_needs_a_list_or_a_folder_of_its_own(root):
    assert Folder(root, table=TABLE, split="day").names == ["day/0001.jpg"]
    with pytest.raises(UserError, match=r"neither dya\.txt nor images/dya/ found.* split 'dya'"):
        Folder(root, table=TABLE, split="dya")


def test_missing_labels(root):
    (root / "labels/day/0001.png").unlink()
    with pytest.raises(UserError, match=r"labels/day/0001\.png: label not found .*1 of 3"):
        Folder(root, table=TABLE)
    data = Folder(root, table=TABLE, labels=None)
    assert ["label" in data[i] for i in range(3)] == [True, False, True]
    assert data.labelled_names() == ["0002.png", "night/deep/0001.tif"]


def test_masks_that_would_meet_under_one_name(root):
    save(root / "images/day_0001.png", picture())
    with pytest.raises(UserError, match=r"day/0001\.jpg and day_0001\.png .*same file name"):
        Folder(root, table=TABLE, labels=False)


def test_an_empty_folder(tmp_path):
    said = r"no images of split 'train' found; expected images/NAME\.png.*; it holds nothing"
    with pytest.raises(UserError, match=said):
        Folder(tmp_path, table=TABLE)


@pytest.mark.parametrize(
    ("names", "held"),
    [
        (["0.png", "1.png"], "0.png, 1.png"),
        (["Images/0.png", "labels/0.png"], "Images/0.png, labels/0.png"),
        (["images/0.webp"], "images/0.webp"),
        ([f"{i}.jpg" for i in range(9)], "0.jpg, 1.jpg, 2.jpg, 3.jpg, ..."),
    ],
)
def test_images_that_are_not_found_are_not_kept_secret(tmp_path, names, held):
    for name in names:
        save(tmp_path / name, picture())
    with pytest.raises(UserError, match=f"; it holds {re.escape(held)}$"):
        Folder(tmp_path, table=TABLE)


def test_a_target_may_be_the_folder_of_images_itself_or_one_image(tmp_path):
    for name in ("cam/0001.jpg", "0002.png"):
        save(tmp_path / "frames" / name, picture())
    save(tmp_path / "frames/labels/0002.png", np.array([[0, 1, 255], [1, 0, 0]], np.uint8))
    for labels in (False, None):
        data = Folder(tmp_path / "frames", table=TABLE, labels=labels)
        assert data.names == ["0002.png", "cam/0001.jpg"]
    assert data.labelled_names() == ["0002.png"]
    assert data[0]["label"].tolist() == [[0, 1, 255], [1, 0, 0]] and "label" not in data[1]
    (tmp_path / "frames/val.txt").write_text("frames/cam/0001.jpg\n")
    assert Folder(tmp_path / "frames", table=TABLE, split="val", labels=None).names == ["cam/0001.jpg"]
    single = Folder(tmp_path / "frames/cam/0001.jpg", table=TABLE, labels=None)
    assert (single.names, single.root, set(single[0])) == (
        ["0001.jpg"],
        tmp_path / "frames/cam",
        {"image", "name", "size"},
    )
    assert single.label_path("0001.jpg") != single.image_path("0001.jpg")
    with pytest.raises(UserError, match=r"0002\.png was passed over: it is not in images/; .* 0002\.png, cam/0001"):
        Folder(tmp_path / "frames", table=TABLE)


@pytest.mark.parametrize("name", ["0001.jpg", "0001.webp"])
def test_a_label_with_another_ending_is_named(root, name):
    label = root / "labels/day/0001.png"
    label.rename(label.with_name(name))
    said = rf"0001\.png: label not found .*1 of 3.* {name} exists"
    with pytest.raises(UserError, match=said):
        Folder(root, table=TABLE)
