"""Restyled copies of a data set's images, in a folder that can be used instead of the data set's own."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from dataset.augment import Size, resized
from dataset.base import SegmentationDataset
from model.networks.translation import Generator, to_pixels, to_range
from utils.prediction.evaluation import in_order
from utils.system import distributed
from utils.system.background import Background
from utils.system.errors import UserError
from utils.system.files import make_folder, remove_leftovers, write_bytes, write_json
from utils.system.interrupt import shielded
from utils.system.logs import logger
from utils.system.precision import AMP_DTYPES
from utils.system.skipped import Skipped
from utils.system.transfer import to_host

NOTE = "restyled.json"
"""The file in the folder that says what its images were made with."""
JPEG_QUALITY = 95


class RestyledFolder:
    """The folder of the restyled images: every image has the same relative path as in the data set.

    identity: everything that all images depend on, as JSON. A stopped run continues if it is the same. Size and time of
    every source file are noted too: the image of a file that has changed is made again.
    """

    def __init__(self, folder: Path, images: SegmentationDataset, identity: dict[str, Any]) -> None:
        self.folder, self.images, self.identity = folder, images, identity
        self.paths = [self._place(images.image_path(name)) for name in images.names]

    def _place(self, image: Path) -> Path:
        """Raises UserError for a path outside of the folder, and for that of an image of the data set itself."""
        with suppress(ValueError):
            place = self.folder / image.relative_to(self.images.root)
            if not place.resolve().is_relative_to(self.folder.resolve()):
                raise UserError(f"{image}: lies outside of {self.images.root}; expected an image of that folder")
            if place.exists() and image.exists() and place.samefile(image):
                raise UserError(f"--out: {place} belongs to the data set, expected a folder outside it")
            return place
        raise UserError(f"{image}: lies outside of {self.images.root}; expected an image of that folder")

    def begin(self, *, overwrite: bool) -> None:
        """Write down the identity and the source files, and remove the images of files that have changed; if there are
        several processes, one does.

        Raises UserError if the folder holds images of another identity, unless it is to be overwritten.
        """
        note = self.folder / NOTE
        before: Any = None
        with suppress(OSError, ValueError):
            before = json.loads(note.read_text(encoding="utf-8"))
        noted = before.pop("files", {}) if isinstance(before, dict) else {}
        files = {name: _size_and_time(self.images.image_path(name)) for name in self.images.names}
        there = {name: path for name, path in zip(files, self.paths, strict=True) if path.exists()}
        if before != json.loads(json.dumps(self.identity)) or overwrite:
            if there and not overwrite:
                raise UserError(
                    f"--out: {next(iter(there.values()))} was made with other images, weights or options; expected a "
                    f"new folder, or that of a stopped run: choose another --out, or add --overwrite to replace its "
                    f"images"
                )
            old, noted = list(there.values()), {}
        else:  # images that are not noted were made by an earlier version, and stay
            old = [path for name, path in there.items() if noted.get(name, files[name]) != files[name]]
            if old:
                logger.info("%d images are made again, because their source files have changed", len(old))
        for path in old:
            path.unlink()
        make_folder(self.folder)
        write_json(note, {**self.identity, "files": noted | files})
        for parent in {path.parent for path in self.paths}:
            make_folder(parent)
            remove_leftovers(parent)

    def missing(self) -> list[int]:
        """The images of this process's share that do not exist yet, by their numbers."""
        return [number for number in distributed.share(range(len(self.paths))) if not self.paths[number].exists()]

    def write(self, number: int, pixels: np.ndarray, size: Size) -> None:
        """Save the restyled image [H, W, 3] uint8 at the native size of its original; never half-written."""
        path, content = self.paths[number], io.BytesIO()
        image = Image.fromarray(resized(pixels, size, Image.Resampling.BICUBIC))
        kind = Image.registered_extensions()[path.suffix.lower()]
        options = {"quality": JPEG_QUALITY, "subsampling": 0} if kind == "JPEG" else {}
        image.save(content, kind, **options)
        write_bytes(path, content.getvalue())


def _size_and_time(path: Path) -> list[int] | None:
    """What shows that a file has changed; None if it is missing."""
    found = path.stat() if path.is_file() else None
    return [found.st_size, found.st_mtime_ns] if found else None


@torch.inference_mode()
def restyle(generator: Generator, images: Tensor, amp: str = "off") -> Tensor:
    """uint8 RGB images [B, 3, H, W], restyled by the generator, in the same form."""
    dtype = AMP_DTYPES[amp]
    with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
        restyled = generator(to_range(images))
    return to_pixels(restyled).round().clamp(0, 255).to(torch.uint8)


def write_restyled(
    generator: Generator,
    folder: RestyledFolder,
    numbers: Sequence[int],
    *,
    amp: str = "off",
    num_workers: int = 0,
    skipped: Skipped | None = None,
) -> int:
    """Restyle the images of these numbers one by one, and return how many were written; bad ones go to `skipped`."""
    device = next(generator.parameters()).device
    generator.eval()
    written, bad = 0, Skipped() if skipped is None else skipped
    loader = in_order(folder.images, num_workers, device.type == "cuda", 1, numbers)
    with Background() as background, tqdm(total=len(numbers), desc="restyle", disable=distributed.no_bar()) as bar:
        for number, ((sample,), image) in zip(numbers, shielded(loader), strict=True):
            bar.update()
            if image is None:
                bad.add([sample["skipped"]])
                continue
            restyled = restyle(generator, image.to(device, non_blocking=True), amp)
            pixels = to_host(restyled[0].permute(1, 2, 0).contiguous())
            background.run(folder.write, number, pixels, sample["size"])
            written += 1
    return written
