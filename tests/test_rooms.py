"""Imports run in one direction: scripts -> rooms of utils -> model, dataset -> utils.system, never in a circle."""

from __future__ import annotations

import ast
import importlib.util
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UTILS = ("options", "states", "prediction", "reporting", "setup", "training")
"""The rooms of utils above `system`; each may import those before it."""
MODEL = ("networks", "terms", "methods")  # likewise


def may_import() -> dict[str, set[str]]:
    """Room -> the other rooms that it may import. Only scripts, such as the demo, import scripts."""
    rooms: dict[str, set[str]] = {"utils": set(), "model": set(), "utils.system": set()}
    rooms["dataset"] = rooms["utils.report"] = {"utils.system"}
    for number, room in enumerate(MODEL):
        rooms[f"model.{room}"] = {"utils.system", *(f"model.{below}" for below in MODEL[:number])}
    lower = set(rooms)
    for number, room in enumerate(UTILS):
        rooms[f"utils.{room}"] = lower | {f"utils.{below}" for below in UTILS[:number]}
    return rooms | {"scripts": set(rooms)}


def modules(root: Path) -> dict[str, Path]:
    """Every module of the project, by its dotted name."""
    files = [
        *root.glob("*.py"),
        *(path for top in ("model", "dataset", "utils") for path in root.glob(f"{top}/**/*.py")),
    ]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def room_of(module: str) -> str:
    top, *below = module.split(".")
    if top not in ("model", "dataset", "utils") or module.endswith(".__main__"):
        return "scripts"
    return top if top == "dataset" or not below else f"{top}.{below[0]}"


def imported(source: str, package: str, known: set[str]) -> set[str]:
    """The modules among `known` that a module of `package` imports, also inside functions and for types only."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            inner = {alias.name: f"{module}.{alias.name}" for alias in node.names}
            names |= {whole if whole in known else module for whole in inner.values()}
    return names & known


def graph(root: Path) -> dict[str, set[str]]:
    """Every module of the project with the modules that it imports."""
    files = modules(root)
    return {
        name: imported(
            path.read_text(encoding="utf-8"), name if path.stem == "__init__" else name.rpartition(".")[0], set(files)
        )
        for name, path in files.items()
    }


def strays(imports: dict[str, set[str]]) -> list[str]:
    """Imports that break the order of the rooms, as "importer -> imported"."""
    allowed = may_import()
    return [
        f"{module} -> {other}"
        for module, others in sorted(imports.items())
        for other in sorted(others)
        if room_of(other) not in {room_of(module), *allowed[room_of(module)]}
    ]


def test_every_import_leads_to_the_same_room_or_to_one_below():
    imports = graph(ROOT)
    assert len(imports) > 60 and sum(map(len, imports.values())) > 150
    assert strays(imports) == []


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter(graph(ROOT)).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("module", "line", "stray"),
    [
        ("dataset.extra", "from model.networks.norm import NORMS", "dataset.extra -> model.networks.norm"),
        ("dataset.extra", "import utils.options.config", "dataset.extra -> utils.options.config"),
        ("model.terms.extra", "from dataset.classes import IGNORE", "model.terms.extra -> dataset.classes"),
        ("model.terms.extra", "from model.methods import bafft", "model.terms.extra -> model.methods.bafft"),
        ("model.terms.extra", "if f:\n    import utils.states.weights", "model.terms.extra -> utils.states.weights"),
        ("utils.system.extra", "from dataset import READERS", "utils.system.extra -> dataset"),
        ("utils.options.extra", "from utils.training import trainer", "utils.options.extra -> utils.training.trainer"),
        ("model.terms.extra", "from ..methods import bafft", "model.terms.extra -> model.methods.bafft"),
        ("utils.training.extra", "import train_step1", "utils.training.extra -> train_step1"),
        ("dataset.check.__main__", "from utils.setup import data_sets", None),
        ("utils.training.extra", "from utils.system import files", None),
    ],
)  # fmt: skip
def test_an_import_against_the_order_is_found(module, line, stray):
    found = strays({module: imported(line, module.rpartition(".")[0], set(modules(ROOT)))})
    assert found == ([stray] if stray else [])
