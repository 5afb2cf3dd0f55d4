"""Cityscapes (Cordts et al. 2016) in its official layout."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dataset.base import SegmentationDataset
from dataset.classes import CITYSCAPES, CITYSCAPES_IDS, CITYSCAPES_VOID
from dataset.frames import FrameNames
from dataset.reading import IMAGE_SUFFIXES, folder_in
from utils.system.errors import UserError

_IMAGE_END = "_leftImg8bit"
_LABEL_ENDS = ("_gtFine_labelIds", "_gtFine_labelTrainIds", "_gtFine_color")
_FRAME = re.compile(r"(.+?)_\d+_\d+(?!\d)")
"""CITY_SEQUENCE_FRAME, with which every file name begins; the group is CITY."""


class Cityscapes(FrameNames):
    """`leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png` with `gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png`,
    or else with `NAME_gtFine_labelTrainIds.png` or `NAME_gtFine_color.png`.

    Names are `CITY/NAME_leftImg8bit.png`, for example `aachen/aachen_000000_000019_leftImg8bit.png`. Images may also be
    JPEG or TIFF, and the folders of cities may be missing, for images and labels alike. NAME is
    CITY_SEQUENCE_FRAME, for which `_leftImg8bit` may be missing.
    """

    table = CITYSCAPES
    id_map = CITYSCAPES_IDS
    void_ids = CITYSCAPES_VOID
    layout = f"leftImg8bit/SPLIT/CITY/NAME{_IMAGE_END}.png and gtFine/SPLIT/CITY/NAME{_LABEL_ENDS[0]}.png"
    largest_id = 33
    label_ends = _LABEL_ENDS
    image_end = _IMAGE_END
    frame = _FRAME
    image_folders: tuple[str, ...] = ("leftImg8bit",)
    label_folders = ("gtFine",)

    def image_folder(self, split: str) -> Path:
        folder = super().image_folder(split)
        return folder if folder == self.root else folder / split

    def refusal(self, name: str) -> str | None:
        if "_foggy" in name:
            return "a foggy image, which the reader foggy_cityscapes reads"
        if _frame(name) is None:
            return (
                f"its name is not CITY_SEQUENCE_FRAME{_IMAGE_END} with .png or .jpg; the reader folder accepts any name"
            )
        return None

    @classmethod
    def spellings(cls, name: str) -> Iterator[str]:
        """Also the image's name for that of a label, and names with another folder of the city, or without one."""
        folder, file = PurePosixPath(name).parent, PurePosixPath(name).name
        frame = _FRAME.match(file)
        files = [file] if frame is None else [file, f"{frame[0]}{_IMAGE_END}.png", f"{frame[0]}.png"]
        for other in files:
            yield from super().spellings((folder / other).as_posix())
        if frame is not None:
            for other in files[1:]:
                yield from super().spellings(f"{frame[1]}/{other}")
                yield from super().spellings(other)

    def label_path(self, name: str) -> Path:
        frame = _frame(name)
        if frame is None:
            raise UserError(f"{self.root}: name {name!r} in the list; expected CITY/NAME{_IMAGE_END}.png")
        return self.label_of_frame(name, frame)

    def label_of_frame(self, name: str, frame: str) -> Path:
        """The label of a frame: in a folder of the same name as the image's, else in that of the city, else in none."""
        folder = (folder_in(self.label_root, "gtFine") or self.label_root / "gtFine") / self.split
        parents = (PurePosixPath(name).parent, frame.partition("_")[0], ".")
        paths = [self.label_in(folder / parent, frame) for parent in parents]
        return next((path for path in paths if os.path.isfile(path)), paths[0])

    @staticmethod
    def key(name: str) -> str:
        frame = _frame(name)
        return SegmentationDataset.key(name) if frame is None else frame + _IMAGE_END


def _frame(name: str) -> str | None:
    """CITY_SEQUENCE_FRAME of an image; None for another name."""
    path = PurePosixPath(name)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return None
    stem = path.stem.removesuffix(_IMAGE_END)
    return stem if stem != path.stem or _FRAME.fullmatch(stem) else None
