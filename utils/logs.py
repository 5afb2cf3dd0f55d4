"""Log lines for people, JSON lines for programs."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils import distributed
from utils.checkpoint import write_atomically

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
    (`utils.distributed`) one prints.

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


class JsonLines:
    """A file of one JSON object a line, each flushed when it is written.

    up_to: the lines of an earlier run up to this step stay, later ones will be written anew; 0 starts an empty file.
    """

    def __init__(self, path: Path, *, up_to: int) -> None:
        kept = [line for line in _lines(path) if 0 < _step(line) <= up_to] if up_to else []
        write_atomically(path, lambda file: file.writelines(line.encode() for line in kept))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - lives as long as the run

    def write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []


def _step(line: str) -> int:
    """The step of a log line; 0 for one that a killed run left unfinished."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 0


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
