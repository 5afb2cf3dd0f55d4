"""What `predict.py` writes: ids, colours, overlays with a legend and confidences, of images and of videos.

Every kind has its own folder, with the same subfolders as the inputs. An image gives one file of each kind. A video
gives a video for colours and for overlays; ids and confidences, which a lossy video would change, become a folder of
numbered frames. No file appears before it is complete, and what was predicted from the same file is not predicted
again (`record.py`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dataset.classes import ClassTable, Colour, LabelMap, colorize
from dataset.reading import read_ids
from dataset.tables import plain_values
from utils.prediction.any_size import Predicted
from utils.prediction.inputs import KINDS, Camera, Clip, Still, Video, is_utf8, name_of
from utils.prediction.record import NAME as RECORD
from utils.prediction.record import Record
from utils.system.background import Background
from utils.system.errors import UserError, printable
from utils.system.files import make_folder, remove_leftovers, staged, write_bytes, write_image, write_json
from utils.system.logs import logger

FILMED = ("colours", "overlay")  # kinds that become a video
NOTE = "predict.json"
CODEC, FILM = "mp4v", ".mp4"  # MPEG-4 Part 2, which OpenCV's wheels can write on every system
SHARE = 0.5  # of the colours in an overlay
QUALITY = 90  # of JPEG
LARGEST = 65_500  # side of a JPEG in pixels
_LONG = 150  # characters of a setting that a message does not show
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

    settings: everything else that the files depend on, as JSON. overwrite: replace what an earlier run wrote. No other
    process may write to the folder: temporary files of killed runs are removed. Raises UserError if the folder holds
    the predictions of another checkpoint or of other settings.
    """

    def __init__(
        self, folder: Path, kinds: Collection[str], table: ClassTable, settings: dict[str, Any], *, overwrite: bool
    ) -> None:
        self._folder, self._kinds, self._table = folder, kinds, table
        note = folder / NOTE
        content = json.loads(
            json.dumps(settings | {"classes": plain_values(table), "write": [k for k in KINDS if k in kinds]})
        )
        make_folder(folder)
        if not _tidied(folder) or not note.is_file() or overwrite:
            (folder / RECORD).unlink(missing_ok=True)  # first: it belongs to the note that is being replaced
            write_json(note, content)
        else:
            different = _differences(_read(note), content)
            if different:
                raise UserError(
                    f"--out: {folder} holds predictions of another checkpoint or with other settings "
                    f"({'; '.join(different)}); expected the settings in {note}: give these, another --out, or "
                    f"--overwrite to replace the predictions"
                )
            if not (folder / RECORD).is_file():
                logger.info(
                    "attention: %s: the predictions there are of an earlier version, which did not record their "
                    "inputs; all inputs are predicted again",
                    folder,
                )
        self._record = Record(folder)

    def path(self, kind: str, key: str, suffix: str) -> Path:
        return self._folder / kind / f"{key}{suffix}"

    def has_still(self, still: Still) -> bool:
        """Whether all files of an image exist, and were made from it as it is now."""
        entry = self._record.known(still.key, still.path)
        done = entry is not None and entry.frames is not None
        return done and all(self.path(kind, still.key, _ending(kind)).is_file() for kind in self._kinds)

    def has_film(self, video: Video, most_frames: int | None = None) -> bool:
        """Whether all files of a video exist, were made from it as it is now, and have all of its first `most_frames`
        frames, or more."""
        entry = self._record.known(video.key, video.path)
        if entry is None or entry.frames is None:
            return False
        if not entry.whole and (most_frames is None or entry.frames < most_frames):
            return False
        films = [self.path(kind, video.key, FILM) for kind in FILMED if kind in self._kinds]
        frames = (
            self.path(kind, f"{video.key}/{number:06d}", ".png")
            for kind in self._frame_kinds()
            for number in range(entry.frames)
        )
        return all(path.is_file() for path in chain(films, frames))

    def check_size(self, still: Still, shape: Sequence[int]) -> None:
        """Raises UserError for an image [H, W, 3] whose overlay would be too large for a JPEG."""
        height, width = shape[:2]
        if "overlay" not in self._kinds:
            return
        if width <= LARGEST:  # the legend is below
            height += len(legend(self._table.names, self._table.palette, width))
        if max(height, width) > LARGEST:
            raise UserError(
                f"{name_of(still)}: an overlay of {width} x {height} pixels; expected at most {LARGEST} per side, "
                f"which a JPEG can hold: leave overlay out of --write"
            )

    def write_still(self, still: Still, pixels: Pixels, predicted: Predicted) -> None:
        self._record.start(still.key, still.path)
        self._write(still.key, predicted, [kind for kind in KINDS if kind in self._kinds], pixels)
        self._record.finish(still.key, still.path)

    @contextmanager
    def film(self, source: Video | Camera, clip: Clip, most_frames: int | None = None) -> Iterator[Film]:
        """A context that takes the frames of a video; its films appear when the block ends without an error.

        most_frames: how many frames are added at most, if the video has more.
        """
        key = source.key
        if isinstance(source, Video):
            if self._record.known(key, source.path) is None:
                self._remove_frames(key, 0)
            self._record.start(key, source.path)
        with ExitStack() as stack:
            scratch: dict[str, Path] = {}
            for kind in FILMED:
                if kind in self._kinds:
                    path = self.path(kind, key, FILM)
                    scratch[kind] = stack.enter_context(staged(path.parent)) / path.name
            film = Film(self, key, clip, scratch)
            with Background() as background:
                film.background = background
                yield film
            film.finish()
        if isinstance(source, Video):
            self._remove_frames(key, film.frames)
            whole = most_frames is None or film.frames < most_frames
            self._record.finish(key, source.path, film.frames, whole=whole)

    def write_frame(self, key: str, number: int, predicted: Predicted) -> None:
        self._write(f"{key}/{number:06d}", predicted, self._frame_kinds())

    def read_frame(self, key: str, number: int) -> Predicted | None:
        """A frame that an earlier run has written; None if it is missing or damaged, or if frames are not kept."""
        if "ids" not in self._kinds:
            return None
        try:
            paths = [self.path(kind, f"{key}/{number:06d}", ".png") for kind in self._frame_kinds()]
            return Predicted(*(read_ids(path, "frame") for path in paths))
        except UserError:
            return None

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

    def _frame_kinds(self) -> list[str]:
        """The kinds that become one file per frame of a video."""
        return [kind for kind in KINDS if kind in self._kinds and kind not in FILMED]

    def _remove_frames(self, key: str, start: int) -> None:
        """Remove the frames of a video from this number on, which a longer video has left."""
        for kind in self._frame_kinds():
            for path in self.path(kind, key, "").glob("*.png"):
                if re.fullmatch(r"\d{6,}", path.stem) and int(path.stem) >= start:
                    path.unlink()


