"""Turns docs/TUTORIAL.md into docs/tutorial.ipynb, runs it, and puts its printed text and pictures into the page.

    python illustration/run_tutorial.py               # about two minutes; needs requirements-dev.txt
    python illustration/run_tutorial.py --notebook    # only the notebook; enough if only the prose changed

Each block of bash or python in the page is a cell. A block of text right after it is what the cell printed, and the
pictures of the page are files that the cells save to result/tutorial. The notebook leaves both out: it makes its own.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[1]
PAGE, NOTEBOOK = ROOT / "docs/TUTORIAL.md", ROOT / "docs/tutorial.ipynb"
PICTURES = ROOT / "illustration/tutorial"
DRAWN = Path("result/tutorial")  # below the folder in which the notebook runs

CELL = re.compile(r"^```(bash|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"^!\[[^]]*\]\(\.\./illustration/tutorial/([^)]+)\)\n\n?", re.MULTILINE)
SETUP = """\
# The commands are for the root of the repository, and a notebook starts in its own folder.
import os

if os.path.exists("TUTORIAL.md"):
    os.chdir("..")
"""


def notebook(page: str) -> NotebookNode:
    """The page as a notebook without outputs."""
    cells = []
    for number, part in enumerate(CELL.split(PICTURE.sub("", page))):
        # split gives prose, language, code, printed text, prose, language and so on
        if number % 4 == 0 and part.strip():
            cells.append(new_markdown_cell(part.strip()))
        elif number % 4 == 1:
            magic = "%%bash -e\n" if part == "bash" else ""
        elif number % 4 == 2:
            cells.append(new_code_cell((magic + part).strip()))
    cells.insert(1, new_code_cell(SETUP.strip()))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # instead of a random one
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def run(made: NotebookNode, folder: Path) -> None:
    """Run a notebook in `folder`, which gets links to the code of the repository; its outputs are kept in its cells.

    Raises nbclient's CellExecutionError, which shows the cell and what it printed, if a cell fails.
    """
    for code in (*ROOT.glob("*.py"), *(ROOT / name for name in ("dataset", "model", "utils"))):
        (folder / code.name).symlink_to(code)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(made, timeout=None, startup_timeout=300, resources=where)
    client.execute(env={**os.environ, "PATH": path, "IPYTHONDIR": str(folder / ".ipython")})


def printed(made: NotebookNode) -> list[str]:
    """What each code cell printed, except the first; warnings and progress, which go to stderr, are left out."""
    code = [cell for cell in made.cells if cell.cell_type == "code"][1:]
    return ["".join(output.text for output in cell.outputs if output.get("name") == "stdout") for cell in code]


def renewed(page: str, texts: list[str]) -> str:
    """The page with its blocks of text replaced by what the cells before them printed."""
    following = iter(texts)

    def replace(cell: re.Match[str]) -> str:
        text = next(following)
        if cell[3] is None:
            return cell[0]
        lines = "".join(f"{line.rstrip()}\n" for line in text.rstrip().splitlines())
        return f"```{cell[1]}\n{cell[2]}```\n\n```text\n{lines}```\n"

    return CELL.sub(replace, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notebook", action="store_true", help="only write the notebook, without running it")
    given = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    made = notebook(page)
    NOTEBOOK.write_text(nbformat.writes(made) + "\n", encoding="utf-8")
    if given.notebook:
        return
    with tempfile.TemporaryDirectory() as folder:
        run(made, Path(folder))
        PICTURES.mkdir(exist_ok=True)
        for name in PICTURE.findall(page):
            shutil.copy(Path(folder, DRAWN, name), PICTURES / name)
    PAGE.write_text(renewed(page, printed(made)), encoding="utf-8")


if __name__ == "__main__":
    main()
