"""Foggy Cityscapes (Sakaridis et al. 2018): images of Cityscapes with synthetic fog, and the labels of Cityscapes."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dataset.base import SegmentationDataset
from dataset.cityscapes import Cityscapes
from dataset.reading import folder_in

_NAME = re.compile(r"(.+_\d+_\d+)_leftImg8bit_foggy(?:_beta_(\d+\.\d+))?")

log = logging.getLogger("bafft")


class FoggyCityscapes(Cityscapes):
    """`leftImg8bit_foggy/SPLIT/CITY/NAME_leftImg8bit_foggy_beta_B.png` with the `gtFine` folder of Cityscapes.

    The images may also be in `leftImg8bit/`. The download has each frame with several attenuation coefficients B. Only
    the largest, the densest fog, is used (0.02; our choice), unless a list names another one for a frame. Masks are
    named like those of Cityscapes.
    """

    layout = (
        "leftImg8bit_foggy/SPLIT/CITY/NAME_leftImg8bit_foggy_beta_0.02.png and "
        "gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png"
    )
    image_folders = ("leftImg8bit_foggy", "leftImg8bit")

    def find_names(self, split: str) -> list[str]:
        names = super().find_names(split)
        densest = {_frame(name): name for name in sorted(names, key=_beta)}
        thinner = sorted(set(names) - set(densest.values()))
        if thinner:
            log.info("%s: passed over %d images with thinner fog, first %s", self.root, len(thinner), thinner[0])
        return sorted(densest.values())

    def image_folder(self, split: str) -> Path:
        found = (folder_in(self.root, folder) for folder in self.image_folders)
        first = next((folder for folder in found if folder is not None), None)
        if first is None:
            return self.root if self.flat else self.root / self.image_folders[0] / split
        return first / split

    def refusal(self, name: str) -> str | None:
        return None if _match(name) else "its name does not end in _leftImg8bit_foggy_beta_B.png"

    @classmethod
    def spellings(cls, name: str) -> Iterator[str]:
        """The key as listed: the name of the frame does not say which of its images is meant."""
        return SegmentationDataset.spellings(name)

    def label_path(self, name: str) -> Path:
        return self.label_of_frame(name, _frame(name)) if _match(name) else super().label_path(name)

    @staticmethod
    def key(name: str) -> str:
        return f"{_frame(name)}_leftImg8bit" if _match(name) else Cityscapes.key(name)


def _match(name: str) -> re.Match[str] | None:
    return _NAME.fullmatch(PurePosixPath(name).stem)


def _frame(name: str) -> str:
    """CITY_SEQUENCE_FRAME of an image; any other name is returned as it is."""
    match = _match(name)
    return name if match is None else match[1]


def _beta(name: str) -> float:
    match = _match(name)
    return float(match[2] or 0) if match else 0.0
