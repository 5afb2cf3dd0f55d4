"""Writing files so that none is ever half-written."""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from utils.system.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

_SCRATCH = ".partial-"
_LOCK = ".lock"
_JUST_MADE = 60.0  # seconds


def make_folder(folder: Path) -> None:
    """Create a folder and its parents. Raises UserError if a file is in the way or the place is read-only."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made into a folder ({_reason(error)}); choose another one") from error


def _reason(error: OSError) -> str | None:
    """Why a folder cannot be created."""
    return "a file is in the way" if isinstance(error, (FileExistsError, NotADirectoryError)) else error.strerror


def check_can_write(option: str, path: Path, *, folder: bool = False) -> None:
    """Raises UserError, naming the option, if the file `path` (or a file in the folder `path`) could not be written. To
    be called before the work whose result it will hold.

    It tries to write a temporary file, and creates folders for it if necessary; neither stays.
    """
    if os.path.isdir(path) and not folder:
        raise UserError(f"{option}: found the folder {path}, expected a file to write")
    place = path if folder else path.parent
    new = [missing for missing in (place, *place.parents) if not os.path.exists(missing)]
    temporary = temporary_name(place / "file" if folder else path)
    try:
        place.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise UserError(
            f"{option}: {path}: cannot be written ({_reason(error)}); expected a place to write: choose another one"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        for missing in new:
            with suppress(OSError):  # it could not be created, or another program has put a file there meanwhile
                missing.rmdir()


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A scratch folder whose files move into `folder` when the block ends without an error. After an error, nothing is
    left of it, and existing files stay as they were. Scratch folders of killed processes are removed."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    try:
        _remove_abandoned(folder)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder) as scratch, _holding(Path(scratch)):
            yield Path(scratch)
            for path in sorted(path for path in Path(scratch).iterdir() if path.name != _LOCK):
                os.replace(path, folder / path.name)
            _sync_folder(folder)
    except BaseException as error:
        with suppress(OSError):  # another program may have put a file there meanwhile
            for path in new:
                path.rmdir()
        if isinstance(error, OSError):
            raise UserError(_cannot_write(folder, error, None)) from error
        raise


def _remove_abandoned(folder: Path) -> None:
    """Remove the scratch folders of killed processes: they are not locked, and not just being created."""
    for path in folder.glob(f"{_SCRATCH}*"):
        with suppress(OSError):
            old = time.time() - path.stat().st_mtime > _JUST_MADE
            with _holding(path) if old else nullcontext(False) as alone:
                abandoned = alone
            if abandoned:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _holding(folder: Path) -> Iterator[bool]:
    """Lock a folder, if the file system can. Returns whether only this process holds it."""
    lock = FileLock(folder / _LOCK, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except (Timeout, OSError):
        yield False
    else:
        try:
            yield True
        finally:
            lock.release()


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other process uses, on any machine that shares the folder."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], None], size: int | None = None, *, sync: bool = True
) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it. `path` is always the complete old file or the
    complete new one, even after a power cut.

    size: bytes that will be written, for the message if there is no room. sync: wait until the file would survive a
    power cut, which takes long for thousands of small files. Raises UserError if the disk is full or the folder cannot
    be written; the old file stays.
    """
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if sync:
            _sync_folder(path.parent)
    except OSError as error:
        raise UserError(_cannot_write(path, error, size)) from error
    finally:
        with suppress(OSError):  # there is nothing to remove if even the folder could not be created
            temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file, which is created if necessary. If the process is killed, the line may be cut short.

    Raises UserError if the disk is full or the file cannot be written.
    """
    try:
        with open(path, "a", encoding="utf-8", newline="\n") as file:
            file.write(f"{line}\n")
    except OSError as error:
        raise UserError(_cannot_write(path, error, None)) from error


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes. Only call it if no other process writes to the folder."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, on systems where a folder can be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError, size: int | None) -> str:
    room = ""
    with suppress(OSError):
        room = f", {_megabytes(shutil.disk_usage(path.parent).free)} free on that disk"
    needed = f"; {_megabytes(size)} needed{room}" if size is not None else room.replace(", ", "; ", 1)
    return f"{path}: cannot be written ({error.strerror or error}{needed}); make room or choose another folder"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB" if size < 1e9 else f"{size / 1e9:.3g} GB"


def write_bytes(path: Path, content: bytes, *, sync: bool = True) -> None:
    """`write_atomically` for content that is in memory."""
    write_atomically(path, lambda file: file.writelines([content]), len(content), sync=sync)


def write_json(path: Path, content: Any) -> None:
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def write_image(path: Path, image: Image.Image) -> None:
    """Write an image as PNG."""
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    write_bytes(path, encoded.getvalue())
