"""Labels as the readers give them, for assertions."""

from __future__ import annotations

from pathlib import Path

from dataset.base import SegmentationDataset
from dataset.classes import IGNORE, ClassTable, LabelMap, to_train_ids


def train_ids(
    reader: type[SegmentationDataset], path: Path, ignore_label: int = IGNORE, table: ClassTable | None = None
) -> LabelMap:
    """The train ids [H, W] of a label file."""
    table = table or reader.table
    return to_train_ids(reader.label_ids(table), table.num_classes, ignore_label)[reader.decoder(table)(path)]
