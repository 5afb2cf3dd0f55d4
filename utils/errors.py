"""The one exception that stands for bad input."""

from __future__ import annotations


class UserError(Exception):
    """Bad input from outside: a file, a folder, an option, a checkpoint.

    The message is one line: which file or option, what was found, what was expected, what to do. Scripts
    print it without a traceback and leave with exit code 2 (`utils.config.run`).
    """


def one_line(error: UserError) -> str:
    """The message as it can be shown: without the traceback that a loader process wraps around it, and with the signs
    that a file name may hold but a line may not as escapes."""
    message = str(error).rpartition(f"{UserError.__module__}.{UserError.__qualname__}: ")[2].strip()
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in message)
