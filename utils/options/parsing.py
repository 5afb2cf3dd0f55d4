"""Reading a command line: parsers, and the types of values. Torch is not imported here, so that `--help` is quick."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from utils.system.errors import UserError

SIDES = (32, 16384)
"""The shortest and the longest side of an input size, in pixels."""


class Parser(argparse.ArgumentParser):
    """Raises UserError, with the flag that may have been meant.

    Attributes:
        help_flag: what lists all flags.
        elsewhere: flags of other scripts, each with the scripts that take it.
    """

    help_flag = "--help"
    elsewhere: Mapping[str, Sequence[str]] = {}

    def error(self, message: str) -> NoReturn:
        unknown = next((word for word in message.split() if word.startswith("--")), "").split("=")[0]
        if message.startswith("unrecognized arguments") and unknown:
            near = get_close_matches(unknown, self._option_string_actions, n=1, cutoff=0.8)
            if unknown in self.elsewhere:
                message += f"; it is an option of {' and '.join(self.elsewhere[unknown])}"
            elif near:
                message += f"; did you mean {near[0]}?"
        raise UserError(f"{message} (see {self.help_flag})")


def parser(description: str | None, **arguments: Any) -> Parser:
    """A parser whose help shows the first line of a description above the arguments and the rest below them."""
    first_line, _, rest = (description or "").partition("\n")
    return Parser(
        description=first_line,
        epilog=rest,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **arguments,
    )


def pair(text: str) -> tuple[int, int]:
    """WIDTH,HEIGHT."""
    if not re.fullmatch(r"\d{1,9},\d{1,9}", text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected WIDTH,HEIGHT such as 1280,720")
    width, height = text.split(",")
    return int(width), int(height)


def numbers(text: str) -> tuple[float, ...]:
    """Numbers between commas."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected numbers such as 0.75,1,1.25") from None


def names(*allowed: str) -> Callable[[str], tuple[str, ...]]:
    """Some of the allowed names, between commas."""

    def read(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if not set(found) <= set(allowed):
            raise argparse.ArgumentTypeError(f"found {text!r}, expected some of {','.join(allowed)}")
        return found

    return read


def at_least(low: int) -> Callable[[str], int]:
    """A whole number of at least `low`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,9}", text) or int(text) < low:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of at least {low}")
        return int(text)

    return read


def checked(read: Callable[[str], Any], check: Callable[[Any], str | None]) -> Callable[[str], Any]:
    """A type whose values must pass a check, which says what was expected, or None."""

    def read_and_check(text: str) -> Any:
        value = read(text)
        expected = check(value)
        if expected:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected {expected}")
        return value

    return read_and_check


def is_size(value: tuple[int, int]) -> str | None:
    """The check of an input size."""
    low, high = SIDES
    if min(value) >= low and max(value) <= high:
        return None
    return f"WIDTH,HEIGHT of at least {low} and at most {high} pixels"


def are_scales(values: tuple[float, ...]) -> str | None:
    """The check of `--scales`."""
    return None if all(0.1 <= value <= 10 for value in values) else "scales from 0.1 to 10"
