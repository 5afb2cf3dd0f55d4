"""Numbers that are not finite, and copies of a state."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from utils.training.finite import all_finite, copied, not_finite


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_value_that_is_no_number_is_found(bad, dtype):
    good = [torch.tensor(1.0, dtype=dtype), torch.full((2, 3), -3e38, dtype=dtype), torch.zeros(0)]
    wrong = torch.zeros(4, 5, dtype=dtype)
    wrong[2, 3] = bad
    assert all_finite(good) and all_finite([])
    assert not all_finite([*good, wrong])
    assert not_finite({"a": good[0], "b": wrong, "c": good[1]}) == ["b"]


def test_a_copy_is_of_its_own_and_its_memory_is_used_again():
    state: dict[str, Any] = {"a": torch.ones(2), "b": [torch.zeros(1), (1, "x")], "gone": torch.ones(1)}
    first = copied(state)
    state["a"].add_(1)
    assert first["a"].tolist() == [1, 1]
    place = first["a"].data_ptr()
    second = copied({"a": state["a"], "b": [torch.zeros(3), (2, "y")]}, first)
    assert second["a"].data_ptr() == place and second["a"].tolist() == [2, 2]
    assert second["b"][0].shape == (3,) and second["b"][1] == (2, "y") and "gone" not in second
