"""Tensors of the pretended GPU, and what their operations do."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
GPU = torch.device("cuda", 0)
_INDEXING = (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default)
_WAITING = (aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default, aten.bincount.default)
_COPYING = (aten.copy_.default, aten._to_copy.default, aten._foreach_copy_.default, *_INDEXING)

waits_are_warned_of = False
_under_way: list[tuple[int, Tensor, Tensor]] = []  # pending copies to the host: number, destination, values
_sent = 0


class OnGpu(Tensor):
    """A tensor on the pretended GPU: `on_cpu` holds its values."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, on_cpu: Tensor) -> OnGpu:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            on_cpu.size(),
            strides=on_cpu.stride(),
            storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype,
            device=GPU,
        )

    def __init__(self, on_cpu: Tensor) -> None:
        self.on_cpu = on_cpu

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return run(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{self.on_cpu!r} on a pretended GPU"

    def __reduce_ex__(self, protocol: Any) -> Any:  # saved like any other tensor
        return self.on_cpu.detach().requires_grad_(self.requires_grad).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: Any) -> Tensor:
        copy = self.detach().clone().requires_grad_(self.requires_grad)
        copy._is_param = getattr(self, "_is_param", False)  # type: ignore[attr-defined]
        return copy


class Everywhere(TorchDispatchMode):
    """Handles the operations that make a tensor on the pretended GPU from no other."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(operation, args, kwargs or {})


def run(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run the operation on the CPU; its results are on the GPU if its arguments or `device` are."""
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(operation.name(), "CompositeImplicitAutograd")
    if composite:
        with Everywhere():
            result = operation.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    on_gpu = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
    device = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    to_gpu = device is not None and device.type == "cuda"
    if not on_gpu and not to_gpu:
        return operation(*args, **kwargs)
    _check(operation, args, kwargs, tensors)
    if _waits(operation, args, kwargs, tensors):
        arrive()
    sends = _crosses(operation, args, kwargs, tensors) and isinstance(tensors[-1], OnGpu) and _behind(args, kwargs)
    if device is not None:
        kwargs = kwargs | {"device": "cpu"}
    kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    result = operation(*tree_map(_to_cpu, args), **tree_map(_to_cpu, kwargs))
    if sends:
        send(result)
    to_cpu = (device is not None and not to_gpu) or (operation is aten.copy_.default and not isinstance(args[0], OnGpu))
    # An in-place operation returns its argument.
    known = {id(_to_cpu(tensor)): tensor for tensor in tensors}

    def as_result(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return known[id(value)] if id(value) in known else value if to_cpu else OnGpu(value)

    return tree_map(as_result, result)


def send(arrived: Tensor) -> None:
    """Fill a copy on the host with garbage until one waits for it, like memory to which a real GPU still writes."""
    global _sent
    _sent += 1
    _under_way.append((_sent, arrived, arrived.clone()))
    if arrived.is_floating_point():
        arrived.fill_(torch.nan)
    elif arrived.dtype == torch.bool:
        arrived.logical_not_()
    else:
        arrived.bitwise_not_()


def sent() -> int:
    """The number of the latest copy to the host."""
    return _sent


def arrive(number: int | None = None) -> None:
    """Wait for the copies to the host up to this number, or for all."""
    while _under_way and (number is None or _under_way[0][0] <= number):
        _, place, values = _under_way.pop(0)
        place.copy_(values)


def _to_cpu(value: Any) -> Any:
    return value.on_cpu if isinstance(value, OnGpu) else value


def _check(operation: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> None:
    """Refuse what a GPU refuses, and warn about waits."""
    on_gpu = [isinstance(tensor, OnGpu) for tensor in tensors]
    host = [tensor for tensor, there in zip(tensors, on_gpu) if not there and tensor.dim()]
    if any(on_gpu) and host and operation not in _COPYING:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {operation} got some on {GPU} and one of shape "
            f"{tuple(host[0].shape)} on cpu"
        )
    if waits_are_warned_of and _waits(operation, args, kwargs, tensors):
        warnings.warn(f"called a synchronizing CUDA operation: {operation}", stacklevel=2)


def _waits(operation: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> bool:
    """Whether the host waits in this operation until the GPU has caught up."""
    if operation in (aten.copy_.default, aten._to_copy.default):
        return _crosses(operation, args, kwargs, tensors) and not _behind(args, kwargs)
    if operation in _INDEXING:
        indices = [index for index in args[1] if index is not None]
        return any(index.dtype == torch.bool or not isinstance(index, OnGpu) for index in indices)
    return operation in _WAITING


def _crosses(operation: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> bool:
    """Whether the operation copies from the host to the GPU or back."""
    to = torch.device(kwargs.get("device") or tensors[-1].device) if operation is aten._to_copy.default else None
    if to is not None:
        return isinstance(tensors[0], OnGpu) != (to.type == "cuda")
    return operation is aten.copy_.default and isinstance(args[0], OnGpu) != isinstance(args[1], OnGpu)


def _behind(args: Any, kwargs: dict[str, Any]) -> bool:
    return bool(kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
