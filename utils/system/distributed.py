"""Several processes, one per GPU, started by `torchrun`: what they exchange, and how they end together.

Every process works on its share of the images with its own copy of everything, and all copies stay equal: gradients
and BatchNorm's running statistics are averaged once per step, in one message (`average_gradients`), and the source
memory gets the entries of all processes (`gather`). Without `torchrun`, nothing here has an effect.

DistributedDataParallel is not used. Its processor time equals that of the one message (bench/gradients.py: gloo on CPU,
`find_unused_parameters=True`; NCCL was not run). Without that setting, training hangs if a gradient is missing, and a
resumed run may add up in another order than one that was never stopped, because the buckets are rearranged after the
first step. With that setting, neither is the case. We estimate, but have not measured, that it could hide at most the
part of the message that fits into the last backward pass.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from utils.system.errors import UserError, line_for_user
from utils.system.interrupt import SIGNALS, Interrupted
from utils.system.processes import is_main as is_main
from utils.system.processes import no_bar as no_bar
from utils.system.processes import rank as rank
from utils.system.processes import share as share
from utils.system.processes import size as size

_WATCH = 0.5  # seconds between two checks for whether another process has failed
# Sent by the watching thread to the main one, which may be in a system call. Unlike SIGUSR1 and SIGUSR2, which
# schedulers and their tools send, it is ignored by default and not used elsewhere; from outside, it has no effect.
_WAKE = signal.SIGURG
_GRACE = 10.0  # seconds for all processes to clean up after one has failed
T = TypeVar("T")
_FAILED, _LEFT = "failed", "left"

_store: dist.Store | None = None  # in `session`
_control: dist.ProcessGroup | None = None  # on CPU: its messages end at once with the process at the other end


class _OtherFailed(BaseException):
    """Raised in a process, wherever it is, when another one has failed; no `except Exception` may stop it."""


def start(cpu: bool) -> None:
    """Connect the processes: by NCCL if each has a GPU, otherwise, or with `cpu`, by gloo. A second call does nothing.

    Raises UserError if there are more processes on this machine than GPUs.
    """
    global _control
    if size() == 1 or dist.is_initialized():
        return
    on_gpu = torch.cuda.is_available() and not cpu
    if on_gpu:
        index, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if index >= found:
            raise UserError(
                f"torchrun --nproc-per-node: found a process number {index + 1} on {socket.gethostname()}, expected at "
                f"most one for each of its {found} GPUs; start fewer, or add --cpu"
            )
        torch.cuda.set_device(index)
    store = dist.PrefixStore(_attempt("groups"), _connect())
    dist.init_process_group("nccl" if on_gpu else "gloo", store=store, rank=rank(), world_size=size())
    _control = dist.new_group(backend="gloo")


def average(tensors: Iterable[Tensor]) -> None:
    """Replace each float32 tensor in place by its mean over all processes; in one message."""
    if size() == 1:
        return
    tensors = list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= size()
    means = flat.split([tensor.numel() for tensor in tensors])
    torch._foreach_copy_(tensors, [mean.view_as(tensor) for tensor, mean in zip(tensors, means, strict=True)])


def average_gradients(parameters: Iterable[Tensor], others: Iterable[Tensor] = ()) -> None:
    """Replace each gradient, and each of the `others`, in place by its mean over all processes, in one message.

    A parameter without a gradient in any process has none afterwards. Raises RuntimeError in every process if a
    parameter has a gradient in only some of them: they did not compute the same terms, and the message would mix up
    their gradients.
    """
    if size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters]
    pattern = zlib.crc32(bytes(gradient is not None for gradient in gradients))
    ends = torch.tensor([pattern, -pattern])
    dist.all_reduce(ends, dist.ReduceOp.MAX, group=_control)
    if ends[0] != -ends[1]:
        own = sum(gradient is not None for gradient in gradients)
        raise RuntimeError(
            f"the processes have gradients of different parameters (process {rank()}: {own} of {len(gradients)}); "
            f"a method must compute the same terms in every process"
        )
    average([*(gradient for gradient in gradients if gradient is not None), *others])


def gather(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Each tensor [N, M, ...] of all processes as [N, size * M, ...], in order of rank; in one message.

    float32 or bool, with the same shapes in every process. The result is bit for bit the same in every process.
    """
    flat = torch.cat([tensor.detach().float().flatten() for tensor in tensors])
    received = [torch.empty_like(flat) for _ in range(size())]
    dist.all_gather(received, flat)
    by_rank = [message.split([tensor.numel() for tensor in tensors]) for message in received]
    return [
        torch.cat([parts[i].view_as(tensor) for parts in by_rank], 1).to(tensor.dtype)
        for i, tensor in enumerate(tensors)
    ]


