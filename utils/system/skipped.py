"""The count and the list of `--skip-bad-images`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import IO

from utils.system.files import write_atomically
from utils.system.logs import logger

LIST = "skipped_images.txt"


class Skipped:
    """Why images were skipped, one line per image, in the order in which they were first read."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self._path: Path | None = None

    def add(self, reasons: Iterable[str]) -> None:
        """Log those of the `reasons` that are new, and add them to the list."""
        new = [reason for reason in dict.fromkeys(reasons) if reason not in self.reasons]
        if not new:
            return
        self.reasons += new
        for number, reason in enumerate(new, start=len(self.reasons) - len(new) + 1):
            logger.info("skipped (%d) %s", number, reason)
        self._write()

    def list_in(self, folder: Path, *, go_on: bool = False) -> None:
        """Keep the list in `folder`/skipped_images.txt from now on. go_on: keep the lines of an earlier run.

        There is no such file until an image is skipped.
        """
        self._path = folder / LIST
        if go_on and self._path.is_file():
            before = self._path.read_text(encoding="utf-8").splitlines()
            self.reasons = list(dict.fromkeys([*before, *self.reasons]))
        else:
            self._path.unlink(missing_ok=True)
        self._write()

    def _write(self) -> None:
        if self._path is not None and self.reasons:
            content = "".join(f"{reason}\n" for reason in self.reasons).encode()

            def write(file: IO[bytes]) -> None:
                file.write(content)

            write_atomically(self._path, write)
