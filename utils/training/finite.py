"""Values that are not finite: finding them, and keeping the training state from before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from utils.system.transfer import to_host


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all values of all tensors are finite; needs one copy to the host, however many tensors there are."""
    # The largest magnitude takes one pass, and is not finite if any value is not.
    largest = [torch.linalg.vector_norm(tensor.detach(), torch.inf).float() for tensor in tensors if tensor.numel()]
    return not largest or bool(to_host(torch.stack(largest).isfinite().all()))


def not_finite(named: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold a value that is not finite."""
    return [name for name, tensor in named.items() if not all_finite([tensor])]


def copied(state: Any, into: Any = None) -> Any:
    """A nested state with all tensors copied to host memory; tensors of an earlier copy are reused if they fit.

    Tensors from a GPU are copied to pinned memory, which is several times as fast.
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
