"""Which file each prediction was made from, so that a later run knows what need not be predicted again."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock

from utils.system.files import append_line, write_bytes

NAME = "inputs.jsonl"


@dataclass(frozen=True)
class Entry:
    """The file of an input, as it was before it was predicted.

    Attributes:
        path: absolute, without links.
        size: in bytes.
        changed: when it was last changed, in nanoseconds.
        frames: how many frames were predicted, 1 for an image; None until all files of the input are written.
        whole: whether these are all frames; --frames may end a film earlier.
    """

    path: str
    size: int
    changed: int
    frames: int | None = None
    whole: bool = True


class Record:
    """The entries of an output folder, by key. They are kept in `inputs.jsonl`, one line of JSON per entry.

    Lines are only added during a run, and the last line of a key counts. A line that is damaged, because the process
    was killed, counts as missing. Threads may use the same object.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._lock = Lock()
        self._entries: dict[str, Entry] = {}
        self._files: dict[Path, Entry] = {}  # of this run
        content = self._path.read_text(encoding="utf-8", errors="replace") if self._path.is_file() else ""
        lines = content.splitlines(keepends=True)
        good: list[str] = []
        for line in lines:
            try:
                values = json.loads(line)
                key = values.pop("key")
                self._entries[key] = Entry(**values)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
            good.append(line.rstrip("\n") + "\n")
        if good != lines:  # so that the next line is added to a whole one
            write_bytes(self._path, "".join(good).encode())

    def known(self, key: str, path: Path) -> Entry | None:
        """The entry of a key if it was made from the file `path`, and the file has not changed since; else None."""
        entry, now = self._entries.get(key), self._file(path)
        return entry if entry is not None and replace(entry, frames=None, whole=True) == now else None

    def start(self, key: str, path: Path) -> None:
        """Note that the files of this key will be overwritten by those of the file `path`."""
        self._put(key, self._file(path))

    def finish(self, key: str, path: Path, frames: int = 1, *, whole: bool = True) -> None:
        """Note that all files of this key are written; frames and whole: as in `Entry`."""
        self._put(key, replace(self._file(path), frames=frames, whole=whole))

    def _file(self, path: Path) -> Entry:
        """A file as it was when this run first looked at it: if it is changed later, the next run predicts it again."""
        if path not in self._files:
            self._files[path] = Entry(os.path.realpath(path), -1, -1)  # missing, which reading it reports
            with suppress(OSError):
                status = path.stat()
                self._files[path] = replace(self._files[path], size=status.st_size, changed=status.st_mtime_ns)
        return self._files[path]

    def _put(self, key: str, entry: Entry) -> None:
        with self._lock:
            self._entries[key] = entry
            append_line(self._path, json.dumps({"key": key} | asdict(entry)))
