"""The kinds of mixed precision, by name, and the package apex; torch is not imported."""

from __future__ import annotations

from typing import Any

from utils.system.errors import UserError

AMP = ("off", "bf16", "fp16", "apex-O1", "apex-O2")


def apex_amp() -> Any:
    """The module apex.amp. Raises UserError if apex is missing, is the other package of that name, or has no amp."""
    try:
        from apex import amp
    except Exception as error:  # ImportError, or any error of another package with that name
        raise UserError(
            f"--amp apex: found no apex.amp ({type(error).__name__}: {error}); expected NVIDIA's apex up to tag 25.05, "
            f"the last with it: use --amp bf16, which needs nothing installed"
        ) from error
    return amp
