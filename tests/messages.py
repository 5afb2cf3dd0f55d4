"""Checks what a message must contain: file or option, the value found, and the words that tell two faults apart."""

from __future__ import annotations

import re


def says(message: str, parts: str) -> bool:
    """Whether one line of `message` contains these parts in this order; `parts` separates them by " ... "."""
    return re.search(".*".join(map(re.escape, parts.split(" ... "))), message) is not None
