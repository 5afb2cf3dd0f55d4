"""What `predict.py` writes: ids, colours, overlays with a legend and confidences, of images and of videos.

Every kind has its own folder, with the same subfolders as the inputs. An image gives one file of each kind. A video
gives a video for colours and for overlays; ids and confidences, which a lossy video would change, become a folder of
numbered frames. No file appears before it is complete, and files that exist need not be predicted again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dataset.classes import ClassTable, Colour, LabelMap, colorize
from dataset.tables import plain_values
from utils.prediction.any_size import Predicted
from utils.prediction.inputs import Clip, Still
from utils.system.background import Background
from utils.system.errors import UserError
from utils.system.files import make_folder, staged, write_bytes, write_image, write_json

KINDS = ("ids", "colours", "overlay", "confidence")
FILMED = ("colours", "overlay")  # kinds that become a video
NOTE = "predict.json"
CODEC, FILM = "mp4v", ".mp4"  # MPEG-4 Part 2, which OpenCV's wheels can write on every system
SHARE = 0.5  # of the colours in an overlay
QUALITY = 90  # of JPEG
Pixels = npt.NDArray[np.uint8]


@lru_cache
def legend(names: tuple[str, ...], palette: tuple[Colour, ...], width: int) -> Pixels:
    """A strip [h, width, 3] with the colour and the name of every class, on white."""
    size = min(40, max(10, width // 50))
    font, gap = ImageFont.load_default(size), size // 2
    cell = round(max(font.getlength(name) for name in names)) + 2 * size + gap
    columns = max(1, width // cell)
    rows, line = -(-len(names) // columns), size + gap
    strip = Image.new("RGB", (width, rows * line + gap), "white")
    draw = ImageDraw.Draw(strip)
    for number, (name, colour) in enumerate(zip(names, palette, strict=True)):
        x, y = gap + number % columns * cell, gap + number // columns * line
        draw.rectangle((x, y, x + size, y + size), fill=colour, outline="black")
        draw.text((x + size + gap, y + size / 2), name, fill="black", font=font, anchor="lm")
    return np.asarray(strip)


def overlay(pixels: Pixels, labels: LabelMap, table: ClassTable) -> Pixels:
    """An image [H, W, 3] with the colours of its labels [H, W] over it, and the legend below."""
    colours = np.asarray(table.palette, np.uint8)[labels]
    mixed = cv2.addWeighted(pixels, 1 - SHARE, colours, SHARE, 0)
    return np.vstack([mixed.astype(np.uint8), legend(table.names, table.palette, pixels.shape[1])])


class Output:
    """A folder of predictions, all made by one checkpoint with the same settings.

    settings: everything else that the files depend on, as JSON. overwrite: replace what an earlier run wrote. Raises
    UserError if the folder holds the predictions of another checkpoint or of other settings.
    """

    def __init__(
        self, folder: Path, kinds: Collection[str], table: ClassTable, settings: dict[str, Any], *, overwrite: bool
    ) -> None:
        self._folder, self._kinds, self._table = folder, kinds, table
        note = folder / NOTE
        content = json.loads(
            json.dumps(settings | {"classes": plain_values(table), "write": [k for k in KINDS if k in kinds]})
        )
        if overwrite or not note.is_file():
            make_folder(folder)
            write_json(note, content)
        elif _without_place(_read(note)) != _without_place(content):
            raise UserError(
                f"--out: {folder} holds predictions of another checkpoint or with other settings ({note}); expected "
                f"the same: give another --out, or --overwrite to replace them"
            )
        self._since = note.stat().st_mtime_ns  # older files belong to a run that is being replaced

    def path(self, kind: str, key: str, suffix: str) -> Path:
        return self._folder / kind / f"{key}{suffix}"

    def has_still(self, still: Still) -> bool:
        """Whether all files of an image exist and are newer than the image."""
        since = still.path.stat().st_mtime_ns if still.path.exists() else 0
        return all(self._fresh(self.path(kind, still.key, _ending(kind)), since) for kind in self._kinds)

    def has_film(self, key: str, source: Path) -> bool:
        """Whether a video is complete; its films appear last."""
        films, since = [kind for kind in FILMED if kind in self._kinds], source.stat().st_mtime_ns
        return bool(films) and all(self._fresh(self.path(kind, key, FILM), since) for kind in films)

    def write_still(self, still: Still, pixels: Pixels, predicted: Predicted) -> None:
        self._write(still.key, predicted, [kind for kind in KINDS if kind in self._kinds], pixels)

    @contextmanager
    def film(self, key: str, clip: Clip, since: int = 0) -> Iterator[Film]:
        """A context that takes the frames of a video; its films appear when the block ends without an error.

        since: nanoseconds at which the video was last changed; older frames do not belong to it.
        """
        with ExitStack() as stack:
            scratch: dict[str, Path] = {}
            for kind in FILMED:
                if kind in self._kinds:
                    path = self.path(kind, key, FILM)
                    scratch[kind] = stack.enter_context(staged(path.parent)) / path.name
            film = Film(self, key, clip, scratch, since)
            with Background() as background:
                film.background = background
                yield film
            film.finish()

    def write_frame(self, key: str, number: int, predicted: Predicted) -> None:
        kinds = [kind for kind in KINDS if kind in self._kinds and kind not in FILMED]
        self._write(f"{key}/{number:06d}", predicted, kinds)

    def read_frame(self, key: str, number: int, since: int) -> Predicted | None:
        """A frame that an earlier run has written; None if there is none, or if frames are not kept."""
        if "ids" not in self._kinds:
            return None
        found = []
        for kind in ("ids", "confidence"):
            path = self.path(kind, f"{key}/{number:06d}", ".png")
            if kind in self._kinds and not self._fresh(path, since):
                return None
            if kind in self._kinds:
                with Image.open(path) as image:
                    found.append(np.array(image))
        return Predicted(*found)

    def colours(self, labels: LabelMap) -> Pixels:
        return np.asarray(self._table.palette, np.uint8)[labels]

    def overlay(self, pixels: Pixels, labels: LabelMap) -> Pixels:
        return overlay(pixels, labels, self._table)

    def _write(self, key: str, predicted: Predicted, kinds: Collection[str], pixels: Pixels | None = None) -> None:
        for kind in kinds:
            path = self.path(kind, key, _ending(kind))
            if kind == "overlay":
                assert pixels is not None
                encoded = BytesIO()
                Image.fromarray(self.overlay(pixels, predicted.labels)).save(encoded, "JPEG", quality=QUALITY)
                write_bytes(path, encoded.getvalue())
            elif kind == "colours":
                write_image(path, colorize(predicted.labels, self._table))
            else:
                values = predicted.labels if kind == "ids" else predicted.confidence
                write_image(path, Image.fromarray(np.asarray(values)))

    def _fresh(self, path: Path, since: int) -> bool:
        return path.is_file() and path.stat().st_mtime_ns >= max(since, self._since)


class Film:
    """The outputs of one video: films at the rate of the video, and frames.

    A camera's frame is shown until the next one is predicted, so that its film plays at the speed of the scene.
    """

    background: Background

    def __init__(self, output: Output, key: str, clip: Clip, scratch: dict[str, Path], since: int) -> None:
        self._output, self._key, self._clip, self._scratch, self._since = output, key, clip, scratch, since
        self._writers: dict[str, cv2.VideoWriter] = {}
        self._shown = self._frames = 0

    def stored(self, number: int) -> Predicted | None:
        """The frame of this number, if an earlier run has written it."""
        return self._output.read_frame(self._key, number, self._since)

    def add(self, pixels: Pixels, predicted: Predicted, *, seconds: float = 0.0, stored: bool = False) -> None:
        """Add the next frame. seconds: since the start of a camera; stored: its files exist already."""
        if not stored:
            self.background.run(self._output.write_frame, self._key, self._frames, predicted)
        self._frames += 1
        times = 1
        if self._clip.is_live:
            times = max(0, round(seconds * self._clip.rate) - self._shown)
        self._shown += times
        for kind, path in self._scratch.items():
            colours = kind == "colours"
            picture = (
                self._output.colours(predicted.labels) if colours else self._output.overlay(pixels, predicted.labels)
            )
            picture = _even(picture)
            if kind not in self._writers:
                self._writers[kind] = _writer(path, self._clip.rate, (picture.shape[1], picture.shape[0]))
            for _ in range(times):
                self._writers[kind].write(picture[:, :, ::-1])

    def finish(self) -> None:
        """Close the films. Raises UserError if one of them does not hold what was written to it."""
        for kind, writer in self._writers.items():
            writer.release()
            capture = cv2.VideoCapture(str(self._scratch[kind]))
            found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            capture.release()
            if found != self._shown:
                raise UserError(
                    f"{self._output.path(kind, self._key, FILM)}: {found} of {self._shown} frames could be "
                    f"written; make room on the disk, or choose another --out"
                )


def _writer(path: Path, rate: float, size: tuple[int, int]) -> cv2.VideoWriter:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*CODEC), rate, size)
    if not writer.isOpened():
        raise UserError(
            f"{path}: OpenCV cannot write a video with the codec {CODEC}; leave colours and overlay out of --write"
        )
    return writer


def _even(picture: Pixels) -> Pixels:
    """The picture with its last row or column doubled if their number is odd, as codecs need it."""
    height, width = picture.shape[:2]
    return np.ascontiguousarray(np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


def _ending(kind: str) -> str:
    return ".jpg" if kind == "overlay" else ".png"


def _read(note: Path) -> dict[str, Any]:
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    return content if isinstance(content, dict) else {}


def _without_place(content: dict[str, Any]) -> dict[str, Any]:
    """A note without the path of the checkpoint, because only its weights matter."""
    return {name: value for name, value in content.items() if name != "checkpoint"}
