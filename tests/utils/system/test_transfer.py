"""Copies to the host have the values of the moment at which they were sent, once one has waited for them."""

from __future__ import annotations

import pytest
import torch

from utils.system.transfer import PendingCopy, to_host

VALUES = (torch.tensor([[0, 1], [18, 255]], dtype=torch.uint8), torch.tensor([0.5, -2.0]), torch.tensor([True, False]))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("values", VALUES, ids=lambda values: str(values.dtype))
def test_a_copy_holds_the_values_that_were_sent(device, values):
    there = values.to(device)
    first = PendingCopy(there)
    there.zero_()
    second = PendingCopy(there)
    assert first.wait().tolist() == values.tolist()
    assert second.wait().tolist() == to_host(torch.zeros_like(values)).tolist()


@pytest.mark.gpu
@pytest.mark.skipif(torch.version.cuda is not None, reason="a real GPU may well have finished before it is waited for")
@pytest.mark.parametrize("values", VALUES, ids=lambda values: str(values.dtype))
def test_a_pretended_gpu_shows_garbage_to_who_does_not_wait(values):
    copy = PendingCopy(values.to("cuda"))
    assert copy._copy.tolist() != values.tolist()
    assert copy.wait().tolist() == values.tolist()
