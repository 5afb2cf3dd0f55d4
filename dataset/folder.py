"""Your own images: a folder with `images/` and, if there are labels, `labels/`."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np

from dataset.base import SegmentationDataset
from dataset.classes import IGNORE, ClassTable, LabelMap
from utils.system.errors import UserError


class Folder(SegmentationDataset):
    """`images/NAME.png` (or .jpg, .tif; at any depth) with `labels/NAME.png` (or .tif, .bmp; also NAME_mask.png and the
    like), which hold ids or the colours of the classes.

    A target needs no folder `images/`: its images may be in the folder itself, or it may be a single image.

    The class table must be given. If it has no label ids, the labels hold train ids, and 255 for no class. A file
    `SPLIT.txt` in the folder, such as val.txt, lists a split; without it, a split is the folder `images/SPLIT/`, and
    without either, "train" and "val" are the whole folder. Images of a scored split may lack a label.
    """

    id_map: LabelMap = np.arange(256, dtype=np.uint8)
    layout = "images/NAME.png (or .jpg, .tif; also in subfolders) and, if there are labels, labels/NAME.png"

    def find_names(self, split: str) -> list[str]:
        names = self.root / f"{split}.txt"
        if names.is_file():
            return self.resolved(names)
        folder = self.image_folder(split) / split
        if split not in ("train", "val") and not folder.is_dir():
            raise UserError(
                f"{self.root}: neither {names.name} nor {os.path.relpath(folder, self.root)}/ found; expected one of "
                f"them for split {split!r}: add it, or choose another split"
            )
        return super().find_names(split)

    def label_path(self, name: str) -> Path:
        path = self.below(self.label_root, "labels") / name
        return self.label_in(path.parent, path.stem)

    @classmethod
    def label_ids(cls, table: ClassTable) -> LabelMap:
        lookup = super().label_ids(table)
        return np.where(lookup < table.num_classes, lookup, IGNORE).astype(np.uint8)

    @staticmethod
    def key(name: str) -> str:
        """The whole relative name, because two cameras may each have a 0001.png."""
        return "_".join(PurePosixPath(name).with_suffix("").parts)

    @classmethod
    def label_key(cls, path: Path, folder: Path) -> str | None:
        stem = super().label_key(path, folder)
        return None if stem is None else cls.key((path.relative_to(folder).parent / f"{stem}.png").as_posix())

    @classmethod
    def prediction_key(cls, path: Path, folder: Path) -> str | None:
        return cls.key(path.relative_to(folder).as_posix())
