"""The inputs of `predict.py` (images, folders, patterns, videos and cameras) and their frames, one after the other."""

from __future__ import annotations

import glob
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ImageOps

from dataset.reading import IMAGE_SUFFIXES, image_names, read_image
from utils.system.errors import UserError, fault, printable
from utils.system.logs import logger

STILLS = (*IMAGE_SUFFIXES, ".bmp", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
KINDS = ("ids", "colours", "overlay", "confidence")
"""What is written; each kind has its own folder below --out."""
CAMERA_RATE = 30.0  # frames per second of a camera that does not say
Pixels = npt.NDArray[np.uint8]
"""RGB [H, W, 3]."""


@dataclass(frozen=True)
class Still:
    """An image file. key: its name in the output, without an extension, as a path relative to the output folder."""

    path: Path
    key: str


@dataclass(frozen=True)
class Video:
    """A video file; `key` as for an image."""

    path: Path
    key: str


@dataclass(frozen=True)
class Camera:
    """A camera, by its number in OpenCV."""

    number: int
    key: str


Source = Still | Video | Camera


class Unreadable(UserError):
    """A video or camera that gives no frame."""


def find(inputs: Sequence[str], out: Path | None = None) -> list[Source]:
    """Everything that a command line names, in its order, and sorted within folders and patterns.

    A folder is searched with all folders below it, also linked ones, and the keys have its subfolders. Predictions that
    lie below `out`, the output folder, are left out if their names were not given. Keys of single files, also from
    patterns, are relative to the deepest folder that contains all of them. If two files have the same key, their
    extensions are added. Raises UserError for a name without a file, a folder or pattern without images and videos, or
    two inputs that would still be written to the same files.
    """
    written = [] if out is None else [Path(os.path.realpath(out / kind)) for kind in KINDS]
    found: list[Source] = []
    singles: list[Path] = []
    for text in inputs:
        path = Path(text)
        if not path.exists() and re.fullmatch(r"\d{1,3}", text):
            found.append(Camera(int(text), f"camera{text}_{time.strftime('%Y%m%d_%H%M%S')}"))
            continue
        named = _files(text)
        files = named if named == [path] else _without(named, written)
        if len(files) < len(named):
            logger.info("%s: %d predictions below --out are left out", printable(text), len(named) - len(files))
        if not files:
            raise UserError(
                f"{text}: no images or videos there; expected files that end in {', '.join((*STILLS, *VIDEOS))}"
            )
        if path.is_dir():
            folders = {file.relative_to(path).parts[0] for file in files}
            if {"images", "labels"} <= folders:
                logger.info(
                    "attention: %s: predicts what is in labels/ too; give %s for the images only", path, path / "images"
                )
            found += [_file(file, file.relative_to(path)) for file in files]
        else:
            singles += files
    if singles:
        places = [Path(os.path.abspath(path)) for path in singles]  # without "..", which would lead out of --out
        base = os.path.commonpath([place.parent for place in places])
        found += [_file(path, place.relative_to(base)) for path, place in zip(singles, places, strict=True)]
    return _with_own_keys(found)


def _files(text: str) -> list[Path]:
    """The files of a folder, a pattern or a single name, sorted."""
    path = Path(text)
    if path.is_dir():
        return [path / name for name in image_names(path, (*STILLS, *VIDEOS))]
    if not path.exists() and glob.has_magic(text):
        return sorted(file for file in map(Path, glob.glob(text, recursive=True)) if _is_wanted(file))
    reason = fault(path)
    if reason:
        raise UserError(
            f"{text}: {reason}; expected an image, a folder, a pattern in quotes, a video, or the number of a camera"
        )
    return [path]


def _is_wanted(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix.lower() in (*STILLS, *VIDEOS) and path.is_file()


def _without(files: list[Path], folders: Sequence[Path]) -> list[Path]:
    """The files that do not lie below any of the folders, which are absolute paths without links."""
    places = {file.parent: Path(os.path.realpath(file.parent)) for file in files}
    inside = {parent for parent, place in places.items() if any(place.is_relative_to(folder) for folder in folders)}
    return [file for file in files if file.parent not in inside]


def _file(path: Path, name: Path) -> Still | Video:
    kind = Video if path.suffix.lower() in VIDEOS else Still
    return kind(path, name.with_suffix("").as_posix())


def _with_own_keys(sources: list[Source]) -> list[Source]:
    """The sources without duplicates, each with its own key."""
    different = {source.key if isinstance(source, Camera) else source.path.absolute(): source for source in sources}
    counts = Counter(source.key for source in different.values())
    result: dict[str, Source] = {}
    for source in different.values():
        if counts[source.key] > 1 and not isinstance(source, Camera):
            source = replace(source, key=f"{source.key}{source.path.suffix}")
        other = result.setdefault(source.key, source)
        if other is not source:
            raise UserError(
                f"{name_of(other)} and {name_of(source)} would be written to the same file, {source.key}; expected "
                f"different files: give the folder above both, or predict them separately, each with its own --out"
            )
    for source in result.values():
        video = result.get(source.key.rpartition("/")[0])
        if isinstance(video, Video) and re.fullmatch(r".*/\d{6,}", source.key):
            raise UserError(
                f"{name_of(source)} would be written to the same file as a frame of {name_of(video)}, {source.key}; "
                f"expected different files: predict them separately, each with its own --out"
            )
    return list(result.values())


def read_still(path: Path) -> Pixels:
    """An image as people look at it: rotated as its EXIF orientation says, which cameras write that are held upright
    (our choice). Raises UserError for a file that cannot be read."""
    image = read_image(path, metadata=True)
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata, for which Pillow raises many kinds of errors; the pixels are good
        logger.info("attention: %s: damaged EXIF data; the image is not rotated", printable(str(path)))
    return np.asarray(image)


class Clip:
    """An open video or camera.

    Attributes:
        rate: frames per second.
        frames: the number of frames according to the header of a video, which need not be exact; 0 if unknown, as for a
            camera.
        size: width and height.
    """

    def __init__(self, capture: cv2.VideoCapture, source: Video | Camera) -> None:
        self._capture, self._source = capture, source
        self.is_live = isinstance(source, Camera)
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 1 <= rate <= 1000 else CAMERA_RATE
        self.frames = 0 if self.is_live else max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.size = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))

    def __iter__(self) -> Iterator[Pixels]:
        """The frames, to the end of the video; of a camera without an end."""
        read = 0
        while True:
            there, frame = self._capture.read()
            if not there:
                break
            read += 1
            yield np.ascontiguousarray(frame[:, :, ::-1])
        if read == 0:
            raise Unreadable(
                f"{name_of(self._source)}: no frame can be read; expected a video or camera that OpenCV reads"
            )
        if read < 0.9 * self.frames:
            logger.info("attention: %s: ends after %d of %d frames", name_of(self._source), read, self.frames)


