"""What a message must say: the file or option, the value found, and no more words than tell two faults apart."""

from __future__ import annotations

import re


def says(message: str, parts: str) -> bool:
    """Whether one line of `message` holds the `parts`, which " ... " separates, in this order, other words between."""
    return re.search(".*".join(map(re.escape, parts.split(" ... "))), message) is not None
