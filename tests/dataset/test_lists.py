"""Lists as other projects write them: two names per line, folders before a name, names of labels, other endings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset import ACDC, GTA5, Aerial, CamVid, Cityscapes, FoggyCityscapes, Folder, Synthia
from dataset.base import SegmentationDataset
from dataset.classes import AERIAL, CITYSCAPES
from dataset.reading import read_lines
from utils.system.errors import UserError


def save(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(root / name)
    return root


def listed(root: Path, *lines: str) -> Path:
    path = root.parent / "list.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("a.png\tb.png", ("a.png", "b.png")),
        ("a.png b.png", ("a.png", "b.png")),
        ("a.JPEG , b.png", ("a.JPEG", "b.png")),
        ("a.png;b.png", ("a.png", "b.png")),
        ("a\tb", ("a", "b")),
        ("my frame 1.png  my frame 1.png", ("my frame 1.png", "my frame 1.png")),
        ("my frame 1.png", ("my frame 1.png", None)),
        ("a.png.jpg", ("a.png.jpg", None)),
        ("beta_0.01.png", ("beta_0.01.png", None)),
        ("a, b.png", ("a, b.png", None)),
        ('"a.png","b.png"', ("a.png", "b.png")),
        ('"my, frame.png", b.png', ("my, frame.png", "b.png")),
        ('a.png;"b.png"', ("a.png", "b.png")),
        ('"a"\t"b"', ("a", "b")),
        ("#1.png", ("#1.png", None)),
    ],
)
def test_one_or_two_names_in_a_line(tmp_path, line, names):
    (tmp_path / "list.txt").write_text(f"\n{line}\n")
    [found] = read_lines(tmp_path / "list.txt")
    assert (found.number, found.name, found.label) == (2, *names)


@pytest.mark.parametrize("line", ["a.png b.png c.png", "a\tb\tc"])
def test_three_names_are_too_many(tmp_path, line):
    (tmp_path / "list.txt").write_text(f"{line}\n")
    with pytest.raises(UserError, match=r"list\.txt, line 1: 3 names; expected"):
        read_lines(tmp_path / "list.txt")


def names_of(path: Path, *lines: str) -> list[tuple[int, str, str | None]]:
    path.write_text("\n".join(lines) + "\n")
    return [(line.number, line.name, line.label) for line in read_lines(path)]


def test_comments_do_not_count(tmp_path):
    path = tmp_path / "list.txt"
    assert names_of(path, "# the images, by day", "a.png", "#", "# b.png", "c.png") == [
        (2, "a.png", None),
        (5, "c.png", None),
    ]
    with pytest.raises(UserError, match=r"list\.txt: the list is empty"):
        names_of(path, "# nothing")


@pytest.mark.parametrize(
    "header", ["image,label", "Image_Path;Mask", '"img","mask"', "filename\tannotation", "file name"]
)
def test_names_of_columns_do_not_count_and_are_logged(tmp_path, caplog, header):
    caplog.set_level("INFO", "bafft")
    path = tmp_path / "list.csv"
    assert names_of(path, "# of 2026", header, "images/1.png,labels/1.png") == [(3, "images/1.png", "labels/1.png")]
    assert f"{path}: line 2, {header}, is read as the names of the columns" in caplog.text


@pytest.mark.parametrize(
    "lines",
    [
        ("image",),  # the file has only this line
        ("image", "street"),  # names without endings
        ("image", "image 2", "3.png"),
        ("image_1", "2.png"),
        ("images/one", "2.png"),
        ("road", "2.png"),
    ],
)
def test_a_first_name_without_an_ending_is_kept(tmp_path, lines):
    assert [name for _, name, _ in names_of(tmp_path / "list.txt", *lines)] == list(lines)


AACHEN = "aachen/aachen_000000_000019_leftImg8bit.png"
AACHEN_LABEL = "aachen/aachen_000000_000019_gtFine_labelIds.png"
NIGHT = "night/train/GOPR0351/GOPR0351_frame_000159_rgb_anon.png"
NIGHT_LABEL = "night/train/GOPR0351/GOPR0351_frame_000159_gt_labelTrainIds.png"
FOGGY = "aachen/aachen_000000_000019_leftImg8bit_foggy_beta_0.01.png"

GTA5_LINES = (
    "00001.png",
    "00001",
    "00001.jpg",
    "./images/00001.png",
    "images/00001.png",
    "labels/00001.png",
    "gta5_deeplab/images/00001.png",
    "/elsewhere/gta5_deeplab/images/00001.png",
    "images/00001.png\tlabels/00001.png",
    "images/00001.png labels/00001.png",
    "/elsewhere/images/00001.png,/elsewhere/labels/00001.png",
    "00001 00001",
)
SYNTHIA_LINES = ("0000001.png", "RGB/0000001.png", "RGB/0000001.png\tGT/LABELS/0000001.png", "GT/LABELS/0000001.png")
CITYSCAPES_LINES = (
    AACHEN,
    "aachen/aachen_000000_000019",
    "aachen_000000_000019_leftImg8bit.png",
    "train/" + AACHEN,
    "leftImg8bit/train/" + AACHEN,
    "/elsewhere/Cityscapes/leftImg8bit/train/" + AACHEN,
    "gtFine/train/" + AACHEN_LABEL,
    AACHEN_LABEL.replace("labelIds", "labelTrainIds"),
    f"leftImg8bit/train/{AACHEN}\tgtFine/train/{AACHEN_LABEL}",
    f"leftImg8bit/train/{AACHEN} gtFine/train/{AACHEN_LABEL.replace('labelIds', 'labelTrainIds')}",
    f"{AACHEN},{AACHEN_LABEL}",
)
CAMVID_LINES = (
    "train/0001TP_1",
    "train/0001TP_1.png",
    "/SegNet/CamVid/train/0001TP_1.png /SegNet/CamVid/trainannot/0001TP_1.png",
    "CamVid/train/0001TP_1.png",
    "trainannot/0001TP_1.png",
    "train/0001TP_1\ttrainannot/0001TP_1",
)
FOLDER_LINES = (
    "day/1.jpg",
    "day/1.png",
    "images/day/1.jpg",
    "labels/day/1.png",
    "labels/day/1_mask.png",
    "day/1.jpg\tlabels/day/1_mask.png",
    "data/images/day/1.jpg",
    "day/1.jpg day/1.png",
    "images/day/1.jpg\tlabels/day/1.png",
)
ACDC_LINES = (
    NIGHT,
    "rgb_anon/" + NIGHT,
    "gt/" + NIGHT_LABEL,
    f"rgb_anon/{NIGHT}\tgt/{NIGHT_LABEL}",
    f"acdc/rgb_anon/{NIGHT} acdc/gt/{NIGHT_LABEL}",
)
FOGGY_LINES = (
    FOGGY,
    "leftImg8bit_foggy/train/" + FOGGY,
    f"leftImg8bit_foggy/train/{FOGGY}\tgtFine/train/{AACHEN_LABEL}",
)

CASES: list[tuple[type[SegmentationDataset], tuple[str, ...], str, tuple[str, ...]]] = [
    (GTA5, ("images/00001.png", "labels/00001.png"), "00001.png", GTA5_LINES),
    (Synthia, ("RGB/0000001.png", "GT/LABELS/0000001.png"), "0000001.png", SYNTHIA_LINES),
    (Cityscapes, (f"leftImg8bit/train/{AACHEN}", f"gtFine/train/{AACHEN_LABEL}"), AACHEN, CITYSCAPES_LINES),
    (CamVid, ("train/0001TP_1.png", "trainannot/0001TP_1.png"), "train/0001TP_1", CAMVID_LINES),
    (Folder, ("images/day/1.jpg", "labels/day/1.png"), "day/1.jpg", FOLDER_LINES),
    (ACDC, (f"rgb_anon/{NIGHT}", f"gt/{NIGHT_LABEL}"), NIGHT, ACDC_LINES),
    (FoggyCityscapes, (f"leftImg8bit_foggy/train/{FOGGY}", f"gtFine/train/{AACHEN_LABEL}"), FOGGY, FOGGY_LINES),
]


@pytest.mark.parametrize(
    ("reader", "files", "name", "line"),
    [(reader, files, name, line) for reader, files, name, lines in CASES for line in lines],
)
def test_a_line_means_the_image(root, reader, files, name, line):
    save(root, *files)
    data = reader(root, listed(root, line), table=CITYSCAPES)
    # The lists of CamVid may give endings; an ending is then part of the name.
    assert [Path(name).with_suffix("") for name in data.names] == [Path(name).with_suffix("")]
    assert data.image_path(data.names[0]) == root / files[0]
    assert data.label_path(data.names[0]) == root / files[1]
    truth = reader.ground_truth(root / files[1].split("/")[0])
    assert reader.listed_keys(listed(root, line), truth) == [data.key(name)] == list(truth)


@pytest.mark.parametrize(
    "line", ["a_0", "Images/a_0.png", "a_0.png", "Images/a_0.png SegmentationClass/a_0.png", "a_0 a_0"]
)
def test_lists_of_tiles(root, line):
    save(root, "Images/a_0.png", "SegmentationClass/a_0.png")
    (root / "train.txt").write_text(f"{line}\n")
    data = Aerial(root, table=AERIAL)
    assert [data.key(name) for name in data.names] == ["a_0"]
    assert data.label_path(data.names[0]) == root / "SegmentationClass/a_0.png"


@pytest.mark.parametrize(
    ("reader", "files", "name", "line"),
    [
        (GTA5, ("images/00001.png",), "00001.png", "00001.png nothing.png"),
        (Cityscapes, (f"leftImg8bit/train/{AACHEN}",), AACHEN, f"leftImg8bit/train/{AACHEN}\tnothing"),
    ],
)
def test_the_label_of_a_line_does_not_matter_where_labels_are_not_read(root, reader, files, name, line):
    save(root, *files)
    assert reader(root, listed(root, line), labels=False).names == [name]


@pytest.mark.parametrize(
    ("reader", "files", "line", "label"),
    [
        (GTA5, ("images/00001.png", "labels/00002.png"), "images/00001.png\tlabels/00002.png", "labels/00001.png"),
        (Folder, ("images/a/1.png", "labels/b/1.png"), "a/1.png b/1.png", "labels/a/1.png"),
        (
            Cityscapes,
            (f"leftImg8bit/train/{AACHEN}",),
            f"{AACHEN} {AACHEN_LABEL.replace('000019', '000020')}",
            AACHEN_LABEL,
        ),
    ],
)
def test_an_image_with_the_label_of_another(root, reader, files, line, label):
    save(root, *files)
    with pytest.raises(UserError, match=rf"list\.txt, line 1: .* paired with .* label is .*{label}; "):
        reader(root, listed(root, line), table=CITYSCAPES)


@pytest.mark.parametrize(
    ("reader", "files", "line"),
    [
        (Folder, ("images/1.png",), "camera/1.png"),
        (Folder, ("images/day/1.png",), "night/1.png"),
        (GTA5, ("images/1.png",), "other/1.png"),
        (Cityscapes, (f"leftImg8bit/train/{AACHEN}",), "leftImg8bit/val/bonn/bonn_000000_000019_leftImg8bit.png"),
        (ACDC, (f"rgb_anon/{NIGHT}",), NIGHT.replace("night", "fog")),
        (FoggyCityscapes, (f"leftImg8bit_foggy/train/{FOGGY}",), FOGGY.replace("0.01", "0.02")),
    ],
)
def test_a_name_is_not_taken_for_another_image(root, reader, files, line):
    save(root, *files)
    with pytest.raises(UserError, match=r"image not found .*1 of 1"):
        reader(root, listed(root, line), table=CITYSCAPES, labels=False)


@pytest.mark.parametrize("line", ["leftImg8bit/train/" + AACHEN, "train/" + AACHEN])
def test_a_list_of_another_split(root, line):
    save(root, f"leftImg8bit/train/{AACHEN}", "leftImg8bit/val/bonn/bonn_000000_000019_leftImg8bit.png")
    with pytest.raises(UserError, match=r"line 1: .* not in .*leftImg8bit/val; .* 'val'"):
        Cityscapes(root, listed(root, line), split="val", labels=False)


def test_an_absolute_name_needs_a_folder_of_the_layout(root):
    save(root, "images/00001.png")
    with pytest.raises(UserError, match=r"line 1: '/etc/00001\.png'"):
        GTA5(root, listed(root, "/etc/00001.png"), labels=False)


def test_an_image_that_is_listed_under_two_names(root):
    save(root, "images/00001.png", "images/00002.png")
    with pytest.raises(UserError, match=r"line 3: 'images/00001\.png' .* line 1"):
        GTA5(root, listed(root, "00001.png", "00002.png", "images/00001.png"), labels=False)
