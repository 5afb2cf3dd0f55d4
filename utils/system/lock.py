"""Only one run per folder: a second one is refused."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from utils.system.errors import UserError
from utils.system.files import make_folder
from utils.system.logs import logger
from utils.system.processes import is_main

NAME = ".lock"
"""The file that names the process which holds the folder."""
_LOCK = ".lock.held"  # a separate file, because on Windows other processes cannot read a locked one
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold `folder` during the block, and create it if necessary. The system releases it even if the process is killed.

    Raises UserError if another process holds it, naming that process, or if the folder cannot be written. A file system
    without locks only gives a warning.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    lock = _take(folder)
    with suppress(OSError):  # a full disk: the lock works even without the name of its holder
        (folder / NAME).write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
    try:
        yield
    finally:
        # While it is still held: a process that has opened the file tries again with a new one.
        for name in (NAME, _LOCK):
            with suppress(OSError):  # Windows removes the lock's file itself
                (folder / name).unlink()
        lock.release()
        with suppress(OSError):  # the folders are not empty, because the run has written something
            for path in new:
                path.rmdir()


@contextmanager
def held_for_all(folder: Path) -> Iterator[None]:
    """As `held`; if the run has several processes, the main one holds the folder for all of them."""
    with held(folder) if is_main() else nullcontext():
        yield


def _take(folder: Path) -> FileLock:
    lock = FileLock(folder / _LOCK, timeout=0, mode=0o666, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        holder = "unknown"
        with suppress(OSError):
            holder = (folder / NAME).read_text(errors="replace").strip() or holder
        raise UserError(
            f"{folder}: in use by another run ({holder}); expected a folder of its own: wait for that run, "
            f"stop it, or choose another folder"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error
        logger.warning("%s: this file system has no locks; make sure that no second run uses the folder", folder)
    return lock
