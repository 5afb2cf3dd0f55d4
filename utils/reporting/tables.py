"""Records of a run as rows of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Cells = dict[str, str]
"""The text of each cell, by its heading."""

_NOT_SHOWN = ("step", "iterations_per_s", "memory_mb", "miou", "classes")
_HEADINGS = {"data_wait": "wait", "ready_stuff": "stuff", "ready_things": "things"}


def cells(record: Mapping[str, Any], totals: Mapping[str, int] | None = None) -> Cells:
    """The cells of a record's row, without the step: its terms, counts and other values, and iterations per second.

    Learning rates are left out: they follow a known schedule, and log.jsonl has them. totals: the largest value of a
    count, by its key, such as {"ready_stuff": 8}.
    """
    shown = {key: value for key, value in record.items() if _is_shown(key, value)}
    row = {_HEADINGS.get(key, key): _cell(key, value, (totals or {}).get(key)) for key, value in shown.items()}
    rate = record.get("iterations_per_s")
    return row if rate is None else row | {"it/s": f"{rate:.2f}"}


def _is_shown(key: str, value: Any) -> bool:
    return key not in _NOT_SHOWN and not key.startswith(("lr_", "miou_")) and not isinstance(value, (dict, list, str))


def _cell(key: str, value: Any, total: int | None) -> str:
    if value is None:
        return "-"
    if key == "data_wait":
        return f"{value:.0%}"
    if isinstance(value, int):
        return f"{value}/{total}" if total is not None else str(value)
    return f"{value:.4g}"


def means(record: Mapping[str, Any]) -> str:
    """The means in a score's record in percent, the main one first. "averaged" in the record gives the number of
    classes in the mean of a set with absent classes, such as {"19": 9}."""
    others = {key.removeprefix("miou_"): value for key, value in record.items() if key.startswith("miou_")}
    all_of_them = {record.get("classes", "all"): record["miou"], **others}
    return ", ".join(f"{percent(mean)} ({averaged(record, name)})" for name, mean in all_of_them.items())


def averaged(record: Mapping[str, Any], name: str) -> str:
    """Over how many classes the mean of a class set is in a score's record, such as "19 classes" or "9 of 19
    classes"."""
    fewer = record.get("averaged", {})
    return f"{fewer[name]} of {name} classes" if name in fewer else f"{name} classes"


def percent(mean: float | None) -> str:
    return "nan" if mean is None else f"{100 * mean:.2f}"


def merged(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """The headings `old` with the missing ones of `new`, each behind the one that it follows in `new`."""
    found = list(old)
    for place, heading in enumerate(new):
        if heading not in found:
            found.insert(found.index(new[place - 1]) + 1 if place else 0, heading)
    return found


def aligned(rows: Sequence[Cells]) -> list[str]:
    """A line of headings, and one line per row, all columns aligned to the right; a dash stands for a missing cell."""
    headings: list[str] = []
    for row in rows:
        headings = merged(headings, list(row))
    table = [headings, *([row.get(heading, "-") for heading in headings] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths)) for line in table]
