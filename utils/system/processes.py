"""Which of the processes of `torchrun` this one is, according to the environment, and how this one starts others.

Torch is not imported.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.context import BaseContext
from typing import TypeVar

_LAUNCHED = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}  # what torchrun sets
T = TypeVar("T")


def launched() -> bool:
    """Whether torchrun has started this process."""
    return os.environ.keys() >= _LAUNCHED


def rank() -> int:
    """This process's number, from 0, over all machines."""
    return int(os.environ["RANK"]) if launched() else 0


def size() -> int:
    """Number of processes over all machines."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def is_main() -> bool:
    """Whether this process prints and writes."""
    return rank() == 0


def no_bar() -> bool | None:
    """`disable` of a progress bar: one process shows it, on a terminal."""
    return None if is_main() else True


def share(items: Sequence[T]) -> Sequence[T]:
    """The part of this process: all parts together contain each item once."""
    return items[rank() :: size()]


def starting() -> BaseContext:
    """How processes that read files are started: by fork on Linux, and elsewhere as Python does by default.

    Python's own choice on Linux is a fork server since 3.14. Its processes are not children of this one, do not inherit
    which signals are blocked (`utils.system.interrupt.shielded`), and import everything anew.
    """
    return multiprocessing.get_context("fork" if sys.platform == "linux" else None)
