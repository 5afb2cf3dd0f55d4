"""The confusion matrix compared with a plain loop and values by hand."""

import json
import math

import numpy as np
import pytest
import torch

from dataset.classes import AERIAL, CAMVID, CITYSCAPES
from utils.prediction.metrics import ConfusionMatrix
from utils.system.errors import UserError


def plain_matrix(pred, label, num_classes, ignore):
    counts = np.zeros((num_classes, num_classes), np.int64)
    for guess, truth in zip(pred.reshape(-1).tolist(), label.reshape(-1).tolist(), strict=True):
        if truth != ignore:
            counts[truth, guess] += 1
    return counts


def hand_case() -> ConfusionMatrix:
    """Road: 2 true, 3 predicted, 2 correct. Sidewalk: 2, 1, 1. Sky: predicted once, never true. The rest is absent."""
    confusion = ConfusionMatrix(19, 255)
    pred, label = [[0, 0, 0], [1, 10, 5]], [[0, 0, 1], [1, 255, 255]]
    confusion.update(np.array(pred, np.uint8), np.array(label, np.uint8))
    confusion.update(np.array([[10]]), np.array([[2]]))
    return confusion


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_matches_a_plain_loop(dtype):
    rng = np.random.default_rng(0)
    confusion = ConfusionMatrix(5, 250)
    expected = np.zeros((5, 5), np.int64)
    for _ in range(3):
        pred = rng.integers(0, 5, (7, 9)).astype(dtype)
        label = rng.choice([0, 1, 2, 3, 250], (7, 9)).astype(dtype)
        confusion.update(pred, label)
        expected += plain_matrix(pred, label, 5, 250)
    assert confusion.matrix.dtype == np.int64
    assert np.array_equal(confusion.matrix, expected)
    union = [expected[c].sum() + expected[:, c].sum() - expected[c, c] for c in range(5)]
    assert confusion.iou() == pytest.approx([expected[c, c] / union[c] for c in range(5)])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_tensors_and_arrays_count_alike(device):
    rng = np.random.default_rng(1)
    pred = rng.integers(0, 4, (2, 5, 6))
    label = rng.choice([0, 1, 2, 3, 255], (2, 5, 6)).astype(np.uint8)
    arrays, tensors, mixed = (ConfusionMatrix(4) for _ in range(3))
    arrays.update(pred, label)
    tensors.update(torch.from_numpy(pred).to(device), torch.from_numpy(label).to(device))
    mixed.update(torch.from_numpy(pred).to(device), label)
    assert np.array_equal(arrays.matrix, tensors.matrix)
    assert np.array_equal(arrays.matrix, mixed.matrix)


def test_iou_and_means_by_hand():
    confusion = hand_case()
    iou = confusion.iou()
    assert iou.dtype == np.float64
    assert iou[[0, 1, 2, 10]] == pytest.approx([2 / 3, 1 / 2, 0, 0])
    assert np.isnan(np.delete(iou, [0, 1, 2, 10])).all()
    assert confusion.mean() == pytest.approx((2 / 3 + 1 / 2) / 4)
    assert confusion.mean([0, 1, 9]) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert math.isnan(confusion.mean([9, 14]))


def test_means_of_the_class_sets():
    confusion = ConfusionMatrix(19)
    everything = np.arange(19)
    confusion.update(everything, everything)
    confusion.update(np.zeros(3, int), np.array([9, 14, 3]))
    means = confusion.as_dict(CITYSCAPES)["means"]
    assert means["19"] == pytest.approx((15 + 3 * 0.5 + 0.25) / 19)
    assert means["16"] == pytest.approx((14 + 0.5 + 0.25) / 16)
    assert means["13"] == pytest.approx((12 + 0.25) / 13)


