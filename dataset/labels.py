"""Label files as people save them: ids in one channel or in equal channels, colours of the class table, or train ids.

All of them are converted to label ids, so that the rest of the code (id maps, checks, scores) sees one kind of label.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataset.classes import IGNORE, SHARED, ClassTable, LabelMap, id_map_of, smallest_label_ids
from utils.system.errors import UserError

LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
LABEL_ENDS = ("", "_labelIds", "_label", "_labels", "_mask", "_masks", "_gt", "_seg", "_labelTrainIds")
"""What may follow an image's name in the name of its label; the first for which a file exists is used (our choice)."""
TRAIN_ID_END = "_labelTrainIds"
"""The end of a label's name which says that the file holds train ids, as the scripts of Cityscapes write it."""
_UNKNOWN = SHARED


def label_file(folder: Path, stem: str, ends: Sequence[str] = LABEL_ENDS) -> Path:
    """The label of the image `stem` in a folder: the first existing file whose name is the stem, one of `ends` and one
    of `LABEL_SUFFIXES`; if none exists, the PNG with the first end."""
    return file_in(folder, [f"{stem}{end}{suffix}" for end in ends for suffix in LABEL_SUFFIXES])


def file_in(folder: Path, names: Sequence[str]) -> Path:
    """The first of these files that the folder holds, whether in upper or lower case; if it holds none, the path with
    the first name."""
    first = folder / names[0]
    if os.path.isfile(first):
        return first
    there = _names_in(folder, _changed(folder))
    likely = (name.lower() for name in names)
    return next((folder / there[name] for name in likely if name in there), first)


def label_stem(path: Path, ends: Sequence[str] = LABEL_ENDS) -> tuple[str, int] | None:
    """The name of the image that a label file belongs to, and the rank of the file's name in the order of `label_file`;
    None for a file whose name is not that of a label."""
    suffix = path.suffix.lower()
    if suffix not in LABEL_SUFFIXES:
        return None
    fitting = [end for end in ends if path.stem.endswith(end) and path.stem != end]
    if not fitting:
        return None
    end = max(fitting, key=len)
    return path.stem.removesuffix(end), len(LABEL_SUFFIXES) * ends.index(end) + LABEL_SUFFIXES.index(suffix)


def _changed(folder: Path) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=256)
def _names_in(folder: Path, changed: int) -> dict[str, str]:
    """The files of a folder by their names in lower case. changed: the folder's time, so that old listings are not
    used."""
    try:
        return {name.lower(): name for name in sorted(os.listdir(folder), reverse=True)}
    except OSError:
        return {}


@dataclass(frozen=True)
class Encoding:
    """Ids in a file that are not those of the reader. what: their name in messages; train_ids: the meaning of each id,
    IGNORE if it belongs to no class."""

    what: str
    train_ids: Mapping[int, int]


@dataclass(frozen=True)
class ColourIds:
    """The label ids of colours.

    name: that of the class table; ids: label id by colour (as one number, red first), -1 for a colour of several
    classes; rest: the label id of all other colours, None if they are an error; train_ids: the train ids [256] of label
    ids; listed: whether the class table names each label id [256], as a class or to be ignored.
    """

    name: str
    ids: tuple[tuple[int, int], ...]
    rest: int | None
    train_ids: tuple[int, ...]
    listed: tuple[bool, ...]

    def __call__(self, pixels: npt.NDArray[np.uint8], path: Path, kind: str) -> LabelMap:
        """Label ids [H, W] of pixels [H, W, 3], which may be colours, or ids in three equal channels.

        Raises UserError, naming the file, for colours that are not in the table, and for grey values that may be both.
        """
        grey = equal_channels(pixels)
        by_colour = _lookup(self.ids, self.rest)[_codes(pixels)]
        unknown = by_colour == _UNKNOWN
        if grey is not None:
            found = np.unique(grey)
            of_class = np.array(self.train_ids)[found] != IGNORE
            ids_fit = bool(np.array(self.listed)[found].all() and of_class.any())
            if not self.ids or (ids_fit and unknown.any()):
                return grey
            if ids_fit and not unknown.any():
                meaning = np.array(self.train_ids)
                if not np.array_equal(meaning[grey], meaning[by_colour]):
                    raise UserError(
                        f"{path}: {kind} of three equal channels with values {', '.join(map(str, found[:8]))}, "
                        f"which may be ids or colours of {self.name}; expected one of the two: save ids in one channel"
                    )
                return grey
        if unknown.any():
            row, column = np.argwhere(unknown)[0]
            colour = tuple(int(value) for value in pixels[row, column])
            share = 100 * unknown.mean()
            said = f"{path}: {kind} with the colour {list(colour)} (#{bytes(colour).hex()})"
            if not self.ids:
                raise UserError(
                    f"{said}, and the classes of {self.name} have no colours; expected a grey or palette file with one "
                    f"id per pixel: convert it, or give every class its color (--classes FILE)"
                )
            raise UserError(
                f"{said} at x {column}, y {row}, which is that of no class ({share:.3g} % of the "
                f"pixels have such colours); expected exact colours of the class table: add it to a class or to ignore "
                f"(--classes FILE), or convert the file"
            )
        return by_colour.astype(np.uint8)

    def of_palette(self, indices: LabelMap, palette: npt.NDArray[np.uint8], path: Path, kind: str) -> LabelMap:
        """Label ids [H, W] of palette indices: the indices themselves, unless the palette [N, 3] evidently contradicts
        them, for example because a program has renumbered the colours of a coloured label.

        The evidence is that all colours in use are in the table, and that most of them belong to other classes than
        their indices. Raises UserError, naming the file, if the indices may still be meant.
        """
        ids = dict(self.ids)
        meaning = np.array([*self.train_ids, _UNKNOWN])
        by_colour = np.array([ids.get(int(code), _UNKNOWN) for code in _codes(palette[None])[0]], np.intp)
        there, here = meaning[by_colour], meaning[: len(palette)]
        coloured = (there != _UNKNOWN) & (there != IGNORE)
        if 2 * (coloured & (there != here)).sum() <= coloured.sum():
            return indices
        used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
        if used[-1] >= len(palette) or (there[used] == _UNKNOWN).any():
            return indices
        if 2 * (there[used] != here[used]).sum() <= used.size:
            return indices
        if np.array(self.listed)[used].all() and (here[used] != IGNORE).any():
            raise UserError(
                f"{path}: {kind} with a palette whose indices ({', '.join(map(str, used[:8]))}) and colours are of "
                f"different classes of {self.name}; expected one of the two: save grey ids, or colours in RGB"
            )
        return by_colour[indices].astype(np.uint8)


