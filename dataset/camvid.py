"""CamVid (Brostow et al. 2009), the 480x360 split with 11 classes that SegNet published."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from dataset.base import SegmentationDataset
from dataset.classes import CAMVID, CAMVID_IDS
from dataset.reading import IMAGE_SUFFIXES, image_names
from utils.errors import UserError


class CamVid(SegmentationDataset):
    """`train/NAME.jpg` (or .png), labels `trainannot/NAME.png`, id 11 ignored; names `train/NAME`."""

    table = CAMVID
    id_map = CAMVID_IDS
    void_ids = (11,)
    layout = "SPLIT/NAME.jpg (or .png) and SPLITannot/NAME.png"

    def find_names(self, split: str) -> list[str]:
        stems = {self.key(name) for name in image_names(self.root / split)}
        return sorted(f"{split}/{stem}" for stem in stems)

    def image_path(self, name: str) -> Path:
        candidates = [self.root / f"{name}{suffix}" for suffix in (".jpg", *IMAGE_SUFFIXES)]
        return next((path for path in candidates if os.path.isfile(path)), candidates[0])

    def label_path(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        if len(parts) != 2:
            raise UserError(f"{self.root}: name {name!r} in the list; expected SPLIT/NAME, no extension")
        return self.label_root / f"{parts[0]}annot" / f"{parts[1]}.png"
