"""The project's logger, and the revision of the code."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from utils.system import processes

logger = logging.getLogger("bafft")


class _Handler(logging.Handler):
    """Prints a record above a progress bar, if there is one.

    A run whose output has been closed continues without printing. In `python train_step1.py | tee log`, for example,
    Ctrl-C also stops `tee`, but training must still save its checkpoint.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def setup() -> None:
    """Let the project's logger print to standard output; calling it again changes nothing. If there are several
    processes (`utils.system.processes`), only one prints."""
    if not logger.handlers:
        handler = _Handler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO if processes.is_main() else logging.CRITICAL)
        logger.propagate = False


def revision() -> str:
    """The git revision of the code, with a + if the code has been changed since; "unknown" outside a checkout."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
