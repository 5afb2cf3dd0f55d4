"""Signals that ask a program to end: Ctrl-C (SIGINT) and the polite kill of shells and schedulers (SIGTERM).

Scripts end at once by an exception, so that half-written files are cleaned up. Training finishes its iteration first,
and saves (`StopRequest`). Reading processes never see either signal (`shielded`): theirs would be a traceback each.
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

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 2.0  # seconds in which a second signal is an echo: a launcher passes on what the terminal sends to all


class Interrupted(BaseException):
    """A signal ended the program. `code`: the exit code that shells expect, 128 + the signal's number."""

    def __init__(self, number: int, said: str = "stopped; no file is left half-written") -> None:
        super().__init__(number, said)  # as they come, to be passed on by a pool of processes
        self.code = 128 + number

    def __str__(self) -> str:
        number, said = self.args
        return f"{signal.Signals(number).name}: {said}"


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)


@contextmanager
def raised() -> Iterator[None]:
    """In the block, either signal raises `Interrupted`."""
    with _handled(_interrupt):
        yield


def shielded(loader: DataLoader[Any]) -> Iterator[Any]:
    """Iterate over a loader whose processes do not see the signals, which go to a terminal's or job's processes all at
    once: this one decides. They still end when it tells them to, or is gone."""
    loader.worker_init_fn = _end_with_parent
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return iter(loader)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # and here they come, if there were any


def _end_with_parent(_: int) -> None:
    if not hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return

    def listen() -> None:
        if hasattr(signal, "sigwaitinfo"):
            while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
                pass
        else:  # macOS does not tell who sent it
            signal.sigwait([signal.SIGTERM])
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()


class StopRequest:
    """A context in which a signal is noted, for the loop in it to end where it is ready to (`number`, else None).

    A second Ctrl-C, some seconds later, no longer waits: it raises `Interrupted`.
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
        """In this inner block, where nothing is lost, a signal raises `Interrupted` (also one noted before)."""
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
    """A signal that is ignored stays so: a shell ignores Ctrl-C for what it runs in the background. Only a main thread
    may listen to signals, and is the one that gets them."""
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
