"""From tensors to pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dataset import READERS
from dataset.classes import AERIAL, CITYSCAPES
from model.networks.deeplab import build_segmenter
from utils.reporting import pictures

LABELS = torch.tensor([[0, 1], [255, 13]])


def test_labels_have_the_colours_of_the_class_table():
    shown = pictures.colours(LABELS, CITYSCAPES)
    assert shown.tolist() == [[[128, 64, 128], [244, 35, 232]], [[0, 0, 0], [0, 0, 142]]]
    assert pictures.colours(LABELS, AERIAL)[1, 1].tolist() == [0, 0, 0]  # not a class of that table


def test_an_overlay_leaves_what_has_no_class():
    grey = np.full((2, 2, 3), 100, np.uint8)
    shown = pictures.overlay(grey, LABELS, CITYSCAPES, share=0.25)
    assert shown[0, 0].tolist() == [107, 91, 107] and shown[1, 0].tolist() == [100, 100, 100]
    assert shown.dtype == np.uint8


def test_confidence_rises_from_violet_to_yellow():
    shown = pictures.confidence_map(torch.tensor([[0.0, 1.0, 2.0]]))
    assert shown[0, 0].tolist() == [68, 1, 84] and shown[0, 1].tolist() == [253, 231, 37]
    assert shown[0, 2].tolist() == shown[0, 1].tolist()


def test_a_grid_has_cells_of_the_largest_size_and_gaps():
    small, large = np.zeros((2, 3, 3), np.uint8), np.full((4, 5, 3), 9, np.uint8)
    sheet = pictures.grid([large, small, small], columns=2)
    assert sheet.shape == (2 * 4 + pictures.GAP, 2 * 5 + pictures.GAP, 3)
    assert (sheet[:4, :5] == 9).all() and (sheet[:2, 9:12] == 0).all() and (sheet[2:4, 9:] == 255).all()
    assert (sheet[8:10, :3] == 0).all() and (sheet[4:8] == 255).all()
    with pytest.raises(ValueError, match="no pictures"):
        pictures.grid([], columns=2)


@pytest.mark.parametrize(
    ("panel", "shape"),
    [
        (torch.zeros(3, 8, 10, dtype=torch.uint8), (8, 10, 3)),
        (torch.zeros(2, 3, 8, 10, dtype=torch.uint8), (8, 24, 3)),
        (torch.zeros(8, 10, dtype=torch.int64), (8, 10, 3)),
        (torch.zeros(2, 8, 10, dtype=torch.uint8), (8, 24, 3)),
        (torch.zeros(3, 2, 10, dtype=torch.float32), (2, 38, 3)),
        (torch.zeros(700, 1280), (350, 640, 3)),
    ],
)
def test_the_type_of_a_panel_says_what_it_is(panel, shape):
    shown = pictures.picture(panel, CITYSCAPES)
    assert shown.shape == shape and shown.dtype == np.uint8


def test_images_keep_their_pixels():
    pixels = torch.arange(3 * 8 * 10, dtype=torch.uint8).view(3, 8, 10)
    assert np.array_equal(pictures.picture(pixels, CITYSCAPES), pixels.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("panel", [torch.zeros(4), torch.zeros(2, 2, dtype=torch.bool), torch.zeros(1, 2, 3, 4, 5)])
def test_other_panels_are_refused(panel):
    with pytest.raises(ValueError, match="a panel of shape"):
        pictures.picture(panel, CITYSCAPES)


def test_examples_show_every_step_from_image_to_pseudo_label(benchmark_root):
    torch.manual_seed(0)
    segmenter = build_segmenter(num_classes=19, backbone="tiny").train()
    data = READERS["cityscapes"](benchmark_root / "Cityscapes", split="val", size=(96, 64), label_size="native")
    never = np.full(19, 2.0)
    shown = dict(pictures.examples(segmenter, data, thresholds=never))
    kinds = ("image", "prediction", "overlay", "pseudo-label", "confidence", "truth")
    assert list(shown) == [f"example {i}/{kind}" for i in (1, 2) for kind in kinds]
    assert {picture.shape for picture in shown.values()} == {(64, 96, 3)}
    assert np.array_equal(shown["example 1/image"], data[0]["image"].permute(1, 2, 0).numpy())
    assert not shown["example 1/pseudo-label"].any() and shown["example 1/prediction"].any()
    assert np.array_equal(shown["example 2/truth"], pictures.colours(data[1]["label"], data.table))
    assert segmenter.training
    kept = dict(pictures.examples(segmenter, data, thresholds=np.zeros(19), count=1))
    assert len(kept) == len(kinds)
    assert np.array_equal(kept["example 1/pseudo-label"], kept["example 1/prediction"])
