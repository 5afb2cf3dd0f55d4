"""Numbers gone wrong: finding them, and keeping the training state from before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from utils.system.transfer import to_host


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Are all values of all tensors numbers? One copy to the host, however many there are."""
    # The largest magnitude is read in one pass, and is not finite where any value is not.
    largest = [torch.linalg.vector_norm(tensor.detach(), torch.inf).float() for tensor in tensors if tensor.numel()]
    return not largest or bool(to_host(torch.stack(largest).isfinite().all()))


def not_finite(named: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold a value that is no number."""
    return [name for name, tensor in named.items() if not all_finite([tensor])]


def copied(state: Any, into: Any = None) -> Any:
    """A nested state with all tensors copied to host memory, into those of an earlier copy where they fit.

    What comes from a GPU lies in pinned memory, to which copies are several times as fast.
    """
    if isinstance(state, Tensor):
        fits = isinstance(into, Tensor) and into.shape == state.shape and into.dtype == state.dtype
        place = into if fits else torch.empty_like(state, device="cpu", pin_memory=state.is_cuda)
        return place.copy_(state.detach())
    if isinstance(state, dict):
        before = into if isinstance(into, dict) else {}
        return {key: copied(value, before.get(key)) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        earlier = into if isinstance(into, (list, tuple)) and len(into) == len(state) else [None] * len(state)
        return type(state)(copied(value, old) for value, old in zip(state, earlier, strict=True))
    return state
