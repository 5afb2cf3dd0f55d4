"""The time and disk space that a run will take, logged after its first steps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from utils.reporting.sinks import Record, Sink
from utils.system.logs import logger

STEPS = 50  # after which the rate is known well enough


class Cost(Sink):
    """Logs, at the first record at least `STEPS` steps after the start, what is still ahead, if anything: steps, images
    per second, when the run ends, and the disk space for its checkpoints.

    start, steps: the steps at which the run starts and ends; images: per domain and step, over all processes; domains:
    1 or 2;
    disk: bytes of all checkpoints that will be kept together; free: bytes that are free.
    """

    def __init__(self, start: int, steps: int, images: int, domains: int, disk: int, free: int) -> None:
        self._start, self._steps, self._images, self._domains = start, steps, images, domains
        self._disk, self._free = disk, free
        self._told = False

    def record(self, record: Record) -> None:
        if not self._told and "iterations_per_s" in record and self._start + STEPS <= record["step"] < self._steps:
            self._told = True
            logger.info("%s", self._line(record, datetime.now()))

    def _line(self, record: Mapping[str, Any], now: datetime) -> str:
        rate, left = max(record["iterations_per_s"], 1e-9), self._steps - record["step"]
        seconds = round(left / rate)
        images = self._images * self._domains
        return (
            f"ahead: {left} steps of {self._images} images{' of each domain' if self._domains > 1 else ''}, "
            f"{rate * images:.3g} images per second; ends in {timedelta(seconds=seconds)}, "
            f"at {now + timedelta(seconds=seconds):%Y-%m-%d %H:%M}, plus the time for scores and pictures; "
            f"checkpoints take {self._disk / 1e6:.3g} MB of {self._free / 1e9:.3g} GB that are free"
        )
