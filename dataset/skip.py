"""`--skip-bad-images`: samples of a data set without those that cannot be read."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from dataset.base import SegmentationDataset
from utils.system.errors import UserError, one_line

TRIES = 100


class Replacing(Dataset[dict[str, Any]]):
    """For training: the next good sample of the list replaces a bad one, with the running number (and therefore the
    augmentation) of the bad one.

    There is no state, so a resumed run draws the same samples. Samples have "skipped", the reasons, one per line.
    Raises UserError if 100 samples in a row, or all, are bad.
    """

    def __init__(self, data: SegmentationDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: tuple[int, int]) -> dict[str, Any]:
        position, number = index
        reasons: list[str] = []
        for _ in range(min(TRIES, len(self))):
            try:
                return {**self.data[position, number], "skipped": "\n".join(reasons)}
            except UserError as error:
                reasons.append(one_line(error))
            position = (position + 1) % len(self)
        raise UserError(f"{self.data.root}: {len(reasons)} bad images in a row, too many to skip; first {reasons[0]}")


class LeavingOut(Dataset[dict[str, Any]]):
    """For prediction: a bad sample has only its "name", and the reason as "skipped"."""

    def __init__(self, data: SegmentationDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            return self.data[index]
        except UserError as error:
            return {"name": self.data.names[index], "skipped": one_line(error)}
