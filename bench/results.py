"""The results page: each benchmark replaces its own section, between two markers."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.system.files import write_atomically

PAGE = Path(__file__).resolve().parent / "RESULTS.md"
PENDING = "Not measured yet: "
"""How the text of a section without results begins; the command that fills it follows."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """The parser of a bench that prints a table and one JSON object (`report`)."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", action="store_true", help="print the JSON line only")
    made.add_argument("--write", action="store_true", help="write the section of bench/RESULTS.md")
    return made


def report(name: str, argv: Sequence[str], arguments: argparse.Namespace, result: Any, table: Sequence[str]) -> None:
    """Print a bench's table, unless only JSON is wanted, then its result as one JSON line; write its section if asked.

    name: of the bench's file and of its section.
    """
    if not arguments.json:
        print("\n".join(table))
    print(json.dumps(result))
    if arguments.write:
        write_section(name, " ".join([f"python bench/{name}.py", *argv]), table)


def device(cpu: bool = False) -> str:
    """The machine, in words. cpu: its GPU, if it has one, was not used."""
    import torch  # late: some benches only rewrite tables

    if torch.cuda.is_available():
        return "CPU" if cpu else torch.cuda.get_device_name()
    return f"CPU ({platform.machine()}, {os.cpu_count()} cores), torch {torch.__version__}"


def write_section(name: str, command: str, lines: Sequence[str], page: Path = PAGE) -> None:
    """Replace a section of the page by a table and how it was made; the list of sections without results follows.

    Raises ValueError when the page has no such section.
    """
    text = replaced(page.read_text(encoding="utf-8"), name, [f"`{command}`, {device()}", "", *lines])
    if "<!-- pending -->" in text:
        text = replaced(text, "pending", pending(text))
    write_atomically(page, lambda file: file.writelines([text.encode()]))


def replaced(text: str, name: str, lines: Sequence[str]) -> str:
    """The page with other lines between `<!-- NAME -->` and `<!-- end NAME -->`; ValueError without such markers."""
    pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)"
    body = "\n".join([*lines, ""])
    text, found = re.subn(pattern, lambda match: f"{match[1]}{body}{match[2]}", text, flags=re.DOTALL)
    if found != 1:
        raise ValueError(f"found {found} sections {name!r} in the results page, expected one")
    return text


def section(text: str, name: str) -> str:
    """The lines of a section; ValueError if the page has none of this name."""
    found = re.search(rf"<!-- {re.escape(name)} -->\n(.*?)<!-- end {re.escape(name)} -->", text, flags=re.DOTALL)
    if found is None:
        raise ValueError(f"found no section {name!r} in the results page")
    return found[1]


def pending(text: str) -> list[str]:
    """One line per section without results: the heading above it, and the command that fills it."""
    lines, heading = [], ""
    for line in text.splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif line.startswith(PENDING):
            lines.append(f"- {heading}: {line.removeprefix(PENDING)}")
    return lines


def rows(text: str, name: str) -> list[list[str]]:
    """The cells of the tables in a section, row by row, headers included."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section(text, name).splitlines()
        if "|" in line
    ]


def cells_of(text: str, name: str, row: str) -> dict[str, str]:
    """The cells of one row of the first table of a section, by the header of their column; ValueError without it."""
    lines = rows(text, name)
    cells = next((cells for cells in lines if cells[0] == row), None)
    if cells is None:
        raise ValueError(f"found no row {row!r} in the section {name!r} of the results page")
    return dict(zip(lines[0], cells, strict=True))
