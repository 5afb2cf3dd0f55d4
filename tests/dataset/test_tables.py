"""Class tables from YAML, info.json and plain values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataset.classes import AERIAL, CAMVID, CITYSCAPES, IGNORE
from dataset.tables import load_classes, parse_classes, plain_values
from tests.messages import says
from utils.system.errors import UserError

TEXT = """
name: yard
classes:
  - {name: ground, id: [0, 4], color: [10, 20, 30], kind: stuff}
  - {name: cow, id: 9, color: "#ff8000", kind: thing}
  - {name: wall, id: 2, color: [0, 0, 0], kind: stuff}
ignore: [7]
means: {all: [ground, cow, wall], animals: [cow]}
f1: [cow]
"""


def write(folder: Path, text: str, name: str = "yard.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def content(**changes: Any) -> dict[str, Any]:
    return yaml.safe_load(TEXT) | changes


def entry(number: int, **changes: Any) -> dict[str, Any]:
    """The content with one class changed; a change to None removes the key."""
    changed = content()
    changed["classes"][number] = {k: v for k, v in (changed["classes"][number] | changes).items() if v is not None}
    return changed


def test_every_part_of_a_yaml_table(tmp_path):
    table = load_classes(write(tmp_path, TEXT))
    assert table.name == "yard"
    assert table.names == ("ground", "cow", "wall")
    assert table.palette == ((10, 20, 30), (255, 128, 0), (0, 0, 0))
    assert (table.stuff, table.things) == ((0, 2), (1,))
    assert table.subsets == {"all": (0, 1, 2), "animals": (1,)}
    assert table.f1 == (1,)
    assert table.label_ids == {0: 0, 4: 0, 9: 1, 2: 2, 7: IGNORE}


def test_the_table_of_the_page_on_own_images_is_that_of_camvid():
    text = (Path(__file__).parents[2] / "docs/OWN_IMAGES.md").read_text()
    table = parse_classes(yaml.safe_load(text.split("<<'END'\n")[1].split("END\n")[0]), "camvid", "camvid")
    assert replace(table, label_ids=None) == CAMVID
    assert table.label_ids == {**{i: i for i in range(11)}, 11: IGNORE}


def test_what_may_be_left_out(tmp_path):
    table = load_classes(write(tmp_path, "classes: [{name: a, kind: stuff}, {name: b, kind: stuff}]", "mine.yml"))
    assert (table.name, table.names, table.stuff, table.things) == ("mine", ("a", "b"), (0, 1), ())
    assert table.subsets == {"2": (0, 1)}
    assert table.label_ids is None
    many = parse_classes({"classes": [{"name": str(i), "kind": "thing"} for i in range(40)]}, "x")
    assert len(set(many.palette)) == 40


def test_the_rest_may_be_left_out_on_purpose():
    ids = parse_classes(content(ignore="rest"), "x").label_ids
    assert ids is not None and len(ids) == 256
    assert {k: v for k, v in ids.items() if v != IGNORE} == {0: 0, 4: 0, 9: 1, 2: 2}


@pytest.mark.parametrize("table", [CITYSCAPES, CAMVID, AERIAL, CITYSCAPES.first(13), parse_classes(content(), "x")])
def test_plain_values_give_the_table_back(table):
    assert parse_classes(json.loads(json.dumps(plain_values(table))), "x") == table


def test_a_published_info_json(tmp_path):
    info = {"classes": 2, "label": ["road", "kiosk"], "label2train": [[4, 0], [5, 1], [6, 255], [-1, 255]]}
    table = load_classes(write(tmp_path, json.dumps(info), "info.json"))
    assert (table.names, table.stuff, table.things) == (("road", "kiosk"), (0,), (1,))
    assert table.label_ids == {4: 0, 5: 1, 6: IGNORE}
    with pytest.raises(UserError, match=r"info\.json, class 1: name 'road' .* class 0"):
        load_classes(write(tmp_path, json.dumps(info | {"label": ["road", "road"]}), "info.json"))


def test_cutting_a_table_keeps_the_ids_of_the_classes_that_go_as_left_out():
    assert parse_classes(content(), "x").first(2).label_ids == {0: 0, 4: 0, 9: 1, 2: IGNORE, 7: IGNORE}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "x: found a list of 0; .* classes, name"),
        ({}, "x: classes is missing"),
        (content(classes=3), "x: classes is 3; .* list of 2"),
        (content(classes=[]), "x: classes is 0 entries"),
        (content(palette=[]), "x: unknown key 'palette'; .* classes, name"),
        (content(name=7), "x, name: found 7"),
        (content(classes=["a", "b"]), "x, class 0: found 'a'; .* name, kind"),
        (entry(1, kind=None), "x, class 1: kind is missing"),
        (entry(1, name=None), "x, class 1: name is missing"),
        (entry(1, name=False), "x, class 1: name: found False"),
        (entry(1, name=" "), "x, class 1: name: found ' '"),
        (entry(1, name="a\nb"), r"x, class 1: name: found 'a\\nb'"),
        (entry(1, name="wall"), "x, class 2: name 'wall' .* class 1"),
        (entry(1, kind="animal"), r"x, class 1 \(cow\): kind is 'animal'; .* stuff .* thing"),
        (entry(1, kind=["thing"]), r"x, class 1 \(cow\): kind is a list of 1"),
        (entry(1, id=256), r"x, class 1 \(cow\): id: found 256; .* 0 to 255"),
        (entry(1, id=-1), "id: found -1"),
        (entry(1, id=1.5), "id: found 1.5"),
        (entry(1, id=True), "id: found True"),
        (entry(1, id="9"), "id: found '9'"),
        (entry(1, id=[9, [3]]), "id: found a list of 1"),
        (entry(1, id=4), r"x, class 1 \(cow\): id 4 .* ground"),
        (entry(1, id=None), r"x, class 1 \(cow\): id is missing"),
        (entry(1, color="red"), r"x, class 1 \(cow\): color is 'red'; .* \[red, green, blue\]"),
        (entry(1, color="#12345g"), "color is '#12345g'"),
        (entry(1, color=[1, 2]), "color is a list of 2"),
        (entry(1, color=[1, 2, 256]), "color: found 256"),
        (entry(1, colour=[1, 2, 3]), "x, class 1: unknown key 'colour'; .* name, kind, id, color"),
        (content(ignore=9), "x, ignore: 9 .* cow"),
        (content(ignore="all"), "x, ignore .* found 'all'"),
        ({"classes": [{"name": n, "kind": "stuff"} for n in "ab"], "ignore": [3]}, "x: ignore .* no class"),
        (content(means=[]), "x, means: found a list of 0"),
        (content(means={"few": "cow"}), "x, means, few: found 'cow'; .* list"),
        (content(f1=["cat"]), "x, f1: 'cat' is not a class"),
        (content(means={"few": ["cat"]}), "x, means, few: 'cat' is not a class; .* ground, cow, wall"),
    ],
)
def test_what_does_not_fit_is_named(given, message):
    with pytest.raises(UserError, match=f"^{message}" if message.startswith("x") else message) as caught:
        parse_classes(given, "x")
    assert "\n" not in str(caught.value)


LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nclasses: [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "yard.yaml: found nothing; ... classes"),
        ("classes: [", "yard.yaml, line 1: not valid YAML"),
        ("name: a\nclasses: }", "yard.yaml, line 2: not valid YAML"),
        ("name: a\nname: b\n", "yard.yaml, line 2: not valid YAML ('name' ... twice"),
        (LAUGHS, "yard.yaml, line 2: not valid YAML ... references (*)"),
        ("classes: !!python/object/apply:os.system [ls]", "yard.yaml, line 1: not valid YAML ... not determine"),
        ("? [1]\n: 2", "yard.yaml, line 1: not valid YAML ... unhashable key"),
        ("name: !!timestamp x", "yard.yaml: not valid YAML"),
        ("[" * 600, "yard.yaml: not valid YAML"),
    ],
)
def test_no_yaml_table(tmp_path, text, message):
    with pytest.raises(UserError) as caught:
        load_classes(write(tmp_path, text))
    assert says(str(caught.value), f"{tmp_path}/{message}")
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read \(not found"):
        load_classes(tmp_path / "none.yaml")
    with pytest.raises(UserError, match=r"cannot be read \(is a folder"):
        load_classes(tmp_path)
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match=r"a\.yaml: is not text"):
        load_classes(tmp_path / "a.yaml")
    with pytest.raises(UserError, match="expected a small YAML file"):
        load_classes(write(tmp_path, "#" * 1_000_001))
