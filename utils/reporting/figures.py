"""Pictures of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.base import SegmentationDataset
from dataset.classes import colorize
from dataset.reading import read_ids, read_image
from utils.system.files import write_atomically


def comparison(
    images: SegmentationDataset,
    names: Sequence[str],
    predictions: Mapping[str, Path],
    path: Path,
    *,
    with_data: bool = True,
) -> None:
    """A PNG with one row per image: target image, ground truth, then the masks of every prediction folder, with titles.

    images: labelled data set; names: which of its images; predictions: title -> folder of masks KEY.png. with_data:
    whether to show image and ground truth, which some data sets do not allow to be redistributed.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = [*(["target image", "ground truth"] if with_data else []), *predictions]
    width, height = images[images.names.index(names[0])]["size"]
    cell = (3.2, 3.2 * height / width)
    figure, axes = plt.subplots(
        len(names), len(titles), figsize=(cell[0] * len(titles), cell[1] * len(names) + 0.3), squeeze=False
    )
    for row, name in zip(axes, names, strict=True):
        sample = images[images.names.index(name)]
        truth = np.asarray(sample["label"])
        pictures = [read_image(images.image_path(name)), _coloured(truth, images)]
        for folder in predictions.values():
            mask = read_ids(folder / f"{images.key(name)}.png")
            pictures.append(_coloured(np.where(truth == images.ignore_label, truth, mask), images))
        for axis, picture in zip(row, pictures[-len(titles) :], strict=True):
            axis.imshow(picture, interpolation="nearest", aspect="equal")
            axis.set_axis_off()
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=11)
    figure.tight_layout(pad=0.3)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=100))
    plt.close(figure)


def _coloured(mask: np.ndarray, images: SegmentationDataset) -> Image.Image:
    return colorize(mask.astype(np.uint8), images.table, images.ignore_label).convert("RGB")