@contextmanager
def opened(source: Video | Camera) -> Iterator[Clip]:
    """A video or camera, open within the block. Raises UserError if OpenCV cannot open it."""
    if isinstance(source, Video):
        found = fault(source.path)
        if found:
            raise Unreadable(f"{name_of(source)}: video {found}; expected a video that OpenCV reads")
        if not is_utf8(source.path):
            raise Unreadable(f"{name_of(source)}: a name that is not UTF-8, which OpenCV cannot open; rename the video")
    capture = cv2.VideoCapture(source.number if isinstance(source, Camera) else str(source.path))
    try:
        if not capture.isOpened():
            raise Unreadable(f"{name_of(source)}: cannot be opened; expected a video or camera that OpenCV reads")
        yield Clip(capture, source)
    finally:
        capture.release()


def count_frames(source: Source) -> int:
    """How many images a source will give, as far as its header says; 0 if that is unknown."""
    if not isinstance(source, Video):
        return int(isinstance(source, Still))
    try:
        with opened(source) as clip:
            return clip.frames
    except Unreadable:  # reported when it is read
        return 0


def name_of(source: Source) -> str:
    """The name of a source in a message."""
    return f"camera {source.number}" if isinstance(source, Camera) else printable(str(source.path))


def is_utf8(path: Path) -> bool:
    """Whether a name can be encoded as UTF-8. OpenCV ends the whole process if that of a video cannot."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
