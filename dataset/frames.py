"""Data sets whose files of one frame share the beginning of their names: the image, its labels and its predictions."""

from __future__ import annotations

import re
from pathlib import Path

from dataset.base import SegmentationDataset
from dataset.labels import TRAIN_ID_END


class FrameNames(SegmentationDataset):
    """Keys of labels and predictions are the names of their images: the frame, then `image_end`."""

    image_end: str
    frame: re.Pattern[str]
    """The part of a name that all files of a frame begin with."""

    @classmethod
    def label_key(cls, path: Path, folder: Path) -> str | None:
        stem = super().label_key(path, folder)
        return None if stem is None else stem + cls.image_end

    @classmethod
    def train_id_key(cls, path: Path, folder: Path) -> str | None:
        """Of `NAME_labelTrainIds.png`, as the official scripts write them."""
        return cls.label_key(path, folder) if path.stem.endswith(TRAIN_ID_END) else None

    @classmethod
    def prediction_key(cls, path: Path, folder: Path) -> str | None:
        """Of a frame's name with whatever follows, as in the official evaluation; coloured masks do not count."""
        if path.stem.endswith("_color"):
            return None
        name = cls.frame.match(path.stem)
        return path.stem if name is None else name[0] + cls.image_end
