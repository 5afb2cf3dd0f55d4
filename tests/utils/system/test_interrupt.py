"""Signals: recorded, raised, and kept from reading processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from utils.system import interrupt
from utils.system.interrupt import Interrupted, StopRequest


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_a_stop_request_notes_the_signal_and_leaves_the_handlers_as_they_were(number):
    before = [signal.getsignal(n) for n in interrupt.SIGNALS]
    with StopRequest() as stop:
        assert stop.number is None
        send(number)
        assert stop.number == number
        send(number)  # a launcher may send the signal a second time
    assert [signal.getsignal(n) for n in interrupt.SIGNALS] == before


def test_a_second_ctrl_c_some_seconds_later_no_longer_waits_but_a_second_sigterm_does(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(interrupt.time, "monotonic", lambda: now[0])
    with StopRequest() as stop:
        send(signal.SIGINT)
        now[0] = 5.0
        send(signal.SIGTERM)
        with pytest.raises(Interrupted):
            send(signal.SIGINT)
        assert stop.number == signal.SIGINT


def test_where_nothing_is_lost_a_signal_ends_at_once_also_an_earlier_one():
    with StopRequest() as stop:
        with pytest.raises(Interrupted) as ended, stop.at_once():
            send(signal.SIGTERM)
        assert ended.value.code == 143
        with pytest.raises(Interrupted), stop.at_once():
            pytest.fail("begun in spite of the signal")
        send(signal.SIGTERM)  # after the block it is only recorded again


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest() as stop, interrupt.raised():
            send(signal.SIGINT)
        assert stop.number is None
    finally:
        signal.signal(signal.SIGINT, before)


class Killed(Dataset):
    """For each item, another process sends both signals to the process that makes it; the item is its id."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        for name in ("INT", "TERM"):  # the `kill` built into the shell, because small systems have no other
            subprocess.run(["sh", "-c", f"kill -{name} {os.getpid()}"], check=True)
        return os.getpid()


DEFAULTS = ["fork", "forkserver"] if sys.platform == "linux" else [multiprocessing.get_start_method()]
"""How Python itself starts processes: on Linux by fork up to 3.13, then by a fork server."""


@pytest.fixture(params=DEFAULTS)
def default_start(request):
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(request.param, force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def test_reading_processes_outlive_the_signals_but_end_when_told_to(default_start):
    handled = []
    before = signal.signal(signal.SIGTERM, lambda *_: handled.append(1))
    try:
        items = interrupt.shielded(DataLoader(Killed(), batch_size=None, num_workers=1))
        workers = {int(item) for item in items}
        assert len(workers) == 1 and workers != {os.getpid()}
        endless: Any = interrupt.shielded(DataLoader(Asleep(), batch_size=None, num_workers=1))
        [worker] = endless._workers
        worker.terminate()
        worker.join(20)
        assert worker.exitcode == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert handled == []  # by the processes, which would have inherited it


class Asleep(Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        threading.Event().wait()
        return 0


def test_a_signal_that_comes_while_the_processes_start_is_not_lost(monkeypatch):
    class Loader(DataLoader):
        def __iter__(self):
            send(signal.SIGTERM)
            return iter([])

    with StopRequest() as stop:
        interrupt.shielded(Loader(Asleep(), batch_size=None))
        assert stop.number == signal.SIGTERM


def test_an_end_by_a_signal_can_be_passed_between_processes():
    ended = pickle.loads(pickle.dumps(Interrupted(15, "step 3 is saved")))
    assert (str(ended), ended.code) == ("SIGTERM: step 3 is saved", 143)


def test_beside_the_main_thread_nothing_listens():
    numbers = []

    def listen():
        with StopRequest() as stop, interrupt.raised():
            numbers.append(stop.number)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert numbers == [None]
