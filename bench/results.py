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

import torch

from utils.system.files import write_atomically

PAGE = Path(__file__).resolve().parent / "RESULTS.md"


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


def device() -> str:
    """The machine, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU ({platform.machine()}, {os.cpu_count()} cores), torch {torch.__version__}"


def write_section(name: str, command: str, lines: Sequence[str], page: Path = PAGE) -> None:
    """Replace the lines between `<!-- NAME -->` and `<!-- end NAME -->` of the page by a table and how it was made.

    Raises ValueError when the page has no such markers.
    """
    text = page.read_text(encoding="utf-8")
    pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)"
    body = "\n".join([f"`{command}`, {device()}", "", *lines])
    text, found = re.subn(pattern, lambda match: f"{match[1]}{body}\n{match[2]}", text, flags=re.DOTALL)
    if found != 1:
        raise ValueError(f"{page}: {found} sections {name!r}, expected one")
    write_atomically(page, lambda file: file.writelines([text.encode()]))
