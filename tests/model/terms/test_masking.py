"""Hidden blocks: their place, share and colour."""

from __future__ import annotations

import pytest
import torch

from model.terms.masking import HIDDEN_COLOUR, hide_blocks


def test_whole_blocks_are_hidden_and_the_rest_is_untouched() -> None:
    images = torch.zeros(40, 3, 10, 13, dtype=torch.uint8)
    found = hide_blocks(images, 4, 0.7, torch.Generator().manual_seed(0))
    hidden = found[:, 0] != 0
    for channel, value in enumerate(HIDDEN_COLOUR):
        assert torch.equal(found[:, channel], (hidden * value).to(torch.uint8))
    shares = []
    for top in range(0, 10, 4):
        for left in range(0, 13, 4):
            block = hidden[:, top : top + 4, left : left + 4].flatten(1)
            assert (block.all(1) | ~block.any(1)).all()
            shares.append(block.all(1).float().mean())
    assert torch.stack(shares).mean() == pytest.approx(0.7, abs=0.05)
    assert len(set(map(float, shares))) > 1 and not torch.equal(hidden[0], hidden[1])


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 0.0), (1.0, 1.0)])
def test_all_or_nothing(ratio: float, expected: float) -> None:
    found = hide_blocks(torch.zeros(1, 3, 5, 5, dtype=torch.uint8), 2, ratio, torch.Generator())
    assert (found != 0).float().mean() == expected
