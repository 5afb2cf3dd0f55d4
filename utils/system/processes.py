"""Which of the processes of `torchrun` this one is, according to the environment; torch is not imported."""

from __future__ import annotations

import os
from collections.abc import Sequence
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
