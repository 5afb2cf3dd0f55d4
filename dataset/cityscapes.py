"""Cityscapes (Cordts et al. 2016), the official tree."""

from __future__ import annotations

import re
from pathlib import Path

from dataset.base import SegmentationDataset
from dataset.classes import CITYSCAPES, CITYSCAPES_IDS, CITYSCAPES_VOID
from dataset.reading import image_names
from utils.system.errors import UserError

_IMAGE_END = "_leftImg8bit.png"
_LABEL_END = "_gtFine_labelIds.png"
_TRAIN_ID_END = "_gtFine_labelTrainIds.png"


class Cityscapes(SegmentationDataset):
    """`leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png` with `gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png`.

    Names are `CITY/NAME_leftImg8bit.png`, for example `aachen/aachen_000000_000019_leftImg8bit.png`.
    """

    table = CITYSCAPES
    id_map = CITYSCAPES_IDS
    void_ids = CITYSCAPES_VOID
    layout = f"leftImg8bit/SPLIT/CITY/NAME{_IMAGE_END} and gtFine/SPLIT/CITY/NAME{_LABEL_END}"
    largest_id = 33

    def find_names(self, split: str) -> list[str]:
        folder = self.root / "leftImg8bit" / split
        return [name for name in image_names(folder) if name.endswith(_IMAGE_END) and name.count("/") == 1]

    def image_path(self, name: str) -> Path:
        return self.root / "leftImg8bit" / self.split / name

    def label_path(self, name: str) -> Path:
        if not name.endswith(_IMAGE_END):
            raise UserError(f"{self.root}: name {name!r} in the list; expected CITY/NAME{_IMAGE_END}")
        return self.label_root / "gtFine" / self.split / (name.removesuffix(_IMAGE_END) + _LABEL_END)

    @classmethod
    def label_key(cls, path: Path, folder: Path) -> str | None:
        return _key(path, _LABEL_END)

    @classmethod
    def train_id_key(cls, path: Path, folder: Path) -> str | None:
        """Of `NAME_gtFine_labelTrainIds.png`, as the official scripts write them."""
        return _key(path, _TRAIN_ID_END)

    @classmethod
    def prediction_key(cls, path: Path, folder: Path) -> str | None:
        """Of `CITY_000000_000019*.png`, whatever follows, as in the official evaluation; coloured ones do not count."""
        if path.stem.endswith("_color"):
            return None
        name = re.match(r".+?_\d+_\d+(?!\d)", path.stem)
        return path.stem if name is None else name[0] + _IMAGE_END.removesuffix(".png")


def _key(path: Path, end: str) -> str | None:
    stem = path.name.removesuffix(end)
    return None if stem == path.name else stem + _IMAGE_END.removesuffix(".png")
