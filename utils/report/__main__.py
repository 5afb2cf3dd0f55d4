"""Write the report of a run, or a comparison of several runs, as one HTML page that works without a network.

Examples:
  python -m utils.report snapshots/builtin/step1                       # writes report.html into that folder
  python -m utils.report snapshots/builtin/* --out comparison.html     # compares all stages
"""

from __future__ import annotations

import utils.system.machine  # noqa: F401 - before all others

import argparse
from collections.abc import Sequence
from pathlib import Path

from utils.options import config, parsing
from utils.system.files import check_can_write, write_bytes


def main(argv: Sequence[str] | None = None) -> None:
    parser = parsing.Parser(
        prog="python -m utils.report",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="folder of a run (its --snapshot-dir)")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="page to write [RUN/report.html; for several runs comparison.html]"
    )
    arguments = parser.parse_args(argv)
    from utils.reporting.page import compare, render  # torch is imported once the command line is read
    from utils.reporting.report import REPORT
    from utils.reporting.run import read_run

    runs: list[Path] = arguments.runs
    out = arguments.out or (runs[0] / REPORT if len(runs) == 1 else Path("comparison.html"))
    found = [read_run(run, beside=len(runs) == 1) for run in runs]
    check_can_write("--out", out)
    page = render(found[0]) if len(runs) == 1 else compare(found)
    write_bytes(out, page.encode())
    print(out)


if __name__ == "__main__":
    config.run(main)
