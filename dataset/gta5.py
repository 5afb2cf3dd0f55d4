"""GTA5 (Richter et al. 2016): images, and labels with Cityscapes ids."""

from __future__ import annotations

from pathlib import Path

from dataset.base import SegmentationDataset
from dataset.classes import CITYSCAPES, CITYSCAPES_IDS, CITYSCAPES_VOID


class GTA5(SegmentationDataset):
    """`images/00001.png` with `labels/00001.png`, label ids; names `00001.png`."""

    table = CITYSCAPES
    id_map = CITYSCAPES_IDS
    void_ids = (*CITYSCAPES_VOID, 34)  # 34: number plates
    layout = "images/00001.png and labels/00001.png"
    misfits = ("15188", "17705")

    def label_path(self, name: str) -> Path:
        path = self.below(self.label_root, "labels") / name
        return self.label_in(path.parent, path.stem)
