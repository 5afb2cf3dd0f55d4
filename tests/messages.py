"""What a message must say: the file or option, the value found, and no more words than tell two faults apart."""

from __future__ import annotations

import re


def says(message: str, parts: str) -> bool:
    """Whether `message` holds the `parts`, which " ... " separates, in this order, with any words between them."""
    return re.search(".*".join(map(re.escape, parts.split(" ... "))), message, re.DOTALL) is not None
