"""The names of options, as fields and on the command line."""

from __future__ import annotations


def flag(name: str) -> str:
    """`learning_rate_D` -> `--learning-rate-D`."""
    return "--" + name.replace("_", "-")
