"""SYNTHIA-RAND-CITYSCAPES (Ros et al. 2016): images, and 16-bit labels with their own ids."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from dataset.base import SegmentationDataset
from dataset.classes import CITYSCAPES, CITYSCAPES_IDS, SYNTHIA_IDS, ClassTable, LabelMap
from dataset.labels import TRAIN_ID_END, ColourIds, Encoding
from dataset.reading import opened, read_ids
from utils.system.errors import UserError

_PARSED, _MAPPED = "parsed_LABELS", "synthia_mapped_to_cityscapes"
LABEL_FOLDERS = ("GT/LABELS", _PARSED, _MAPPED)


class Synthia(SegmentationDataset):
    """`RGB/0000000.png` with `GT/LABELS/0000000.png`, 16-bit RGB, class id in red; names `0000000.png`.

    Instead of `GT/LABELS`, other projects have `parsed_LABELS`, the ids in 8 bits, or `synthia_mapped_to_cityscapes`,
    ids of Cityscapes.
    """

    table = CITYSCAPES
    id_map = SYNTHIA_IDS
    void_ids = (0, 13, 14, 22)  # void, parking slot, road work, lane marking
    absent_ids = (16, 18, 20)  # terrain, truck, train
    layout = f"RGB/0000000.png and GT/LABELS/0000000.png (or {_PARSED}, {_MAPPED})"
    image_folders = ("RGB",)
    label_folders = (*LABEL_FOLDERS, "GT")

    def label_path(self, name: str) -> Path:
        folders = (self.label_root / folder for folder in LABEL_FOLDERS)
        folder = next((path for path in folders if path.is_dir()), self.below(self.label_root, LABEL_FOLDERS[0]))
        return self.label_in((folder / name).parent, Path(name).stem)

    @classmethod
    def encoding(cls, path: Path, table: ClassTable) -> Encoding | None:
        """In the folder `synthia_mapped_to_cityscapes`, labels hold the label ids of Cityscapes."""
        if _MAPPED in _folders(path) and table.label_ids is None:
            ids = {i: int(CITYSCAPES_IDS[i]) for i in range(34)}
            return Encoding("Cityscapes label ids (by its folder)", ids)
        return super().encoding(path, table)

    @staticmethod
    def read_label(path: Path, colours: ColourIds | None = None) -> LabelMap:
        """Ids [H, W] from the red channel, read with OpenCV, because Pillow would give 8 bits that are all zero.

        8-bit files, which other projects make, are read if the name of the folder or file says which ids they hold.
        Raises UserError if the file is corrupt or of another kind.
        """
        if path.stem.endswith(TRAIN_ID_END) or _folders(path) & {_PARSED, _MAPPED}:
            return read_ids(path, colours=colours)
        with opened(path, "label") as image:
            image.verify()  # says what is wrong with a broken file; with OpenCV, only libpng says it, on stderr
            data = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if data is None or data.dtype != np.uint16 or data.ndim != 3:
            found = "no image that OpenCV can read" if data is None else f"{data.dtype} of shape {data.shape}"
            raise UserError(
                f"{path}: SYNTHIA label holds {found}; expected a 16-bit RGB PNG with the class id in the "
                f"red channel, as in GT/LABELS of the data set, or one 8-bit id per pixel in a folder named {_PARSED} "
                f"(ids of SYNTHIA) or {_MAPPED} (ids of Cityscapes)"
            )
        return np.minimum(data[:, :, 2], 255).astype(np.uint8)


def _folders(path: Path) -> set[str]:
    """The name of a file's folder, or of the folder that a link leads to."""
    return {path.parent.name, os.path.basename(os.path.realpath(path.parent))}
