"""Folder trees as people have them after unpacking and renaming, taken from public reports about similar code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset import ACDC, GTA5, Cityscapes, FoggyCityscapes, Folder, Synthia
from dataset.classes import CITYSCAPES
from tests.dataset.test_lists import AACHEN, AACHEN_LABEL, FOGGY, NIGHT, NIGHT_LABEL, listed, save
from utils.system.errors import UserError


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("reader", "image", "label"),
    [
        (
            Cityscapes,
            f"leftImg8bit_trainvaltest/leftImg8bit/train/{AACHEN}",
            f"gtFine_trainvaltest/gtFine/train/{AACHEN_LABEL}",
        ),
        (Cityscapes, f"leftImg8bit/train/{AACHEN}", f"gtFine_trainvaltest/gtFine/train/{AACHEN_LABEL}"),
        (
            FoggyCityscapes,
            f"leftImg8bit_trainvaltest_foggy/leftImg8bit_foggy/train/{FOGGY}",
            f"gtFine_trainvaltest/gtFine/train/{AACHEN_LABEL}",
        ),
        (ACDC, f"rgb_anon_trainvaltest/rgb_anon/{NIGHT}", f"gt_trainval/gt/{NIGHT_LABEL}"),
        (Synthia, "RAND_CITYSCAPES/RGB/0000001.png", "RAND_CITYSCAPES/GT/LABELS/0000001.png"),
        (GTA5, "images_all/images/00001.png", "labels_all/labels/00001.png"),
    ],
)
def test_archives_unpacked_into_folders_of_their_names(root, reader, image, label):
    save(root, image, label)
    data = reader(root)
    assert data.image_path(data.names[0]) == root / image and len(data) == 1
    assert data.label_path(data.names[0]) == root / label


def test_two_folders_that_may_be_meant_are_none(root):
    save(root, "01/images/1.png", "02/images/2.png")
    with pytest.raises(UserError, match=r"01/images/1\.png was passed over: .* images/; .* 01/images, 02"):
        GTA5(root)


def test_splits_below_the_folder_of_images(root):
    names = ("train/1.png", "val/1.png", "val/deep/2.png")
    save(root, *(f"{folder}/{name}" for name in names for folder in ("images", "labels")))
    assert Folder(root, table=CITYSCAPES).names == ["train/1.png"]
    val = Folder(root, table=CITYSCAPES, split="val")
    assert val.names == ["val/1.png", "val/deep/2.png"]
    assert val.label_path(val.names[0]) == root / "labels/val/1.png"
    with pytest.raises(UserError, match="neither test"):
        Folder(root, table=CITYSCAPES, split="test")
    assert GTA5(root).names == ["train/1.png"]
    for name in names[1:]:
        (root / "images" / name).rename(root / "images/train" / f"{len(name)}.png")
    with pytest.raises(UserError, match=r"train/1\.png was passed over: it is not of split 'val'"):
        GTA5(root, split="val")


def test_folders_of_other_names_are_given_apart(root):
    save(root, "img_dir/train/1.png", "ann_dir/train/1.png", "img_dir/val/2.png")
    with pytest.raises(UserError, match=r"; img_dir/train/1\.png was passed over: .* images"):
        Folder(root, table=CITYSCAPES)
    data = Folder(root / "img_dir", label_root=root / "ann_dir", table=CITYSCAPES)
    assert data.names == ["train/1.png"] and data.label_path("train/1.png") == root / "ann_dir/train/1.png"
    # The names in a list that was made beside the two folders begin with a folder.
    for line in ("img_dir/train/1.png ann_dir/train/1.png", "img_dir/train/1.png,ann_dir/train/1.png"):
        apart = Folder(root / "img_dir", listed(root, line), label_root=root / "ann_dir", table=CITYSCAPES)
        assert apart.names == ["train/1.png"]


def test_labels_are_not_taken_for_images_of_a_flat_target(root):
    save(root, "a/frames/1.png", "2.png", "labels/2.png", "a/gtFine/1.png", "Masks/1.png")
    assert Folder(root, table=CITYSCAPES, labels=False).names == ["2.png", "a/frames/1.png"]


def test_images_of_several_sizes_come_in_one(root):
    """Most images of GTA5 have 1914x1052 pixels, some 1914x1046."""
    for name, height in (("1", 1052), ("2", 1046)):
        for folder, mode in (("images", "RGB"), ("labels", "L")):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.new(mode, (1914, height)).save(root / folder / f"{name}.png")
    data = GTA5(root, size=(64, 36))
    assert [data.header_fault(name) for name in data.names] == [None, None]
    assert {data[i]["image"].shape for i in range(2)} == {(3, 36, 64)}


def test_training_images_of_dark_zurich_have_no_labels(root):
    save(root, "rgb_anon/train/night/GOPR0351/GOPR0351_frame_000159_rgb_anon.png")
    assert len(ACDC(root, labels=False)) == 1
    with pytest.raises(UserError, match=r"000159_gt_labelTrainIds\.png: label not found .*1 of 1"):
        ACDC(root)


def test_a_matlab_file_is_no_list(root):
    save(root, "images/1.png", "labels/1.png")
    (root / "split.mat").write_bytes(b"MATLAB 5.0 MAT-file\0\xff\xfe" + bytes(np.arange(256, dtype=np.uint8)))
    with pytest.raises(UserError, match=r"split\.mat: unreadable list .*expected UTF-8"):
        GTA5(root, root / "split.mat")


def test_labels_without_their_images_and_images_without_their_labels(root):
    save(root, "images/1.png", "labels/1.png", "labels/2.png")
    assert GTA5(root).names == ["1.png"]  # only some of the images, as in other projects' downloads
    (root / "labels").rename(root / "annotations")
    with pytest.raises(UserError, match=r"labels/1\.png: label not found .*1 of 1"):
        GTA5(root)
