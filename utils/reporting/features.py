"""Class centroids and instances of both domains in feature space, and a map of them in two dimensions."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch

from dataset.base import SegmentationDataset
from model.networks.deeplab import DeepLab
from model.networks.upsampling import at_size
from model.terms.memory import correct_labels
from model.terms.regions import ClassSplit, LabelMaps, Regions, pool_regions
from utils.reporting.passes import passes
from utils.system.files import write_bytes
from utils.system.transfer import to_host

IMAGES = 24  # of each domain
MOST = 200  # centroids of each domain, and instances
BEFORE, AFTER = "features_before.npz", "features_after.npz"


@dataclass(frozen=True)
class Points:
    """Mean features of regions. vectors: [N, D] float32; classes: [N] train ids; target: [N] bool, true for the target
    domain; instance: [N] bool, true for an instance of a thing class (otherwise, the centroid of a class in an image);
    layout: [N, 2] float32, positions on a map (`layout`), if computed."""

    vectors: npt.NDArray[np.float32]
    classes: npt.NDArray[np.uint8]
    target: npt.NDArray[np.bool_]
    instance: npt.NDArray[np.bool_]
    layout: npt.NDArray[np.float32] | None = None


@torch.inference_mode()
def points(
    segmenter: DeepLab,
    source: SegmentationDataset,
    target: SegmentationDataset,
    split: ClassSplit,
    *,
    amp: str = "off",
    images: int = IMAGES,
) -> Points:
    """Centroids and instances of the classes in `images` images of each domain, spread evenly over it.

    As in the source memory, source regions hold the pixels that are predicted correctly. Target regions are those of
    the predictions, so that no target label is used. At most `MOST` centroids and `MOST` instances per domain.
    """
    found = [
        _of_domain(segmenter, data, split, amp, images, number == 1) for number, data in enumerate((source, target))
    ]
    vectors, classes, instance = (np.concatenate(parts) for parts in zip(*found))
    is_target = np.repeat([False, True], [len(part[1]) for part in found])
    return Points(vectors, classes, is_target, instance)


_Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], npt.NDArray[np.bool_]]


def _of_domain(
    segmenter: DeepLab, dataset: SegmentationDataset, split: ClassSplit, amp: str, images: int, predicted: bool
) -> _Found:
    parts = []
    for sample, maps, found in passes(segmenter, dataset, images, amp):
        logits = at_size(found, maps.shape[2:])
        if predicted:
            labels = logits.argmax(1)
        else:
            labels = correct_labels(logits, sample["label"][None].to(logits.device))
        parts.append(_flat(pool_regions(maps, LabelMaps(labels), split)[0], split))
    vectors, classes, instance = (np.concatenate(part) for part in zip(*parts))
    groups = [np.flatnonzero(instance == kind) for kind in (False, True)]
    kept = np.concatenate([group[:: max(1, -(-len(group) // MOST))] for group in groups])
    return vectors[kept], classes[kept], instance[kept]


def _flat(regions: Regions, split: ClassSplit) -> _Found:
    """The centroids of the classes that are present in an image, then its instances."""
    present, is_instance = to_host(regions.present), to_host(regions.is_instance)
    things = np.repeat(np.array(split.things, np.uint8)[:, None], is_instance.shape[1], 1)
    vectors = [to_host(regions.centroids)[present], to_host(regions.instances)[is_instance]]
    classes = [np.flatnonzero(present).astype(np.uint8), things[is_instance]]
    instance = np.repeat([False, True], [len(part) for part in classes])
    return np.concatenate(vectors).astype(np.float32), np.concatenate(classes), instance


def has_layout() -> bool:
    """Whether scikit-learn, which computes the layout, is installed."""
    try:
        import sklearn.manifold  # noqa: F401
    except ImportError:
        return False
    return True


def layout(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Positions [N, 2] of vectors [N, D] by t-SNE (van der Maaten and Hinton 2008) on L1 distances, as in matching; the
    same vectors always give the same positions. Needs scikit-learn."""
    from sklearn.manifold import TSNE

    # Equal vectors share a position, and vectors that are not finite get the middle: t-SNE could crash on them.
    vectors = np.nan_to_num(vectors, nan=0.0, posinf=0.0, neginf=0.0)
    distinct, number = np.unique(vectors, axis=0, return_inverse=True)
    if len(distinct) < 4:
        places = np.stack([np.arange(len(distinct)), np.zeros(len(distinct))], 1)
    else:
        largest = max(float(np.abs(distinct).max()), 1e-30)
        perplexity = min(30.0, (len(distinct) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, metric="manhattan", init="random", random_state=0)
        places = tsne.fit_transform(distinct / largest)
    return places.astype(np.float32)[number.reshape(-1)]


def save(path: Path, found: Points, *, placed: bool = True) -> None:
    """Write the points; placed: with their layout, which takes seconds, if scikit-learn is installed."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "vectors": found.vectors,
        "classes": found.classes,
        "target": found.target,
        "instance": found.instance,
    }
    if placed and has_layout():
        arrays["layout"] = layout(found.vectors)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # the stubs take them for allow_pickle
    write_bytes(path, content.getvalue())


def load(path: Path, *, place: bool = True) -> Points | None:
    """The points in a file of `save`, with their layout if the file has it, or if `place` is True and it can be
    computed; None if there is no such file."""
    try:
        with np.load(path) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        vectors = found.pop("vectors")
        if place and "layout" not in found and has_layout():
            found["layout"] = layout(vectors)
        return Points(vectors, **found)
    except (OSError, EOFError, BadZipFile, ValueError, KeyError, TypeError):
        return None
