"""The report of a run that is going on, as one of its sinks."""

from __future__ import annotations

from pathlib import Path

from utils.reporting.page import render
from utils.reporting.run import read_run
from utils.reporting.sinks import Sink
from utils.system.files import write_bytes
from utils.system.logs import logger

REPORT = "report.html"


def write_report(folder: Path) -> Path:
    """Write `folder`/report.html from what the run has left there so far; returns its path."""
    write_bytes(folder / REPORT, render(read_run(folder)).encode())
    return folder / REPORT


class Report(Sink):
    """Writes report.html into the folder of a run: at every `write`, after each checkpoint and score, and at the end.

    It reads the files of the other sinks, and therefore stands behind them in the list. A fault in it is logged, and
    never ends the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self) -> None:
        try:
            write_report(self._folder)
        except Exception as error:  # a run of days must not end because of a picture of it
            logger.info("attention: no report: %s: %s", type(error).__name__, error)

    def close(self) -> None:
        self.write()
