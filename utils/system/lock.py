"""One run a folder: the second one is refused."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.system.errors import UserError
from utils.system.files import make_folder
from utils.system.logs import logger

NAME = ".lock"
_held: set[int] = set()


def _close_in_child() -> None:
    # Reading processes outlive a killed run by some seconds, and would hold its lock.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold `folder`, which is made if need be, for the block; the system frees it also where the process is killed.

    Raises UserError when another process holds it, naming that one, or when the folder cannot be written. A file system
    without locks gives a warning.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    descriptor = _take(folder)
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)
        with suppress(OSError):
            (folder / NAME).unlink()
        os.close(descriptor)
        with suppress(OSError):  # they are not empty: the run has written something
            for path in new:
                path.rmdir()


def _take(folder: Path) -> int:
    path = folder / NAME
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise UserError(
                f"{folder}: in use by another run ({holder}); expected a folder of its own: wait for that run, "
                f"stop it, or choose another folder"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                os.close(descriptor)
                raise
            logger.warning("%s: no locks on this file system; see to it that no second run uses the folder", folder)
        if _is_at(path, descriptor):  # else its holder has removed it meanwhile
            os.truncate(descriptor, 0)
            with suppress(OSError):  # a full disk: the lock holds without the name of its holder
                os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            return descriptor
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
