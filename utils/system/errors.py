"""The one exception that stands for bad input."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path


class UserError(Exception):
    """Bad input from outside: a file, a folder, an option, a checkpoint.

    The message is one line: which file or option, what was found, what was expected, what to do. Scripts print it
    without a traceback and exit with code 2 (`utils.options.config.run`).
    """


def fault(path: str | Path) -> str | None:
    """None for a regular file, also behind links; otherwise, what is found instead: a folder, a pipe, a loop of
    links."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "is a link that leads nowhere" if os.path.islink(path) else "not found"
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    except ValueError:  # not a possible file name
        return "not found"
    if stat.S_ISREG(mode):
        return None
    return "is a folder" if stat.S_ISDIR(mode) else "is a pipe or device, not a regular file"


def require_folder(path: str | Path, what: str, expected: str) -> None:
    """Raises UserError unless there is a folder at `path`, also behind links.

    `Path.is_dir` cannot be used for this: from Python 3.14 on, it treats a folder that may not be opened, or whose name
    is too long, as missing.
    """
    found = fault(path)
    if found != "is a folder":
        raise UserError(f"{path}: {what} {found or 'is a file'}; expected {expected}")


def one_line(error: UserError) -> str:
    """The message as it can be shown: without the traceback that a loader process adds, and `printable`."""
    message = str(error).rpartition(f"{UserError.__module__}.{UserError.__qualname__}: ")[2].strip()
    return printable(message)


def printable(text: str) -> str:
    """The text with escapes for characters that may occur in a file name but not in a line."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def line_for_user(error: BaseException) -> str | None:
    """The message for an error that the user can do something about, which ends a script with exit code 2; None for any
    other."""
    if isinstance(error, UserError):
        return one_line(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; expected a file or folder that can be used"
    return _resource_fault(error) if isinstance(error, (MemoryError, RuntimeError)) else None


def _resource_fault(error: MemoryError | RuntimeError) -> str | None:
    """The message for the errors that torch raises if memory runs short; None for every other error."""
    said = str(error).split("\n")[0]
    torch = sys.modules.get("torch")  # a program that has not imported torch cannot have raised its error
    out_of_memory = (MemoryError,) if torch is None else (MemoryError, torch.cuda.OutOfMemoryError)
    if isinstance(error, out_of_memory) or "can't allocate memory" in said:
        return f"out of memory ({said}); lower --batch-size or --input-size, or choose --amp bf16"
    if said.startswith("DataLoader worker"):
        return f"a process that reads images was killed ({said}); lower --num-workers, or give it more (shared) memory"
    return None
