"""From a label map and a feature map to class centroids and instances.

Everything is pooled by one matrix product per image: the masks of all classes and of all instances, as rows of zeros
and ones, times the features. Only the connected components are computed on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
import torch
from torch import Tensor

from utils.system.transfer import PendingCopy

MAX_INSTANCES = 10  # paper: the ten largest instances per class and image


@dataclass(frozen=True)
class ClassSplit:
    """Which train ids are stuff (matched by centroid) and which are things (matched by instance)."""

    num_classes: int
    stuff: tuple[int, ...]
    things: tuple[int, ...]

    def __post_init__(self) -> None:
        listed = self.stuff + self.things
        if len(set(listed)) != len(listed) or any(not 0 <= c < self.num_classes for c in listed):
            raise ValueError(
                f"stuff {self.stuff} and things {self.things} must be distinct ids below {self.num_classes}"
            )


@dataclass(frozen=True)
class Regions:
    """Mean features of the regions of one image.

    centroids: [C, D] float32, zero where the class is absent; present: [C] bool.
    instances: [T, R, D] float32 of the T thing classes, from large to small, zero beyond the last;
    is_instance: [T, R] bool. R is at least the largest number of instances of one class, and at most `MAX_INSTANCES`.
    """

    centroids: Tensor
    present: Tensor
    instances: Tensor
    is_instance: Tensor


def largest_components(labels: np.ndarray, things: tuple[int, ...], limit: int = MAX_INSTANCES) -> np.ndarray:
    """Number the largest 8-connected components of each thing class.

    labels: [h, w] integer train ids. Returns [h, w] int64: for each pixel of a component of the class `things[t]`,
    `t * limit + rank`, where the rank is by number of pixels, from large to small (equal sizes in raster order of their
    first pixel); -1 elsewhere. Paper: instance extraction; the rule for ties is our choice.
    """
    thing_of_id = np.zeros(max(256, int(labels.max(initial=0)) + 1), dtype=np.uint16)
    thing_of_id[list(things)] = np.arange(1, len(things) + 1)
    thing = thing_of_id[labels]
    components = cc3d.connected_components(thing, connectivity=8).ravel().astype(np.int64)
    sizes = np.bincount(components)
    first_pixel = np.zeros(len(sizes), dtype=np.int64)
    first_pixel[components[::-1]] = np.arange(components.size)[::-1]
    class_of = thing.ravel()[first_pixel].astype(np.int64) - 1

    order = np.lexsort((first_pixel, -sizes, class_of))
    order = order[class_of[order] >= 0]
    sorted_class = class_of[order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_class, sorted_class)
    kept = rank < limit
    number = np.full(len(sizes), -1, dtype=np.int64)
    number[order[kept]] = sorted_class[kept] * limit + rank[kept]
    return number[components].reshape(labels.shape)


class LabelMaps:
    """Label maps [B, h, w] of integer train ids; ids outside the classes belong to no region.

    Their copy to the CPU, where instances are numbered, starts at once, so that a device that gets other work meanwhile
    does not wait for it.
    """

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels
        self._copy = PendingCopy(labels.to(torch.uint8))

    def instances(self, split: ClassSplit, count: int | None = None) -> tuple[np.ndarray, int]:
        """Numbers `t * R + rank` [B, h, w] of the pixels of instances, -1 elsewhere; and R, the largest number of
        instances per class and image, or `count`."""
        numbers = np.stack([largest_components(image, split.things) for image in self._copy.wait()])
        if count is None:
            count = int((numbers % MAX_INSTANCES).max(initial=-1, where=numbers >= 0)) + 1
        return np.where(numbers >= 0, numbers // MAX_INSTANCES * count + numbers % MAX_INSTANCES, -1), count


def pool_regions(features: Tensor, maps: LabelMaps, split: ClassSplit) -> list[Regions]:
    """Pool every class and instance of every image of a batch; differentiable in `features` [B, D, h, w].

    Returns one `Regions` per image. On a GPU their shapes are the same for all images, so that its allocator and
    compiled or captured code see only one shape.
    """
    numbers, count = maps.instances(split, MAX_INSTANCES if features.is_cuda else None)
    upload = torch.from_numpy(numbers.astype(np.int16))
    if features.is_cuda:
        upload = upload.pin_memory()
    instance_maps = upload.to(features.device, non_blocking=True)
    with torch.autocast(features.device.type, enabled=False):
        return [
            _pool(image, label, instances, split, count)
            for image, label, instances in zip(features.float(), maps.labels, instance_maps, strict=True)
        ]


def _pool(features: Tensor, labels: Tensor, instances: Tensor, split: ClassSplit, count: int) -> Regions:
    rows = [_membership(labels, split.num_classes), _membership(instances, len(split.things) * count)]
    masks = torch.cat(rows).to(features.dtype)
    sizes = masks.sum(1)
    means = (masks @ features.flatten(1).T) / sizes.clamp_min(1)[:, None]
    centroids, inner = means.split([split.num_classes, len(split.things) * count])
    present, is_instance = (sizes > 0).split([split.num_classes, len(split.things) * count])
    shape = (len(split.things), count)
    return Regions(centroids, present, inner.view(*shape, means.shape[1]), is_instance.view(shape))


def _membership(ids: Tensor, number: int) -> Tensor:
    """[number, h*w] bool: row i marks the pixels of `ids` [h, w] that hold i."""
    return ids.flatten()[None] == torch.arange(number, device=ids.device, dtype=ids.dtype)[:, None]