def equal_channels(pixels: npt.NDArray[np.uint8]) -> LabelMap | None:
    """The channel [H, W] of pixels [H, W, 3] whose channels are equal; None if they are not."""
    first = pixels[:, :, 0]
    equal = np.array_equal(first, pixels[:, :, 1]) and np.array_equal(first, pixels[:, :, 2])
    return np.ascontiguousarray(first) if equal else None


def _codes(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    red, green, blue = (pixels[:, :, i].astype(np.int32) for i in range(3))
    return red << 16 | green << 8 | blue


@lru_cache(maxsize=2)
def _lookup(ids: tuple[tuple[int, int], ...], rest: int | None) -> npt.NDArray[np.int16]:
    lookup = np.full(1 << 24, _UNKNOWN if rest is None else rest, np.int16)
    for code, label_id in ids:
        lookup[code] = label_id
    return lookup


def colour_ids(table: ClassTable, label_ids: LabelMap, void: int) -> ColourIds:
    """The label ids of a table's colours. label_ids: the train ids [256] of label ids; void: a label id of no class."""
    of_class = smallest_label_ids(label_ids)
    ids = {}
    for (red, green, blue), train_id in (table.label_colours or {}).items():
        ids[red << 16 | green << 8 | blue] = void if train_id == IGNORE else of_class.get(train_id, _UNKNOWN)
    own = table.label_ids
    listed = [label_ids[i] != IGNORE if own is None else i in own for i in range(256)]
    rest = void if ids and own is not None and len(own) == 256 else None
    return ColourIds(table.name, tuple(ids.items()), rest, tuple(label_ids.tolist()), tuple(map(bool, listed)))


@dataclass(frozen=True)
class LabelDecoder:
    """Reads label files as label ids uint8 [H, W]; may be sent to other processes.

    read: reads the values of a file, given the ids of colours; encoding: says which ids a file holds if they are not
    label ids; table: the classes; label_ids: train ids [256] of label ids; void: a label id that belongs to no class.
    Raises UserError if the file cannot be read, or holds an id or a colour that does not exist in its kind of file.
    """

    read: Callable[[Path, ColourIds | None], LabelMap]
    encoding: Callable[[Path], Encoding | None]
    table: ClassTable
    label_ids: LabelMap
    void: int

    def __call__(self, path: Path) -> LabelMap:
        encoding = self.encoding(path)
        if encoding is None:
            return self.read(path, colour_ids(self.table, self.label_ids, self.void))
        meaning = id_map_of(dict(encoding.train_ids))
        ids = self.read(path, colour_ids(replace(self.table, label_ids=None), meaning, IGNORE))
        known = np.zeros(256, np.bool_)
        known[[*encoding.train_ids, IGNORE]] = True
        if not known[ids].all():
            raise UserError(
                f"{path}: id {ids[~known[ids]][0]} in a label of {encoding.what}; expected {_ranges(known)}: rename "
                f"the file if it holds other ids"
            )
        lookup = np.full(256, self.void, np.uint8)
        of_class = smallest_label_ids(self.label_ids)
        for file_id, train_id in encoding.train_ids.items():
            lookup[file_id] = of_class.get(train_id, self.void)
        return lookup[ids]


def train_id_encoding(path: Path, label_ids: LabelMap) -> Encoding | None:
    """The encoding of a file whose name says that it holds train ids; None for other files, or if label ids are train
    ids."""
    number = int(label_ids[label_ids != IGNORE].max(initial=0)) + 1
    if not path.stem.endswith(TRAIN_ID_END) or np.array_equal(label_ids[:number], np.arange(number)):
        return None
    return Encoding("train ids", {i: i for i in range(number)})


def binary_masks(table: ClassTable, label_ids: LabelMap, ids: Collection[int], remedy: str) -> str | None:
    """What is wrong with labels that hold exactly these ids, if they are masks of 0 and 255: 255 means the foreground,
    but would be ignored without a message. None if they are not such masks, or if the table names 255."""
    named = table.label_ids is not None and IGNORE in table.label_ids and len(table.label_ids) < 256
    if set(ids) != {0, IGNORE} or named or label_ids[0] == IGNORE or label_ids[IGNORE] != IGNORE:
        return None
    if table.num_classes > 2:
        return None
    return f"masks of 0 and 255 without a 1; 255 would be ignored, expected {remedy}"


def _ranges(known: npt.NDArray[np.bool_]) -> str:
    """Ids in words, such as "0 to 18, 255". known: which ids there are."""
    return ", ".join(f"{first} to {last}" if first < last else f"{first}" for first, last in _runs(known))


def _runs(known: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(known.astype(np.int8), prepend=0, append=0))
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        yield int(first), int(end) - 1
