"""The pairs of real domains that `bench/real.py` trains on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Arguments = tuple[str, ...]

# The learning rate of every arm at a source step, as a share of that at step 0: (1 - step / total)^POWER.
POWER = 0.9


@dataclass(frozen=True)
class Schedule:
    """Source steps of every arm.

    Before any adaptation, an arm trains on the source for `start` steps, or for `early` if it starts early. If the
    paper's stage 2 follows, the next `align` steps are those of stage 1.
    """

    total: int
    start: int
    early: int
    align: int

    def decay(self, step: int) -> float:
        """The learning rate at a source step, as a share of the first."""
        return (1 - step / self.total) ** POWER


@dataclass(frozen=True)
class Sizes:
    """Width and height of source and target images, and of the random crops that are trained on, if any."""

    source: str
    target: str
    crop: str | None = None

    @property
    def training(self) -> Arguments:
        crop = () if self.crop is None else ("--crop", self.crop)
        return ("--input-size", self.source, "--input-size-target", self.target, *crop)


@dataclass(frozen=True)
class Pair:
    """Arguments of the scripts.

    large: sizes of the arms that learn from crops of larger images, at about the same cost per step.
    source_test: in place of `target` to score the source's validation images; empty if there are none.
    restyled: in place of `source` for source images of CycleGAN in the folder {restyled}; empty: no such arms.
    prepare: makes what the data lack, given their folder and one to write into, which {made} stands for.
    """

    title: str
    schedule: Schedule
    preset: str
    target: Arguments
    source: Arguments
    sizes: Sizes
    large: Sizes
    classes: Arguments = ()
    source_test: Arguments = ()
    restyled: Arguments = ()
    prepare: Callable[[Path, Path], None] | None = None


def camvid_in_classes_of_carla(data: Path, made: Path) -> None:
    """CamVid by day as a target for CARLA: its training images, and its validation images with labels.

    Terrain and wall do not occur; signs and cyclists, which CARLA has no class for, are ignored.
    """
    table = np.full(256, 255, np.uint8)
    table[[0, 1, 2, 3, 4, 5, 7, 8, 9]] = [8, 2, 5, 0, 1, 6, 4, 10, 9]
    folder = made / "camvid_as_carla"
    for part, names in (("train", "train_day.txt"), ("val", "val_day.txt")):
        lines = (data / "CamVid" / names).read_text().split()
        for name in lines:
            image, label = folder / "images" / f"{name}.jpg", folder / "labels" / f"{name}.png"
            for path in (image, label):
                path.parent.mkdir(parents=True, exist_ok=True)
            if label.exists():
                continue
            image.symlink_to(data / "CamVid" / f"{name}.jpg")
            ids = np.asarray(Image.open(data / "CamVid" / f"{name.replace('/', 'annot/')}.png"))
            Image.fromarray(table[ids]).save(label)
        (folder / f"{part}.txt").write_text("".join(f"{name}.jpg\n" for name in lines))


CARLA: dict[str, Any] = {
    "preset": "own_images",
    "classes": ("--classes", "{data}/carla/classes.yaml"),
    "source": ("--source", "folder:{data}/carla"),
    "source_test": ("--target", "folder:{data}/carla"),
}

PAIRS = {
    "carla_to_camvid": Pair(
        "CARLA -> CamVid by day, on whose labels the parts of `--method plus` were chosen",
        Schedule(total=2000, start=1200, early=500, align=300),
        **CARLA,
        target=("--target", "folder:{made}/camvid_as_carla"),
        sizes=Sizes("320,240", "320,240"),
        large=Sizes("480,360", "480,360", crop="320,240"),
        prepare=camvid_in_classes_of_carla,
    ),
    "carla_to_cityscapes": Pair(
        "CARLA -> Cityscapes (256)",
        Schedule(total=3000, start=1500, early=750, align=500),
        **CARLA,
        target=("--target", "folder:{data}/cityscapes256"),
        sizes=Sizes("320,240", "320,160"),
        large=Sizes("512,384", "512,256", crop="320,192"),
        restyled=(
            *("--source", "folder", "--data-dir", "{restyled}", "--data-dir-labels", "{data}/carla"),
            *("--data-list", "{data}/carla/train.txt"),
        ),
    ),
    "camvid_to_idd": Pair(
        "CamVid -> India Driving Dataset",
        Schedule(total=2000, start=1000, early=500, align=400),
        preset="own_images",
        classes=("--classes", "{data}/idd/classes.yaml"),
        target=("--target", "folder:{data}/idd"),
        source=(
            *("--source", "folder", "--data-dir", "{data}/CamVid/train"),
            *("--data-dir-labels", "{data}/camvid_as_idd/labels", "--data-list", "{data}/camvid_as_idd/train.txt"),
        ),
        sizes=Sizes("320,240", "320,224"),
        large=Sizes("480,360", "480,336", crop="320,224"),
    ),
    "camvid_day_to_dusk": Pair(
        "CamVid day -> dusk",
        Schedule(total=2000, start=1000, early=500, align=400),
        preset="camvid_day_to_dusk",
        target=("--data-dir-target", "{data}/CamVid"),
        source=("--data-dir", "{data}/CamVid"),
        sizes=Sizes("320,240", "320,240"),
        large=Sizes("480,360", "480,360", crop="320,240"),
        source_test=("--data-dir-target", "{data}/CamVid", "--data-list-target-test", "val_day.txt"),
    ),
}
