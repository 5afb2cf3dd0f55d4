"""The one exception that stands for bad input."""

from __future__ import annotations


class UserError(Exception):
    """Bad input from outside: a file, a folder, an option, a checkpoint.

    The message is one line: which file or option, what was found, what was expected, what to do. Scripts
    print it without a traceback and leave with exit code 2 (`utils.config.run`).
    """