def total(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sum of integer counts over all processes."""
    if size() == 1:
        return counts
    summed = torch.from_numpy(counts.copy())
    dist.all_reduce(summed, group=_control)
    return summed.numpy()


def largest(value: int) -> int:
    """The largest of the values of all processes."""
    if size() == 1:
        return value
    found = torch.tensor(value)
    dist.all_reduce(found, dist.ReduceOp.MAX, group=_control)
    return int(found)


def objects(value: Any) -> list[Any]:
    """The plain value of every process, in order of rank."""
    if size() == 1:
        return [value]
    received: list[Any] = [None] * size()
    dist.all_gather_object(received, value, group=_control)
    return received


def barrier() -> None:
    """Wait until all processes are here."""
    if size() > 1:
        dist.barrier(group=_control)


def check_equal(values: Callable[[], dict[str, Any]]) -> None:
    """Raise UserError if a process has other plain values than process 0; also a barrier."""
    if size() == 1:
        return
    everywhere = objects((socket.gethostname(), values()))
    for number, (host, found) in enumerate(everywhere):
        differing = [name for name in found if found[name] != everywhere[0][1][name]]
        if differing:
            raise UserError(
                f"{', '.join(differing)}: found other values in process {number} on {host} than in process 0 on "
                f"{everywhere[0][0]}, expected the same; give every machine the same command, code and files"
            )


@contextmanager
def main_first() -> Iterator[None]:
    """A block that process 0 runs before all others, for files that it makes."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


@contextmanager
def session() -> Iterator[None]:
    """Around a whole script: if one process fails, all end, and only the first one to fail says why.

    An exception leaves the block in the process that failed first; the others exit with the code of that exception (2
    for bad input). Each has cleaned up before, and none hangs waiting for a message that will never come.
    """
    global _store
    if size() == 1:
        yield
        return
    store = _store = dist.PrefixStore(_attempt("session"), _connect(serve=True))
    over = threading.Event()
    before = _interrupt_when_failed(store, over)
    try:
        yield
        if dist.is_initialized():
            barrier()
    except BaseException as error:
        over.set()
        first = _fail(store, _exit_code(error))
        if dist.is_initialized():
            # Their messages to this process end with an error. Not so with NCCL, where the watcher ends them.
            dist.destroy_process_group(_control if dist.get_backend() == "nccl" else None)
        _leave(store)
        if first is None:
            raise
        raise SystemExit(first) from None
    finally:
        over.set()
        signal.signal(_WAKE, before)
    if dist.is_initialized():
        dist.destroy_process_group()


def failing(error: BaseException) -> None:
    """Announce that `error` ends this process, before it removes what others still use, so that they end for the same
    reason."""
    if _store is not None:
        _fail(_store, _exit_code(error))


def _interrupt_when_failed(store: dist.Store, over: threading.Event) -> Any:
    """Start a thread that ends this process when another one has failed, until `over` is set.

    Returns the previous handler of `_WAKE`, which must be restored.
    """
    failed = threading.Event()

    def interrupt(*_: Any) -> None:
        if failed.is_set() and not over.is_set():
            raise _OtherFailed

    def watch() -> None:
        while not over.wait(_WATCH):
            try:
                found = store.check([_FAILED])
            except RuntimeError:  # the process that kept the store is gone
                found = True
            if found and not over.is_set():
                failed.set()
                signal.pthread_kill(main, _WAKE)
                if not over.wait(_GRACE / 2):  # it waits for a GPU that waits for a process that has failed
                    os._exit(_fail(store, 1) or 1)

    main = threading.get_ident()
    before = signal.signal(_WAKE, interrupt)
    threading.Thread(target=watch, daemon=True).start()
    return before


def _fail(store: dist.Store, code: int) -> int | None:
    """Note that this process fails with `code`. Returns None if it is the first one, else the code of the first one."""
    own = f"{rank()}:{code}"
    try:
        noted = store.compare_set(_FAILED, "", own).decode()
    except RuntimeError:  # the store is gone
        return code
    return None if noted == own else int(noted.rpartition(":")[2])


def _leave(store: dist.Store) -> None:
    """Wait, but not for ever, until every process has cleaned up: all others end as soon as a process ends that
    torchrun watches, or that keeps the store."""
    for number in SIGNALS:
        if number != signal.SIGINT:  # torchrun may pass a signal on that this process has got already
            signal.signal(number, signal.SIG_IGN)
    until = time.monotonic() + _GRACE
    try:
        store.add(_LEFT, 1)
        while (_kept_by_torchrun() or is_main()) and store.add(_LEFT, 0) < size() and time.monotonic() < until:
            time.sleep(0.05)
    except RuntimeError:  # the store is gone: so is the process that kept it
        return


def _exit_code(error: BaseException) -> int:
    """The exit code, as `utils.options.config.run` gives it."""
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    stopped = error.code if isinstance(error, Interrupted) else 130 if isinstance(error, KeyboardInterrupt) else 1
    return stopped if line_for_user(error) is None else 2


def _attempt(purpose: str) -> str:
    """A place in the store for each start by torchrun, which may restart after a failure."""
    return f"bafft/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{purpose}"


def _kept_by_torchrun() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _connect(serve: bool = False) -> dist.TCPStore:
    """A connection to the store through which processes find each other; kept by torchrun, or else by process 0."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    is_master = serve and is_main() and not _kept_by_torchrun()
    return dist.TCPStore(address, port, is_master=is_master, wait_for_workers=False)
