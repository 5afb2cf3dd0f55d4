"""Background work: its limit, errors and order."""

from __future__ import annotations

import threading
import time

import pytest

from utils.system.background import Background


def test_everything_is_done_when_the_block_ends():
    done: list[int] = []
    with Background(2) as background:
        for i in range(20):
            background.run(done.append, i)
    assert sorted(done) == list(range(20))


def test_no_more_than_two_a_thread_are_under_way():
    go, begun = threading.Event(), list[int]()

    def wait(number: int) -> None:
        begun.append(number)
        go.wait()

    with Background(1) as background:
        for i in range(2):
            background.run(wait, i)
        third = threading.Thread(target=background.run, args=(begun.append, 2))
        third.start()
        time.sleep(0.05)
        assert third.is_alive() and begun == [0]
        go.set()
        third.join()
    assert begun == [0, 1, 2]


def test_an_error_comes_out_and_what_waits_is_dropped():
    with pytest.raises(ZeroDivisionError), Background(1) as background:
        background.run(lambda: 1 / 0)
    done: list[int] = []
    with pytest.raises(ZeroDivisionError), Background(1) as background:
        background.run(lambda: 1 / 0)
        for i in range(100):
            background.run(done.append, i)
            time.sleep(0.001)
    assert len(done) < 100
    with pytest.raises(KeyError), Background(1) as background:
        background.run(time.sleep, 0.05)
        background.run(done.append, -1)
        raise KeyError
    assert -1 not in done
