"""Signals that ask a program to end: Ctrl-C (SIGINT), SIGTERM from shells and schedulers, and SIGHUP, which a terminal
sends when it is closed or its connection is lost.

Scripts end at once by an exception, so that half-written files are removed. Training first finishes its iteration and
saves (`StopRequest`). Reading processes never get these signals (`shielded`), because each would print a traceback.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from utils.system.processes import starting

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

SIGNALS = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGHUP"):  # not on Windows
    SIGNALS.append(signal.SIGHUP)
# Seconds in which a second signal counts as an echo: a launcher passes on what the terminal sends to all.
_PATIENCE = 2.0


class Interrupted(BaseException):
    """A signal ended the program. code: the exit code that shells expect, 128 + the number of the signal."""

    def __init__(self, number: int, said: str = "stopped; no file is left half-written") -> None:
        super().__init__(number, said)  # the arguments as they are, because a pool of processes passes them on
        self.code = 128 + number

    def __str__(self) -> str:
        number, said = self.args
        return f"{signal.Signals(number).name}: {said}"


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)


@contextmanager
def raised() -> Iterator[None]:
    """Inside the block, each signal raises `Interrupted`."""
    with _handled(_interrupt):
        yield


def shielded(loader: DataLoader[Any]) -> Iterator[Any]:
    """Iterate over a loader whose processes do not get the signals, which a terminal or job sends to all processes at
    once. Only this process decides; the others end when it tells them to, or when it has ended."""
    loader.worker_init_fn = _end_with_parent
    if loader.num_workers > 0:
        loader.multiprocessing_context = starting()
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return iter(loader)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # pending signals arrive here, if there were any


def _end_with_parent(_: int) -> None:
    if not hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return

    def listen() -> None:
        if hasattr(signal, "sigwaitinfo"):
            while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
                pass
        else:  # macOS does not say who sent it
            signal.sigwait([signal.SIGTERM])
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()


class StopRequest:
    """A context in which a signal is only noted in `number` (else None), so that the loop inside can end at a good
    place.

    A second Ctrl-C, some seconds later, does not wait: it raises `Interrupted`.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._since = 0.0
        self._at_once = False

    def __enter__(self) -> StopRequest:
        self._context = _handled(self._note)
        self._context.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside this inner block, in which nothing can be lost, a signal raises `Interrupted`, also one that was noted
        before."""
        self._at_once = True
        try:
            if self.number is not None:
                raise Interrupted(self.number)
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        impatient = self.number is not None and number == signal.SIGINT and now - self._since > _PATIENCE
        if self.number is None:
            self.number, self._since = number, now
        if self._at_once or impatient:
            raise Interrupted(number)


@contextmanager
def _handled(handler: Any) -> Iterator[None]:
    """Set the handler of each signal, unless it is ignored: a shell ignores Ctrl-C for programs in the background, and
    nohup ignores SIGHUP.
    Only the main thread may do this, and only it gets signals."""
    before = {}
    listening = threading.current_thread() is threading.main_thread()
    try:
        for number in SIGNALS:
            if listening and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)
