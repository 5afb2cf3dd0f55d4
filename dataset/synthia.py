"""SYNTHIA-RAND-CITYSCAPES (Ros et al. 2016): images, and 16-bit labels with their own ids."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dataset.base import SegmentationDataset
from dataset.classes import CITYSCAPES, SYNTHIA_IDS, LabelMap
from dataset.reading import opened
from utils.system.errors import UserError


class Synthia(SegmentationDataset):
    """`RGB/0000000.png` with `GT/LABELS/0000000.png`, 16-bit RGB, class id in red; names `0000000.png`."""

    table = CITYSCAPES
    id_map = SYNTHIA_IDS
    void_ids = (0, 13, 14, 22)  # void, parking slot, road work, lane marking
    absent_ids = (16, 18, 20)  # terrain, truck, train
    layout = "RGB/0000000.png and GT/LABELS/0000000.png"
    image_folders = ("RGB",)
    label_folders = ("GT/LABELS", "GT")

    def label_path(self, name: str) -> Path:
        return (self.below(self.label_root, "GT/LABELS") / name).with_suffix(".png")

    @staticmethod
    def read_label(path: Path) -> LabelMap:
        """Ids [H, W] from the red channel, with OpenCV: Pillow reads such a file as 8-bit, all zero.

        Raises UserError when the file is corrupt or not a 16-bit RGB PNG.
        """
        with opened(path, "label") as image:
            image.verify()  # says what is wrong with a broken file; OpenCV only lets libpng write to stderr
            data = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if data is None or data.dtype != np.uint16 or data.ndim != 3:
            found = "nothing OpenCV reads" if data is None else f"{data.dtype} of shape {data.shape}"
            raise UserError(
                f"{path}: SYNTHIA label holds {found}; expected a 16-bit RGB PNG with the class id in the "
                "red channel: take the file from GT/LABELS of the data set, unconverted"
            )
        return np.minimum(data[:, :, 2], 255).astype(np.uint8)
