"""Decoded and resized images and labels, kept on disk as plain uint8 and memory-mapped from there.

An entry is made when its file is first read, by the process that needs it. Its name is a hash of its origin: the file's
bytes, and the kind (size, filter, reader, id map, Pillow's version). A changed file, such as a rewritten pseudo-label,
therefore gets another entry, and data that were moved are found again. The hashes of files are stored beside the
entries, by path, size and times, so that a warm start hashes nothing. If there are more entries than known files, as
after a move, the start hashes the unknown files.

Files appear whole or not at all, and two processes that make the same entry make the same bytes. Any number of workers
and runs may therefore share a folder without locks (which network disks handle badly), a killed run leaves nothing
wrong, and the folder may be deleted at any time. Nothing waits for the disk: if a power cut damages an entry, its sum
shows it, and the entry is made again.

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
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from utils.system.errors import UserError
from utils.system.files import write_atomically

Pixels = npt.NDArray[np.uint8]
Stored = tuple[Pixels, tuple[int, int]]
"""Pixels [H, W] or [H, W, 3] as requested, and the file's own width and height."""

FORMAT = 2  # raise it when the same file and kind give other bytes
_HEADER = 6 * 8
_SETTLED = 2.0  # seconds; a file that was changed more recently may change again without a change of its times
_ABANDONED = 3600.0  # seconds after which no process uses a temporary file any more
_CHEAP = 2**30  # bytes that are hashed only for a better estimate

log = logging.getLogger("bafft")


@dataclass(frozen=True)
class Wanted:
    """A file whose entry of `kind` will be needed, and about how many bytes the entry takes."""

    path: Path
    kind: str
    size: int


