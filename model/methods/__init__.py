"""The methods: which networks are trained, and what one iteration computes.

`METHODS` gives, for each `--method`, the name of the class that each training script runs. These are strings, so that a
command line can be read without importing torch; `find` imports a class.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.methods.base import Method

SOURCE_ONLY = "source_only:SourceOnly"

METHODS: dict[str, dict[str, str]] = {
    "paper": {"step1": "bafft:Alignment", "step2": "bafft:SelfTraining"},
    "plus": {"step1": "bafft:Alignment", "step2": "plus:Plus"},
    "released": {"step1": "bafft:Alignment", "step2": "bafft:SelfTraining"},
}


def find(name: str) -> type[Method]:
    """The class behind an entry such as "bafft:Alignment"."""
    module, _, attribute = name.partition(":")
    found: type[Method] = getattr(import_module(f"model.methods.{module}"), attribute)
    return found
