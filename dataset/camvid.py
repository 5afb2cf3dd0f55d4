"""CamVid (Brostow et al. 2009), the 480x360 split with 11 classes that SegNet published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from dataset.base import SegmentationDataset
from dataset.classes import CAMVID, CAMVID_IDS
from dataset.reading import image_file, image_names
from utils.system.errors import UserError

_DUSK = "0001TP"
"""The sequence of `train/` that was taken at dusk."""


def _names(root: Path, split: str) -> list[str]:
    return _of_split(split, image_names(root / split))


def _of_split(split: str, images: Iterable[str]) -> list[str]:
    return sorted({f"{split}/{CamVid.key(name)}" for name in images})


class CamVid(SegmentationDataset):
    """`train/NAME.jpg` (or .png), labels `trainannot/NAME.png`, id 11 ignored; names `train/NAME`.

    NAME begins with its sequence, from which the lists of day and dusk are derived.
    """

    table = CAMVID
    id_map = CAMVID_IDS
    void_ids = (11,)
    image_folders = ("train", "val", "test")
    label_folders = ("trainannot", "valannot", "testannot")
    layout = "SPLIT/NAME.jpg (or .png) and SPLITannot/NAME.png"

    tree_lists = {
        "train_day.txt": lambda root: [name for name in _names(root, "train") if f"/{_DUSK}" not in name],
        "train_dusk.txt": lambda root: [name for name in _names(root, "train") if f"/{_DUSK}" in name],
        "val_day.txt": lambda root: _names(root, "val"),
    }

    def find_names(self, split: str) -> list[str]:
        return _of_split(split, self._images_below(self.root / split))

    def image_folder(self, split: str) -> Path:
        return self.root

    @classmethod
    def spellings(cls, name: str) -> Iterator[str]:
        """Also a name without an extension, or that of the label, as in the lists of SegNet."""
        path = PurePosixPath(name)
        yield name
        yield f"{path.parent.as_posix().removesuffix('annot')}/{cls.key(path.name)}"

    def image_path(self, name: str) -> Path:
        return image_file(self.root / name, first=(".jpg",))

    def label_path(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        if len(parts) != 2:
            raise UserError(
                f"{self.root}: name {name!r} in the list; expected SPLIT/NAME without an extension: correct the list"
            )
        return self.label_in(self.label_root / f"{parts[0]}annot", parts[1])
