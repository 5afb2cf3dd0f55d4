"""Label files in the forms in which people save them, and the messages about ambiguous forms."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels as official
from PIL import Image

from dataset import GTA5, Aerial, CamVid, Cityscapes, Folder, Synthia
from dataset.base import SegmentationDataset
from dataset.check.examine import train_ids_instead
from dataset.check.quick import quick_check
from dataset.classes import (
    CAMVID,
    CITYSCAPES,
    CITYSCAPES_IDS,
    CITYSCAPES_VOID,
    IGNORE,
    SYNTHIA_IDS,
    ClassTable,
    load_info_json,
)
from dataset.labels import label_file, label_stem
from dataset.reading import read_ids
from dataset.tables import parse_classes, plain_values
from tests.labels import train_ids
from tests.messages import says
from utils.system.errors import UserError

IDS = np.array([[0, 1, 1, 0], [1, 0, 255, 1]], np.uint8)
SKY, ROAD, VOID = (70, 130, 180), (128, 64, 128), (0, 0, 0)


def table(**more: object) -> ClassTable:
    classes = [
        {"name": "sky", "id": 7, "kind": "stuff", "color": list(SKY)},
        {"name": "road", "id": 9, "kind": "stuff", "color": list(ROAD)},
    ]
    return parse_classes({"classes": classes, **more}, "classes.yaml")


def no_colours(**more: object) -> ClassTable:
    names = [{"name": "other", "id": 0, "kind": "stuff"}, {"name": "road", "id": 1, "kind": "stuff"}]
    return parse_classes({"classes": names, **more}, "classes.yaml")


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def colours(*rows: list[tuple[int, int, int]]) -> np.ndarray:
    return np.array(rows, np.uint8)


def refused(reader: type[SegmentationDataset], path: Path, classes: ClassTable, *said: str) -> None:
    with pytest.raises(UserError) as error:
        reader.decoder(classes)(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert all(word in message for word in said), message


# One channel, equal channels, alpha, kinds of files.


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".PNG"])
def test_equal_channels_and_constant_alpha_are_ids_in_every_kind_of_file(tmp_path, mode, suffix):
    if (mode, suffix) == ("LA", ".bmp"):
        pytest.skip("no such file")
    path = tmp_path / f"a{suffix}"
    if mode == "P":
        image = Image.fromarray(IDS)
        image.putpalette([255 - i // 3 for i in range(768)])
        image.save(path)
    else:
        save(path, IDS, mode)
    assert read_ids(path).tolist() == IDS.tolist()
    assert train_ids(Folder, path, table=no_colours()).tolist() == IDS.tolist()
    assert train_ids(Folder, path, table=no_colours(), ignore_label=9)[1, 2] == 9


def test_one_bit_files_hold_0_and_1(tmp_path):
    for suffix in (".png", ".tif", ".bmp"):
        image = Image.fromarray(255 * (IDS == 1).astype(np.uint8)).convert("1")
        image.save(tmp_path / f"a{suffix}")
        assert read_ids(tmp_path / f"a{suffix}").tolist() == (IDS == 1).tolist()


def test_integers_of_32_bits_are_ids_of_0_to_255(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(IDS.astype(np.int32)).save(path)
    assert read_ids(path).tolist() == IDS.tolist()
    for wrong in (-1, 256, 2**31 - 1):
        Image.fromarray(np.where(IDS == 1, wrong, IDS.astype(np.int32))).save(path)
        refused(Folder, path, no_colours(), f"label with id {wrong}; expected ids of 0 to 255")
    Image.fromarray(IDS.astype(np.float32)).save(path)
    refused(Folder, path, no_colours(), "label of mode F")


def test_what_may_mean_something_else_is_refused(tmp_path):
    alpha = np.dstack([IDS, 255 * (IDS == 1).astype(np.uint8)])
    refused(Folder, save(tmp_path / "la.png", alpha), no_colours(), "transparency that varies (0 to 255)")
    path = save(tmp_path / "rgba.tif", np.dstack([IDS, IDS, alpha]))
    refused(Folder, path, no_colours(), "transparency that varies")
    for kind in ("JPEG", "WEBP"):
        path = save(tmp_path / f"{kind}.png", IDS, format=kind)
        refused(Folder, path, no_colours(), f"label a {kind}; expected a grey or palette PNG, TIFF or BMP")
    path = save(tmp_path / "jpeg.tif", IDS, compression="jpeg")
    refused(Folder, path, no_colours(), "compressed by jpeg")
    path = save(tmp_path / "pages.tif", IDS, save_all=True, append_images=[Image.fromarray(IDS)])
    refused(Folder, path, no_colours(), "of 2 pages; expected one")
    deep = np.full((2, 4, 3), 300, np.uint16)
    assert cv2.imwrite(str(tmp_path / "deep.png"), deep)
    refused(Folder, tmp_path / "deep.png", no_colours(), "of mode RGB and 16 bits")
    path = save(tmp_path / "white.tif", IDS, tiffinfo={262: 0})
    refused(Folder, path, no_colours(), "0 is white")


# Colours of the class table.


def test_exact_colours_of_the_table_are_its_classes(tmp_path):
    pixels = colours([SKY, ROAD, ROAD], [ROAD, SKY, SKY])
    for name, mode in (("a.png", "RGB"), ("a.bmp", "RGB"), ("a.tif", "RGBA")):
        path = save(tmp_path / name, pixels, mode)
        assert Folder.decoder(table())(path).tolist() == [[7, 9, 9], [9, 7, 7]]
        assert train_ids(Folder, path, table=table()).tolist() == [[0, 1, 1], [1, 0, 0]]
    # A checkpoint contains the table, and it is sent to processes that read labels.
    again = parse_classes(plain_values(table(ignore=[[1, 2, 3], 4])), "checkpoint")
    assert again.label_colours == {SKY: 0, ROAD: 1, (1, 2, 3): IGNORE} and again == table(ignore=[4, "#010203"])
    assert pickle.loads(pickle.dumps(Folder.decoder(again)))(path).tolist() == [[7, 9, 9], [9, 7, 7]]


def test_any_other_colour_is_an_error_with_the_colour_and_the_file(tmp_path):
    path = save(tmp_path / "a.png", colours([SKY, ROAD, (128, 64, 129)]))
    refused(Folder, path, table(), "[128, 64, 129] (#804081) at x 2, y 0", "(33.3 % of the pixels")
    path = save(tmp_path / "b.png", colours([SKY, VOID, (1, 1, 1)]))
    refused(Folder, path, table(ignore=["#000000"]), "[1, 1, 1] (#010101)")
    # Grey values that are neither colours nor ids in the table.
    path = save(tmp_path / "c.png", colours([VOID, (12, 12, 12)]))
    refused(Folder, path, table(ignore=["#000000"]), "[12, 12, 12] (#0c0c0c)")


def test_colours_to_be_ignored(tmp_path):
    path = save(tmp_path / "a.png", colours([SKY, VOID, ROAD]))
    for ignore in (["#000000"], "#000000", [[0, 0, 0]], [255, [0, 0, 0]], "rest"):
        assert train_ids(Folder, path, table=table(ignore=ignore)).tolist() == [[0, IGNORE, 1]]
    with pytest.raises(UserError, match=r"ignore: \[128, 64, 128\] .* road"):
        table(ignore=["#804080"])
    with pytest.raises(UserError, match="ignore: color is '#black'"):
        table(ignore=["#black"])


def test_colours_that_the_user_did_not_give_are_no_colours_of_labels(tmp_path):
    made_up = no_colours()
    path = save(tmp_path / "a.png", colours([made_up.palette[0], made_up.palette[1]]))
    for classes in (made_up, parse_classes(plain_values(made_up), "checkpoint")):
        assert classes.palette == made_up.palette and classes.label_colours is None
        refused(
            Folder, path, classes, "#ff0000", "the classes of classes have no colours", "give every class its color"
        )
    some = parse_classes(
        {"classes": [{"name": "a", "kind": "stuff"}, {"name": "b", "kind": "stuff", "color": "#0a0b0c"}]}, "x"
    )
    assert some.label_colours == {(10, 11, 12): 1} and parse_classes(plain_values(some), "x", "classes") == some


def test_a_colour_of_two_classes_is_refused_in_labels_only(tmp_path):
    classes = parse_classes(
        {"classes": [{"name": n, "kind": "stuff", "color": [9, 8, 7]} for n in "ab"] + [
            {"name": "c", "kind": "stuff", "color": [1, 2, 3]}]}, "x"
    )  # fmt: skip
    assert train_ids(Folder, save(tmp_path / "c.png", colours([(1, 2, 3)])), table=classes).tolist() == [[2]]
    refused(Folder, save(tmp_path / "a.png", colours([(9, 8, 7)])), classes, "[9, 8, 7]")


def test_equal_channels_beside_colours_are_read_where_only_one_meaning_fits(tmp_path):
    grey = parse_classes(
        {"classes": [{"name": "ground", "id": 0, "kind": "stuff", "color": [255, 255, 255]},
                     {"name": "house", "id": 1, "kind": "thing", "color": [0, 0, 0]}]}, "x"
    )  # fmt: skip
    both = {(0, 1): [[0, 1]], (0, 255): [[1, 0]], (255, 255): [[0, 0]], (1, 1): [[1, 1]]}
    for values, expected in both.items():
        path = save(tmp_path / "a.png", np.array([values], np.uint8), "RGB")
        assert train_ids(Folder, path, table=grey).tolist() == expected
    # Black is the colour of a house, and the id of ground.
    path = save(tmp_path / "a.png", np.zeros((1, 2), np.uint8), "RGB")
    refused(Folder, path, grey, "three equal channels with values 0", "ids or colours")


def test_aerial_masks_in_black_and_white_channels(tmp_path):
    path = save(tmp_path / "a.png", 255 * IDS.clip(0, 1), "RGB")
    assert Aerial.decoder(Aerial.table)(path).tolist() == IDS.clip(0, 1).tolist()


@pytest.mark.parametrize("reader", [GTA5, Cityscapes, CamVid])
def test_colours_of_the_built_in_tables(tmp_path, reader):
    classes = reader.table
    path = save(tmp_path / "a.png", colours([*classes.palette, VOID]))
    assert train_ids(reader, path).tolist() == [[*range(classes.num_classes), IGNORE]]
    assert reader.void_ids and set(np.unique(reader.decoder(classes)(path))) - set(reader.void_ids) == set(
        np.flatnonzero(reader.id_map != IGNORE).tolist()
    )


def test_every_colour_of_cityscapes_means_what_its_label_id_does(tmp_path):
    known = [x for x in official if x.id >= 0]
    path = save(tmp_path / "a_gtFine_color.png", colours([x.color for x in known]), "RGBA")
    expected = [IGNORE if x.ignoreInEval else x.trainId for x in known]
    expected[18] = expected[17]  # a group of poles has the colour of a pole
    assert train_ids(Cityscapes, path).tolist() == [expected]


def test_an_info_json_gives_colours_if_it_has_a_palette(tmp_path):
    text = '{"classes": 2, "label": ["a", "b"], "label2train": [[4, 0], [5, 1]]%s}'
    (tmp_path / "with.json").write_text(text % ', "palette": [[1, 2, 3], [4, 5, 6], [0, 0, 0]]')
    (tmp_path / "without.json").write_text(text % "")
    found = load_info_json(tmp_path / "with.json").label_colours
    assert found == {(1, 2, 3): 0, (4, 5, 6): 1, (0, 0, 0): IGNORE}
    assert load_info_json(tmp_path / "without.json").label_colours is None


def indexed(path: Path, indices: list[int], palette: list[tuple[int, int, int]]) -> Path:
    image = Image.fromarray(np.array([indices], np.uint8))
    image.putpalette(np.array(palette, np.uint8).tobytes())
    image.save(path)
    return path


def test_colours_that_a_program_has_numbered_anew(tmp_path):
    classes = table(ignore=["#000000"])
    path = indexed(tmp_path / "a.png", [0, 1, 2, 2], [ROAD, SKY, VOID])
    for other in (path, tmp_path / "a.bmp"):
        Image.open(path).save(other)
        assert train_ids(Folder, other, table=classes).tolist() == [[1, 0, 255, 255]]
    # Indices are the ids if they agree with the palette, or if the palette is not that of the table.
    palette = [VOID] * 7 + [SKY, VOID, ROAD]
    assert Folder.decoder(classes)(indexed(path, [7, 9, 9], palette)).tolist() == [[7, 9, 9]]
    assert Folder.decoder(classes)(indexed(path, [7, 9, 9], [(i, 99, 0) for i in range(12)])).tolist() == [[7, 9, 9]]
    # Indices and colours are both possible.
    refused(Folder, indexed(path, [7, 9, 9], [VOID] * 7 + [ROAD, VOID, SKY]), classes, "indices (7, 9) and colours")


def test_the_palette_of_gta5_goes_with_its_label_ids(tmp_path):
    palette = [x.color for x in official if x.id >= 0] + [(0, 0, 142)] + [VOID] * 200
    held = [7, 8, 26, 33, 34, 0, 18]
    path = indexed(tmp_path / "a.png", held, palette)
    assert GTA5.decoder(CITYSCAPES)(path).tolist() == [held]
    assert GTA5.decoder(CITYSCAPES)(indexed(tmp_path / "b.png", [34], palette)).tolist() == [[34]]


# Names.


def test_the_label_of_an_image_may_have_other_ends(tmp_path):
    names = ("a.png", "b_mask.png", "c_label.tif", "d_labelTrainIds.png", "e.bmp", "f_labelIds.PNG", "g_gt.png")
    for name in names:
        save(tmp_path / name, IDS)
    assert [label_file(tmp_path, stem).name for stem in "abcdefg"] == list(names)
    assert [label_stem(Path(name)) and label_stem(Path(name))[0] for name in names] == list("abcdefg")  # type: ignore
    assert label_file(tmp_path, "h") == tmp_path / "h.png" and label_stem(Path("a.jpg")) is None
    # The plain name is preferred to the others, and label ids to train ids.
    for name in ("b.png", "d_labelIds.png"):
        save(tmp_path / name, IDS)
    assert [label_file(tmp_path, stem).name for stem in "bd"] == ["b.png", "d_labelIds.png"]


def pairs(root: Path, ids: np.ndarray, ending: str = ".png", number: int = 4) -> Path:
    for i in range(number):
        save(root / f"images/{i}.png", np.full((*ids.shape[:2], 3), 30 + i, np.uint8))
        save(root / f"labels/{i}{ending}", ids)
    return root


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp", "_mask.png", "_label.png"])
def test_own_folders_with_other_names_are_read_checked_and_scored(tmp_path, ending):
    data = Folder(pairs(tmp_path, IDS, ending), table=no_colours())
    assert data[0]["label"].tolist() == IDS.tolist() and quick_check(data) == []
    assert sorted(Folder.ground_truth(tmp_path / "labels")) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("reader", [GTA5, Folder])
def test_train_ids_in_files_that_are_named_so(tmp_path, reader):
    ids = np.array([[0, 1, 13], [18, 255, 2]], np.uint8)
    classes = CITYSCAPES if reader is GTA5 else parse_classes(
        {"classes": [{"name": n, "id": int(i), "kind": "stuff"} for n, i in zip(
            CITYSCAPES.names, np.flatnonzero(CITYSCAPES_IDS != IGNORE), strict=True)]}, "x")  # fmt: skip
    data = reader(pairs(tmp_path, ids, "_labelTrainIds.png"), table=classes)
    assert data[0]["label"].tolist() == ids.tolist() and quick_check(data) == []
    label_ids = np.where(ids == 255, 0, np.array([7, 8, 11] + [26] * 16)[np.minimum(ids, 18)])
    save(tmp_path / "labels/1_labelTrainIds.png", label_ids.astype(np.uint8))
    with pytest.raises(UserError, match=r"1_labelTrainIds\.png: id 26 .* train ids; .* 0 to 18, 255"):
        data[1]


def test_cityscapes_with_train_ids_or_colours_only(tmp_path):
    ids = np.array([[0, 1, 13, 255]], np.uint8)
    stem = tmp_path / "gtFine/train/ulm/ulm_000000_000019_gtFine"
    save(tmp_path / "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png", np.zeros((1, 4, 3), np.uint8))
    save(Path(f"{stem}_color.png"), colours([(128, 64, 128), (244, 35, 232), (0, 0, 142), VOID]), "RGBA")
    save(Path(f"{stem}_instanceIds.png"), ids * 0 + 7)
    key = "ulm_000000_000019_leftImg8bit"
    for end in ("_color", "_labelTrainIds", "_labelIds"):
        if end != "_color":
            save(Path(f"{stem}{end}.png"), ids if end == "_labelTrainIds" else np.array([[7, 8, 26, 0]], np.uint8))
        data = Cityscapes(tmp_path)
        assert data[0]["label"].tolist() == ids.tolist()
        assert data.labelled_names() == data.names and quick_check(data) == []
        assert Cityscapes.ground_truth(tmp_path / "gtFine") == {key: Path(f"{stem}{end}.png")}


# SYNTHIA


@pytest.mark.parametrize("folder", ["parsed_LABELS", "synthia_mapped_to_cityscapes"])
@pytest.mark.parametrize("apart", [False, True])
def test_synthia_in_8_bits(tmp_path, folder, apart):
    mapped = folder != "parsed_LABELS"
    held = np.array([[7, 8, 26, 0], [33, 11, 23, 1]] if mapped else [[3, 4, 8, 0], [11, 2, 1, 22]], np.uint8)
    save(tmp_path / "RGB/0000000.png", np.zeros((2, 4, 3), np.uint8))
    path = save(tmp_path / folder / "0000000.png", held)
    data = Synthia(tmp_path / "RGB", label_root=tmp_path / folder) if apart else Synthia(tmp_path)
    assert data[0]["label"].tolist() == [[0, 1, 13, 255], [18, 2, 10, 255]]
    assert data.known_ids()[data.decode(path)].all() and quick_check(data) == []
    assert data.table.main_subset(data.trained_ids(data.table)) == "16"
    assert Synthia.ground_truth(tmp_path / folder) == {"0000000": path}


def test_synthia_in_8_bits_elsewhere_says_which_folders_are_known(tmp_path):
    path = save(tmp_path / "GT/LABELS/0000000.png", np.array([[3, 4]], np.uint8))
    refused(Synthia, path, CITYSCAPES, "uint8", "parsed_LABELS", "synthia_mapped_to_cityscapes")
    path = save(tmp_path / "GT/LABELS/0000000_labelTrainIds.png", np.array([[0, 18]], np.uint8))
    assert train_ids(Synthia, path).tolist() == [[0, 18]]
    path = save(tmp_path / "synthia_mapped_to_cityscapes/0000000.png", np.array([[7, 40]], np.uint8))
    refused(Synthia, path, CITYSCAPES, "id 40 in a label of Cityscapes label ids")


# Masks of 0 and 255


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_masks_of_0_and_255_are_refused_by_every_reader_of_two_classes(tmp_path, mode):
    masks = 255 * IDS.clip(0, 1)
    for reader, root, folders in (
        (Folder, "own", ("images", "labels")),
        (Aerial, "air", ("Images", "SegmentationClass")),
    ):
        for i in range(3):
            save(tmp_path / root / folders[0] / f"{i}.png", np.zeros((2, 4, 3), np.uint8))
            save(tmp_path / root / folders[1] / f"{i}.png", masks, mode if reader is Folder else "L")
        with pytest.raises(UserError, match="masks of 0 and 255"):
            reader(tmp_path / root, table=no_colours() if reader is Folder else None)
    pairs(tmp_path / "gta", masks)
    classes = no_colours()
    with pytest.raises(UserError, match="masks of 0 and 255"):
        GTA5(tmp_path / "gta", table=classes)
    # Labels that only serve scores lead to a note, not to an error.
    scored = Folder(tmp_path / "own", table=classes, labels=None, label_size="native")
    assert [line.partition(" without")[0] for line in quick_check(scored)] == ["masks of 0 and 255"]


def test_255_may_be_a_class_or_be_ignored_on_purpose(tmp_path):
    masks = 255 * IDS.clip(0, 1)
    names = [{"name": "other", "id": 0, "kind": "stuff"}, {"name": "road", "id": 255, "kind": "stuff"}]
    data = Folder(pairs(tmp_path, masks), table=parse_classes({"classes": names}, "x"))
    assert data[0]["label"].tolist() == IDS.clip(0, 1).tolist() and quick_check(data) == []
    assert data.known_ids()[255] and not data.known_void()[255]
    on_purpose = Folder(tmp_path, table=no_colours(ignore=[255]))
    assert on_purpose[0]["label"].tolist() == (masks).tolist()
    assert says(quick_check(on_purpose)[0], "4 labels ... only one class, other")
    with pytest.raises(UserError, match="masks of 0 and 255"):
        Folder(tmp_path, table=no_colours(ignore="rest"))
    save(tmp_path / "labels/3.png", IDS)  # one pixel is 1
    assert quick_check(Folder(tmp_path, table=no_colours())) == []


def test_many_labels_are_looked_at_before_a_single_class_is_reported(tmp_path):
    pairs(tmp_path, IDS * 0, number=40)
    save(tmp_path / "labels/17.png", IDS)
    assert quick_check(Folder(tmp_path, table=no_colours())) == []


@pytest.mark.parametrize("labels", [False, None])
def test_formats_that_are_not_read_are_told_before_a_run(tmp_path, labels):
    pairs(tmp_path, IDS)
    assert quick_check(Folder(tmp_path, table=no_colours(), labels=labels)) == []
    for name in ("8.webp", "9.HEIC"):
        (tmp_path / "images" / name).touch()
    first = tmp_path / "images" / "8.webp"
    found = quick_check(Folder(tmp_path, table=no_colours(), labels=labels))
    assert found == [f"files in formats that are not read: 2, first {first}; convert them to PNG"]


def test_each_folder_is_listed_once_before_a_run(tmp_path, monkeypatch):
    pairs(tmp_path, IDS)
    scandir = Mock(side_effect=os.scandir)
    monkeypatch.setattr(os, "scandir", scandir)
    assert quick_check(Folder(tmp_path, table=no_colours())) == []
    assert [call.args[0] for call in scandir.call_args_list] == [tmp_path / "images", tmp_path / "labels"]


# Train ids instead of label ids


def counts(*ids: int) -> np.ndarray:
    return np.bincount(ids, minlength=256)


def test_train_ids_are_diagnosed_by_evidence_only():
    said = train_ids_instead(CITYSCAPES_IDS, counts(*[0] * 40, *[1] * 9, 2, 10, 8, 13, 255))
    assert said is not None and says(said, "0, 1, 2, 10 ... no class ... 96.23 %")
    for held in ((), (0,), (255,), (0, 255), (0, 1, 2, 7, 7, 7, 7, 8), (7, 8, 11), (0, 1, 2, 26)):
        assert train_ids_instead(CITYSCAPES_IDS, counts(*held)) is None
    for valid in (tuple(range(11)), (0, 1, 2, 3), (1, 2, 3, 4, 5), (3, 3, 3, 4, 0, 0, 13)):
        assert train_ids_instead(SYNTHIA_IDS, counts(*valid)) is None
    assert CITYSCAPES_VOID and train_ids_instead(np.arange(256, dtype=np.uint8), counts(0, 1, 2)) is None


def test_nothing_is_said_where_nothing_was_counted(tmp_path):
    root = pairs(tmp_path, np.full((2, 4, 3), (1, 2, 3), np.uint8))
    assert quick_check(GTA5(root)) == []
    for path in (root / "labels").iterdir():
        path.unlink()
    assert quick_check(GTA5(root, labels=None)) == []
    assert quick_check(Folder(root, table=CAMVID, labels=None)) == []