class Cache:
    """The entries below one folder. Before the first `get`, only hashes of files are written."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._root = self.folder / f"v{FORMAT}"
        self._writable = True
        self._unwritten: dict[str, str] = {}  # what `seen` would hold if the folder were writable

    def get(self, path: Path, kind: str, read: Callable[[Path], Stored]) -> Stored:
        """The result of `read` for a file: from the folder if it is stored there, else read now and stored.

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
            if self._content(path) == content:  # otherwise, it was replaced while it was read
                self._store(entry, *found)
        return found

    def announce(self, wanted: Iterable[Wanted]) -> None:
        """Log how much is stored and how much will be written. Raises UserError if it does not fit or cannot be
        written."""
        wanted = set(wanted)  # two data sets may share images
        place = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        if not place.is_dir():
            raise UserError(f"--cache: {place} is a file; expected a folder: choose another one")
        free = shutil.disk_usage(place).free
        self._writable = os.access(place, os.W_OK)
        missing = self._missing(wanted)
        unseen = self._unseen(wanted, missing)
        if self._hash_some(unseen, must=not self._writable or _need(missing) > free):
            missing, unseen = self._missing(missing), set()
        need = _need(missing)
        have = f"{len(wanted) - len(missing)} of {len(wanted)} images and labels are stored"
        if need > free:
            raise UserError(
                f"--cache: {self.folder} needs about {_gib(need)} more ({have}), found {_gib(free)} free on its disk; "
                f"choose a folder on a larger one, or leave --cache out"
            )
        if missing and not self._writable:
            raise UserError(
                f"--cache: {place} cannot be written to, and only {have}; expected a folder that can be written to, or "
                "one that holds everything: choose another one"
            )
        if unseen:
            have += f" (for {len(unseen)} more files, this is known once they are read)"
        log.info("cache %s: %s, the others take about %s (%s free)", self.folder, have, _gib(need), _gib(free))
        self._sweep()

    def _content(self, path: Path) -> str | None:
        """The hash of a file's bytes; a stored one if path, size and times are unchanged."""
        try:
            seen, changed = self._seen(path)
            content = self._remembered(seen)
            if content is None:
                with open(path, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                if time.time() - changed > _SETTLED:
                    self._write(seen, content.encode())
                    if not self._writable:
                        self._unwritten[seen.name] = content
        except OSError:
            return None
        return content

    def _seen(self, path: Path) -> tuple[Path, float]:
        """Where the hash of a file is stored, and when the file was last changed."""
        status = path.stat()
        key = _hash(f"{path.absolute()}\n{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}")
        return self._root / "seen" / key[:2] / key, max(status.st_mtime, status.st_ctime)

    def _entry(self, kind: str, content: str) -> Path:
        return self._root / _folder(kind) / content[:2] / content

    def _remembered(self, seen: Path) -> str | None:
        try:
            content = seen.read_text()
        except (OSError, UnicodeDecodeError):
            content = ""
        return content if re.fullmatch("[0-9a-f]{64}", content) else self._unwritten.get(seen.name)

    def _known(self, item: Wanted) -> str | None:
        """The stored hash of a file, if any."""
        try:
            return self._remembered(self._seen(item.path)[0])
        except OSError:
            return None

    def _missing(self, wanted: Iterable[Wanted]) -> set[Wanted]:
        """The files without an entry, as far as this is known without hashing."""
        known = ((item, self._known(item)) for item in wanted)
        return {item for item, content in known if content is None or not self._entry(item.kind, content).exists()}

    def _unseen(self, wanted: set[Wanted], missing: set[Wanted]) -> set[Path]:
        """Files without a stored hash, of kinds with more entries than known files: these may have entries already."""
        paths = defaultdict(set)
        for item in missing:
            if self._known(item) is None:
                paths[item.kind].add(item.path)
        found = set()
        for kind, unseen in paths.items():
            entries = sum(1 for _ in (self._root / _folder(kind)).glob("*/[!.]*"))
            if entries > len({self._known(item) for item in wanted - missing if item.kind == kind}):
                found |= unseen
        return found

    def _hash_some(self, paths: Collection[Path], *, must: bool) -> bool:
        """Hash files if they are few, or if `must` is true."""
        size = sum(os.path.getsize(path) for path in paths if path.is_file())
        if size > _CHEAP and not must:
            return False
        if size > _CHEAP:
            log.info("cache %s: hashing %s of files not seen before, to find their entries", self.folder, _gib(size))
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._content, paths))
        return True

    def _store(self, entry: Path, pixels: Pixels, native: tuple[int, int]) -> None:
        channels = pixels.shape[2] if pixels.ndim == 3 else 0
        header = np.array([*native, *pixels.shape[:2], channels, _sum(pixels)], "<u8")
        self._write(entry, header.tobytes(), pixels.tobytes())

    def _write(self, path: Path, *parts: bytes) -> None:
        """Store an entry. If the cache cannot be written to any more, the run continues without it."""
        if not self._writable:
            return
        try:
            write_atomically(path, lambda file: file.writelines(parts), sync=False)
        except UserError as error:
            self._writable = False
            log.warning("cache: %s; continuing without storing more", error)

    def _sweep(self) -> None:
        """Remove temporary files that killed runs have left."""
        for path in self._root.glob("*/*/.*.tmp"):
            with suppress(OSError):  # another run may remove it at the same time
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()


def _load(entry: Path) -> Stored | None:
    try:
        data = np.memmap(entry, np.uint8, mode="r").view(np.ndarray)
    except (OSError, ValueError):  # missing, or empty after a power cut
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
    """The sum of all bytes in words of eight, modulo 2^64. Parts that never reached the disk read as zeros and change
    it."""
    content = pixels.ravel()
    whole = content.size // 8 * 8
    return (int(content[:whole].view("<u8").sum()) + int(content[whole:].sum())) % 2**64


def _folder(kind: str) -> str:
    return f"{kind.split()[0]}-{_hash(kind)[:16]}"


def _need(items: Iterable[Wanted]) -> int:
    return sum(item.size for item in items)


def _hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
