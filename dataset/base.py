"""What all readers share: checking and reading pairs of image and label, and turning them into samples.

A data set is a small subclass that says where its files lie (`dataset.layout`) and how its label ids map to train ids.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from copy import copy
from pathlib import Path
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
from dataset.classes import IGNORE, ClassTable, LabelMap, to_train_ids
from dataset.labels import binary_masks
from dataset.lists import Lists
from dataset.reading import contents, image_size, namesake, read_ids, read_image
from utils.system.errors import UserError, fault, one_line, require_folder

log = logging.getLogger("bafft")

ASPECT_TOLERANCE = 0.05  # 1280x720, to which GTA5 is resized, is 2 % off its 1914x1052

BINARY_SAMPLE = 64
"""How many labels are examined for whether they are masks of 0 and 255."""


class SegmentationDataset(Lists, Dataset[dict[str, Any]]):
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
        root, single = Path(root), None
        if not labels and root.is_file():
            root, single = root.parent, root.name
        super().__init__(
            root,
            split,
            root if label_root is None else Path(label_root),
            labels,
            None if pseudo_label_dir is None else Path(pseudo_label_dir),
        )
        self.single = single is not None
        """Whether the data set is one image, whose folder is not its own."""
        self.size = size
        self.label_size = label_size
        self.table = table or self.table
        self.ignore_label = ignore_label
        self.augment = augment or Augment()
        self.seed = seed
        self.skip_bad = skip_bad
        self._lookup = to_train_ids(self.label_ids(self.table), self.table.num_classes, ignore_label)
        self.decode = self.decoder(self.table)
        """Reads a label file as label ids [H, W]."""
        self.cache = cache
        # How a file is read, before anything random is done to it. The kinds hold all that this depends on besides the
        # file.
        self._image_size = None if self.augment.scale else size
        self._label_size = None if self.augment.scale or label_size == "native" else size
        self._image_kind = f"image size {self._image_size} bicubic, Pillow {PIL.__version__}"
        self.label_kind = (
            f"label size {self._label_size} nearest, Pillow {PIL.__version__}, {type(self).__qualname__}, "
            f"{'pseudo' if pseudo_label_dir else 'own'}, {self.table.num_classes} classes, {self._lookup.tolist()}, "
            f"ids {sorted((self.table.label_ids or {}).items())}, colours {self.table.label_colours}"
        )
        """All that the reading of a label depends on besides its file."""
        self.left_out: list[str] = []
        self.unfound = []
        self.names = [single] if single is not None else self._find_all(list_file)
        if check:
            self._check_files()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        position, number = index if isinstance(index, tuple) else (index, range(len(self))[index])
        name = self.names[position]
        changes = SampleChanges.drawn(self.augment, self.seed, number)
        image, native = self._stored(self.image_path(name), self._image_kind, self._read_image)
        size = self.size or native
        sample: dict[str, Any] = {"name": name, "size": native}
        if self.has_label(name):
            label = self._train_ids(name, native)
            if self.label_size == "input":
                label = changes.label(label, size, self.ignore_label)
            sample["label"] = changes.mirror(torch.from_numpy(np.array(label)))
        sample["image"] = changes.mirror(_planes(changes.image(image, size)))
        return sample

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

    def header_fault(self, name: str) -> str | None:
        """What the headers of an image and its label show to be wrong: missing, not an image, or two shapes; else None.

        Decoding may still find damage.
        """
        try:
            native = image_size(self.image_path(name), "image")
            if self.has_label(name):
                size = image_size(self.label_file(name), "label")
                if self.pseudo_label_dir is None:
                    self.refuse_other_size(name, size, native)
        except UserError as error:
            return one_line(error)
        return None

    def refuse_other_size(self, name: str, label: Size, native: Size) -> None:
        """Raises UserError if a label and an image of these sizes do not fit together."""
        if not _same_shape(label, native):
            raise UserError(
                f"{self.label_path(name)}: label of {label[0]}x{label[1]} pixels, but its image "
                f"{self.image_path(name)} has {native[0]}x{native[1]}; expected the same shape: replace one of them, "
                f"or remove both (and their line, if they are in a list)"
            )

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

    def cache_wanted(self) -> list[Wanted]:
        """Everything that indexing will ask the cache for."""
        paths = [self.image_path(name) for name in self.names]
        size = 3 * _area(self._image_size, paths)
        wanted = [Wanted(path, self._image_kind, size) for path in paths]
        paths = [self.label_file(name) for name in self.names if self.has_label(name)]
        if paths:
            size = _area(self._label_size, paths)
            wanted += [Wanted(path, self._kind_of(path), size) for path in paths]
        return wanted

    def _kind_of(self, label: Path) -> str:
        """What a label in the cache depends on besides its content, such as a name that says which ids it holds."""
        encoding = None if self.pseudo_label_dir is not None else self.encoding(label, self.table)
        return self.label_kind if encoding is None else f"{self.label_kind}, {encoding.what}"

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

    def _passed_over(self) -> str:
        """For a message: an image file below the root that does not belong to the data set, and why; empty if none."""
        folder = self.image_folder(self.split)
        names, reason = self._images_below(folder), f"it is not of split {self.split!r}"
        if not names:
            names, reason = self._images_below(self.root), f"it is not in {os.path.relpath(folder, self.root)}/"
        return f"; {names[0]} was passed over: {self.refusal(names[0]) or reason}" if names else ""

    def _differ(self, name: str, same: Callable[[Size, Size], bool]) -> bool:
        if self.has_label(name):
            with suppress(UserError):  # a missing or unreadable file is another fault
                return not same(image_size(self.label_path(name), "label"), image_size(self.image_path(name), "image"))
        return False

    def _check_files(self) -> None:
        remedy = f"expected {self.layout}: add the file, or remove its line from the list, if there is one"
        self._refuse_missing("image", (self.image_path(name) for name in self.unfound), remedy)
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
            if kind == "label" and other and other.lower().endswith((".jpg", ".jpeg")):
                beside += ", and JPEG changes the values of labels: save them as PNG"
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
