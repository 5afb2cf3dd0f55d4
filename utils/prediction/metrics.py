"""IoU from one integer confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dataset.classes import IGNORE, ClassTable
from utils.system.errors import UserError

Map = npt.NDArray[Any] | torch.Tensor


class ConfusionMatrix:
    """Counts of pixels by true and predicted class, over any number of images.

    If masks hold other ids, a pixel may also be predicted as none of the classes: it counts as missed, as in the
    official Cityscapes evaluation.

    Raises ValueError if prediction and label have different shapes or are not integers, and UserError for an id outside
    the classes (pixels whose label is `ignore` may have any prediction).
    """

    def __init__(self, num_classes: int, ignore: int = IGNORE) -> None:
        if num_classes < 2 or 0 <= ignore < num_classes:
            raise ValueError(f"{num_classes} classes with ignore label {ignore}")
        self.num_classes = num_classes
        self.ignore = ignore
        self.images = 0  # set by the caller
        self._counts = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)  # last column: no class

    def update(self, pred: Map, label: Map) -> None:
        """Count every pixel once. pred, label: integer maps of the same shape, NumPy or torch, on any device.

        The counts stay on the device of the predictions until they are read.
        """
        pred, label = torch.as_tensor(pred), torch.as_tensor(label)
        if pred.shape != label.shape:
            raise ValueError(f"prediction of shape {tuple(pred.shape)}, label of shape {tuple(label.shape)}")
        if pred.is_floating_point() or label.is_floating_point():
            raise ValueError(f"maps of integers expected, got {pred.dtype} and {label.dtype}")
        label = label.to(pred.device)
        valid = label != self.ignore
        truth, guess = label[valid].long(), pred[valid].long()
        self._check(truth, "label")
        self._check(guess, "prediction")
        size = self.num_classes
        counts = torch.bincount(truth * size + guess, minlength=size * size).reshape(size, size)
        self.add(torch.nn.functional.pad(counts, (0, 1)))

    def add(self, counts: Map) -> None:
        """Add pixel counts [C, C + 1]: rows the truth, columns the prediction, the last one no class."""
        counts = torch.as_tensor(counts)
        self._counts = self._counts.to(counts.device) + counts

    def _check(self, ids: torch.Tensor, kind: str) -> None:
        if not ids.numel():
            return
        low, high = (int(value) for value in torch.aminmax(ids))
        if low < 0 or high >= self.num_classes:
            raise UserError(
                f"{kind}: id {low if low < 0 else high} found, expected train ids 0 to "
                f"{self.num_classes - 1}: check the number of classes, and that the masks hold train ids"
            )

    @property
    def matrix(self) -> npt.NDArray[np.int64]:
        """Pixel counts [C, C], rows the truth, columns the prediction."""
        return self._counts[:, :-1].cpu().numpy()

    @property
    def no_class(self) -> npt.NDArray[np.int64]:
        """Pixels [C] of each true class that were predicted as no class."""
        return self._counts[:, -1].cpu().numpy()

    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union [C], 0 to 1; nan for a class that is in neither truth nor prediction."""
        matrix = self.matrix
        hit = np.diag(matrix).astype(np.float64)
        union = matrix.sum(0) + matrix.sum(1) + self.no_class - np.diag(matrix)
        return np.divide(hit, union, out=np.full(self.num_classes, np.nan), where=union > 0)

    def present(self) -> npt.NDArray[np.bool_]:
        """Which classes [C] are in truth or prediction."""
        return ~np.isnan(self.iou())

    def f1(self) -> npt.NDArray[np.float64]:
        """F1 score (Dice) [C], 0 to 1; nan for a class that is in neither truth nor prediction."""
        iou = self.iou()
        return 2 * iou / (1 + iou)

    def mean(self, ids: Sequence[int] | None = None) -> float:
        """Mean IoU (0 to 1) over the classes `ids` (default: all), without absent ones; nan if all are absent."""
        iou = self.iou() if ids is None else self.iou()[list(ids)]
        present = iou[~np.isnan(iou)]
        return float(present.mean()) if present.size else float("nan")

    def averaged(self, table: ClassTable) -> dict[str, int]:
        """The number of classes in the mean of each class set: those that are in truth or prediction."""
        present = self.present()
        return {name: int(present[list(ids)].sum()) for name, ids in table.subsets.items()}

    def as_dict(self, table: ClassTable) -> dict[str, Any]:
        """For JSON: class names, IoU by name, means by class set (0 to 1, None if absent), the classes of each set, the
        number of classes in its mean, the matrix, and the pixels predicted as no class; also F1 by name, if the table
        lists classes for it."""
        iou, f1 = self._iou_of(table), self.f1()
        return {
            "classes": list(table.names),
            "iou": {name: number_or_none(value) for name, value in zip(table.names, iou, strict=True)},
            "means": {name: number_or_none(self.mean(ids)) for name, ids in table.subsets.items()},
            "class_sets": {name: [table.names[i] for i in ids] for name, ids in table.subsets.items()},
            "averaged": self.averaged(table),
            **({"f1": {table.names[i]: number_or_none(f1[i]) for i in table.f1}} if table.f1 else {}),
            "confusion": self.matrix.tolist(),
            "no_class": self.no_class.tolist(),
        }

    def table(self, table: ClassTable) -> str:
        """IoU per class, the mean over each class set, and F1 if the table lists classes for it, in percent, one per
        line, with a note if classes of a set are absent. Then the classes that the smaller sets leave out, and the
        number of pixels predicted as no class."""
        rows = list(zip(table.names, self._iou_of(table), strict=True))
        averaged, notes = self.averaged(table), {}
        for name, ids in table.subsets.items():
            title, number = f"mean of {name} classes", averaged[name]
            rows.append((title, self.mean(ids)))
            notes[title] = f"  (over {number} of {len(ids)}, the others are absent)" if 0 < number < len(ids) else ""
        rows += [(f"F1 of {table.names[i]}", self.f1()[i]) for i in table.f1]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {_percent(value):>6}{notes.get(name, '')}" for name, value in rows]
        for name, ids in table.subsets.items():
            left_out = [other for i, other in enumerate(table.names) if i not in ids]
            lines += [f"{name} classes: all but {', '.join(left_out)}"] if left_out else []
        missed, total = int(self.no_class.sum()), int(self._counts.sum())
        if missed:
            lines.append(f"predicted as no class, counted as missed: {missed} pixels ({100 * missed / total:.2f} %)")
        return "\n".join(lines)

    def _iou_of(self, table: ClassTable) -> npt.NDArray[np.float64]:
        if table.num_classes != self.num_classes:
            raise ValueError(f"{table.name} has {table.num_classes} classes, the matrix {self.num_classes}")
        return self.iou()


def number_or_none(value: float) -> float | None:
    """For JSON, which has no nan."""
    return None if np.isnan(value) else float(value)


def _percent(value: float) -> str:
    return "absent" if np.isnan(value) else f"{100 * value:.2f}"
