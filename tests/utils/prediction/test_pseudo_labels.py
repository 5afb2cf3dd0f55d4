"""Pseudo-label thresholds and masks compared with sorted lists."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from model.terms.thresholds import CAP
from tests.twins import pseudo_labels as twin
from tests.twins.segmentation import upsample
from utils.prediction import pseudo_labels
from utils.prediction.pseudo_labels import (
    LEVELS,
    Histogram,
    Prediction,
    Records,
    Result,
    confidence,
    fingerprint,
    write_pseudo_labels,
)
from utils.system.errors import UserError

STEP = 1 / (LEVELS - 1)


def thresholds_of(values: list[float], label: int = 0, num_classes: int = 1) -> np.ndarray:
    histogram = Histogram(num_classes)
    levels = np.round(np.asarray(values) * (LEVELS - 1)).astype(np.uint16)
    histogram.add(np.full(levels.shape, label, dtype=np.uint8), levels)
    return histogram.thresholds()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.7], 0.7),  # round(0.5) = 0
        ([0.6, 0.4], 0.6),  # round(1.0) = 1
        ([0.5, 0.3, 0.4], 0.5),  # round(1.5) = 2, half to even
        ([0.1, 0.2, 0.3, 0.4], 0.3),  # round(2.0) = 2
        ([0.1, 0.2, 0.3, 0.4, 0.5], 0.3),  # round(2.5) = 2, half to even
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], 0.5),  # round(3.5) = 4
        ([0.95, 0.99, 0.97], 0.9),  # the cap
        ([0.2, 1.0, 1.0], 0.9),
        ([1.0], 0.9),
        ([0.0, 0.0], 0.0),
        ([0.3] * 5, 0.3),
    ],
)
def test_thresholds_by_hand(values: list[float], expected: float) -> None:
    assert thresholds_of(values).tolist() == [pytest.approx(expected, abs=0.51 * STEP)]


def test_a_class_that_is_never_predicted_has_threshold_zero() -> None:
    assert thresholds_of([0.5, 0.6], label=1, num_classes=3)[[0, 2]].tolist() == [0.0, 0.0]


Images = list[tuple[Tensor, Tensor]]
"""Labels and exact confidences."""


def predictions_of(images: Images) -> list[Prediction]:
    """Labels and confidences as the script stores them."""
    return [
        (i, label.to(torch.uint8), (value * (LEVELS - 1)).round().to(torch.int32))
        for i, (label, value) in enumerate(images)
    ]


def write(images: Images, num_classes: int, folder: Path, ignore_label: int = 255, **options: Any) -> Result:
    """`write_pseudo_labels` under the keys 0, 1, ..."""
    predictions, keys = predictions_of(images), [f"{i}" for i in range(len(images))]
    return write_pseudo_labels(
        lambda numbers: (predictions[number] for number in numbers), keys, num_classes, folder, ignore_label, **options
    )


def random_images(number: int, classes: int, shape: tuple[int, int] = (9, 13), seed: int = 0) -> Images:
    g = torch.Generator().manual_seed(seed)
    return [
        (torch.randint(classes, shape, generator=g), torch.rand(shape, generator=g, dtype=torch.float64).sqrt())
        for _ in range(number)
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(2, 19), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_thresholds_equal_sorting_within_one_step(number: int, classes: int, h: int, w: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    images = [
        (torch.randint(classes, (h, w), generator=g), torch.rand(h, w, generator=g, dtype=torch.float64))
        for _ in range(number)
    ]
    histogram = Histogram(classes)
    for _, label, level in predictions_of(images):
        histogram.add(label.numpy(), level.numpy().astype(np.uint16))
    expected = twin.thresholds([(a.tolist(), b.tolist()) for a, b in images], classes)
    np.testing.assert_allclose(histogram.thresholds(), expected, rtol=0, atol=STEP)


def test_masks_equal_sorting_except_within_one_step_of_the_threshold(tmp_path: Path) -> None:
    images = random_images(3, 5, (23, 31))
    images[1][0][images[1][0] == 4] = 3
    result = write(images, 6, tmp_path)
    lists = [(a.tolist(), b.tolist()) for a, b in images]
    limits = twin.thresholds(lists, 6)
    np.testing.assert_allclose(result.thresholds, limits, rtol=0, atol=STEP)
    masks = [np.array(Image.open(tmp_path / f"{i}.png")) for i in range(3)]
    for mask, image, (label, value) in zip(masks, lists, images):
        wanted = np.array(twin.pseudo_label(image, limits))
        near = np.abs(value.numpy() - np.array(limits)[label.numpy()]) <= STEP
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask[~near], wanted[~near])
    together = np.stack(masks)
    assert result.kept.tolist() == [int((together == c).sum()) for c in range(6)]
    assert result.predicted.tolist() == [int(sum((label == c).sum() for label, _ in images)) for c in range(6)]
    assert result.kept[5] == result.predicted[5] == 0 and result.masks == 3


def test_a_pixel_at_the_threshold_is_kept_and_one_below_is_not(tmp_path: Path) -> None:
    for lowest in (10, 20_000, 40_000):  # also if level / 65535 * 65535 does not give the level again
        level = torch.arange(lowest, lowest + 4) / (LEVELS - 1)  # the threshold is element 2
        write([(torch.ones(1, 4), level[None].double())], 2, tmp_path, ignore_label=99)
        assert np.array(Image.open(tmp_path / "0.png")).tolist() == [[99, 99, 1, 1]]


def test_the_cap_keeps_confident_pixels_below_the_median(tmp_path: Path) -> None:
    value = torch.tensor([[0.85, 0.91, 0.95, 0.97, 0.99]])
    result = write([(torch.zeros(1, 5), value)], 1, tmp_path)
    assert result.thresholds.tolist() == [CAP] and result.kept.tolist() == [4]


def test_nothing_but_the_masks_is_left_behind(tmp_path: Path) -> None:
    images = [(torch.zeros(2, 2), torch.rand(2, 2)), (torch.ones(3, 5), torch.rand(3, 5))]
    write(images, 2, tmp_path / "labels")
    assert sorted(contents(tmp_path / "labels")) == ["0.png", "1.png"]


# Runs that end early

Kill = type("Kill", (BaseException,), {})


def stopped(images: Images, folder: Path, monkeypatch: pytest.MonkeyPatch, after: int, **options: Any) -> list[int]:
    """The predictions of a run that is killed before prediction number `after`; nothing is cleaned up."""
    predictions = predictions_of(images)
    asked: list[int] = []

    def predict(numbers: Sequence[int]) -> Iterator[Prediction]:
        for number in numbers:
            if len(asked) == after:
                while len(list((folder / ".unfinished").glob("*.npz"))) < after:
                    time.sleep(0.01)  # what waits in the background is lost
                raise Kill
            asked.append(number)
            yield predictions[number]

    with monkeypatch.context() as patch:
        patch.setattr(Records, "close", lambda _: None)
        with pytest.raises(Kill):
            write_pseudo_labels(predict, [f"{i}" for i in range(len(images))], 4, folder, **options)
    return asked


def asked_again(images: Images, folder: Path, **options: Any) -> list[int]:
    """The images that the resumed run predicts."""
    asked: list[int] = []
    predictions = predictions_of(images)

    def predict(numbers: Sequence[int]) -> Iterator[Prediction]:
        asked.extend(numbers)
        return (predictions[number] for number in numbers)

    write_pseudo_labels(predict, [f"{i}" for i in range(len(images))], 4, folder, **options)
    return asked


@pytest.mark.parametrize(("batch_size", "expected"), [(1, [4, 5, 6]), (3, [3, 4, 5, 6])])
def test_after_a_kill_a_run_goes_on_with_identical_files(tmp_path, monkeypatch, batch_size, expected) -> None:
    images = random_images(7, 4)
    write(images, 4, tmp_path / "whole")
    stopped(images, tmp_path / "labels", monkeypatch, after=4, batch_size=batch_size)
    assert not list((tmp_path / "labels").glob("*.png"))
    assert asked_again(images, tmp_path / "labels", batch_size=batch_size) == expected
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole")


def test_a_kill_while_the_masks_are_written_costs_no_prediction(tmp_path, monkeypatch) -> None:
    images = random_images(3, 4)
    write(images, 4, tmp_path / "whole")

    def killed(*_: Any) -> None:
        raise Kill

    with monkeypatch.context() as patch:
        patch.setattr(Records, "close", lambda _: None)
        patch.setattr(pseudo_labels, "write_bytes", killed)
        with pytest.raises(Kill):
            write(images, 4, tmp_path / "labels")
    assert asked_again(images, tmp_path / "labels") == []
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole")


def test_a_half_written_record_is_made_again(tmp_path, monkeypatch) -> None:
    images = random_images(5, 4)
    write(images, 4, tmp_path / "whole")
    stopped(images, tmp_path / "labels", monkeypatch, after=4)
    for number, keep in ((0, 0), (1, 40), (2, 300)):
        path = tmp_path / f"labels/.unfinished/{number}.npz"
        path.write_bytes(path.read_bytes()[:keep])
    path = tmp_path / "labels/.unfinished/3.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert asked_again(images, tmp_path / "labels") == [0, 1, 2, 3, 4]
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole")


def test_what_another_network_predicted_is_not_mixed_in(tmp_path, monkeypatch) -> None:
    images, others = random_images(4, 4), random_images(4, 4, seed=1)
    write(images, 4, tmp_path / "whole")
    stopped(others, tmp_path / "labels", monkeypatch, after=3, identity={"weights": "other"})
    assert asked_again(images, tmp_path / "labels", identity={"weights": "these"}) == [0, 1, 2, 3]
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole")


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_scratch_files_go_after_an_error_and_earlier_masks_stay(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "old.png").write_bytes(b"earlier")

    def failing(numbers: Sequence[int]) -> Iterator[Prediction]:
        yield from predictions_of(random_images(1, 2))
        raise error

    for folder in (tmp_path, tmp_path / "new/labels"):
        with pytest.raises(UserError if isinstance(error, OSError) else type(error)):
            write_pseudo_labels(failing, ["a", "b"], 2, folder)
    assert contents(tmp_path) == {"old.png": b"earlier"}


def test_the_temporary_space_is_said_and_a_full_disk_refused(tmp_path, monkeypatch, caplog) -> None:
    with caplog.at_level("INFO", logger="bafft"):
        write(random_images(2, 2, (8, 8)), 2, tmp_path / "labels", pixels=2**28)
    assert "temporary disk space: 1.50 GiB" in caplog.text
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    with pytest.raises(UserError, match=r"1\.00 GiB free, expected 1\.50 GiB"):
        write(random_images(2, 2, (8, 8)), 2, tmp_path / "full", pixels=2**28)
    assert not (tmp_path / "full").exists()


def test_the_fingerprint_knows_every_weight_and_buffer() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    prints = {fingerprint(network), fingerprint(network)}
    assert len(prints) == 1
    for tensor in network.state_dict().values():
        tensor += 1
        prints.add(fingerprint(network))
    assert len(prints) == 1 + len(network.state_dict())


@pytest.mark.parametrize(
    ("classes", "size_in", "size_out"), [(2, (1, 1), (3, 4)), (5, (3, 4), (9, 15)), (19, (4, 5), (4, 5))]
)
def test_confidence_is_the_soft_max_first_then_up_sampled(
    classes: int, size_in: tuple[int, int], size_out: tuple[int, int]
) -> None:
    logits = 3 * torch.randn(1, classes, *size_in, generator=torch.Generator().manual_seed(classes))
    label, level = confidence(logits, size_out)
    planes = np.array([upsample(plane, *size_out) for plane in F.softmax(logits[0].double(), 0).tolist()])
    assert label.dtype == torch.uint8 and level.dtype == torch.int32
    np.testing.assert_array_equal(label.numpy(), planes.argmax(0))
    np.testing.assert_allclose(level.numpy() * STEP, planes.max(0), rtol=0, atol=0.6 * STEP)


def test_a_certain_pixel_has_the_highest_level() -> None:
    logits = torch.full((1, 3, 2, 2), -200.0)
    logits[:, 1] = 200.0
    label, level = confidence(logits, (7, 9))
    assert (label == 1).all() and (level == LEVELS - 1).all()
