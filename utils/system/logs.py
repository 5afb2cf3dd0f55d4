"""Log lines for people, JSON lines for programs."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils.system import distributed
from utils.system.errors import UserError
from utils.system.files import write_bytes

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


class JsonLines:
    """A file of one JSON object a line, each written at once: a line is there whole or not at all.

    keep: which lines of an earlier run stay (default: none).
    """

    def __init__(self, path: Path, keep: Callable[[dict[str, Any]], bool] = lambda _: False) -> None:
        self.path = path
        kept = [record for record in _records(path) if keep(record)]
        write_bytes(path, "".join(map(_line, kept)).encode())
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - lives as long as the run

    def write(self, record: dict[str, Any]) -> None:
        """Append a line. Raises UserError where the disk is full."""
        line = _line(record).encode()
        end = self._file.seek(0, os.SEEK_END)
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); make room") from error

    def sync(self) -> None:
        """Make the lines outlive a power cut, as the checkpoint that is about to be written."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log, without those that are none (of a machine that lost power)."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                yield record


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


def summary_writer(wanted: bool) -> Any:
    """The class that writes TensorBoard files; None where they are not wanted."""
    if not wanted:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("--tensorboard: the package tensorboard is missing; pip install tensorboard") from error
    return SummaryWriter


def to_board(board: Any, record: dict[str, Any]) -> None:
    """Add the numbers of a record to TensorBoard, if there is one."""
    if board is not None:
        for name, value in record.items():
            if name != "step" and isinstance(value, (int, float)):
                board.add_scalar(name, value, record["step"])
        board.flush()
