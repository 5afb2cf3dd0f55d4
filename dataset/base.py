"""What all readers share: finding, checking and reading pairs of image and label, and turning them into samples.

A data set is a small subclass that says where its files lie and how its label ids map to train ids.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

import cv2
import numpy as np
import numpy.typing as npt
import PIL
import torch
from PIL import Image
from torch.utils.data import Dataset

from dataset.augment import Augment, SampleChanges, Size, resized
from dataset.cache import Cache, Pixels, Stored, Wanted
from dataset.classes import IGNORE, ClassTable, LabelMap, id_map_of, to_train_ids
from dataset.labels import (
    LABEL_ENDS,
    LABEL_SUFFIXES,
    ColourIds,
    Encoding,
    LabelDecoder,
    binary_masks,
    label_file,
    label_stem,
    train_id_encoding,
)
from dataset.reading import (
    IMAGE_SUFFIXES,
    Line,
    contents,
    folder_in,
    image_names,
    image_size,
    namesake,
    read_ids,
    read_image,
    read_lines,
    refuse_name,
)
from utils.system.errors import UserError, fault, one_line, require_folder

log = logging.getLogger("bafft")

ASPECT_TOLERANCE = 0.05  # 1280x720, to which GTA5 is resized, is 2 % off its 1914x1052

OF_LABELS = (
    "gtFine",
    "gtCoarse",
    "gt",
    "label",
    "labels",
    "annotations",
    "ann_dir",
    "mask",
    "masks",
    "SegmentationClass",
)
"""Usual names of folders of labels; images are not looked for in them."""
BINARY_SAMPLE = 64
"""How many labels are examined for whether they are masks of 0 and 255."""


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Images as uint8 tensors, with their labels if wanted.

    Args:
        root: the data set's folder. If labels are optional, `root` may also be the folder that directly contains the
            images, or a single image.
        list_file: one name, or the names of an image and its label, per line. A name is relative to the image folder.
            Names as other projects write them are understood too: with folders of the layout before them, with the
            label's name, without an extension or with another one. Without a list, all images below the folder are
            used, sorted. A list in `root` that is one of `tree_lists` need not exist.
        split: part of the data set, if its folders are split.
        size: width and height to which images are resized (bicubic); None leaves them as they are.
        labels: False never touches a label file, and samples have no "label"; None reads the label if its file exists.
        label_size: "input" resizes labels like the images (nearest); "native" leaves them, for evaluation.
        table: the classes, with or without label ids (without: the data set's own ids are used). Train ids beyond them
            become the ignore label. Default: the data set's own table.
        ignore_label: the value of pixels without a class, at most 255.
        augment: random changes; needs `label_size="input"`.
        seed: seed of the augmentation, together with the sample's running number.
        pseudo_label_dir: labels are read from `<pseudo_label_dir>/<key>.png`, train ids of any size.
        label_root: root of the labels if it is not `root`, as for restyled images. `root` and `label_root` may then
            also be the folders that directly contain the images and the labels.
        skip_bad: some files may be missing; `dataset.skip` leaves out the images for which indexing raises UserError.
        cache: keeps what was read for later epochs and runs. It holds images at `size`, but native ones for random
            scales; the samples are the same with and without it.
        check: False leaves it to the caller to find out which files are missing.

    Indexing with `index` or `(index, draw)`, where `draw` is the sample's running number (default: `index`), gives a
    dict: "image" uint8 RGB [3, H, W]; "label" uint8 [H, W] of train ids; "name" as in `names`; "size", the image's
    native (width, height).

    A label may have another size than its image (restyled or reduced images, for example), but not another shape:
    width over height must agree within 5 %.

    Raises UserError: at construction for a missing folder, list, image or label file, an empty list, a line that pairs
    an image with another's label, or two names with the same key; at indexing for a file that cannot be read, or a
    label and an image of different shapes.
    """

    table: ClassTable
    id_map: LabelMap
    void_ids: Collection[int] = ()
    """Label ids that are known to belong to no class."""
    absent_ids: Collection[int] = ()
    """Label ids of classes that no image of the data set shows."""
    layout: str
    """The layout below the root in words, for messages."""
    label_ends: tuple[str, ...] = LABEL_ENDS
    """What may follow an image's name in the name of its label; the first for which a file exists is used."""
    largest_id: int = IGNORE
    """The largest label id that a label file may hold."""
    image_folders: tuple[str, ...] = ("images",)
    """Image folders of the layout, the usual one first; lists of other projects have them before the names."""
    label_folders: tuple[str, ...] = ("labels",)
    """The same for labels."""
    binary_remedy = (
        "ids of the class table: give the class id: 255 there (--classes FILE), or list 255 under ignore if such "
        "pixels are of no class"
    )
    """What to do about masks of 0 and 255."""
    tree_lists: Mapping[str, Callable[[Path], list[str]]] = {}
    """Lists that need no file, by name: a function from the root to the names in the list."""
    misfits: Collection[str] = ()
    """Keys of images whose labels are known to have another size in the public download. If that is so here, and there
    is no list, they are left out."""

    def __init__(
        self,
        root: str | Path,
        list_file: str | Path | None = None,
        split: str = "train",
        size: Size | None = None,
        labels: bool | None = True,
        label_size: Literal["input", "native"] = "input",
        table: ClassTable | None = None,
        ignore_label: int = IGNORE,
        augment: Augment | None = None,
        seed: int = 0,
        pseudo_label_dir: str | Path | None = None,
        label_root: str | Path | None = None,
        skip_bad: bool = False,
        cache: Cache | None = None,
        check: bool = True,
    ) -> None:
        if label_size not in ("input", "native"):
            raise ValueError(f"label_size: {label_size!r} given, expected 'input' or 'native'")
        if augment is not None and label_size == "native":
            raise ValueError("augmentation moves image and label alike: it needs label_size='input'")
        if pseudo_label_dir is not None and not labels:
            raise ValueError("pseudo_label_dir needs labels=True")
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise UserError(f"image size: {size} given, expected width and height, both positive")
        self.root = Path(root)
        single = None
        if not labels and self.root.is_file():
            self.root, single = self.root.parent, self.root.name
        self.label_root = self.root if label_root is None else Path(label_root)
        self.split = split
        self.size = size
        self.labels = labels
        self.label_size = label_size
        self.table = table or self.table
        self.ignore_label = ignore_label
        self.augment = augment or Augment()
        self.seed = seed
        self.skip_bad = skip_bad
        self.pseudo_label_dir = None if pseudo_label_dir is None else Path(pseudo_label_dir)
        self._lookup = to_train_ids(self.label_ids(self.table), self.table.num_classes, ignore_label)
        self.decode = self.decoder(self.table)
        """Reads a label file as label ids [H, W]."""
        self.cache = cache
        # How a file is read, before anything random is done to it. The kinds hold all that this depends on besides the
        # file.
        self._image_size = None if self.augment.scale else size
        self._label_size = None if self.augment.scale or label_size == "native" else size
        self._image_kind = f"image size {self._image_size} bicubic, Pillow {PIL.__version__}"
        self._label_kind = (
            f"label size {self._label_size} nearest, Pillow {PIL.__version__}, {type(self).__qualname__}, "
            f"{'pseudo' if pseudo_label_dir else 'own'}, {self.table.num_classes} classes, {self._lookup.tolist()}, "
            f"colours {self.table.label_colours}"
        )
        self.left_out: list[str] = []
        self._unfound: list[str] = []
        self.names = [single] if single is not None else self._find_all(list_file)
        if check:
            self._check_files()

    # What a subclass defines.

    def find_names(self, split: str) -> list[str]:
        """Sorted relative names of all images of `split`; a log line says how many files are passed over, and why."""
        folder = self.image_folder(split)
        names = self._images_below(folder)
        if (folder / split).is_dir():  # some projects have train/ and val/ below the image folder
            names = [name for name in names if name.startswith(f"{split}/")]
        return self.taken(names)

    def image_folder(self, split: str) -> Path:
        """The folder to which the names of a split's images are relative."""
        return folder_in(self.root, self.image_folders[0]) or (
            self.root if self.flat else self.root / self.image_folders[0]
        )

    def image_path(self, name: str) -> Path:
        return self.image_folder(self.split) / name

    def refusal(self, name: str) -> str | None:
        """Why the image file with this relative name does not belong to the data set; None if it does."""
        return None

    @classmethod
    def spellings(cls, name: str) -> Iterator[str]:
        """Names that an image may have if a list calls it `name`, the likeliest first; `name` may be its label's."""
        yield name
        path = PurePosixPath(name)
        stems = [path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name]
        label = label_stem(Path(name), cls.label_ends)
        stems += [] if label is None else [label[0]]
        for stem, suffix in itertools.product(dict.fromkeys(stems), IMAGE_SUFFIXES):
            yield (path.parent / f"{stem}{suffix}").as_posix()
            yield (path.parent / f"{stem}{suffix.upper()}").as_posix()

    def label_path(self, name: str) -> Path:
        raise NotImplementedError

    @staticmethod
    def read_label(path: Path, colours: ColourIds | None = None) -> LabelMap:
        """The ids [H, W] that a label file holds, before the id map; colours: the ids of colours, if any."""
        return read_ids(path, colours=colours)

    @classmethod
    def encoding(cls, path: Path, table: ClassTable) -> Encoding | None:
        """Which ids a label file holds if they are not the label ids of the data set; None if they are."""
        return train_id_encoding(path, cls.label_ids(table))

    @classmethod
    def label_key(cls, path: Path, folder: Path) -> str | None:
        """The key of the image that a label file belongs to; None if the file is not a label. folder: that of all
        labels."""
        found = label_stem(path, cls.label_ends)
        return None if found is None else found[0]

    def label_in(self, folder: Path, stem: str) -> Path:
        """The label file in a folder for the image with this stem; the name of a missing PNG if there is none."""
        return label_file(folder, stem, self.label_ends)

    @classmethod
    def train_id_key(cls, path: Path, folder: Path) -> str | None:
        """As `label_key`, for a file of ground truth that holds train ids instead of label ids."""
        return cls.label_key(path, folder)

    @classmethod
    def prediction_key(cls, path: Path, folder: Path) -> str | None:
        """As `label_key`, for a predicted mask somewhere below `folder`."""
        return path.stem

    @property
    def flat(self) -> bool:
        """Whether the root may directly contain the images: if the labels have their own root or are optional."""
        return self.label_root != self.root or not self.labels

    def below(self, root: Path, folder: str) -> Path:
        """`root`/`folder`, also inside the folder of an unpacked archive. If images and labels have different roots and
        there is no such folder, `root` itself."""
        return folder_in(root, folder) or (root / folder if self.label_root == self.root else root)

    # What a user of the reader calls.

    def limited_to(self, names: Iterable[str]) -> Self:
        """The same data set with only these of its names, in the given order."""
        limited = copy(self)
        limited.names = list(names)
        return limited

    def labelled_names(self) -> list[str]:
        """Those of `names` whose label file exists; none if labels must not be touched."""
        return [] if self.labels is False else [name for name in self.names if os.path.isfile(self.label_path(name))]

    def train_ids(self) -> LabelMap:
        """Lookup [256] from label id to train id, `ignore_label` for ids that belong to no class."""
        return self._lookup

    def label_pixels(self, name: str) -> npt.NDArray[np.int64]:
        """How many pixels of the label of the image `name` hold each train id [256], before anything random is done.

        Raises UserError when the label cannot be read.
        """
        path = self.label_file(name)
        label, _ = self._stored(path, self._kind_of(path), self._read_train_ids)
        return np.bincount(label.ravel(), minlength=256)

    def known_ids(self) -> npt.NDArray[np.bool_]:
        """Which label ids [256] belong to a class, or are known to belong to none; others mean wrong data or a wrong
        table."""
        known = self.label_ids(self.table) != IGNORE
        known[[*(self.void_ids if self.table.label_ids is None else self.table.label_ids), IGNORE]] = True
        return known

    def known_void(self) -> npt.NDArray[np.bool_]:
        """Which label ids [256] are known to belong to no class."""
        return self.known_ids() & (self.label_ids(self.table) == IGNORE)

    @staticmethod
    def key(name: str) -> str:
        """File stem under which a mask of the image `name` is saved."""
        path = PurePosixPath(name)
        return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name

    @classmethod
    def listed(cls, path: str | Path) -> list[str]:
        """The names of a list file as written; for a missing one of `tree_lists`, the names found in its folder.

        Raises UserError if there are none.
        """
        return [line.name for line in cls._lines(Path(path))]

    @classmethod
    def listed_keys(cls, path: str | Path, keys: Container[str]) -> list[str]:
        """The keys of the images of a list; each line is read as one of `keys` if it can be."""
        found = []
        for name in cls.listed(path):
            words = name.split()
            written = [name, *words[: len(words) == 2]]  # perhaps an image and its label, without extensions
            likely = (cls.key(other) for each in written for other in cls._likely(each, ()))
            found.append(next((key for key in likely if key in keys), cls.key(name)))
        return found

    @classmethod
    def _lines(cls, path: Path) -> list[Line]:
        if path.name not in cls.tree_lists or fault(path) != "not found":
            return read_lines(path)
        names = cls.tree_lists[path.name](path.parent)
        if not names:
            raise UserError(
                f"{path}: list not found, and no images to make it from; expected {cls.layout}; {path.parent} holds "
                f"{contents(path.parent)}"
            )
        return [Line(number, name) for number, name in enumerate(names, start=1)]

    @classmethod
    def _likely(cls, name: str, folders: Collection[str]) -> Iterator[str]:
        """A listed name with all its folders, then without those that lead to `folders` or to folders of the layout,
        then the other spellings of these. An absolute name is never used as it is."""
        path = PurePosixPath(name)
        parts = path.parts[1:] if path.is_absolute() else path.parts
        known = {*folders, *cls.image_folders, *(PurePosixPath(folder).name for folder in cls.label_folders)}
        names = []
        for first in range(path.is_absolute(), len(parts)):
            inside = first < len(parts) - 1 and parts[first] in cls.image_folders
            if first == 0 or parts[first - 1] in known or inside:
                names.append("/".join(parts[first:]))
                yield names[-1]
        for name in names:
            yield from cls.spellings(name)

    @classmethod
    def ground_truth(cls, folder: str | Path, *, train_ids: bool = False) -> dict[str, Path]:
        """Key -> label file, sorted, for every label file (train_ids: file of train ids) anywhere below `folder`.

        Raises UserError if the folder is missing, holds no label, or holds two labels with the same key.
        """
        folder = Path(folder)
        require_folder(folder, "folder of labels", cls.layout)
        key_of = cls.train_id_key if train_ids else cls.label_key
        found: dict[str, Path] = {}
        for path in (folder / name for name in image_names(folder, LABEL_SUFFIXES)):
            key = key_of(path, folder)
            if key is None:
                continue
            if key in found and path.parent != found[key].parent:
                raise UserError(
                    f"{path}: {found[key]} is also a label of {key}; expected one label per image: give a folder "
                    "without the other"
                )
            found[key] = min(path, found.get(key, path), key=cls._order)
        if not found:
            raise UserError(f"{folder}: no label files found; expected {cls.layout}")
        return found

    @classmethod
    def _order(cls, path: Path) -> int:
        """The rank of a label file's name among the possible names; 0 is the first choice."""
        found = label_stem(path, cls.label_ends)
        return 0 if found is None else found[1]

    @classmethod
    def decoder(cls, table: ClassTable) -> LabelDecoder:
        """What reads a label file, in any of the forms that people save, as label ids [H, W] of a class table."""
        label_ids = cls.label_ids(table)
        listed = cls.void_ids if table.label_ids is None else [i for i, c in table.label_ids.items() if c == IGNORE]
        free = np.flatnonzero(label_ids == IGNORE).tolist()
        void = next(iter([*listed, *reversed(free)]), IGNORE)
        return LabelDecoder(cls.read_label, partial(cls.encoding, table=table), table, label_ids, void)

    @classmethod
    def trained_ids(cls, table: ClassTable) -> list[int]:
        """The train ids of the classes that appear in the labels of the data set."""
        shown = np.delete(cls.label_ids(table), list(cls.absent_ids))
        return np.unique(shown[shown < table.num_classes]).tolist()

    @classmethod
    def label_ids(cls, table: ClassTable) -> LabelMap:
        """Lookup [256] from label id to train id under a class table; it may give train ids that were cut from the
        table."""
        return cls.id_map if table.label_ids is None else id_map_of(table.label_ids)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        position, number = index if isinstance(index, tuple) else (index, range(len(self))[index])
        name = self.names[position]
        changes = SampleChanges.drawn(self.augment, self.seed, number)
        image, native = self._stored(self.image_path(name), self._image_kind, self._read_image)
        size = self.size or native
        sample: dict[str, Any] = {"name": name, "size": native}
        if self._has_label(name):
            label = self._train_ids(name, native)
            if self.label_size == "input":
                label = changes.label(label, size, self.ignore_label)
            sample["label"] = changes.mirror(torch.from_numpy(np.array(label)))
        sample["image"] = changes.mirror(_planes(changes.image(image, size)))
        return sample

    def header_fault(self, name: str) -> str | None:
        """What the headers of an image and its label show to be wrong: missing, not an image, or two shapes; else None.

        Decoding may still find damage.
        """
        try:
            native = image_size(self.image_path(name), "image")
            if self._has_label(name):
                size = image_size(self.label_file(name), "label")
                if self.pseudo_label_dir is None:
                    self.refuse_other_size(name, size, native)
        except UserError as error:
            return one_line(error)
        return None

    def cache_wanted(self) -> list[Wanted]:
        """Everything that indexing will ask the cache for."""
        paths = [self.image_path(name) for name in self.names]
        size = 3 * _area(self._image_size, paths)
        wanted = [Wanted(path, self._image_kind, size) for path in paths]
        paths = [self.label_file(name) for name in self.names if self._has_label(name)]
        if paths:
            size = _area(self._label_size, paths)
            wanted += [Wanted(path, self._kind_of(path), size) for path in paths]
        return wanted

    def _kind_of(self, label: Path) -> str:
        """What a label in the cache depends on besides its content, such as a name that says which ids it holds."""
        encoding = None if self.pseudo_label_dir is not None else self.encoding(label, self.table)
        return self._label_kind if encoding is None else f"{self._label_kind}, {encoding.what}"

    def _stored(self, path: Path, kind: str, read: Callable[[Path], Stored]) -> Stored:
        return read(path) if self.cache is None else self.cache.get(path, kind, read)

    def _read_image(self, path: Path) -> Stored:
        image = read_image(path)
        size = self._image_size or image.size
        small = image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
        return np.asarray(small), image.size

    def _read_train_ids(self, path: Path) -> Stored:
        if self.pseudo_label_dir is not None:
            label = read_ids(path)
            known = (label < self.table.num_classes) | (label == self.ignore_label)
            if not known.all():
                raise UserError(
                    f"{path}: pseudo-label with id {label[~known][0]}; expected train ids below "
                    f"{self.table.num_classes} or {self.ignore_label}: generate the pseudo-labels again"
                )
        else:
            label = self.decode(path)
        small = resized(label, self._label_size, Image.Resampling.NEAREST)
        return (small if self.pseudo_label_dir else np.take(self._lookup, small)), label.shape[::-1]

    def _train_ids(self, name: str, native: Size) -> LabelMap:
        path = self.label_file(name)
        label, size = self._stored(path, self._kind_of(path), self._read_train_ids)
        if self.pseudo_label_dir is None:
            self.refuse_other_size(name, size, native)
        return label

    def refuse_other_size(self, name: str, label: Size, native: Size) -> None:
        """Raises UserError if a label and an image of these sizes do not fit together."""
        if not _same_shape(label, native):
            raise UserError(
                f"{self.label_path(name)}: label of {label[0]}x{label[1]} pixels, but its image "
                f"{self.image_path(name)} has {native[0]}x{native[1]}; expected the same shape: replace one of them or "
                f"remove the line from the list"
            )

    def _has_label(self, name: str) -> bool:
        return bool(self.labels) or (self.labels is None and os.path.isfile(self.label_path(name)))

    def label_file(self, name: str) -> Path:
        """The file that the label of the image `name` is read from: a pseudo-label, or the data's own."""
        if self.pseudo_label_dir is not None:
            return self.pseudo_label_dir / f"{self.key(name)}.png"
        return self.label_path(name)

    def _find_all(self, list_file: str | Path | None) -> list[str]:
        require_folder(self.root, "data folder", f"{self.layout} in it")
        require_folder(self.label_root, "folder of labels", f"{self.layout} in it")
        if self.pseudo_label_dir is not None and not self.pseudo_label_dir.is_dir():
            raise UserError(f"{self.pseudo_label_dir}: no such folder of pseudo-labels; generate them first")
        names = self.resolved(Path(list_file)) if list_file is not None else self._names_that_fit()
        if not names:
            raise UserError(
                f"{self.root}: no images of split {self.split!r} found; expected {self.layout}{self._passed_over()}; "
                f"it holds {contents(self.root)}"
            )
        by_key: dict[str, str] = {}
        for name in names:
            other = by_key.setdefault(self.key(name), name)
            if other != name:
                raise UserError(
                    f"{self.root}: {other} and {name} have the same file name, so that their masks would replace each "
                    "other; expected different names: rename one"
                )
        return names

    def resolved(self, path: Path) -> list[str]:
        """The names of a list as the reader knows them; a name without an image stays as written.

        Raises UserError for a name outside of the data folder, an image that is listed twice, and an image that is
        paired with another's label.
        """
        roots = {root.absolute().name for root in (self.root, self.label_root)}
        folders = {self.split, self.image_folder(self.split).name, *roots}
        numbers: dict[str, int] = {}
        for line in self._lines(path):
            name = self._find(line.name, folders)
            words = line.name.split()
            if name is None and line.label is None and len(words) == 2:  # an image and its label, without extensions
                name = self._find(words[0], folders)
                line = line if name is None else Line(line.number, *words)
            if name is None and line.name.startswith("/"):
                refuse_name(path, line)
            if name is None and self._elsewhere(line.name):
                raise UserError(
                    f"{path}, line {line.number}: {line.name} exists, but not in {self.image_folder(self.split)}; "
                    f"expected images of split {self.split!r}: give the list of that split"
                )
            if name is None:
                name = line.name
                self._unfound.append(name)
            if name in numbers:
                raise UserError(
                    f"{path}, line {line.number}: {line.name!r} is also the image of line {numbers[name]}; expected "
                    "every image once: remove one of the lines"
                )
            numbers[name] = line.number
            if line.label is not None and self.labels is not False and self.pseudo_label_dir is None:
                self._refuse_other_label(path, line, name, folders)
        return list(numbers)

    def _find(self, listed: str, folders: Collection[str]) -> str | None:
        """The likeliest spelling of a listed name for which an image exists."""
        return next((name for name in self._likely(listed, folders) if os.path.isfile(self.image_path(name))), None)

    def _elsewhere(self, listed: str) -> bool:
        """Whether a listed name is that of a file elsewhere below the root, such as in another split."""
        places = (self.root, *(self.root / folder for folder in self.image_folders))
        return any(os.path.isfile(place / listed) for place in places)

    def _refuse_other_label(self, path: Path, line: Line, name: str, folders: Collection[str]) -> None:
        own, given = self.label_path(name), PurePosixPath(str(line.label)).parts
        if own.parts[-len(given) :] == given:
            return
        here, keys = Path(), {self.key(name)}
        for label in self._likely(str(line.label), folders):
            if any(
                keys & {self.label_key(Path(p), here), self.train_id_key(Path(p), here)}
                for p in (label, f"{label}.png")
            ):
                return
        raise UserError(
            f"{path}, line {line.number}: {line.name} is paired with {line.label}, but its label is "
            f"{own}; expected that one: correct the line, or give the image's name only"
        )

    def taken(self, names: Iterable[str]) -> list[str]:
        """The names without those of image files that do not belong to the data set, which are logged."""
        reasons = {name: self.refusal(name) for name in names}
        refused = {name: reason for name, reason in reasons.items() if reason is not None}
        for name, reason in list(refused.items())[: len(refused) < len(reasons)]:
            log.info(
                "%s: passed over %d of %d images, first %s: %s", self.root, len(refused), len(reasons), name, reason
            )
        return [name for name, reason in reasons.items() if reason is None]

    def _images_below(self, folder: Path) -> list[str]:
        """Sorted names of all image files below a folder; if it is the root, without those in label folders."""
        names = image_names(folder)
        if folder != self.root:
            return names
        labels = {folder.lower() for folder in (*OF_LABELS, *self.label_folders)}
        return [name for name in names if labels.isdisjoint(name.lower().split("/")[:-1])]

    def _passed_over(self) -> str:
        """For a message: an image file below the root that does not belong to the data set, and why; empty if none."""
        folder = self.image_folder(self.split)
        for name in (*self._images_below(folder), *self._images_below(self.root)):
            where = "this layout" if folder == self.root else os.path.relpath(folder, self.root)
            reason = self.refusal(name) or f"is not in {where}"
            return f"; {name} was passed over: {reason}"
        return ""

    def _names_that_fit(self) -> list[str]:
        """The names found without a list, without the `misfits`, which are logged."""
        names = self.find_names(self.split)
        suspects = [name for name in names if self.key(name) in self.misfits]
        others = (name for name in names if self.key(name) not in self.misfits)
        if suspects and self.pseudo_label_dir is None:
            # If all images have another size than their labels, only a difference in shape is a sign of misfits.
            restyled = self._differ(next(others, suspects[0]), _same_size)
            self.left_out = [name for name in suspects if self._differ(name, _same_shape if restyled else _same_size)]
        if self.left_out:
            log.info(
                "%s: left out %s, whose labels are known to have another size", self.root, ", ".join(self.left_out)
            )
        return [name for name in names if name not in self.left_out]

    @property
    def vouched(self) -> bool:
        """Whether the labels are known to hold the ids that the reader expects."""
        return False

    def binary_masks(self) -> str | None:
        """What is wrong with the labels if they are masks of 0 and 255, see `dataset.labels.binary_masks`."""
        if self.vouched or self.pseudo_label_dir is not None or self.table.num_classes > 2:
            return None
        ids: set[int] = set()
        for path in self.some_labels(BINARY_SAMPLE):
            with suppress(UserError):  # the reader says so
                ids.update(np.unique(self.decode(path)).tolist())
            if ids - {0, IGNORE}:
                return None
        return self.binary_fault(ids)

    def binary_fault(self, ids: Collection[int]) -> str | None:
        """What is wrong with labels that hold exactly these label ids, if they are masks of 0 and 255."""
        return None if self.vouched else binary_masks(self.table, self.label_ids(self.table), ids, self.binary_remedy)

    def some_labels(self, number: int) -> list[Path]:
        """At most this many of the existing label files, spread over the names."""
        paths = [path for name in self.names if os.path.isfile(path := self.label_path(name))]
        return paths[:: max(1, -(-len(paths) // number))]

    def _differ(self, name: str, same: Callable[[Size, Size], bool]) -> bool:
        if self._has_label(name):
            with suppress(UserError):  # a missing or unreadable file is another fault
                return not same(image_size(self.label_path(name), "label"), image_size(self.image_path(name), "image"))
        return False

    def _check_files(self) -> None:
        remedy = f"expected {self.layout}: add the file or remove its line from the list"
        self._refuse_missing("image", (self.image_path(name) for name in self._unfound), remedy)
        if self.pseudo_label_dir is not None:
            remedy = (
                "generate them for exactly this list of images, or give --skip-bad-images if they were made with it"
            )
            self._refuse_missing("pseudo-label", (self.label_file(name) for name in self.names), remedy)
        elif self.labels:
            self._refuse_missing("label", (self.label_path(name) for name in self.names), remedy)
            found = self.binary_masks()
            if found:
                raise UserError(f"{self.label_root}: {found}")

    def _refuse_missing(self, kind: str, paths: Iterable[Path], remedy: str) -> None:
        missing = [path for path in paths if not os.path.isfile(path)]
        if missing and not (self.skip_bad and len(missing) < len(self.names)):
            count = f"{len(missing)} of {len(self.names)} missing"
            other = namesake(missing[0])
            beside = f", but {other} exists" if other else ""
            raise UserError(f"{missing[0]}: {kind} {fault(missing[0])} ({count}){beside}; {remedy}")


def _same_size(label: Size, native: Size) -> bool:
    return label == native


def _same_shape(label: Size, native: Size) -> bool:
    return abs(label[0] * native[1] / (label[1] * native[0]) - 1) <= ASPECT_TOLERANCE


def _planes(pixels: Pixels) -> torch.Tensor:
    """[H, W, 3] as [3, H, W]; copying a transposed array would take six times as long."""
    planes = np.empty((3, *pixels.shape[:2]), np.uint8)
    cv2.split(pixels, tuple(planes))
    return torch.from_numpy(planes)


def _area(size: Size | None, paths: Sequence[Path]) -> int:
    """Number of pixels of an image of this size; for None the mean over some of the files, from their headers."""
    if size is not None:
        return size[0] * size[1]
    areas = []
    for path in paths[:: max(1, len(paths) // 16)]:
        with suppress(UserError):
            areas.append(math.prod(image_size(path, "image")))
    return sum(areas) // max(1, len(areas))
