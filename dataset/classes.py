"""Class tables, and the maps from the label ids in the files to train ids."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cityscapesscripts.helpers.labels import labels as _cityscapes_labels
from PIL import Image

from utils.system.errors import UserError

IGNORE = 255
"""Train id of pixels that take no part in a loss or a score."""

LabelMap = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

SHARED = -1
"""Stands for the train id of a colour that several classes have."""


@dataclass(frozen=True)
class ClassTable:
    """The classes of a task, indexed by train id.

    `palette` holds RGB colours (0..255). `stuff` and `things` split the train ids for the paper's stuff and instance
    matching. `subsets` names the sets of train ids over which a mean is reported; the first is the main one (but see
    `main_subset`). The F1 score of the classes in `f1` is reported too. `label_ids` maps the ids in label files to
    train ids, and ids that are left out on purpose to IGNORE; it is None if every data set has its own ids.
    `label_colours` maps the RGB colours of coloured label files to train ids, colours that are left out on purpose to
    IGNORE, and a colour of several classes to SHARED; it is None if the table does not say which colours its classes
    have in files (`palette` may then be made up).
    """

    name: str
    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    stuff: tuple[int, ...]
    things: tuple[int, ...]
    subsets: dict[str, tuple[int, ...]]
    f1: tuple[int, ...] = ()
    label_ids: dict[int, int] | None = None
    label_colours: dict[Colour, int] | None = None

    @property
    def num_classes(self) -> int:
        return len(self.names)

    def main_subset(self, trained: Collection[int]) -> str:
        """The name of the first subset that lies within `trained`, the train ids in the source labels (a mean over
        classes that were never learnt says little), or else of the first subset."""
        return next((name for name, ids in self.subsets.items() if set(ids) <= set(trained)), next(iter(self.subsets)))

    def first(self, n: int) -> ClassTable:
        """The table of the first `n` classes (`--num-classes`); labels of the others become the ignore label.

        A reported subset keeps those of its classes that are left, and is named after their number.
        Raises UserError if `n` is below 2 or above the number of classes.
        """
        if not 2 <= n <= self.num_classes:
            raise UserError(f"number of classes: {n} given, {self.name} has 2 to {self.num_classes}")
        if n == self.num_classes:
            return self
        subsets = {str(n): tuple(range(n))}
        for ids in self.subsets.values():
            left = tuple(i for i in ids if i < n)
            if left:
                subsets.setdefault(str(len(left)), left)
        label_ids = self.label_ids
        if label_ids is not None:
            label_ids = {label_id: i if i < n else IGNORE for label_id, i in label_ids.items()}
        colours = self.label_colours
        if colours is not None:
            colours = {colour: i if i < n else IGNORE for colour, i in colours.items()}
        return ClassTable(
            name=self.name,
            names=self.names[:n],
            palette=self.palette[:n],
            stuff=tuple(i for i in self.stuff if i < n),
            things=tuple(i for i in self.things if i < n),
            subsets=subsets,
            f1=tuple(i for i in self.f1 if i < n),
            label_ids=label_ids,
            label_colours=colours,
        )

    def led_by(self, trained: Collection[int]) -> ClassTable:
        """The table with its main subset (see `main_subset`) as the first."""
        main = self.main_subset(trained)
        return replace(self, subsets={main: self.subsets[main], **self.subsets})


def label_colours(palette: Sequence[Colour], void: Iterable[Colour] = ()) -> dict[Colour, int]:
    """`ClassTable.label_colours` for a palette, indexed by train id, and for colours of no class."""
    found: dict[Colour, int] = {}
    for train_id, colour in enumerate(palette):
        found[colour] = SHARED if colour in found else train_id
    return {**dict.fromkeys(void, IGNORE), **found}


def _without(num_classes: int, left_out: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(i for i in range(num_classes) if i not in left_out)


def id_map_of(pairs: dict[int, int]) -> LabelMap:
    """Lookup array [256] uint8: label id -> train id, IGNORE for ids that are not in `pairs`."""
    lookup = np.full(256, IGNORE, np.uint8)
    for label_id, train_id in pairs.items():
        lookup[label_id] = train_id
    lookup.setflags(write=False)
    return lookup


_OFFICIAL = sorted((x for x in _cityscapes_labels if 0 <= x.trainId < IGNORE), key=lambda x: x.trainId)

CITYSCAPES = ClassTable(
    name="cityscapes",
    names=tuple(x.name for x in _OFFICIAL),
    palette=tuple(x.color for x in _OFFICIAL),
    stuff=(0, 1, 2, 3, 4, 8, 9, 10),
    things=(5, 6, 7, 11, 12, 13, 14, 15, 16, 17, 18),
    # 16: the classes SYNTHIA has too (no terrain, truck, train); 13: also without wall, fence, pole.
    subsets={
        "19": tuple(range(19)),
        "16": _without(19, (9, 14, 16)),
        "13": _without(19, (3, 4, 5, 9, 14, 16)),
    },
    label_colours=label_colours(
        [x.color for x in _OFFICIAL], [x.color for x in _cityscapes_labels if x.trainId in (-1, IGNORE)]
    ),
)

_CAMVID_COLOURS = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)

CAMVID = ClassTable(
    name="camvid",
    names=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    palette=_CAMVID_COLOURS,
    stuff=(0, 1, 3, 4, 5, 7),
    things=(2, 6, 8, 9, 10),
    subsets={"11": tuple(range(11))},
    label_colours=label_colours(_CAMVID_COLOURS, [(0, 0, 0)]),
)

AERIAL = ClassTable(
    name="aerial",
    names=("background", "foreground"),
    palette=((0, 0, 0), (255, 255, 255)),
    stuff=(0,),
    things=(1,),
    subsets={"2": (0, 1)},
    f1=(1,),
    label_colours={(0, 0, 0): 0, (255, 255, 255): 1},
)

CITYSCAPES_IDS = id_map_of({x.id: x.trainId for x in _OFFICIAL})
"""Cityscapes `labelIds`; the labels of GTA5 use the same ids."""

CITYSCAPES_VOID = tuple(x.id for x in _cityscapes_labels if x.id >= 0 and x.ignoreInEval)
"""Label ids without a train id, such as that of unlabelled pixels."""

SYNTHIA_IDS = id_map_of(
    {
        3: 0,
        4: 1,
        2: 2,
        21: 3,
        5: 4,
        7: 5,
        15: 6,
        9: 7,
        6: 8,
        16: 9,
        1: 10,
        10: 11,
        17: 12,
        8: 13,
        18: 14,
        19: 15,
        20: 16,
        12: 17,
        11: 18,
    }
)

CAMVID_IDS = id_map_of({i: i for i in range(11)})

AERIAL_IDS = id_map_of({0: 0, 1: 1})
"""The ids of prepared tiles, whose blank areas are 255; the masks of the public downloads are different ({0, 255})."""


def to_train_ids(id_map: LabelMap, num_classes: int, ignore_label: int = IGNORE) -> LabelMap:
    """Lookup array [256] uint8 from label id to train id, `ignore_label` for every id outside `num_classes`.

    Raises UserError if `ignore_label` does not fit into uint8, or is itself a train id.
    """
    if not num_classes <= ignore_label <= 255:
        raise UserError(f"ignore label: {ignore_label} given, expected {num_classes} to 255 (no train id)")
    return np.where(id_map < num_classes, id_map, ignore_label).astype(np.uint8)


def smallest_label_ids(id_map: LabelMap) -> dict[int, int]:
    """The smallest label id of each train id that has one."""
    classes, first = np.unique(id_map, return_index=True)
    return {train_id: label_id for train_id, label_id in zip(classes.tolist(), first.tolist()) if train_id != IGNORE}


def to_label_ids(id_map: LabelMap, table: ClassTable) -> LabelMap:
    """Lookup array [256] uint8 from train id to label id (the smallest if a class has several); other ids stay.

    Raises UserError if a class has no label id.
    """
    lookup = np.arange(256, dtype=np.uint8)
    label_ids = smallest_label_ids(id_map)
    for train_id, name in enumerate(table.names):
        if train_id not in label_ids:
            raise UserError(f"{table.name}: class {name} has no label id; expected one: add it to the class table")
        lookup[train_id] = label_ids[train_id]
    return lookup


def colorize(label: LabelMap, table: ClassTable, ignore_label: int = IGNORE) -> Image.Image:
    """A train-id map [H, W] as a palette image (mode "P", its pixels are still the train ids).

    Ignored pixels are black. Raises ValueError if `label` is not a two-dimensional map of train ids.
    """
    label = np.asarray(label)
    if label.ndim != 2 or not np.all((label == ignore_label) | ((label >= 0) & (label < table.num_classes))):
        raise ValueError(f"expected an [H, W] map of train ids below {table.num_classes} or {ignore_label}")
    colours = np.zeros((256, 3), np.uint8)
    colours[: table.num_classes] = table.palette
    image = Image.fromarray(label.astype(np.uint8))
    image.putpalette(colours.tobytes())
    return image


_STUFF_NAMES = {table.names[i] for table in (CITYSCAPES, CAMVID, AERIAL) for i in table.stuff}


def load_info_json(path: str | Path) -> ClassTable:
    """A class table with its label ids from a published `info.json`.

    The file holds `classes` (a number), `label` (names), `label2train` (pairs of label id and train id; ids outside
    0..255 cannot occur in a label file and are skipped) and `palette` (RGB; default: that of Cityscapes; entries after
    the last class, such as that of the ignore label, are colours of no class). It does not say which classes are stuff:
    names that are stuff in the built-in tables are stuff, and all others are things (our choice). If the ids are those
    of Cityscapes, its 16- and 13-class means are reported too.
    Raises UserError if the file is missing, is not JSON, or contradicts itself.
    """
    path = Path(path)
    try:
        info = json.loads(path.read_text(encoding="utf-8-sig"))
        count = int(info["classes"])
        names = tuple(str(name) for name in info["label"])
        pairs = [(int(label_id), int(train_id)) for label_id, train_id in info["label2train"]]
        palette = tuple((int(r), int(g), int(b)) for r, g, b in info.get("palette", CITYSCAPES.palette))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected an info.json") from error
    except (ArithmeticError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a class table ({type(error).__name__}: {error}); expected JSON with classes, "
            "label, label2train (pairs) and palette (RGB)"
        ) from error
    if not 2 <= count < IGNORE or len(names) != count or len(palette) < count:
        raise UserError(
            f"{path}: classes is {count}, with {len(names)} names in label and {len(palette)} colours in "
            "palette; expected 2 or more classes, as many names, and at least as many colours"
        )
    if any(not 0 <= value <= 255 for colour in palette for value in colour):
        raise UserError(f"{path}: palette holds a value outside 0..255")
    bad = [pair for pair in pairs if not (0 <= pair[1] < count or pair[1] == IGNORE)]
    if bad:
        known = f"train ids 0..{count - 1} or {IGNORE}"
        raise UserError(f"{path}: label2train holds {list(bad[0])}; expected {known}")
    stuff = tuple(i for i, name in enumerate(names) if name in _STUFF_NAMES)
    label_ids = {label_id: train_id for label_id, train_id in pairs if 0 <= label_id <= 255}
    is_cityscapes = np.array_equal(id_map_of(label_ids), CITYSCAPES_IDS)
    return ClassTable(
        name=path.stem,
        names=names,
        palette=palette[:count],
        stuff=stuff,
        things=_without(count, stuff),
        subsets=CITYSCAPES.subsets if is_cityscapes and count == 19 else {str(count): tuple(range(count))},
        label_ids=label_ids,
        label_colours=label_colours(palette[:count], palette[count:]) if "palette" in info else None,
    )
