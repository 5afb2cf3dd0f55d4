"""ACDC (Sakaridis et al. 2021) and Dark Zurich (Sakaridis et al. 2019): Cityscapes classes in adverse conditions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from dataset.classes import CITYSCAPES, CITYSCAPES_IDS, CITYSCAPES_VOID
from dataset.frames import FrameNames
from dataset.labels import label_stem
from dataset.reading import IMAGE_SUFFIXES, folder_in, image_names

_IMAGE_END = "_rgb_anon"
_LABEL_ENDS = ("_gt_labelTrainIds", "_gt_labelIds", "_gt_labelColor")
_SPLITS = ("train", "val", "test")
_CONDITIONS = ("fog", "night", "rain", "snow", "twilight", "day")


def _names(root: Path, split: str, condition: str | None = None) -> list[str]:
    """Names of a split, of one condition or all: ACDC has CONDITION/SPLIT/, Dark Zurich has SPLIT/CONDITION/."""
    wanted = {split, condition or split}
    return [
        name
        for name in image_names(folder_in(root, "rgb_anon") or root / "rgb_anon")
        if wanted <= set(name.split("/")[:-1])
    ]


class ACDC(FrameNames):
    """`rgb_anon/CONDITION/SPLIT/SEQUENCE/NAME_rgb_anon.png` with `gt/.../NAME_gt_labelTrainIds.png`.

    Dark Zurich has `rgb_anon/SPLIT/CONDITION/SEQUENCE/`. Without train ids, labels are read from
    `NAME_gt_labelIds.png` or `NAME_gt_labelColor.png`. Names are relative to `rgb_anon/`, for
    example `night/train/GOPR0351/GOPR0351_frame_000159_rgb_anon.png`. The lists `SPLIT_CONDITION.txt`, for example
    `train_night.txt`, are derived from the folders. Reference images (folders `SPLIT_ref`) belong to no split.
    """

    table = CITYSCAPES
    id_map = CITYSCAPES_IDS
    void_ids = CITYSCAPES_VOID
    largest_id = 33
    label_ends = _LABEL_ENDS
    image_end = _IMAGE_END
    frame = re.compile(r".+_frame_\d+")
    layout = (
        f"rgb_anon/CONDITION/SPLIT/SEQUENCE/NAME{_IMAGE_END}.png and "
        f"gt/CONDITION/SPLIT/SEQUENCE/NAME{_LABEL_ENDS[0]}.png"
    )
    image_folders = ("rgb_anon",)
    label_folders = ("gt",)
    tree_lists = {
        f"{split}_{condition}.txt": partial(_names, split=split, condition=condition)
        for split in _SPLITS
        for condition in _CONDITIONS
    }

    def find_names(self, split: str) -> list[str]:
        names = super().find_names(split)
        flat = self.image_folder(split) == self.root
        return names if flat else [name for name in names if split in name.split("/")[:-1]]

    def refusal(self, name: str) -> str | None:
        path = PurePosixPath(name)
        good = path.suffix.lower() in IMAGE_SUFFIXES and path.stem.endswith((_IMAGE_END, "_rgb_ref_anon"))
        return None if good else f"its name does not end in {_IMAGE_END}.png"

    @classmethod
    def spellings(cls, name: str) -> Iterator[str]:
        """Also the image's name for that of a label."""
        yield from super().spellings(name)
        found = label_stem(Path(name), cls.label_ends)
        if found is not None:
            yield from super().spellings(f"{PurePosixPath(name).parent / found[0]}{_IMAGE_END}.png")

    def label_path(self, name: str) -> Path:
        path = PurePosixPath(name)
        folder = folder_in(self.label_root, "gt") or self.label_root / "gt"
        return self.label_in(folder / path.parent, path.stem.removesuffix(_IMAGE_END))
