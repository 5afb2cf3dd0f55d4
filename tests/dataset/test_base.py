"""What all readers share: lists, checks, resizing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from dataset import GTA5
from dataset.augment import Augment
from dataset.classes import CITYSCAPES, IGNORE
from dataset.reading import read_image
from tests.labels import train_ids
from utils.system.errors import UserError

ROAD, CAR, UNLABELLED = 7, 26, 0


def write(root: Path, name: str, image: np.ndarray, label: np.ndarray | None) -> None:
    for folder, data in (("images", image), ("labels", label)):
        if data is not None:
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(data).save(root / folder / name)


@pytest.fixture
def root(tmp_path):
    """Three 8x4 images of one colour each; left half road, right half car, one unlabelled pixel."""
    for number in (1, 2, 3):
        label = np.full((4, 8), ROAD, np.uint8)
        label[:, 4:] = CAR
        label[0, 0] = UNLABELLED
        write(tmp_path, f"0000{number}.png", np.full((4, 8, 3), (10 * number, 100, 200), np.uint8), label)
    return tmp_path


def write_list(root: Path, *lines: str, end: str = "\n") -> Path:
    path = root / "list.txt"
    path.write_bytes(end.join(lines).encode())
    return path


# Lists.


def test_list_order_blank_lines_and_crlf(root):
    path = write_list(root, "\ufeff00003.png", "", "  ", "00001.png ", "", end="\r\n")
    assert GTA5(root, path).names == ["00003.png", "00001.png"]
    assert GTA5(root).names == ["00001.png", "00002.png", "00003.png"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["", " "], "list.txt: the list is empty"),
        (["00001.png", "", "00001.png"], "list.txt, line 3: '00001.png' .* line 1"),
        (["/etc/00001.png"], "list.txt, line 1: '/etc/00001.png'"),
        (["00001.png", "a/../00002.png"], "list.txt, line 2"),
    ],
)
def test_list_refuses(root, lines, message):
    with pytest.raises(UserError, match=message):
        GTA5(root, write_list(root, *lines))


def test_list_missing_or_binary(root):
    with pytest.raises(UserError, match=r"none\.txt: unreadable list"):
        GTA5(root, root / "none.txt")
    with pytest.raises(UserError, match=r"00001\.png: unreadable list"):
        GTA5(root, root / "images" / "00001.png")


# Files.


def test_missing_folder_and_empty_folder(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: data folder .* images/00001\.png"):
        GTA5(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"{tmp_path}: no images .*'train'"):
        GTA5(tmp_path)


def test_missing_image(root):
    path = write_list(root, "00001.png", "00008.png", "00009.png")
    with pytest.raises(UserError, match=r"images/00008\.png: image not found .*2 of 3.*remove its"):
        GTA5(root, path)


def test_missing_label_unless_unlabelled(root):
    (root / "labels" / "00002.png").unlink()
    with pytest.raises(UserError, match=r"labels/00002\.png: label not found .*1 of 3"):
        GTA5(root)
    (root / "labels" / "00001.png").write_bytes(b"never read")
    sample = GTA5(root, labels=False)[0]
    assert set(sample) == {"image", "name", "size"}


def test_two_names_of_one_key(root):
    pixels = np.zeros((2, 2, 3), np.uint8)
    (root / "images" / "a").mkdir()
    Image.fromarray(pixels).save(root / "images" / "a" / "00001.png")
    with pytest.raises(UserError, match=r"00001\.png and a/00001\.png .*same file name"):
        GTA5(root, labels=False)


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "flipped"])
@pytest.mark.parametrize("kind", ["images", "labels"])
def test_corrupt_file(tmp_path, kind, damage):
    noise = np.random.default_rng(0).integers(0, 34, (40, 40, 3), dtype=np.uint8)
    write(tmp_path, "00001.png", noise, noise[:, :, 0].copy())
    path = tmp_path / kind / "00001.png"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    broken = {"empty": b"", "text": b"x" * 99, "truncated": data[:middle], "flipped": flipped}
    path.write_bytes(broken[damage])
    with pytest.raises(UserError, match=rf"{kind}/00001\.png: corrupt .* {kind[:-1]} .*remove it"):
        GTA5(tmp_path)[0]


def test_truncated_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"a\.jpg: corrupt or unreadable image"):
        read_image(path)


def test_error_names_the_file_across_a_loader_process(root):
    (root / "images" / "00001.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"images/00001\.png: corrupt"):
        next(iter(DataLoader(GTA5(root), num_workers=1)))


def test_label_of_another_size(root):
    Image.fromarray(np.full((4, 6), ROAD, np.uint8)).save(root / "labels" / "00001.png")
    with pytest.raises(UserError, match=r"labels/00001\.png: label of 6x4.*images/00001\.png has 8x4"):
        GTA5(root, size=(4, 2))[0]


def test_label_with_colours(root):
    Image.fromarray(np.full((4, 8, 3), (1, 2, 3), np.uint8)).save(root / "labels" / "00001.png")
    with pytest.raises(UserError, match=r"labels/00001\.png: label of mode RGB .*\[1, 2, 3\]"):
        GTA5(root)[0]


# Samples.


def test_sample_at_native_size(root):
    sample = GTA5(root)[1]
    assert (sample["name"], sample["size"]) == ("00002.png", (8, 4))
    assert sample["image"].dtype == sample["label"].dtype == torch.uint8
    assert sample["image"].shape == (3, 4, 8) and sample["image"].is_contiguous()
    assert sample["image"][:, 3, 7].tolist() == [20, 100, 200]
    assert sample["label"].tolist() == [[IGNORE, 0, 0, 0, 13, 13, 13, 13]] + 3 * [[0] * 4 + [13] * 4]


def test_sizes(root):
    sample = GTA5(root, size=(4, 2))[0]
    assert sample["image"].shape == (3, 2, 4)
    assert sample["size"] == (8, 4)
    # Pillow's nearest takes pixel floor((i + 0.5) * 2): the unlabelled one falls out.
    assert sample["label"].tolist() == [[0, 0, 13, 13]] * 2
    native = GTA5(root, size=(4, 2), label_size="native")[0]
    assert native["image"].shape == (3, 2, 4)
    assert native["label"].shape == (4, 8)
    assert native["label"][0, 0] == IGNORE


def test_image_resized_bicubic(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    write(tmp_path, "00001.png", pixels, None)
    image = GTA5(tmp_path, size=(7, 4), labels=False)[0]["image"]
    expected = np.asarray(Image.fromarray(pixels).resize((7, 4), Image.Resampling.BICUBIC))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_class_count_and_ignore_label(root):
    label = GTA5(root, table=CITYSCAPES.first(13), ignore_label=99)[0]["label"]
    assert label.tolist() == [[99, 0, 0, 0] + [99] * 4] + 3 * [[0] * 4 + [99] * 4]
    with pytest.raises(UserError, match="ignore label: 18"):
        GTA5(root, ignore_label=18)


def test_label_ids_of_the_table_come_before_the_data_sets_own(root):
    table = replace(CITYSCAPES.first(2), label_ids={CAR: 1})
    assert GTA5(root, table=table)[0]["label"].unique().tolist() == [1, IGNORE]
    label = train_ids(GTA5, root / "labels" / "00001.png", 7, table)
    assert np.unique(label).tolist() == [1, 7]


def test_bad_arguments(root):
    with pytest.raises(UserError, match="image size"):
        GTA5(root, size=(0, 4))
    for arguments in (
        {"label_size": "big"},
        {"label_size": "native", "augment": Augment(mirror=True)},
        {"pseudo_label_dir": root, "labels": False},
    ):
        with pytest.raises(ValueError):
            GTA5(root, **arguments)


def test_a_data_set_limited_to_some_names(root):
    data = GTA5(root)
    few = data.limited_to(["00003.png", "00001.png"])
    assert (few.names, data.names) == (["00003.png", "00001.png"], ["00001.png", "00002.png", "00003.png"])
    assert few[0]["name"] == "00003.png" and torch.equal(few[1]["image"], data[0]["image"])


# Pseudo-labels.


def pseudo_labels(root: Path, value: int) -> Path:
    folder = root / "pseudo"
    folder.mkdir()
    for number in (1, 2, 3):
        Image.fromarray(np.array([[number, 255], [18, value]], np.uint8)).save(folder / f"0000{number}.png")
    return folder


def test_pseudo_labels_are_train_ids_of_any_size(root):
    (root / "labels" / "00002.png").unlink()
    sample = GTA5(root, size=(4, 2), pseudo_label_dir=pseudo_labels(root, 5))[1]
    assert sample["label"].tolist() == [[2, 2, 255, 255], [18, 18, 5, 5]]


def test_pseudo_labels_refuse(root):
    with pytest.raises(UserError, match="pseudo: no such folder"):
        GTA5(root, pseudo_label_dir=root / "pseudo")
    folder = pseudo_labels(root, 19)
    with pytest.raises(UserError, match=r"pseudo/00001\.png: pseudo-label with id 19"):
        GTA5(root, pseudo_label_dir=folder)[0]
    (folder / "00003.png").unlink()
    with pytest.raises(UserError, match=r"pseudo/00003\.png: pseudo-label not found .*generate"):
        GTA5(root, pseudo_label_dir=folder)
