"""The order in which samples are drawn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EndlessSampler(Sampler[list[tuple[int, int]]]):
    """Endless batches of `(index, draw)`, `draw` being the running number of the sample.

    Epoch e is the permutation of `default_rng([seed, e])`, so that every image comes once per epoch. There is no state
    between samples: `start`, the number of samples drawn before, is enough to resume a run exactly. Use it as a
    DataLoader's `batch_sampler`. A batch may span two epochs.

    With `size` processes, number `rank` gets its part of batches of `size * batch_size` samples: together they draw the
    samples that one process with that batch size draws, in the same order.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, start: int = 0, *, rank: int = 0, size: int = 1
    ) -> None:
        if length < 1 or batch_size < 1 or start < 0:
            raise ValueError(f"length {length}, batch_size {batch_size}, start {start}: below 1, 1, 0")
        if not 0 <= rank < size:
            raise ValueError(f"process {rank} of {size}: expected a number from 0 to below {size}")
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.start = start
        self.rank = rank
        self.size = size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        samples = self._samples()
        while True:
            of_all = [next(samples) for _ in range(self.size * self.batch_size)]
            yield of_all[self.rank * self.batch_size :][: self.batch_size]

    def _samples(self) -> Iterator[tuple[int, int]]:
        epoch, position = divmod(self.start, self.length)
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            for place in range(position, self.length):
                yield int(order[place]), epoch * self.length + place
            epoch, position = epoch + 1, 0
