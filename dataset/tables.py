"""Class tables from files: the YAML of `--classes`, the published `info.json`, and the table inside a checkpoint."""

from __future__ import annotations

import colorsys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from dataset.classes import IGNORE, ClassTable, Colour, label_colours, load_info_json
from utils.system.errors import UserError, fault

KINDS = ("stuff", "thing")
REST = "rest"
_OPTIONAL = ("name", "ignore", "means", "f1", "label_colors")
_MAX_BYTES = 1_000_000


def load_classes(path: str | Path) -> ClassTable:
    """The table in a file: a published `info.json` if the name ends in .json, else YAML (see `parse_classes`).

    Raises UserError, naming file and entry, if the file cannot be read or is not such a table.
    """
    path = Path(path)
    found = fault(path)
    if found:
        raise UserError(f"{path}: cannot be read ({found}); expected a YAML file of classes, or an info.json")
    if path.suffix.lower() == ".json":
        return parse_classes(plain_values(load_info_json(path)), str(path))
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes; expected a small YAML file of classes")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected a YAML file of classes") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not text; expected a YAML file of classes") from error
    try:
        content = yaml.load(text, _Loader)
    except Exception as error:  # whatever error the parser raises, the file is the cause
        raise UserError(f"{path}{_reason(error)}; expected YAML such as docs/OWN_IMAGES.md shows") from error
    return parse_classes(content, str(path), path.stem)


def parse_classes(content: Any, where: str, name: str = "classes") -> ClassTable:
    """A class table from plain values (mappings, lists, text, numbers), in the order of train ids.

    `classes` lists the classes, each with `name`, `kind` (stuff or thing) and, optionally, `id` (its label id in the
    files, or a list of them) and `color` (three numbers 0 to 255, or "#rrggbb"). Either all classes have an id or none;
    without ids, every data set uses its own, and a plain folder has 0, 1, 2 and so on. `ignore` lists label ids, and
    colours of coloured labels, that are left out on purpose; "rest" means all others. `label_colors: false` says that
    the colours are only for pictures, and not those of coloured labels. `means` names sets of classes that are
    averaged, the main one first (default: all classes); `f1` lists the classes whose F1 score is reported too. `name`
    is the name of the table (default: the argument `name`).

    Raises UserError, beginning with `where` (the file), for anything that does not fit.
    """
    return _Parser(where).table(content, name)


def plain_values(table: ClassTable) -> dict[str, Any]:
    """Plain values from which `parse_classes` makes the same table again."""
    ids: dict[int, list[int]] = {}
    for label_id, train_id in (table.label_ids or {}).items():
        ids.setdefault(train_id, []).append(label_id)
    entries = []
    for i, (name, colour) in enumerate(zip(table.names, table.palette, strict=True)):
        entry: dict[str, Any] = {"name": name, "kind": "stuff" if i in table.stuff else "thing"}
        if table.label_colours is None or colour in table.label_colours:
            entry["color"] = list(colour)
        if table.label_ids is not None:
            entry["id"] = ids.get(i, [])
        entries.append(entry)
    content: dict[str, Any] = {
        "name": table.name,
        "classes": entries,
        "means": {name: [table.names[i] for i in subset] for name, subset in table.subsets.items()},
    }
    if table.f1:
        content["f1"] = [table.names[i] for i in table.f1]
    left_out = [list(colour) for colour, i in (table.label_colours or {}).items() if i == IGNORE]
    if IGNORE in ids or left_out:
        content["ignore"] = [*ids.get(IGNORE, []), *left_out]
    if table.label_colours is None:
        content["label_colors"] = False
    return content


