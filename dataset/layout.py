"""How the files of a data set are laid out: where images and labels lie, what they are called, what the labels hold.

A data set is a small subclass of `dataset.base.SegmentationDataset` that redefines some of this.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from dataset.classes import IGNORE, ClassTable, LabelMap, id_map_of
from dataset.labels import (
    LABEL_ENDS,
    LABEL_SUFFIXES,
    ColourIds,
    Encoding,
    LabelDecoder,
    label_file,
    label_stem,
    train_id_encoding,
)
from dataset.reading import IMAGE_SUFFIXES, OTHER_SUFFIXES, folder_in, image_names, read_ids
from utils.system.errors import UserError, require_folder

log = logging.getLogger("bafft")

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


class Layout:
    """Where the files of a data set lie, what they are called, and which ids its labels hold.

    Names of images are relative to the image folder. The key of an image is the file stem of its masks.

    Args:
        root: the data set's folder.
        split: part of the data set, if its folders are split.
        label_root: root of the labels, which is `root` unless images and labels are kept apart.
        labels: False if labels are not wanted; None if an image may lack one.
        pseudo_label_dir: labels are read from `<pseudo_label_dir>/<key>.png` instead of the data set's own.
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
        self, root: Path, split: str, label_root: Path, labels: bool | None, pseudo_label_dir: Path | None
    ) -> None:
        self.root = root
        self.split = split
        self.label_root = label_root
        self.labels = labels
        self.pseudo_label_dir = pseudo_label_dir
        self.unread: list[Path] = []
        """Images in formats that are not read, found where the names were looked for."""

    @property
    def flat(self) -> bool:
        """Whether the root may directly contain the images: if the labels have their own root or are optional."""
        return self.label_root != self.root or not self.labels

    # Images.

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
        """Sorted names of all image files below a folder; if it is the root, without those in label folders. `unread`
        then holds the others."""
        names = image_names(folder, (*IMAGE_SUFFIXES, *OTHER_SUFFIXES))
        if folder == self.root:
            labels = {folder.lower() for folder in (*OF_LABELS, *self.label_folders)}
            names = [name for name in names if labels.isdisjoint(name.lower().split("/")[:-1])]
        self.unread = [folder / name for name in names if PurePosixPath(name).suffix.lower() in OTHER_SUFFIXES]
        return [name for name in names if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]

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

    @staticmethod
    def key(name: str) -> str:
        """File stem under which a mask of the image `name` is saved."""
        path = PurePosixPath(name)
        return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name

    # Labels, and masks that were predicted.

    def label_path(self, name: str) -> Path:
        raise NotImplementedError

    def label_file(self, name: str) -> Path:
        """The file that the label of the image `name` is read from: a pseudo-label, or the data's own."""
        if self.pseudo_label_dir is not None:
            return self.pseudo_label_dir / f"{self.key(name)}.png"
        return self.label_path(name)

    def has_label(self, name: str) -> bool:
        """Whether a sample of this image has a label; a file that is missing although labels are wanted is an error."""
        return bool(self.labels) or (self.labels is None and os.path.isfile(self.label_path(name)))

    def label_in(self, folder: Path, stem: str) -> Path:
        """The label file in a folder for the image with this stem; the name of a missing PNG if there is none."""
        return label_file(folder, stem, self.label_ends)

    def below(self, root: Path, folder: str) -> Path:
        """`root`/`folder`, also inside the folder of an unpacked archive. If images and labels have different roots and
        there is no such folder, `root` itself."""
        return folder_in(root, folder) or (root / folder if self.label_root == self.root else root)

    @classmethod
    def label_key(cls, path: Path, folder: Path) -> str | None:
        """The key of the image that a label file belongs to; None if the file is not a label. folder: that of all
        labels."""
        found = label_stem(path, cls.label_ends)
        return None if found is None else found[0]

    @classmethod
    def train_id_key(cls, path: Path, folder: Path) -> str | None:
        """As `label_key`, for a file of ground truth that holds train ids instead of label ids."""
        return cls.label_key(path, folder)

    @classmethod
    def prediction_key(cls, path: Path, folder: Path) -> str | None:
        """As `label_key`, for a predicted mask somewhere below `folder`."""
        return path.stem

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

    # What labels hold.

    @staticmethod
    def read_label(path: Path, colours: ColourIds | None = None) -> LabelMap:
        """The ids [H, W] that a label file holds, before the id map; colours: the ids of colours, if any."""
        return read_ids(path, colours=colours)

    @classmethod
    def encoding(cls, path: Path, table: ClassTable) -> Encoding | None:
        """Which ids a label file holds if they are not the label ids of the data set; None if they are."""
        return train_id_encoding(path, cls.label_ids(table))

    @classmethod
    def decoder(cls, table: ClassTable) -> LabelDecoder:
        """What reads a label file, in any of the forms that people save, as label ids [H, W] of a class table."""
        label_ids = cls.label_ids(table)
        listed = cls.void_ids if table.label_ids is None else [i for i, c in table.label_ids.items() if c == IGNORE]
        free = np.flatnonzero(label_ids == IGNORE).tolist()
        void = next(iter([*listed, *reversed(free)]), IGNORE)
        return LabelDecoder(cls.read_label, partial(cls.encoding, table=table), table, label_ids, void)

    @classmethod
    def label_ids(cls, table: ClassTable) -> LabelMap:
        """Lookup [256] from label id to train id under a class table; it may give train ids that were cut from the
        table."""
        return cls.id_map if table.label_ids is None else id_map_of(table.label_ids)

    @classmethod
    def trained_ids(cls, table: ClassTable) -> list[int]:
        """The train ids of the classes that appear in the labels of the data set."""
        shown = np.delete(cls.label_ids(table), list(cls.absent_ids))
        return np.unique(shown[shown < table.num_classes]).tolist()
