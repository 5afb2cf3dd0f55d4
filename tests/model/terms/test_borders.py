"""The border that pads a shrunk image, and rows that are ignored."""

from __future__ import annotations

import pytest
import torch

from dataset.augment import PAD_COLOUR
from model.terms.borders import BORDER_COLOUR, visible, without_rows


def test_the_border_has_the_colour_that_pads_images() -> None:
    assert BORDER_COLOUR == PAD_COLOUR


def test_the_border_is_outside_of_the_box_around_all_other_pixels() -> None:
    image = torch.tensor(BORDER_COLOUR, dtype=torch.uint8)[None, :, None, None].repeat(1, 1, 4, 6)
    assert visible(image).shape == (1, 1, 4, 6) and visible(image).all()  # nothing but this colour: no border
    image[0, 2, 1, 1] += 1
    image[0, 0, 2, 4] -= 1
    assert visible(image)[0, 0].int().tolist() == [[0] * 6, [0, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 0], [0] * 6]


@pytest.mark.parametrize(("top", "bottom", "expected"), [(0, 0, 0), (0.1, 0, 1), (0, 0.25, 2), (0.1, 0.25, 3)])
def test_rows_at_the_top_and_the_bottom_are_ignored(top: float, bottom: float, expected: int) -> None:
    labels = torch.ones(2, 10, 3, dtype=torch.uint8)
    found = without_rows(labels, top, bottom)
    rows = (found == 255).all(2).all(0)
    assert int(rows.sum()) == expected and int((found == 255).sum()) == 6 * expected
    assert rows[0] == (top > 0) and rows[-1] == (bottom > 0)