class Film:
    """The outputs of one video: films at the rate of the video, and frames.

    A camera's frame is shown until the next one is predicted, so that its film plays at the speed of the scene.

    Attributes:
        frames: how many were added.
    """

    background: Background

    def __init__(self, output: Output, key: str, clip: Clip, scratch: dict[str, Path]) -> None:
        self._output, self._key, self._clip, self._scratch = output, key, clip, scratch
        self._writers: dict[str, cv2.VideoWriter] = {}
        self._shown = 0
        self.frames = 0

    def stored(self, number: int) -> Predicted | None:
        """The frame of this number, if an earlier run has written it."""
        return self._output.read_frame(self._key, number)

    def add(self, pixels: Pixels, predicted: Predicted, *, seconds: float = 0.0, stored: bool = False) -> None:
        """Add the next frame. seconds: since the start of a camera; stored: its files exist already."""
        if not stored:
            self.background.run(self._output.write_frame, self._key, self.frames, predicted)
        self.frames += 1
        times = 1
        if self._clip.is_live:
            times = max(0 if self._shown else 1, round(seconds * self._clip.rate) - self._shown)
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
    if not is_utf8(path):
        raise UserError(f"--out: {printable(str(path))}: a name that is not UTF-8, which OpenCV cannot open; rename it")
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


def _tidied(folder: Path) -> bool:
    """Remove the temporary files of killed runs. Returns whether the folder holds predictions."""
    remove_leftovers(folder)
    found = False
    for place, folders, names in chain.from_iterable(os.walk(folder / kind) for kind in KINDS):
        remove_leftovers(Path(place))
        folders[:] = [name for name in folders if not name.startswith(".")]
        found = found or not all(name.startswith(".") for name in names)
    return found


def _differences(there: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """The settings of two notes that differ, with both values. The path of the checkpoint does not count, because only
    its weights matter."""
    result = []
    for name in (name for name in {**given, **there} if name != "checkpoint"):
        if there.get(name) != given.get(name):
            old, new = (json.dumps(note.get(name)) for note in (there, given))
            result.append(f"{name}: {old} there, {new} given" if len(old + new) <= _LONG else f"other {name}")
    return result
