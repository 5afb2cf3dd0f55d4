"""Decoded and resized images and labels, kept on disk as plain uint8 and memory-mapped from there.

An entry is made when its file is first read, by whichever process needs it, and is found by what it is made of: the
hash of the file's bytes, and the kind (size, filter, reader, id map, Pillow's version). So a changed file, such as a
pseudo-label written anew, gives another entry, and data that moved are found again. Beside the entries stand the hashes
of the files seen, under path, size and times, so that a warm start hashes nothing.

Files appear whole or not at all, and whoever makes an entry twice makes the same one: any number of workers and runs
may share a folder without locks (which network disks are bad at), a killed run leaves nothing that is wrong, and the
folder may be deleted at any time. Nobody waits for the disk: what a power cut took from an entry shows in its sum, and
the entry is made anew.

    DIR/v2/IMAGE-OR-LABEL.../AB/HASH    six little-endian uint64: native width and height, height, width and channels
                                        (0: a label) of the pixels, their sum; then the pixels, uint8
    DIR/v2/seen/AB/HASH                 of path, size and times of a file: the hash of its content
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from utils.errors import UserError
from utils.files import write_atomically

Pixels = npt.NDArray[np.uint8]
Stored = tuple[Pixels, tuple[int, int]]
"""Pixels [H, W] or [H, W, 3] as wanted, and the file's own width and height."""

FORMAT = 2  # to be raised when the same file and kind give other bytes
_HEADER = 6 * 8
_SETTLED = 2.0  # seconds; a file written later than that may change again without its times telling
_ABANDONED = 3600.0  # seconds after which a temporary file is nobody's

log = logging.getLogger("bafft")


@dataclass(frozen=True)
class Wanted:
    """A file whose entry of `kind` will be asked for, and about how many bytes it takes."""

    path: Path
    kind: str
    size: int


class Cache:
    """The entries below one folder; nothing is written before the first `get`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._root = self.folder / f"v{FORMAT}"
        self._writable = True

    def get(self, path: Path, kind: str, read: Callable[[Path], Stored]) -> Stored:
        """What `read` gives for a file, from the folder if it is there, else read and stored.

        kind: everything besides the file's content that `read` depends on. The pixels may be read-only. Raises
        what `read` raises.
        """
        content = self._content(path)
        if content is None:
            return read(path)
        entry = self._entry(kind, content)
        found = _load(entry)
        if found is None:
            found = read(path)
            if self._content(path) == content:  # else it was replaced while it was read
                self._store(entry, *found)
        return found

    def announce(self, wanted: Iterable[Wanted]) -> None:
        """Say how much is there and how much will be written; raises UserError where it will not fit or cannot be."""
        wanted = set(wanted)  # two data sets may share images
        missing = [item for item in wanted if not self._has(item)]
        need = sum(item.size for item in missing)
        place = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        if not place.is_dir():
            raise UserError(f"--cache: {place} is a file; expected a folder: choose another one")
        free = shutil.disk_usage(place).free
        have = f"{len(wanted) - len(missing)} of {len(wanted)} images and labels are there"
        if need > free:
            raise UserError(
                f"--cache: {self.folder} needs about {_gib(need)} more ({have}), found {_gib(free)} free on its disk; "
                f"choose a folder on a larger one, or leave --cache out"
            )
        if missing and not os.access(place, os.W_OK):
            raise UserError(f"--cache: {place} cannot be written to, and only {have}; choose another folder")
        log.info("cache %s: %s, the others take about %s (%s free)", self.folder, have, _gib(need), _gib(free))
        self._sweep()

    def _content(self, path: Path) -> str | None:
        """The hash of a file's bytes, remembered from an earlier time where path, size and times are the same."""
        try:
            seen, changed = self._seen(path)
            content = _remembered(seen)
            if content is None:
                with open(path, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                if time.time() - changed > _SETTLED:
                    self._write(seen, content.encode())
        except OSError:
            return None
        return content

    def _seen(self, path: Path) -> tuple[Path, float]:
        """Where the hash of a file is remembered, and when the file was last changed."""
        status = path.stat()
        key = _hash(f"{path.absolute()}\n{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}")
        return self._root / "seen" / key[:2] / key, max(status.st_mtime, status.st_ctime)

    def _entry(self, kind: str, content: str) -> Path:
        return self._root / f"{kind.split()[0]}-{_hash(kind)[:16]}" / content[:2] / content

    def _has(self, item: Wanted) -> bool:
        """Whether an entry is there, as far as that can be told without hashing."""
        try:
            content = _remembered(self._seen(item.path)[0])
        except OSError:
            return False
        return content is not None and self._entry(item.kind, content).exists()

    def _store(self, entry: Path, pixels: Pixels, native: tuple[int, int]) -> None:
        channels = pixels.shape[2] if pixels.ndim == 3 else 0
        header = np.array([*native, *pixels.shape[:2], channels, _sum(pixels)], "<u8")
        self._write(entry, header.tobytes(), pixels.tobytes())

    def _write(self, path: Path, *parts: bytes) -> None:
        """A cache that cannot be written to any more is no reason to stop a run of days."""
        if not self._writable:
            return
        try:
            write_atomically(path, lambda file: file.writelines(parts), sync=False)
        except UserError as error:
            self._writable = False
            log.warning("cache: %s; going on without storing more", error)

    def _sweep(self) -> None:
        """Remove what killed runs left half-written."""
        for path in self._root.glob("*/*/.*.tmp"):
            with suppress(OSError):  # another run may sweep too
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()


def _load(entry: Path) -> Stored | None:
    try:
        data = np.memmap(entry, np.uint8, mode="r").view(np.ndarray)
    except (OSError, ValueError):  # not there, or empty after a power cut
        return None
    if data.size < _HEADER:
        return None
    native_width, native_height, height, width, channels, expected = data[:_HEADER].view("<u8").tolist()
    shape = (height, width, channels) if channels else (height, width)
    pixels = data[_HEADER:]
    if 0 < math.prod(shape) == pixels.size and _sum(pixels) == expected:
        return pixels.reshape(shape), (native_width, native_height)
    return None


def _sum(pixels: Pixels) -> int:
    """Of all bytes, in words of eight modulo 2^64; parts that never reached the disk, and read as zeros, change it."""
    content = pixels.ravel()
    whole = content.size // 8 * 8
    return (int(content[:whole].view("<u8").sum()) + int(content[whole:].sum())) % 2**64


def _remembered(seen: Path) -> str | None:
    try:
        content = seen.read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return content if re.fullmatch("[0-9a-f]{64}", content) else None


def _hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
