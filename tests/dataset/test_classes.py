"""Class tables and id maps, against values written out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from dataset.classes import (
    AERIAL,
    AERIAL_IDS,
    CAMVID,
    CAMVID_IDS,
    CITYSCAPES,
    CITYSCAPES_IDS,
    IGNORE,
    SYNTHIA_IDS,
    colorize,
    id_map_of,
    load_info_json,
    to_label_ids,
    to_train_ids,
)
from utils.system.errors import UserError

CITYSCAPES_LABEL_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def test_cityscapes_table():
    assert CITYSCAPES.names == (
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    )
    assert CITYSCAPES.palette[0] == (128, 64, 128)
    assert CITYSCAPES.palette[18] == (119, 11, 32)
    assert list(CITYSCAPES.subsets) == ["19", "16", "13"]
    gone = {
        subset: [name for i, name in enumerate(CITYSCAPES.names) if i not in ids]
        for subset, ids in CITYSCAPES.subsets.items()
    }
    assert gone["19"] == []
    assert gone["16"] == ["terrain", "truck", "train"]
    assert gone["13"] == ["wall", "fence", "pole", "terrain", "truck", "train"]


def test_the_main_mean_is_over_classes_that_the_source_has():
    assert CITYSCAPES.main_subset([*range(19), 255]) == "19"
    without = [i for i in range(19) if i not in (9, 14, 16)]
    assert CITYSCAPES.main_subset(without) == "16"
    assert CITYSCAPES.main_subset([i for i in without if i != 4]) == "13"
    assert CITYSCAPES.main_subset([0, 1]) == "19"  # no class set fits
    assert CITYSCAPES.first(13).main_subset(without) == "12"


@pytest.mark.parametrize("table", [CITYSCAPES, CAMVID, AERIAL], ids=lambda table: table.name)
def test_tables_fit_together(table):
    assert sorted(table.stuff + table.things) == list(range(table.num_classes))
    assert len(table.palette) == len(set(table.palette)) == table.num_classes
    assert next(iter(table.subsets.values())) == tuple(range(table.num_classes))
    assert all(len(ids) == int(name) for name, ids in table.subsets.items())


def test_camvid_stuff_and_things():
    assert {CAMVID.names[i] for i in CAMVID.stuff} == {"sky", "building", "road", "pavement", "tree", "fence"}
    assert {CAMVID.names[i] for i in CAMVID.things} == {"pole", "sign", "car", "pedestrian", "bicyclist"}


def test_id_maps():
    for train_id, label_id in enumerate(CITYSCAPES_LABEL_IDS):
        assert CITYSCAPES_IDS[label_id] == train_id
    assert (CITYSCAPES_IDS != IGNORE).sum() == 19
    synthia_order = [3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11]
    assert [int(SYNTHIA_IDS[i]) for i in synthia_order] == list(range(19))
    assert (SYNTHIA_IDS != IGNORE).sum() == 19
    assert list(CAMVID_IDS[:13]) == [*range(11), IGNORE, IGNORE]
    assert [int(AERIAL_IDS[i]) for i in (0, 1, 2, 254, 255)] == [0, 1, IGNORE, IGNORE, IGNORE]


def test_lookup_truncates_and_takes_the_ignore_label():
    lookup = to_train_ids(CITYSCAPES_IDS, 2, 200)
    assert [int(lookup[i]) for i in (7, 8, 11, 0)] == [0, 1, 200, 200]
    for ignore_label in (-1, 1, 256):
        with pytest.raises(UserError, match="ignore label"):
            to_train_ids(CITYSCAPES_IDS, 2, ignore_label)


def test_label_ids_of_train_ids():
    lookup = to_label_ids(CITYSCAPES_IDS, CITYSCAPES)
    assert lookup[:19].tolist() == CITYSCAPES_LABEL_IDS and lookup[255] == 255
    assert to_label_ids(id_map_of({9: 0, 3: 0, 0: 1}), AERIAL)[[0, 1, 2]].tolist() == [3, 0, 2]
    with pytest.raises(UserError, match=r"aerial: class foreground .*no label id"):
        to_label_ids(id_map_of({9: 0}), AERIAL)


def test_first_keeps_everything_consistent():
    table = CITYSCAPES.first(14)
    assert table.num_classes == len(table.palette) == 14
    assert table.stuff == (0, 1, 2, 3, 4, 8, 9, 10)
    assert table.things == (5, 6, 7, 11, 12, 13)
    assert table.subsets == {
        "14": tuple(range(14)),
        "13": (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13),
        "10": (0, 1, 2, 6, 7, 8, 10, 11, 12, 13),
    }
    assert CITYSCAPES.first(19) == CITYSCAPES
    assert CITYSCAPES.first(3).subsets == {"3": (0, 1, 2)}


@pytest.mark.parametrize("n", [1, 12])
def test_first_refuses(n):
    with pytest.raises(UserError, match=rf"{n} given, camvid .* 2 to 11"):
        CAMVID.first(n)


def test_colorize(tmp_path):
    label = np.array([[0, 18], [13, IGNORE]], np.uint8)
    image = colorize(label, CITYSCAPES)
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), label)
    colours = np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()
    assert colours == [[128, 64, 128], [119, 11, 32], [0, 0, 142], [0, 0, 0]]
    with pytest.raises(ValueError, match="train ids below 11"):
        colorize(label, CAMVID)


def write_info(folder: Path, **changes) -> Path:
    info = {
        "classes": 3,
        "label": ["road", "kiosk", "sky"],
        "label2train": [[4, 0], [5, 1], [6, 255], [9, 2], [-1, 255]],
        "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 0, 0]],
    }
    path = folder / "info.json"
    path.write_text(json.dumps({key: value for key, value in (info | changes).items() if value is not None}))
    return path


def test_info_json(tmp_path):
    table = load_info_json(write_info(tmp_path))
    assert table.names == ("road", "kiosk", "sky")
    assert table.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    assert (table.stuff, table.things) == ((0, 2), (1,))
    assert table.subsets == {"3": (0, 1, 2)}
    assert table.label_ids == {4: 0, 5: 1, 6: IGNORE, 9: 2}


def test_info_json_of_cityscapes(tmp_path):
    pairs = [[label_id, train_id] for train_id, label_id in enumerate(CITYSCAPES_LABEL_IDS)]
    path = write_info(tmp_path, classes=19, label=list(CITYSCAPES.names), label2train=pairs, palette=None)
    table = load_info_json(path)
    assert table.label_ids == {label_id: i for i, label_id in enumerate(CITYSCAPES_LABEL_IDS)}
    assert (table.stuff, table.things) == (CITYSCAPES.stuff, CITYSCAPES.things)
    assert (table.palette, table.subsets) == (CITYSCAPES.palette, CITYSCAPES.subsets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 4}, "classes is 4, with 3 names"),
        ({"classes": float("inf")}, "OverflowError"),
        ({"label": None}, "KeyError: 'label'"),
        ({"label2train": [[4, 3]]}, r"label2train holds \[4, 3\]"),
        ({"label2train": [4]}, "not a class table"),
        ({"palette": [[1, 2, 3]]}, "1 colours"),
        ({"palette": [[1, 2, 300]] * 3}, "outside 0..255"),
    ],
)
def test_info_json_refuses(tmp_path, changes, message):
    with pytest.raises(UserError, match=f"info.json.*{message}"):
        load_info_json(write_info(tmp_path, **changes))


def test_info_json_missing_or_broken(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: cannot be read"):
        load_info_json(tmp_path / "none.json")
    for text in ("{", "[]", "\xff"):
        (tmp_path / "bad.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match=r"bad\.json: not a class table"):
            load_info_json(tmp_path / "bad.json")
