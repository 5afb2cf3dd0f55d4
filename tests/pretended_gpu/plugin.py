"""Plugin of pytest that gives all of PyTorch the pretended GPU, for the life of the process."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.pretended_gpu import tensors

NAME = "pretended GPU"


class Event:
    """An event. Only copies to the host can be pending; they arrive when one waits for them."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._number = 0

    def record(self, *_: Any) -> None:
        self._number = tensors.sent()

    def synchronize(self) -> None:
        tensors.arrive(self._number)


def _always(value: Any) -> Any:
    """A new function each time, because PyTorch keeps a register of functions."""
    return lambda *_, **__: value


def _warn_of_waits(mode: str) -> None:
    tensors.waits_are_warned_of = mode == "warn"


def _pinned(tensor: Tensor, device: Any = None) -> Tensor:
    copy = tensor.clone()
    copy.pinned = True  # type: ignore[attr-defined]
    return copy


def _able_to_pin(make: Any) -> Any:
    def maker(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Tensor:
        made = make(*args, **kwargs)
        return _pinned(made) if pin_memory else made

    return maker


def _tensor(*args: Any, make: Any = torch.tensor, device: Any = None, **kwargs: Any) -> Tensor:
    made = make(*args, **kwargs)
    return made if device is None else made.to(device)


def pytest_configure() -> None:
    no_random_numbers = torch.zeros(16, dtype=torch.uint8)
    replaced = {
        **{"is_available": _always(True), "is_initialized": _always(True), "is_bf16_supported": _always(True)},
        **{"device_count": _always(1), "current_device": _always(0), "get_device_name": _always(NAME)},
        **{"get_rng_state": _always(no_random_numbers), "get_rng_state_all": _always([no_random_numbers])},
        **{name: _always(None) for name in ("_lazy_init", "set_device", "empty_cache")},
        "synchronize": lambda *_: tensors.arrive(),
        **{name: _always(None) for name in ("manual_seed", "manual_seed_all", "set_rng_state", "set_rng_state_all")},
        **{"Event": Event, "set_sync_debug_mode": _warn_of_waits},
    }
    for name, value in replaced.items():
        setattr(torch.cuda, name, value)
    for name in ("is_available", "set_device_index", "current_device_index"):
        setattr(torch.accelerator, name, _always(name == "is_available"))
    torch.tensor, torch.empty, torch.empty_like = _tensor, _able_to_pin(torch.empty), _able_to_pin(torch.empty_like)
    Tensor.pin_memory = _pinned  # type: ignore[method-assign, assignment]
    Tensor.is_pinned = lambda self, device=None: getattr(self, "pinned", False)  # type: ignore[method-assign]
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # its class changes with its device
    tensors.Everywhere().__enter__()
