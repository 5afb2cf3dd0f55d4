"""Writes the built-in benchmark to disk, never half-written, in the layouts of GTA5 and Cityscapes."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.system.errors import UserError
from utils.system.files import staged, write_json

from .domains import CAMERA, GAME, Domain
from .render import Image, draw, grade
from .scene import compose

GENERATOR_VERSION = 2  # raise it when the same parameters give other pictures
MANIFEST = "manifest.json"
TREES = ("gta5_deeplab", "Cityscapes")
SMALLEST, LARGEST = (64, 32), (4096, 4096)
MOST_IMAGES = 99_999  # of a part: their names have five digits
CITIES = {"train": ("northfield", "southport"), "val": ("middleton",)}  # invented: no real city is shown
STREAMS = {"source": 0, "train": 1, "val": 2}

log = logging.getLogger("bafft")


@dataclass(frozen=True)
class Parameters:
    """What determines the benchmark: seed, (width, height) of all images, number of images of each part."""

    seed: int = 0
    size: tuple[int, int] = (256, 128)
    source: int = 400
    target_train: int = 400
    target_val: int = 80

    def check(self) -> None:
        """Raises UserError if a value is out of range."""
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed: found {self.seed}, expected 0 to {2**32 - 1}; choose another seed")
        if any(not low <= side <= high for low, side, high in zip(SMALLEST, self.size, LARGEST)):
            found, least, most = (f"{width},{height}" for width, height in (self.size, SMALLEST, LARGEST))
            raise UserError(f"--size: found {found}, expected {least} to {most}; choose another size")
        for name in ("source", "target_train", "target_val"):
            if not 1 <= getattr(self, name) <= MOST_IMAGES:
                flag = "--" + name.replace("_", "-")
                raise UserError(
                    f"{flag}: found {getattr(self, name)}, expected 1 to {MOST_IMAGES} images; choose another number"
                )

    def manifest(self) -> dict[str, object]:
        """The contents of the manifest of a finished benchmark."""
        return {"generator": "builtin", "version": GENERATOR_VERSION, **asdict(self), "size": list(self.size)}


def draw_example(domain: Domain, size: tuple[int, int], entropy: tuple[int, ...]) -> tuple[Image, Image]:
    """One image [H, W, 3] (RGB) and its raw Cityscapes label ids [H, W]; both depend only on `entropy`."""
    layout_rng, pixel_rng = (np.random.default_rng([*entropy, part]) for part in (0, 1))
    scene = compose(domain, size, layout_rng)
    image, labels = draw(scene, domain, pixel_rng)
    return grade(image, labels, domain, pixel_rng), labels


def _files(parameters: Parameters) -> Iterator[tuple[str, Domain, int, str, str]]:
    """(part, domain, index, image path, label path) of every example, paths relative to the root."""
    for index in range(parameters.source):
        name = f"{index + 1:05d}.png"
        yield "source", GAME, index, f"gta5_deeplab/images/{name}", f"gta5_deeplab/labels/{name}"
    for split, count in (("train", parameters.target_train), ("val", parameters.target_val)):
        cities = CITIES[split]
        for index in range(count):
            city = cities[index % len(cities)]
            stem = f"{split}/{city}/{city}_{index // len(cities):06d}_000019"
            image = f"Cityscapes/leftImg8bit/{stem}_leftImg8bit.png"
            yield split, CAMERA, index, image, f"Cityscapes/gtFine/{stem}_gtFine_labelIds.png"


def _write_trees(root: Path, parameters: Parameters) -> None:
    for part, domain, index, image_path, label_path in _files(parameters):
        image, labels = draw_example(domain, parameters.size, (parameters.seed, STREAMS[part], index))
        for path, pixels in ((root / image_path, image[..., ::-1]), (root / label_path, labels)):
            path.parent.mkdir(parents=True, exist_ok=True)
            encoded = cv2.imencode(".png", pixels)[1]
            path.write_bytes(encoded.tobytes())


def _read_manifest(root: Path) -> dict[str, object] | None:
    """The manifest at `root`, or None if there is none."""
    try:
        manifest = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("generator") == "builtin" else None


def _is_complete(root: Path, parameters: Parameters) -> bool:
    """Whether `root` holds this benchmark, as far as the manifest and the folders show it."""
    return _read_manifest(root) == parameters.manifest() and all((root / tree).is_dir() for tree in TREES)


def write_benchmark(
    root: str | Path,
    *,
    seed: int = 0,
    size: tuple[int, int] = (256, 128),
    source: int = 400,
    target_train: int = 400,
    target_val: int = 80,
) -> None:
    """Write both domains below `root`: the source in `gta5_deeplab/`, the target in `Cityscapes/`.

    `size` is (width, height) in pixels. Labels are raw Cityscapes ids. Does nothing if `root` already holds the same
    benchmark, and replaces another built-in benchmark. The folders appear only when they are complete, `manifest.json`
    last. Raises UserError if a value is out of range, or if `root` holds other data or cannot be written.
    """
    root = Path(root)
    parameters = Parameters(seed, (int(size[0]), int(size[1])), source, target_train, target_val)
    parameters.check()
    if _is_complete(root, parameters):
        log.info("built-in benchmark: %s is up to date", root)
        return
    found = _read_manifest(root)
    foreign = [tree for tree in TREES if (root / tree).exists()]
    if found is None and (foreign or (root.exists() and not root.is_dir())):
        what = f"{foreign[0]}/ without the manifest of the built-in benchmark" if foreign else "a file"
        raise UserError(f"{root}: found {what}, expected an empty or new folder; choose another one or move it away")
    if found is not None:
        log.info("built-in benchmark: %s is incomplete or was made with other parameters; making it again", root)
    with staged(root) as partial:
        _write_trees(partial, parameters)
        drawn = _is_complete(root, parameters)  # meanwhile, by another process, which may be reading it
        if not drawn:
            write_json(root / MANIFEST, {"generator": "builtin", "complete": False})
        for tree in TREES:
            shutil.rmtree((partial if drawn else root) / tree, ignore_errors=True)
    write_json(root / MANIFEST, parameters.manifest())
    log.info("built-in benchmark: wrote %d + %d + %d images to %s", source, target_train, target_val, root)
