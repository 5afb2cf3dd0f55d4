"""Up-sampling class by class compared with the whole volume at full size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model.networks.upsampling import best_class


def volume(maps: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    return torch.stack([F.interpolate(m, size=size, mode="bilinear", align_corners=True) for m in maps]).mean(0)


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 19, 17, 33), (64, 128)), ((2, 2, 5, 7), (5, 7)), ((3, 11, 1, 1), (4, 6)), ((1, 19, 65, 129), (31, 257))],
)
def test_value_and_class_are_those_of_the_volume(number, shape, size):
    generator = torch.Generator().manual_seed(number)
    maps = [torch.randn(*shape[:2], shape[2] + i, shape[3] + i, generator=generator) for i in range(number)]
    before = [m.clone() for m in maps]
    value, label = best_class(maps, size)
    expected, index = volume(maps, size).max(1)
    assert label.dtype == torch.uint8 and label.shape == value.shape == (shape[0], *size)
    if number == 1:
        assert torch.equal(value, expected) and torch.equal(label.long(), index)
    else:
        torch.testing.assert_close(value, expected)
        assert (label.long() == index).float().mean() > 0.999  # another order of summation may swap equal classes
    assert all(torch.equal(m, b) for m, b in zip(maps, before))


def test_of_equal_classes_the_first_counts():
    maps = torch.tensor([1.0, 3.0, 3.0, 2.0, 3.0]).view(1, 5, 1, 1).expand(1, 5, 2, 2)
    value, label = best_class([maps], (3, 3))
    assert (value == 3).all() and (label == 1).all()
