"""The pool of restyled images: its order, its odds, its state."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model.terms.image_pool import ImagePool


def numbered(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)[:, None, None, None].expand(-1, 3, 2, 2)


def numbers(images: Tensor) -> list[int]:
    return [int(image[0, 0, 0]) for image in images]


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_is_filled_in_order_with_the_images_it_hands_back() -> None:
    pool = ImagePool(3)
    assert numbers(pool.query(numbered(1, 2), draws(0))) == [1, 2]
    assert numbers(pool.query(numbered(3), draws(1))) == [3]
    assert numbers(pool.state()) == [1, 2, 3]


def test_once_full_an_image_is_swapped_or_handed_back_as_drawn() -> None:
    pool = ImagePool(4)
    pool.query(numbered(0, 1, 2, 3), draws(0))
    generator = draws(7)
    chances, places = torch.rand(6, generator=generator), torch.randint(4, (6,), generator=generator)
    held, wanted = [0, 1, 2, 3], []
    for number, chance, place in zip(range(10, 16), chances, places):
        if chance < 0.5:
            wanted.append(held[place])
            held[place] = number
        else:
            wanted.append(number)
    assert numbers(pool.query(numbered(*range(10, 16)), draws(7))) == wanted != list(range(10, 16))
    assert numbers(pool.state()) == held


def test_half_of_the_images_come_from_the_pool_and_from_all_its_places() -> None:
    pool = ImagePool(5)
    pool.query(numbered(*range(5)), draws(0))
    answers = [numbers(pool.query(numbered(n), draws(n)))[0] for n in range(5, 2005)]
    old = [n for n, answer in enumerate(answers, 5) if answer != n]
    assert len(old) / 2000 == pytest.approx(0.5, abs=0.04)
    assert len(pool.state()) == 5 and len({*answers, *numbers(pool.state())}) == 2005  # no image is lost


def test_images_are_detached_copies() -> None:
    pool = ImagePool(2)
    image = torch.zeros(1, 3, 2, 2, requires_grad=True)
    answer = pool.query(image, draws(0))
    with torch.no_grad():
        image += 1
    assert not answer.requires_grad and not answer.any() and not pool.state().any()


def test_a_pool_of_none_hands_every_image_back() -> None:
    pool = ImagePool(0)
    assert numbers(pool.query(numbered(1, 2, 3), draws(0))) == [1, 2, 3] and len(pool.state()) == 0


@pytest.mark.parametrize("held", [0, 2, 3])
def test_a_pool_goes_on_from_its_state(held: int) -> None:
    pool, other = ImagePool(3), ImagePool(3)
    for number in range(held):
        pool.query(numbered(number), draws(number))
    other.load(pool.state(), "cpu")
    for number in range(10, 30):
        assert numbers(pool.query(numbered(number), draws(number))) == numbers(
            other.query(numbered(number), draws(number))
        )
    assert torch.equal(pool.state(), other.state())


def test_a_state_of_a_larger_pool_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pool of 3 images, .*at most 2"):
        ImagePool(2).load(numbered(1, 2, 3), "cpu")
