"""What is logged of a stretch of training: means of the losses, rates, and where the time went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from utils.system import distributed
from utils.system.transfer import to_host


class Meter:
    """Sums of the losses since the last flush, kept on the device until then; and where the time went."""

    RATES = ("iterations_per_s", "data_wait")

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self.start(0)

    def start(self, step: int) -> None:
        """Let the time begin that the rate is counted in."""
        self._step, self._since, self._waited = step, time.perf_counter(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around whatever waits for images."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def flush(self, step: int) -> tuple[dict[str, float], dict[str, float]]:
        """Mean of every term since the last call; and, since then or the start, iterations a second and the share of
        the time, 0 to 1, that was spent waiting for images (`RATES`)."""
        sums = torch.stack([self.sums[name].float() for name in self.sums])
        distributed.average([sums])
        values = to_host(sums)
        means = {name: float(v) / self._counts[name] for name, v in zip(self.sums, values, strict=True)}
        passed = time.perf_counter() - self._since
        rates = (round((step - self._step) / passed, 3), round(self._waited / passed, 3))
        self.sums, self._counts = {}, {}
        self.start(step)
        return means, dict(zip(self.RATES, rates, strict=True))

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Of several processes all must call it, and get the same: what they would log."""
        sums = {name: value.clone() for name, value in self.sums.items()}
        if sums:
            distributed.average(sums.values())
        return {"sums": sums, "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, dict[str, Any]], device: torch.device) -> None:
        self.sums = {name: value.to(device) for name, value in state.get("sums", {}).items()}
        self._counts = dict(state.get("counts", {}))
