"""What a log line says about the steps since the last one: means of the losses, rates, and where the time went."""

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
    """Sums of the losses since the last flush, kept on the device until then; and where the time went.

    overflows: losses that are not finite are expected and left out of the means, because the gradient scaler skips
    their steps (`--amp fp16`). Otherwise they stay in the sums, where a check finds them.
    """

    RATES = ("iterations_per_s", "data_wait")

    def __init__(self, overflows: bool = False) -> None:
        self.sums: dict[str, Tensor] = {}
        self._counts: dict[str, int | Tensor] = {}
        self._overflows = overflows
        self.start(0)

    def start(self, step: int) -> None:
        """Start the time from which the rate is computed."""
        self._step, self._since, self._waited = step, time.perf_counter(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around code that waits for images."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            counted: int | Tensor = 1
            if self._overflows:
                finite = value.isfinite()
                value, counted = value.where(finite, 0), finite.float()
            self.sums[name] = self.sums.get(name, 0) + value
            self._counts[name] = self._counts.get(name, 0) + counted

    def flush(self, step: int) -> tuple[dict[str, float | None], dict[str, float]]:
        """The mean of every term since the last call, None if it was never finite; and, since then or the start,
        iterations per second and the share of the time, 0 to 1, that was spent waiting for images (`RATES`)."""
        sums = torch.stack([value.float() for value in self.sums.values()])
        counts = [self._counts[name] for name in self.sums]
        counted = [c if isinstance(c, Tensor) else torch.tensor(float(c), device=sums.device) for c in counts]
        both = torch.stack([sums, torch.stack(counted)])
        distributed.average([both])
        columns = zip(self.sums, *to_host(both).tolist(), strict=True)
        means = {name: total / count if count else None for name, total, count in columns}
        passed = time.perf_counter() - self._since
        rates = (round((step - self._step) / passed, 3), round(self._waited / passed, 3))
        self.sums, self._counts = {}, {}
        self.start(step)
        return means, dict(zip(self.RATES, rates, strict=True))

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """If there are several processes, all must call it, and all get the same: what they would log."""
        sums = {name: value.clone() for name, value in self.sums.items()}
        counts = {n: count.clone() if isinstance(count, Tensor) else count for n, count in self._counts.items()}
        averaged = [value for value in (*sums.values(), *counts.values()) if isinstance(value, Tensor)]
        if averaged:
            distributed.average(averaged)
        return {"sums": sums, "counts": counts}

    def load_state_dict(self, state: dict[str, dict[str, Any]], device: torch.device) -> None:
        self.sums = {name: value.to(device) for name, value in state.get("sums", {}).items()}
        counts = state.get("counts", {})
        self._counts = {n: count.to(device) if isinstance(count, Tensor) else count for n, count in counts.items()}
