"""Log lines for people, JSON lines for programs."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

logger = logging.getLogger("bafft")


class _Handler(logging.Handler):
    """Prints a record above a progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


def setup() -> None:
    """Let the project's logger print to standard output; calling again changes nothing."""
    if not logger.handlers:
        handler = _Handler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


class JsonLines:
    """A file of one JSON object a line, each flushed when it is written."""

    def __init__(self, path: Path, *, append: bool) -> None:
        self._file = open(path, "a" if append else "w", encoding="utf-8")  # noqa: SIM115 - lives as long as the run

    def write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


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
