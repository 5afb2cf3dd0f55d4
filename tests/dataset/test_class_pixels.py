"""The pixels of every class: counts that are kept, and the weights of the classes by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dataset import GTA5, Folder
from dataset.class_pixels import class_pixels, class_shares, class_weights
from dataset.tables import parse_classes
from tests.dataset.test_base import root, write  # noqa: F401
from utils.system.errors import UserError

# Classes road, car, train; pixels of no class in the last column.
PIXELS = np.array([[50, 4, 0, 46], [46, 0, 0, 54]])


def test_weights_by_hand() -> None:
    assert class_shares(PIXELS).tolist() == [0.96, 0.04, 0]
    mean = math.sqrt(0.96) + 0.2  # of the weights below, over the pixels: 0.96 / sqrt(0.96) + 0.04 * 5
    assert class_weights(PIXELS, 0.5).tolist() == pytest.approx([1 / math.sqrt(0.96) / mean, 5 / mean, 100 / mean])
    assert class_weights(PIXELS, 0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("power", [0.3, 1.0])
def test_the_mean_weight_of_all_pixels_is_1(power: float) -> None:
    pixels = np.random.default_rng(0).integers(1, 1000, (5, 9))
    counts = pixels[:, :-1].sum(0)
    assert (class_weights(pixels, power) * counts).sum() / counts.sum() == pytest.approx(1)


def test_labels_without_any_class_are_refused() -> None:
    with pytest.raises(UserError, match="no source label shows any class"):
        class_weights(PIXELS * [0, 0, 0, 1], 0.5)


def test_pixels_are_counted_once_and_again_when_a_label_changes(root, tmp_path, monkeypatch) -> None:  # noqa: F811
    data = GTA5(root, size=(4, 2))
    expected = np.zeros((3, 20), np.int64)
    expected[:, 0], expected[:, 13], expected[:, -1] = 4, 4, 0  # resized to 4x2, where the unlabelled pixel is lost
    assert class_pixels(data, tmp_path / "kept", workers=2).tolist() == expected.tolist()
    monkeypatch.setattr(GTA5, "label_pixels", None)
    assert class_pixels(data, tmp_path / "kept").tolist() == expected.tolist()
    monkeypatch.undo()
    write(root, "00002.png", np.zeros((4, 8, 3), np.uint8), np.zeros((4, 8), np.uint8))
    assert class_pixels(data, tmp_path / "kept")[1].tolist() == [0] * 19 + [8]
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_pixels_are_counted_again_for_other_colours_and_another_size(root, tmp_path) -> None:  # noqa: F811
    label = np.zeros((4, 8, 3), np.uint8)
    label[0] = 255
    write(root, "00001.png", np.zeros((4, 8, 3), np.uint8), label)

    def counted(first: list[int], second: list[int], **options: Any) -> list[int]:
        classes = [{"name": "a", "kind": "stuff", "color": first}, {"name": "b", "kind": "thing", "color": second}]
        data = Folder(root, table=parse_classes({"classes": classes}, "classes.yaml"), **options)
        return class_pixels(data.limited_to(["00001.png"]), tmp_path / "kept")[0].tolist()

    assert counted([0, 0, 0], [255, 255, 255]) == [24, 8, 0]
    assert counted([255, 255, 255], [0, 0, 0]) == [8, 24, 0]
    assert counted([255, 255, 255], [0, 0, 0], size=(16, 4)) == [16, 48, 0]


def test_counts_that_cannot_be_kept_are_used_all_the_same(root, tmp_path, caplog) -> None:  # noqa: F811
    (tmp_path / "file").touch()
    assert class_pixels(GTA5(root), tmp_path / "file").shape == (3, 20)
    assert "class_pixels_" in caplog.text and "cannot be written" in caplog.text


def test_a_label_that_cannot_be_read_has_no_pixels_or_is_an_error(root, tmp_path) -> None:  # noqa: F811
    (root / "labels" / "00003.png").write_bytes(b"no image")
    assert class_pixels(GTA5(root, skip_bad=True), tmp_path / "kept")[2].tolist() == [0] * 20
    with pytest.raises(UserError, match=r"00003\.png"):
        class_pixels(GTA5(root), tmp_path / "none")
    assert not (tmp_path / "none").exists()
