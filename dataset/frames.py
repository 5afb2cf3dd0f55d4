"""Data sets whose files of one frame share the beginning of their names: the image, its labels and its predictions."""

from __future__ import annotations

import re
from pathlib import Path

from dataset.base import SegmentationDataset
from dataset.labels import TRAIN_ID_END


class FrameNames(SegmentationDataset):
    """The key of a label or a prediction is the name of its image: the frame, followed by `image_end`."""

    image_end: str
    frame: re.Pattern[str]
    """The beginning of a name that all files of one frame share."""

    @classmethod
    def label_key(cls, path: Path, folder: Path) -> str | None:
        stem = super().label_key(path, folder)
        return None if stem is None else stem + cls.image_end

    @classmethod
    def train_id_key(cls, path: Path, folder: Path) -> str | None:
        """The key of `NAME_labelTrainIds.png`, as the official scripts write it."""
        return cls.label_key(path, folder) if path.stem.endswith(TRAIN_ID_END) else None

    @classmethod
    def prediction_key(cls, path: Path, folder: Path) -> str | None:
        """The key of any name that begins with a frame's, as in the official evaluation, except coloured masks."""
        if path.stem.endswith("_color"):
            return None
        name = cls.frame.match(path.stem)
        return path.stem if name is None else name[0] + cls.image_end
