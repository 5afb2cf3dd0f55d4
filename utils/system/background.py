"""Work that threads do while the caller continues, with a limit on waiting calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Background:
    """Runs calls in `threads` threads. There are at most two unfinished calls per thread; otherwise, `run` waits.

    An error of a call is raised by a later `run`, or when the block ends. After an error in the block, calls that have
    not begun are dropped.
    """

    def __init__(self, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._under_way: deque[Future[Any]] = deque()
        self._most = 2 * threads

    def __enter__(self) -> Background:
        return self

    def run(self, function: Callable[..., Any], *arguments: Any) -> None:
        if len(self._under_way) == self._most:
            self._under_way.popleft().result()
        self._under_way.append(self._pool.submit(function, *arguments))

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            while kind is None and self._under_way:
                self._under_way.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)
