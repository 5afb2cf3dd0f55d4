"""Each data set's paths, names and label ids, on small files."""

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dataset import ACDC, GTA5, READERS, Aerial, CamVid, Cityscapes, FoggyCityscapes, Folder, Synthia
from dataset.check.examine import beside_labels
from tests.labels import train_ids
from tests.messages import says
from utils.options import config
from utils.setup import data_sets
from utils.system.errors import UserError

LABEL = np.array([[7, 8, 0], [33, 26, 34]], np.uint8)
TRAIN_IDS = [[0, 1, 255], [18, 13, 255]]


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def image() -> np.ndarray:
    return np.full((2, 3, 3), (1, 2, 3), np.uint8)


def test_names_of_the_readers():
    readers = {"gta5": GTA5, "synthia": Synthia, "cityscapes": Cityscapes, "camvid": CamVid, "aerial": Aerial}
    readers |= {"folder": Folder, "foggy_cityscapes": FoggyCityscapes, "acdc": ACDC}
    assert readers == READERS


# GTA5


def test_gta5_palette_indices_are_the_ids(tmp_path):
    save(tmp_path / "images" / "00001.png", image())
    label = Image.fromarray(LABEL)
    label.putpalette([255 - i // 3 for i in range(768)])
    (tmp_path / "labels").mkdir()
    label.save(tmp_path / "labels" / "00001.png")
    with Image.open(tmp_path / "labels" / "00001.png") as saved:
        assert saved.mode == "P"
    assert GTA5(tmp_path)[0]["label"].tolist() == TRAIN_IDS
    assert GTA5.ground_truth(tmp_path / "labels") == {"00001": tmp_path / "labels" / "00001.png"}
    assert train_ids(GTA5, tmp_path / "labels" / "00001.png", 200)[0].tolist() == [0, 1, 200]


def test_gta5_jpeg_images_have_png_labels(tmp_path):
    save(tmp_path / "images" / "00002.jpg", image())
    save(tmp_path / "labels" / "00002.png", LABEL)
    dataset = GTA5(tmp_path)
    assert dataset.names == ["00002.jpg"]
    assert dataset.key("00002.jpg") == "00002"
    assert dataset[0]["label"].tolist() == TRAIN_IDS


@pytest.fixture
def misfits(tmp_path):
    """As downloaded: two known pairs whose image and label differ in size, among others."""
    for name in ("00001", "15188", "17705", "20000"):
        save(tmp_path / "images" / f"{name}.png", image())
        save(tmp_path / "labels" / f"{name}.png", LABEL if name in ("00001", "20000") else LABEL.T)
    return tmp_path


def test_gta5_leaves_the_two_known_pairs_of_two_sizes_out(misfits, caplog):
    caplog.set_level("INFO", logger="bafft")
    dataset = GTA5(misfits)
    assert dataset.names == ["00001.png", "20000.png"]
    assert dataset.left_out == ["15188.png", "17705.png"]
    said = f"{misfits}: left out 15188.png, 17705.png, whose labels are known to have another size"
    assert [record.getMessage() for record in caplog.records] == [said]


def test_gta5_keeps_the_known_pairs_where_they_are_listed_or_fit_or_have_no_use_for_labels(misfits, caplog):
    caplog.set_level("INFO", logger="bafft")
    (misfits / "list.txt").write_text("15188.png\n00001.png\n")
    listed = GTA5(misfits, misfits / "list.txt")
    assert listed.names == ["15188.png", "00001.png"]
    assert says(str(listed.header_fault("15188.png")), "label of 2x3 ... image")
    assert len(GTA5(misfits, labels=False)) == 4
    save(misfits / "labels" / "15188.png", LABEL)
    assert GTA5(misfits, labels=None).left_out == ["17705.png"]
    save(misfits / "labels" / "20000.png", LABEL.T)
    assert "label of 2x3 pixels" in str(GTA5(misfits).header_fault("20000.png"))
    caplog.clear()
    save(misfits / "labels" / "17705.png", LABEL)
    assert len(GTA5(misfits)) == 4 and not caplog.records


# SYNTHIA


def save_synthia(root: Path, red: np.ndarray) -> Path:
    """A label as published: class in red, instance in green, 16 bits."""
    path = root / "GT" / "LABELS" / "0000000.png"
    path.parent.mkdir(parents=True)
    bgr = np.zeros((*red.shape, 3), np.uint16)
    bgr[:, :, 1] = 1000
    bgr[:, :, 2] = red
    assert cv2.imwrite(str(path), bgr)
    save(root / "RGB" / "0000000.png", image())
    return path


def test_synthia_sixteen_bit_labels(tmp_path):
    path = save_synthia(tmp_path, np.array([[3, 4, 22], [21, 0, 300]]))
    dataset = Synthia(tmp_path)
    assert dataset.names == ["0000000.png"]
    assert dataset[0]["label"].tolist() == [[0, 1, 255], [3, 255, 255]]
    with Image.open(path) as through_pillow:
        assert np.asarray(through_pillow.convert("RGB"))[:, :, 0].max() <= 1, "Pillow keeps the high byte alone"
    assert Synthia.ground_truth(tmp_path / "GT") == {"0000000": path}
    assert train_ids(Synthia, path).tolist() == [[0, 1, 255], [3, 255, 255]]


def test_synthia_every_id(tmp_path):
    path = save_synthia(tmp_path, np.arange(24).reshape(4, 6))
    assert train_ids(Synthia, path).tolist() == [
        [255, 10, 2, 0, 1, 4],
        [8, 5, 13, 7, 11, 18],
        [17, 255, 255, 6, 9, 12],
        [14, 15, 16, 3, 255, 255],
    ]


def test_synthia_refuses_eight_bits(tmp_path):
    path = save_synthia(tmp_path, np.zeros((2, 3)))
    save(path, image())
    with pytest.raises(UserError, match=r"LABELS/0000000\.png: SYNTHIA .*uint8 .*\(2, 3"):
        Synthia(tmp_path)[0]


def test_synthia_refuses_a_corrupt_label(tmp_path):
    path = save_synthia(tmp_path, np.arange(10000).reshape(100, 100))
    data = path.read_bytes()
    for part in (data[: len(data) // 2], data[:-8], b"", b"text"):
        path.write_bytes(part)
        with pytest.raises(UserError, match=r"LABELS/0000000\.png: corrupt or unreadable label"):
            train_ids(Synthia, path)


# Cityscapes

AACHEN = "aachen/aachen_000000_000019_leftImg8bit.png"
BOCHUM = "bochum/bochum_000001_000019_leftImg8bit.png"
ULM = "ulm/ulm_000002_000019_leftImg8bit.png"


@pytest.fixture
def cityscapes(tmp_path):
    for split, name in (("train", BOCHUM), ("train", AACHEN), ("val", ULM)):
        save(tmp_path / "leftImg8bit" / split / name, image())
        stem = tmp_path / "gtFine" / split / name.removesuffix("_leftImg8bit.png")
        save(Path(f"{stem}_gtFine_labelIds.png"), LABEL)
        save(Path(f"{stem}_gtFine_color.png"), image())
    return tmp_path


def test_cityscapes_official_tree(cityscapes):
    train = Cityscapes(cityscapes)
    assert train.names == [AACHEN, BOCHUM]
    assert train[0]["label"].tolist() == TRAIN_IDS
    assert train.key(AACHEN) == "aachen_000000_000019_leftImg8bit"
    assert Cityscapes(cityscapes, split="val").names == [ULM]
    (cityscapes / "list.txt").write_text(f"{BOCHUM}\n")
    assert Cityscapes(cityscapes, cityscapes / "list.txt")[0]["name"] == BOCHUM


def test_cityscapes_ground_truth(cityscapes):
    found = Cityscapes.ground_truth(cityscapes)
    assert list(found) == [Cityscapes.key(name) for name in (AACHEN, BOCHUM, ULM)]
    assert found["aachen_000000_000019_leftImg8bit"] == Cityscapes(cityscapes).label_path(AACHEN)
    assert list(Cityscapes.ground_truth(cityscapes / "gtFine" / "val")) == [Cityscapes.key(ULM)]


def test_cityscapes_refuses(cityscapes):
    save(cityscapes / "leftImg8bit" / "train" / "aachen" / "a.png", image())
    (cityscapes / "list.txt").write_text("aachen/a.png\n")
    with pytest.raises(UserError, match=r"'aachen/a\.png' .* CITY/NAME_leftImg8bit"):
        Cityscapes(cityscapes, cityscapes / "list.txt")
    with pytest.raises(UserError, match="no images of split 'tset' found"):
        Cityscapes(cityscapes, split="tset")


def test_ground_truth_refuses(cityscapes):
    with pytest.raises(UserError, match="nowhere: folder of labels not found"):
        Cityscapes.ground_truth(cityscapes / "nowhere")
    with pytest.raises(UserError, match="leftImg8bit: no label files found; expected"):
        Cityscapes.ground_truth(cityscapes / "leftImg8bit")
    save(cityscapes / "a" / "1.png", LABEL)
    save(cityscapes / "b" / "1.png", LABEL)
    with pytest.raises(UserError, match=r"b/1\.png: .*a/1\.png is also a label of 1"):
        GTA5.ground_truth(cityscapes)


# CamVid


@pytest.fixture
def camvid(tmp_path):
    for split, name, suffix in (("train", "b", "jpg"), ("train", "a", "png"), ("val", "c", "jpg")):
        save(tmp_path / split / f"{name}.{suffix}", image())
        save(tmp_path / f"{split}annot" / f"{name}.png", np.array([[0, 1, 11], [10, 5, 12]], np.uint8))
    return tmp_path


def test_camvid(camvid):
    train = CamVid(camvid)
    assert train.names == ["train/a", "train/b"]
    assert train[1]["label"].tolist() == [[0, 1, 255], [10, 5, 255]]
    assert train.key("train/b") == "b"
    (camvid / "list.txt").write_text("val/c\ntrain/a\n")
    assert CamVid(camvid, camvid / "list.txt")[0]["name"] == "val/c"
    assert CamVid.ground_truth(camvid / "valannot") == {"c": camvid / "valannot" / "c.png"}


@pytest.fixture
def camvid_download(tmp_path):
    """The folders as SegNet published them, without lists."""
    for split, name in (("train", "0006R0_1"), ("train", "0001TP_2"), ("train", "0001TP_1"), ("val", "0016E5_0001TP")):
        save(tmp_path / split / f"{name}.png", image())
        save(tmp_path / f"{split}annot" / f"{name}.png", np.array([[0, 1, 11], [10, 5, 8]], np.uint8))
    return tmp_path


def test_camvid_lists_follow_from_the_tree(camvid_download):
    for part, names in (
        ("train_day", ["train/0006R0_1"]),
        ("train_dusk", ["train/0001TP_1", "train/0001TP_2"]),
        ("val_day", ["val/0016E5_0001TP"]),
    ):
        path = camvid_download / f"{part}.txt"
        assert CamVid(camvid_download, path).names == CamVid.listed(path) == names
        path.write_text("train/0001TP_2\n")
        assert CamVid(camvid_download, path).names == ["train/0001TP_2"]
    with pytest.raises(UserError, match=r"test_day\.txt: unreadable list \(not found\)"):
        CamVid(camvid_download, camvid_download / "test_day.txt")
    with pytest.raises(UserError, match=r"annot/train_day\.txt: list not found, .*no images"):
        CamVid.listed(camvid_download / "trainannot" / "train_day.txt")


@pytest.mark.parametrize("here", [False, True])
def test_the_camvid_preset_starts_from_the_download(camvid_download, monkeypatch, here):
    (camvid_download / "work").mkdir()
    monkeypatch.chdir(camvid_download / "work")
    names = ["train/0006R0_1"]
    if here:  # a file is preferred, even one in the current folder
        names = ["train/0001TP_2"]
        Path("train_day.txt").write_text("train/0001TP_2\n")
    folders = ("--data-dir", "..", "--data-dir-target", str(camvid_download))
    options, _, _ = config.parse("step1", ["--preset", "camvid_day_to_dusk", *folders])
    table = data_sets.class_table(options, training=True)
    assert data_sets.source_data(options, table).names == names
    assert data_sets.target_data(options, table).names == ["train/0001TP_1", "train/0001TP_2"]
    assert data_sets.test_data(options, table)[1]["label"].tolist() == [[0, 1, 255], [10, 5, 8]]
    options = replace(options, data_dir="nowhere")
    with pytest.raises(UserError, match="nowhere: data folder not found"):
        data_sets.source_data(options, table)


def test_camvid_refuses(camvid):
    (camvid / "list.txt").write_text("train/z\n")
    with pytest.raises(UserError, match=r"train/z\.jpg: image not found .*SPLIT/NAME\.jpg \(or \.png\)"):
        CamVid(camvid, camvid / "list.txt")
    save(camvid / "a.jpg", image())
    (camvid / "list.txt").write_text("a\n")
    with pytest.raises(UserError, match=r"name 'a' .* SPLIT/NAME"):
        CamVid(camvid, camvid / "list.txt")


# Aerial


@pytest.mark.parametrize("suffix", ["JPG", "Png", "jpeg", "TIF"])
def test_images_of_other_suffixes_are_found(tmp_path, suffix):
    save(tmp_path / "camvid" / "train" / f"a.{suffix}", image())
    save(tmp_path / "aerial" / "Images" / f"a.{suffix}", image())
    for reader, name in ((CamVid, "train/a"), (Aerial, "a")):
        data = reader(tmp_path / reader.__name__.lower(), labels=False)
        assert data.names == [name] and data.image_path(name).name == f"a.{suffix}"
        assert data[0]["image"].shape == (3, 2, 3)


@pytest.fixture
def aerial(tmp_path):
    for name, suffix in (("a_0", "png"), ("b_0", "jpg"), ("c_0", "png")):
        save(tmp_path / "Images" / f"{name}.{suffix}", image())
        save(tmp_path / "SegmentationClass" / f"{name}.png", np.array([[0, 1, 255], [1, 0, 0]], np.uint8))
    (tmp_path / "train.txt").write_text("b_0\na_0\n")
    (tmp_path / "val.txt").write_text("c_0\n")
    return tmp_path


def test_aerial(aerial):
    train = Aerial(aerial)
    assert train.names == ["b_0", "a_0"]
    assert train[0]["label"].tolist() == [[0, 1, 255], [1, 0, 0]]
    assert Aerial(aerial, split="val").names == ["c_0"]
    (aerial / "other.txt").write_text("b_0.jpg\n")
    assert Aerial(aerial, aerial / "other.txt")[0]["label"].tolist() == [[0, 1, 255], [1, 0, 0]]
    truth = {name: aerial / "SegmentationClass" / f"{name}.png" for name in ("a_0", "b_0", "c_0")}
    assert Aerial.ground_truth(aerial) == Aerial.ground_truth(aerial / "SegmentationClass") == truth


def test_aerial_without_lists_is_all_for_training(aerial):
    (aerial / "train.txt").unlink()
    with pytest.raises(UserError, match=r"no images .*'train' .*SPLIT\.txt"):
        Aerial(aerial)
    (aerial / "val.txt").unlink()
    assert Aerial(aerial).names == ["a_0", "b_0", "c_0"]
    with pytest.raises(UserError, match="no images of split 'val' found"):
        Aerial(aerial, split="val")


def test_aerial_refuses_masks_that_are_not_prepared(aerial):
    for name in ("a_0", "b_0"):
        save(aerial / "SegmentationClass" / f"{name}.png", np.array([[0, 0, 255], [255, 0, 0]], np.uint8))
    with pytest.raises(UserError, match=r"masks of 0 and 255 .* prepare_aerial\.py"):
        Aerial(aerial)
    assert len(Aerial(aerial, labels=False)) == 2
    (aerial / "manifest.json").write_text("{}")
    assert Aerial(aerial)[0]["label"].tolist() == [[0, 0, 255], [255, 0, 0]]
    save(aerial / "SegmentationClass" / "b_0.png", np.array([[0, 0, 255], [77, 0, 0]], np.uint8))
    with pytest.raises(UserError, match=r"b_0\.png: id 77 .* 0 .*1 .*255"):
        Aerial(aerial)[0]


# Labels in another folder than the images


@pytest.fixture
def restyled(tmp_path):
    """GTA5 as published, and restyled images of another size in a flat folder."""
    save(tmp_path / "gta" / "images" / "00001.png", image())
    save(tmp_path / "gta" / "labels" / "00001.png", LABEL)
    save(tmp_path / "flat" / "00001.jpg", np.full((4, 6, 3), 9, np.uint8))
    return tmp_path


@pytest.mark.parametrize("labels", ["gta", "gta/labels"])
def test_gta5_restyled_images_take_their_labels_from_elsewhere(restyled, labels):
    dataset = GTA5(restyled / "flat", label_root=restyled / labels, size=(3, 2))
    sample = dataset[0]
    assert dataset.names == ["00001.jpg"]
    assert sample["image"].unique().tolist() == [9]
    assert sample["label"].tolist() == TRAIN_IDS
    (restyled / "flat").rename(restyled / "images")
    assert GTA5(restyled, label_root=restyled / labels, size=(3, 2))[0]["label"].tolist() == TRAIN_IDS


def test_labels_apart_refuse_another_shape_and_no_folder(restyled):
    save(restyled / "flat" / "00001.jpg", np.full((4, 7, 3), 9, np.uint8))
    with pytest.raises(UserError, match=r"label of 3x2 .* image .* 7x4"):
        GTA5(restyled / "flat", label_root=restyled / "gta", size=(3, 2))[0]
    with pytest.raises(UserError, match="nowhere: folder of labels not found"):
        GTA5(restyled / "flat", label_root=restyled / "nowhere")
    with pytest.raises(UserError, match="no images of split 'train' found"):
        GTA5(restyled / "flat")


@pytest.mark.parametrize("reader", READERS.values())
def test_every_reader_takes_its_labels_from_the_label_root(reader):
    dataset = object.__new__(reader)
    dataset.root, dataset.label_root, dataset.split = Path("here"), Path("elsewhere"), "train"
    assert Path("elsewhere") in dataset.label_path("train/NAME_leftImg8bit.png").parents
    assert Path("here") in dataset.image_path("train/NAME_leftImg8bit.png").parents


@pytest.mark.skipif("BAFFT_CAMVID" not in os.environ, reason="BAFFT_CAMVID names no CamVid folder")
def test_camvid_itself():
    root = Path(os.environ["BAFFT_CAMVID"])
    day, dusk = (CamVid(root, root / f"train_{part}.txt", size=(240, 180)) for part in ("day", "dusk"))
    for name, made in CamVid.tree_lists.items():
        assert made(root) == sorted(CamVid.listed(root / name))
    assert (len(day), len(dusk), len(CamVid(root)), len(CamVid(root, split="val"))) == (305, 62, 367, 101)
    for dataset in (day, dusk):
        sample = dataset[len(dataset) // 2]
        assert sample["size"] == (480, 360)
        assert sample["image"].shape == (3, 180, 240)
        assert set(sample["label"].unique().tolist()) <= {*range(11), 255}
    assert day[0]["image"].float().mean() > dusk[0]["image"].float().mean()


# Cityscapes as people keep it

CITY = "aachen/aachen_000000_000019"
FRAME = "aachen_000000_000019"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        (f"{CITY}_leftImg8bit.jpg", CITY),
        (f"{CITY}_leftImg8bit.JPG", CITY),
        (f"{CITY}.png", CITY),
        (f"{FRAME}_leftImg8bit.png", FRAME),
        (f"{FRAME}_leftImg8bit.png", CITY),
        (f"{CITY}_leftImg8bit.png", FRAME),
        (f"{FRAME}.jpeg", FRAME),
    ],
)
def test_cityscapes_in_jpeg_without_cities_or_with_shorter_names(tmp_path, name, label):
    save(tmp_path / "leftImg8bit/train" / name, image())
    save(tmp_path / f"gtFine/train/{label}_gtFine_labelIds.png", LABEL)
    data = Cityscapes(tmp_path)
    assert data.names == [name] and data[0]["label"].tolist() == TRAIN_IDS
    assert [data.key(name)] == list(Cityscapes.ground_truth(tmp_path / "gtFine"))


def test_cityscapes_as_a_target_in_a_flat_folder(tmp_path):
    save(tmp_path / f"{FRAME}_leftImg8bit.png", image())
    save(tmp_path / "notes/1.png", image())
    assert Cityscapes(tmp_path, labels=False).names == [f"{FRAME}_leftImg8bit.png"]
    with pytest.raises(UserError, match=rf"{FRAME}_leftImg8bit\.png was passed over: it is not in leftImg8bit/train/;"):
        Cityscapes(tmp_path)


def test_names_that_are_passed_over_are_told(cityscapes, caplog):
    caplog.set_level("INFO", logger="bafft")
    save(cityscapes / "leftImg8bit/train/aachen/x.png", image())
    assert Cityscapes(cityscapes).names == [AACHEN, BOCHUM]
    [record] = caplog.records
    assert says(record.getMessage(), "passed over 1 of 3 images, ... aachen/x.png: ... name ... CITY_SEQUENCE_FRAME")
    caplog.clear()
    foggy = "ulm/ulm_000000_000019_leftImg8bit_foggy_beta_0.02.png"
    save(cityscapes / "leftImg8bit/test" / foggy, image())
    with pytest.raises(UserError, match=r"beta_0\.02\.png was passed over: .* foggy_cityscapes"):
        Cityscapes(cityscapes, split="test", labels=False)
    assert not caplog.records


# Foggy Cityscapes


@pytest.mark.parametrize("folder", ["leftImg8bit_foggy", "leftImg8bit"])
def test_foggy_cityscapes_takes_the_densest_fog(tmp_path, caplog, folder):
    caplog.set_level("INFO", logger="bafft")
    for beta in ("0.005", "0.01", "0.02"):
        save(tmp_path / folder / f"train/{CITY}_leftImg8bit_foggy_beta_{beta}.png", image())
    save(tmp_path / f"gtFine/train/{CITY}_gtFine_labelIds.png", LABEL)
    data = FoggyCityscapes(tmp_path)
    assert data.names == [f"{CITY}_leftImg8bit_foggy_beta_0.02.png"]
    assert data[0]["label"].tolist() == TRAIN_IDS
    assert [data.key(name) for name in data.names] == list(FoggyCityscapes.ground_truth(tmp_path / "gtFine"))
    said = f"passed over 2 images with thinner fog, first {CITY}_leftImg8bit_foggy_beta_0.005.png"
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path}: {said}"]
    name = f"{CITY}_leftImg8bit_foggy_beta_0.01.png"
    (tmp_path / "list.txt").write_text(f"{name}\n")
    assert FoggyCityscapes(tmp_path, tmp_path / "list.txt").names == [name]
    assert beside_labels(data).strays == []


# ACDC and Dark Zurich

NIGHT = "GOPR0351/GOPR0351_frame_000159"


@pytest.mark.parametrize("folder", ["night/train", "train/night"])
def test_acdc_and_dark_zurich(tmp_path, folder):
    save(tmp_path / f"rgb_anon/{folder}/{NIGHT}_rgb_anon.png", image())
    save(tmp_path / f"rgb_anon/{folder.replace('train', 'train_ref')}/{NIGHT}_rgb_ref_anon.png", image())
    save(tmp_path / f"rgb_anon/{folder.replace('train', 'val')}/{NIGHT}_rgb_anon.png", image())
    label = tmp_path / f"gt/{folder}/{NIGHT}_gt_labelTrainIds.png"
    save(label, np.array([[0, 18, 255], [255, 7, 1]], np.uint8))
    save(label.with_name("GOPR0351_frame_000159_gt_labelColor.png"), image())
    data = ACDC(tmp_path)
    assert data.names == [f"{folder}/{NIGHT}_rgb_anon.png"]
    assert data[0]["label"].tolist() == [[0, 18, 255], [255, 7, 1]]
    assert ACDC.ground_truth(tmp_path / "gt") == {"GOPR0351_frame_000159_rgb_anon": label}
    assert ACDC.prediction_key(Path("GOPR0351_frame_000159_pred.png"), tmp_path) == data.key(data.names[0])
    assert ACDC(tmp_path, tmp_path / "train_night.txt").names == data.names
    with pytest.raises(UserError, match=r"train_fog\.txt: list not found"):
        ACDC(tmp_path, tmp_path / "train_fog.txt")
    label.rename(label.with_name("GOPR0351_frame_000159_gt_labelIds.png"))
    save(label.with_name("GOPR0351_frame_000159_gt_labelIds.png"), LABEL)
    assert ACDC(tmp_path)[0]["label"].tolist() == TRAIN_IDS
    assert beside_labels(data).strays == []
    save(tmp_path / f"rgb_anon/{folder}/x.png", image())
    (tmp_path / f"rgb_anon/{folder}/{NIGHT}_rgb_anon.png").unlink()
    with pytest.raises(UserError, match=r"/x\.png was passed over: .* _rgb_anon\.png"):
        ACDC(tmp_path)


# Images whose size differs from that of their labels


def test_labels_in_the_same_folder_may_be_larger_but_not_of_another_shape(tmp_path):
    save(tmp_path / "images/00001.png", np.full((4, 6, 3), 9, np.uint8))
    save(tmp_path / "labels/00001.png", LABEL)
    data = GTA5(tmp_path, size=(3, 2))
    assert data.header_fault("00001.png") is None
    assert data[0]["label"].tolist() == TRAIN_IDS
    # 1024x564 and 1914x1052, as restyled images of GTA5 have, differ by 0.2 %; 1914x1052 and 2048x1024 by 9 %.
    data.refuse_other_size("00001.png", (1914, 1052), (1024, 564))
    with pytest.raises(UserError, match=r"label of 1914x1052 .* 2048x1024"):
        data.refuse_other_size("00001.png", (1914, 1052), (2048, 1024))


def test_restyled_images_keep_the_known_pairs_unless_their_shapes_differ(misfits):
    for name in ("00001", "15188", "17705", "20000"):
        save(misfits / "images" / f"{name}.png", np.zeros((4, 6, 3), np.uint8))
    save(misfits / "labels" / "17705.png", LABEL)
    assert GTA5(misfits).left_out == ["15188.png"]
