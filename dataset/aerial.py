"""Tiles of aerial images with masks of buildings or roads, as `prepare_aerial.py` writes them."""

from __future__ import annotations

from pathlib import Path

from dataset.aerial_downloads import IMAGES, LABELS, MANIFEST
from dataset.base import SegmentationDataset
from dataset.classes import AERIAL, AERIAL_IDS, LabelMap
from dataset.labels import ColourIds
from dataset.reading import image_file
from utils.system.errors import UserError


class Aerial(SegmentationDataset):
    """`Images/NAME.png` (or .jpg) with `SegmentationClass/NAME.png`, ids 0, 1 and 255 (ignored); names `NAME`.

    A split is the list `SPLIT.txt`; a folder without any list is all "train".
    """

    table = AERIAL
    id_map = AERIAL_IDS
    image_folders = (IMAGES,)
    label_folders = (LABELS,)
    layout = f"{IMAGES}/NAME.png (or .jpg), {LABELS}/NAME.png and the list SPLIT.txt, see prepare_aerial.py"

    binary_remedy = (
        "0 (background), 1 (foreground) and 255 (ignored): run prepare_aerial.py over this folder, or give "
        "--classes FILE with id: 255"
    )

    def find_names(self, split: str) -> list[str]:
        path = self.root / f"{split}.txt"
        if path.is_file():
            return self.resolved(path)
        if split != "train" or any(self.root.glob("*.txt")):
            return []
        return sorted({self.key(name) for name in super().find_names(split)})

    def image_path(self, name: str) -> Path:
        return image_file(self.image_folder(self.split) / self.key(name))

    def label_path(self, name: str) -> Path:
        return self.label_in(self.below(self.label_root, LABELS), self.key(name))

    @staticmethod
    def read_label(path: Path, colours: ColourIds | None = None) -> LabelMap:
        """Ids [H, W], each 0, 1 or 255. Raises UserError when the file is corrupt or holds another id."""
        label = SegmentationDataset.read_label(path, colours)
        other = label[(label > 1) & (label < 255)]
        if other.size:
            raise UserError(
                f"{path}: id {other[0]} in the mask; expected 0 (background), 1 (foreground) or 255 (ignored): "
                "build the tiles with prepare_aerial.py"
            )
        return label

    @property
    def vouched(self) -> bool:
        """In prepared tiles, 255 marks blank areas, and a tile need not show any foreground."""
        return (self.label_root / MANIFEST).is_file()

    @classmethod
    def label_key(cls, path: Path, folder: Path) -> str | None:
        return None if path.parent.name == IMAGES else super().label_key(path, folder)
