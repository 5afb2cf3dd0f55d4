"""Class mixing: which pixels are pasted, also if the domains differ in size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.terms.mixing import Mixed, class_mix


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mix(label: Tensor, target: Tensor, classes: int, seed: int = 0, ignore_label: int = 255) -> Mixed:
    """Source pixels hold 10 + their label, target pixels 200."""
    image = (label + 10)[:, None].expand(-1, 3, -1, -1).to(torch.uint8)
    other = torch.full((len(target), 3, *target.shape[1:]), 200, dtype=torch.uint8)
    return class_mix(
        image, label.to(torch.uint8), other, target.to(torch.uint8), classes, generator(seed), ignore_label
    )


@pytest.mark.parametrize("number", range(1, 8))
@pytest.mark.parametrize("seed", range(3))
def test_half_of_the_classes_of_an_image_rounded_up_are_pasted(number: int, seed: int) -> None:
    label = torch.arange(number).repeat(2, 3, 1)  # one column per class
    mixed = mix(label, torch.full_like(label, 9), 10, seed)
    for image in range(2):
        pasted = {c for c in range(number) if mixed.pasted[image, :, c].any()}
        assert len(pasted) == -(-number // 2)
        for c in range(number):
            assert mixed.pasted[image, :, c].tolist() == [c in pasted] * 3
            assert mixed.label[image, :, c].tolist() == [c if c in pasted else 9] * 3
            assert mixed.image[image, :, :, c].unique().tolist() == [10 + c if c in pasted else 200]


def test_every_class_is_chosen_in_its_turn_and_images_choose_apart() -> None:
    label = torch.arange(4).repeat(2, 1, 1)
    drawn = torch.stack([mix(label, torch.zeros_like(label), 4, seed).pasted[:, 0] for seed in range(200)]).float()
    assert drawn.mean(0).flatten().tolist() == pytest.approx([0.5] * 8, abs=0.12)
    assert 0.05 < (drawn[:, 0] == drawn[:, 1]).all(1).float().mean() < 0.35  # this happens by chance once in six times


def test_ignored_source_pixels_and_an_image_without_a_label_are_not_pasted() -> None:
    label = torch.tensor([[[3, 3, 255]], [[255, 255, 255]]])
    mixed = mix(label, torch.zeros(2, 1, 3), 5)
    assert mixed.pasted.tolist() == [[[True, True, False]], [[False, False, False]]]
    assert mixed.label.tolist() == [[[3, 3, 0]], [[0, 0, 0]]]
    mixed = mix(torch.tensor([[[3, 7, 7]]]), torch.zeros(1, 1, 3), 5, ignore_label=7)
    assert mixed.label.tolist() == [[[3, 0, 0]]]


def test_weights_are_one_for_pasted_pixels_and_the_quality_for_the_others() -> None:
    pasted = torch.tensor([[[True, False]], [[False, True]]])
    mixed = Mixed(torch.empty(0), torch.empty(0), pasted)
    torch.testing.assert_close(mixed.weights(torch.tensor([0.25, 0.75])), torch.tensor([[[1, 0.25]], [[0.75, 1]]]))


@pytest.mark.parametrize(("height", "width"), [(2, 3), (5, 7), (3, 9), (9, 3), (5, 5)])
def test_a_source_of_another_size_keeps_its_scale(height: int, width: int) -> None:
    label = torch.arange(height * width).view(1, height, width)  # a class per pixel shows where pieces lie
    offsets = set()
    for seed in range(30):
        mixed = mix(label, torch.full((1, 5, 7), 200), 100, seed)
        assert mixed.label.shape == (1, 5, 7)
        rows, columns = mixed.pasted[0].nonzero(as_tuple=True)
        count = min(height, 5) * min(width, 7)
        assert len(rows) == -(-count // 2)
        from_row, from_column = mixed.label[0][mixed.pasted[0]].long() // width, mixed.label[0][mixed.pasted[0]] % width
        shifts = {(int(a), int(b)) for a, b in zip(rows - from_row, columns - from_column)}
        assert len(shifts) == 1
        offsets |= shifts
        assert (mixed.image[0, 0][mixed.pasted[0]] == mixed.label[0][mixed.pasted[0]] + 10).all()
    for axis, spare in enumerate((5 - height, 7 - width)):
        low, high = sorted((0, spare))
        assert {offset[axis] for offset in offsets} == set(range(low, high + 1))