def test_as_dict_is_json():
    found = json.loads(json.dumps(hand_case().as_dict(CITYSCAPES), allow_nan=False))
    assert found["classes"] == list(CITYSCAPES.names)
    assert found["iou"]["sidewalk"] == 0.5
    assert found["iou"]["train"] is None
    assert list(found["means"]) == ["19", "16", "13"]
    assert [len(names) for names in found["class_sets"].values()] == [19, 16, 13]
    assert set(found["class_sets"]["19"]) - set(found["class_sets"]["16"]) == {"terrain", "truck", "train"}
    assert np.array(found["confusion"]).sum() == 5 and found["no_class"] == [0] * 19
    assert found["confusion"][1][:2] == [1, 1]
    assert ConfusionMatrix(19).as_dict(CITYSCAPES)["means"] == {"19": None, "16": None, "13": None}


def test_table_in_percent():
    *rows, without3, without6 = hand_case().table(CITYSCAPES).splitlines()
    assert without3 == "16 classes: all but terrain, truck, train"
    assert without6 == "13 classes: all but wall, fence, pole, terrain, truck, train"
    assert [row.partition("  (")[2] for row in rows[19:]] == [
        "over 4 of 19, the others are absent)",
        "over 4 of 16, the others are absent)",
        "over 4 of 13, the others are absent)",
    ]
    lines = [row.partition("  (")[0].rsplit(maxsplit=1) for row in rows]
    assert len(lines) == 19 + 3
    assert [name.strip() for name, _ in lines] == [
        *CITYSCAPES.names,
        "mean of 19 classes",
        "mean of 16 classes",
        "mean of 13 classes",
    ]
    assert [value for _, value in lines[:4]] == ["66.67", "50.00", "0.00", "absent"]
    assert lines[19][1] == "29.17"
    with pytest.raises(ValueError, match=r"camvid .*11 classes, .* 19"):
        hand_case().table(CAMVID)


def test_f1_of_the_foreground():
    confusion = ConfusionMatrix(2)
    confusion.update(np.array([1, 1, 1, 0, 0, 1]), np.array([1, 1, 0, 1, 0, 255]))  # 2 correct, 1 false, 1 missed
    assert confusion.f1() == pytest.approx([2 * 1 / (2 * 1 + 2), 2 * 2 / (2 * 2 + 2)])
    found = confusion.as_dict(AERIAL)
    assert found["f1"] == {"foreground": pytest.approx(2 / 3)}
    assert found["iou"]["foreground"] == pytest.approx(1 / 2)
    assert found["means"] == {"2": pytest.approx((1 / 3 + 1 / 2) / 2)}
    lines = [line.rsplit(maxsplit=1) for line in confusion.table(AERIAL).splitlines()]
    assert [(name.strip(), value) for name, value in lines] == [
        ("background", "33.33"),
        ("foreground", "50.00"),
        ("mean of 2 classes", "41.67"),
        ("F1 of foreground", "66.67"),
    ]
    assert "f1" not in hand_case().as_dict(CITYSCAPES)
    assert ConfusionMatrix(2).as_dict(AERIAL)["f1"] == {"foreground": None}


def test_all_ignored_counts_nothing():
    confusion = ConfusionMatrix(3)
    confusion.update(np.full((2, 2), 77), np.full((2, 2), 255))
    assert confusion.matrix.sum() == 0
    assert math.isnan(confusion.mean())


def test_refuses():
    confusion = ConfusionMatrix(3)
    zeros = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"\(2, 2\), label .*\(2, 3\)"):
        confusion.update(zeros, np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match="integers expected"):
        confusion.update(zeros.astype(np.float32), zeros)
    for bad in (3, 255, -1):
        with pytest.raises(UserError, match=rf"prediction: id {bad} .*train ids 0 to 2"):
            confusion.update(np.array([0, bad]), np.array([0, 0]))
    with pytest.raises(UserError, match="label: id 7 found"):
        confusion.update(np.array([0, 0]), np.array([0, 7]))
    assert confusion.matrix.sum() == 0
    for arguments in ((1, 255), (5, 4)):
        with pytest.raises(ValueError):
            ConfusionMatrix(*arguments)
