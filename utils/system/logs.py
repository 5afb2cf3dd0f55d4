"""The project's logger, and the revision of the code."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from utils.system import distributed

logger = logging.getLogger("bafft")


class _Handler(logging.Handler):
    """Prints a record above a progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class _Console(_Handler):
    """Prints one-line records to the terminal, also where standard output goes to a file."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if "\n" not in line and sys.__stdout__ is not None:
            print(line, file=sys.__stdout__, flush=True)


def setup(prefix: str | None = None) -> None:
    """Let the project's logger print to standard output; calling again changes nothing. Of several processes
    (`utils.system.distributed`) one prints.

    prefix: for one of several processes whose standard output goes to a file: its short lines also go to the terminal,
    under this prefix.
    """
    if not logger.handlers:
        _add(_Handler(), "")
        logger.setLevel(logging.INFO if distributed.is_main() else logging.CRITICAL)
        logger.propagate = False
    if prefix is not None:
        for handler in [h for h in logger.handlers if isinstance(h, _Console)]:
            logger.removeHandler(handler)
        _add(_Console(), prefix)


def _add(handler: logging.Handler, prefix: str) -> None:
    handler.setFormatter(logging.Formatter(f"%(asctime)s {prefix}%(message)s", datefmt="%H:%M:%S"))
    logger.addHandler(handler)


def revision() -> str:
    """The git revision of the code, with a + when it was changed since; "unknown" outside a checkout."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
