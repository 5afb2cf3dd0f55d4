"""Property-based: whatever a file contains, it is read correctly or refused in one line, and no code in it runs."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset import READERS
from dataset.classes import CITYSCAPES, IGNORE, ClassTable, to_train_ids
from dataset.tables import load_classes, parse_classes, plain_values
from tests.labels import train_ids
from tests.scripts import differences
from utils.states import checkpoint
from utils.system.errors import UserError

IDS = st.integers(0, 255)

# Label mapping.


@given(
    id_map=st.binary(min_size=256, max_size=256),
    classes=st.integers(2, 254),
    ignore=IDS,
    ids=st.lists(IDS, min_size=1, max_size=12),
)
def test_a_label_id_becomes_its_train_id_or_the_ignore_label(id_map, classes, ignore, ids):
    if ignore < classes:
        with pytest.raises(UserError, match=f"ignore label: {ignore} given"):
            to_train_ids(np.frombuffer(id_map, np.uint8), classes, ignore)
        return
    lookup = to_train_ids(np.frombuffer(id_map, np.uint8), classes, ignore)
    assert lookup[np.array(ids)].tolist() == [id_map[i] if id_map[i] < classes else ignore for i in ids]


@given(data=st.data(), reader=st.sampled_from(["gta5", "cityscapes", "camvid"]))
def test_every_label_file_holds_classes_or_the_ignore_label(tmp_path_factory, data, reader):
    path = tmp_path_factory.getbasetemp() / "label.png"
    ids = np.array(data.draw(st.lists(IDS, min_size=6, max_size=6)), np.uint8).reshape(2, 3)
    Image.fromarray(ids).save(path)
    table = READERS[reader].table
    label = train_ids(READERS[reader], path)
    known = {label_id: int(train_id) for label_id, train_id in enumerate(READERS[reader].id_map)}
    assert label.tolist() == [[known[i] for i in row] for row in ids.tolist()]
    assert set(np.unique(label)) <= {*range(table.num_classes), IGNORE}


# Class tables.

WORDS = st.text(st.sampled_from("abc: -#é街'\""), max_size=6)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-1, 300), st.floats(), WORDS)
KEYS = st.sampled_from(["classes", "name", "ignore", "means", "f1", "kind", "id", "color", "stuff", "thing", "rest"])
VALUES = st.recursive(
    st.one_of(SCALARS, KEYS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(KEYS, WORDS, st.integers(-1, 300)), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """A mostly correct class table, with one part that may be anything."""
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=5, unique=True))
    content: dict[str, Any] = {
        "name": "t",
        "classes": [
            {"name": name, "kind": draw(st.sampled_from(["stuff", "thing"])), "id": [i], "color": [i, 0, 255]}
            for i, name in enumerate(names)
        ],
        "means": {"all": names, "one": names[:1]},
        "ignore": [200],
    }
    spoilt = draw(st.sampled_from(["", "name", "classes", "means", "ignore", "f1", "class", *["id", "color", "kind"]]))
    if spoilt in ("id", "color", "kind"):
        content["classes"][0][spoilt] = draw(VALUES)
    elif spoilt == "class":
        content["classes"][1] = draw(VALUES)
    elif spoilt:
        content[spoilt] = draw(VALUES)
    return content


def assert_sound(table: ClassTable) -> None:
    n = table.num_classes
    assert 2 <= n < IGNORE and len(table.palette) == n and len(set(table.names)) == n
    assert sorted((*table.stuff, *table.things)) == list(range(n))
    assert all(0 <= value <= 255 for colour in table.palette for value in colour)
    assert all(ids and set(ids) <= set(range(n)) for ids in table.subsets.values())
    for label_id, train_id in (table.label_ids or {}).items():
        assert 0 <= label_id <= 255 and (0 <= train_id < n or train_id == IGNORE)
    assert parse_classes(plain_values(table), "x") == table


@given(content=st.one_of(VALUES, tables()))
@example(content=plain_values(CITYSCAPES))
@settings(max_examples=150)
def test_plain_values_are_a_sound_table_or_refused(content):
    try:
        assert_sound(parse_classes(content, "file.yaml"))
    except UserError as error:
        assert str(error).startswith("file.yaml") and "\n" not in str(error)


@given(content=st.one_of(tables().map(lambda table: yaml.safe_dump(table).encode()), st.binary(max_size=40)))
@settings(max_examples=30)
@example(content=b"!!python/object/apply:os.system [touch ran]")
@example(content=b"a: &a [*a]")
@example(content=b"[" * 5000)
@example(content=b"classes: " + b"9" * 5000)
@example(content=b"classes: 2001-99-99")
def test_bytes_are_a_sound_table_or_refused(tmp_path_factory, content):
    for suffix in (".yaml", ".json"):
        path = tmp_path_factory.getbasetemp() / f"table{suffix}"
        path.write_bytes(content)
        try:
            assert_sound(load_classes(path))
        except UserError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)


# Checkpoints.


def state() -> dict[str, Any]:
    weights = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.num": torch.tensor(3)}
    return {"stage": "step1", "segmenter": weights, "optimizer": {}, "step": 7, "best": 0.25, "names": ["x", "ä"]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, bytes, Any]:
    path = tmp_path_factory.mktemp("checkpoint") / "last.pth"
    checkpoint.save(path, state())
    return path, path.read_bytes(), checkpoint.read(path)


def equal_or_refused(path: Path, content: bytes, expected: Any) -> None:
    path.write_bytes(content)
    try:
        found = checkpoint.read(path)
    except UserError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
    else:
        assert differences(found, expected) == []


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), more=st.booleans())
@settings(max_examples=200)
def test_a_flipped_bit_changes_nothing_or_is_refused(saved, place, bit, more):
    path, content, expected = saved
    flipped = bytearray(content)
    for position in {int(place * len(content)), int(place * len(content)) * 7 % len(content) if more else 0} - {0}:
        flipped[position] ^= 1 << bit
    equal_or_refused(path, bytes(flipped), expected)


@given(keep=st.floats(0, 1), tail=st.binary(max_size=20))
def test_a_cut_or_lengthened_file_changes_nothing_or_is_refused(saved, keep, tail):
    path, content, expected = saved
    equal_or_refused(path, content[: int(keep * len(content))] + tail, expected)


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_code_does_not(tmp_path, saved, protocol):
    ran = tmp_path / "ran"
    hostile = {"format": "bafft", "segmenter": _Touch(ran)}
    plain_pickle, archive = tmp_path / "plain.pth", tmp_path / "archive.pth"
    plain_pickle.write_bytes(pickle.dumps(hostile, protocol))
    with zipfile.ZipFile(io.BytesIO(saved[1])) as good, zipfile.ZipFile(archive, "w") as bad:
        for name in good.namelist():
            data = pickle.dumps(hostile, protocol) if name.endswith("data.pkl") else good.read(name)
            bad.writestr(name, data)
    for path in (plain_pickle, archive):
        with pytest.raises(UserError, match=f"{path.name}: cannot be read as weights"):
            checkpoint.read(path)
    assert not ran.exists()
    pickle.loads(plain_pickle.read_bytes())
    assert ran.exists()  # without protection, the code runs