class _Loader(yaml.SafeLoader):
    """Refuses what has no place in a small table: a key that appears twice, and references to other places."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="references (*) are not supported here", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} appears twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _reason(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    line = f", line {mark.line + 1}" if mark is not None else ""
    problem = getattr(error, "problem", None) or str(error) or type(error).__name__
    return f"{line}: not valid YAML ({' '.join(str(problem).split())[:120]})"


class _Parser:
    """Checks of a table's parts; `where` begins every message."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, message: str) -> NoReturn:
        raise UserError(f"{self.where}{message}")

    def table(self, content: Any, default_name: str) -> ClassTable:
        content = self.mapping(content, "", required=("classes",), optional=_OPTIONAL)
        entries = content["classes"]
        if not isinstance(entries, list) or not 2 <= len(entries) < IGNORE:
            found = f"{len(entries)} entries" if isinstance(entries, list) else _shown(entries)
            self.fail(f": classes is {found}; expected a list of 2 to {IGNORE - 1} classes")
        classes = [self.entry(entry, i) for i, entry in enumerate(entries)]
        names = tuple(entry["name"] for entry in classes)
        self.refuse_twice(names, "name")
        stuff = tuple(i for i, entry in enumerate(classes) if entry["kind"] == "stuff")
        spare = _colours(len(classes))
        ignore, ignored_colours = self.ignored(content.get("ignore"))
        return ClassTable(
            name=self.text(content.get("name", default_name), "name"),
            names=names,
            palette=tuple(entry.get("color", colour) for entry, colour in zip(classes, spare, strict=True)),
            stuff=stuff,
            things=tuple(i for i in range(len(names)) if i not in stuff),
            subsets=self.means(content.get("means"), names),
            f1=self.members(content["f1"], names, "f1") if "f1" in content else (),
            label_ids=self.label_ids(classes, ignore),
            label_colours=self.label_colours(classes, ignored_colours, content.get("label_colors", True)),
        )

    def ignored(self, value: Any) -> tuple[Any, list[Colour]]:
        """The entries of `ignore`, separated into ids (or "rest", or nothing) and colours."""
        items = value if isinstance(value, list) else [value]
        colours = [item for item in items if isinstance(item, list) or (isinstance(item, str) and item[:1] == "#")]
        ids = [item for item in items if item not in colours]
        return value if not colours else ids or None, [self.colour(item, ", ignore") for item in colours]

    def label_colours(
        self, classes: list[dict[str, Any]], ignored: list[Colour], wanted: Any
    ) -> dict[Colour, int] | None:
        if not isinstance(wanted, bool):
            self.fail(f", label_colors: found {_shown(wanted)}; expected true or false")
        given = {i: entry["color"] for i, entry in enumerate(classes) if "color" in entry}
        for colour in ignored:
            name = next((classes[i]["name"] for i, other in given.items() if other == colour), None)
            if name is not None:
                self.fail(f", ignore: {list(colour)} is the color of {name}; remove one")
        if not given or not wanted:
            return None
        numbers = list(given)
        found = label_colours(list(given.values()), ignored)
        return {colour: numbers[i] if 0 <= i < len(numbers) and i != IGNORE else i for colour, i in found.items()}

    def entry(self, entry: Any, number: int) -> dict[str, Any]:
        at = f", class {number}"
        entry = self.mapping(entry, at, required=("name", "kind"), optional=("id", "color"))
        parsed: dict[str, Any] = {"name": self.text(entry["name"], f"class {number}: name")}
        at += f" ({parsed['name']})"
        if entry["kind"] not in KINDS:
            self.fail(f"{at}: kind is {_shown(entry['kind'])}; expected stuff (amorphous) or thing (countable)")
        parsed["kind"] = entry["kind"]
        if "id" in entry:
            parsed["id"] = self.ids(entry["id"], f"{at}: id")
        if "color" in entry:
            parsed["color"] = self.colour(entry["color"], at)
        return parsed

    def mapping(self, value: Any, at: str, required: Collection[str], optional: Collection[str]) -> dict[str, Any]:
        known = (*required, *optional)
        if not isinstance(value, dict):
            self.fail(f"{at}: found {_shown(value)}; expected keys {', '.join(known)}")
        for key in value:
            if key not in known:
                self.fail(f"{at}: unknown key {_shown(key)}; expected {', '.join(known)}")
        for key in required:
            if key not in value:
                self.fail(
                    f"{at}: {key} is missing; expected {', '.join(required)}, and optionally {', '.join(optional)}"
                )
        return value

    def text(self, value: Any, at: str) -> str:
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            self.fail(f", {at}: found {_shown(value)}; expected text, in quotes where YAML would read it otherwise")
        return value

    def number(self, value: Any, at: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 255:
            self.fail(f"{at}: found {_shown(value)}; expected a whole number from 0 to 255")
        return value

    def ids(self, value: Any, at: str) -> list[int]:
        return [self.number(item, at) for item in (value if isinstance(value, list) else [value])]

    def colour(self, value: Any, at: str) -> Colour:
        if isinstance(value, str) and len(value) == 7 and value.startswith("#"):
            try:
                red, green, blue = bytes.fromhex(value[1:])
                return red, green, blue
            except ValueError:
                pass
        if not isinstance(value, list) or len(value) != 3:
            self.fail(f'{at}: color is {_shown(value)}; expected [red, green, blue], or "#rrggbb" in quotes')
        red, green, blue = (self.number(item, f"{at}: color") for item in value)
        return red, green, blue

    def label_ids(self, classes: list[dict[str, Any]], ignore: Any) -> dict[int, int] | None:
        with_id = [i for i, entry in enumerate(classes) if "id" in entry]
        if not with_id:
            if ignore is not None:
                self.fail(": ignore is given, but no class has an id; give every class its id")
            return None
        if len(with_id) < len(classes):
            missing = next(i for i in range(len(classes)) if i not in with_id)
            self.fail(f", class {missing} ({classes[missing]['name']}): id is missing; give every class one, or none")
        found: dict[int, int] = {}
        for i, entry in enumerate(classes):
            for label_id in entry["id"]:
                if label_id in found:
                    other = classes[found[label_id]]["name"]
                    self.fail(f", class {i} ({entry['name']}): id {label_id} is already that of {other}; remove one")
                found[label_id] = i
        if ignore == REST:
            return {label_id: found.get(label_id, IGNORE) for label_id in range(256)}
        for label_id in [] if ignore is None else self.ids(ignore, f", ignore (label ids, or {REST})"):
            if found.get(label_id, IGNORE) != IGNORE:
                self.fail(f", ignore: {label_id} is the id of {classes[found[label_id]]['name']}; remove one")
            found[label_id] = IGNORE
        return found

    def means(self, value: Any, names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        if value is None:
            return {str(len(names)): tuple(range(len(names)))}
        if not isinstance(value, dict) or not value:
            self.fail(f", means: found {_shown(value)}; expected NAME: [class, class, ...]")
        sets: dict[str, tuple[int, ...]] = {}
        for title, members in value.items():
            title = self.text(str(title) if isinstance(title, int) else title, "means")
            sets[title] = self.members(members, names, f"means, {title}")
        return sets

    def members(self, value: Any, names: tuple[str, ...], at: str) -> tuple[int, ...]:
        if not isinstance(value, list) or not value:
            self.fail(f", {at}: found {_shown(value)}; expected a list of class names")
        for member in value:
            if member not in names:
                self.fail(f", {at}: {_shown(member)} is not a class; expected some of {', '.join(names)}")
        return tuple(sorted({names.index(member) for member in value}))

    def refuse_twice(self, values: Iterable[str], kind: str) -> None:
        seen: dict[str, int] = {}
        for i, value in enumerate(values):
            if value in seen:
                self.fail(f", class {i}: {kind} {value!r} is that of class {seen[value]} too; rename one")
            seen[value] = i


def _shown(value: Any) -> str:
    """A value in a short form, for a message."""
    if isinstance(value, (list, tuple, dict)):
        return f"a list of {len(value)}" if not isinstance(value, dict) else f"a mapping of {len(value)}"
    return "nothing" if value is None else repr(value)[:60]


def _colours(n: int) -> list[Colour]:
    """Colours that are easy to tell apart, for tables without colours."""
    colours = []
    for i in range(n):
        red, green, blue = colorsys.hsv_to_rgb(i * 0.618034 % 1, (1.0, 0.6)[i % 2], (1.0, 0.75, 0.9)[i % 3])
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours
