"""Reading files of unknown origin: images, labels, lists and folders. Every fault is one line that names the file."""

from __future__ import annotations

import io
import logging
import os
import re
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from kornia_rs.io import decode_image_png_u8
from PIL import Image, ImageFile, UnidentifiedImageError

from dataset.classes import LabelMap
from dataset.labels import ColourIds, equal_channels, file_in
from utils.system.errors import UserError, fault

log = logging.getLogger("bafft")

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
OTHER_SUFFIXES = (".avif", ".bmp", ".gif", ".heic", ".jfif", ".jp2", ".pgm", ".ppm", ".tga", ".webp")
"""Endings of images that are not read."""
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_LABEL_MODES = ("1", "I", "L", "P", "LA", "RGB", "RGBA", "RGBX")
_LABELS = "a grey or palette PNG, TIFF or BMP with one id per pixel"
_LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF", "HEIF")
_PHOTOMETRIC, _ORIENTATION = 262, 274  # tags of TIFF
_TURNED_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How to undo what an orientation does."""
_SHOWN = 4  # names in a message
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_METADATA = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")  # parts of a PNG that may hold an orientation
_PNG_KINDS = {"rgb": (2,), "mono": (0, 3)}  # colour types of the header
_TWO_NAMES = re.compile(r"(\"[^\"]+\"|.+?\.(?:png|jpe?g|tiff?|bmp))\s*[\s,;]\s*(.+)", re.IGNORECASE)
_COMMENT = re.compile(r"#(\s.*)?")
# Of the columns, such as "image,label" or "image_path": words without digits, dots and slashes.
_HEADER = re.compile(
    r"\"?[a-z_ ]*(?:image|img|file|path|name|label|mask)[a-z_ ]*\"?(?:\s*[,;\t]\s*\"?[a-z_ ]+\"?)?", re.IGNORECASE
)
_MOST_PIXELS = 2**27  # above this, Pillow decides whether a header is credible
_STRETCH = {"L;2": 85, "L;4": 17}  # Pillow spreads grey values of 2 and 4 bits over 0 to 255


def image_size(path: Path, kind: str) -> tuple[int, int]:
    """Width and height, from the header only. Raises UserError if the file is not an image. kind: its name in
    messages."""
    try:
        with opened(path, kind, header_only=True) as image:
            return _stored_size(image)
    except UserError:
        with opened(path, kind) as image:  # so that the message is the same as when the whole file is read
            return _stored_size(image)


def read_image(path: Path, *, metadata: bool = False) -> Image.Image:
    """The image as 8-bit RGB, pixels as they are stored (no EXIF rotation); transparency is dropped.

    metadata: keep the metadata of PNG files too, such as the orientation; most PNG files are read faster without them.
    Of 16-bit values (0 to 65535) only the high byte is used. Raises UserError if the file is corrupt, has neither 8 nor
    16 bits, or has 16 bits of which only the lower 12 are used: it would become black.
    """
    fast = _png(path, "rgb", without=_METADATA if metadata else ())
    if fast is not None:
        return Image.fromarray(fast)
    with opened(path, "image") as image:
        deep, orientation = _is_deep(image), _orientation(image)
        if image.mode.startswith("I;16"):
            rgb = Image.fromarray((np.asarray(_as_stored(image)) >> 8).astype(np.uint8)).convert("RGB")
            rgb.info = dict(image.info)
        elif image.mode in _EIGHT_BIT_MODES:
            rgb = _as_stored(image).convert("RGB")
        else:
            raise UserError(f"{path}: image of mode {image.mode}; expected 8 or 16 bits per channel: convert it")
    if deep and np.asarray(rgb).max() < 16:
        raise UserError(
            f"{path}: 16-bit image without a value above 4095; expected values up to 65535: rescale them, or convert "
            "the image to 8 bits"
        )
    if orientation != 1:
        rgb.getexif()[_ORIENTATION] = orientation
    return rgb


def _orientation(image: ImageFile.ImageFile) -> int:
    """The orientation of a TIFF, as long as its pixels are not loaded: then Pillow turns them, and forgets it. 1, as
    stored, for all other files, which Pillow does not turn."""
    return int(getattr(image, "tag_v2", {}).get(_ORIENTATION, 1))


def _stored_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Width and height as stored, of an image whose pixels are not loaded."""
    width, height = image.size
    return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


def _as_stored(image: ImageFile.ImageFile) -> Image.Image:
    """Load the pixels; those of a TIFF are turned back."""
    turned_back = _TURNED_BACK.get(_orientation(image))
    image.load()
    return image if turned_back is None else image.transpose(turned_back)


def _is_deep(image: ImageFile.ImageFile) -> bool:
    return any(";16" in str(tile) for tile in image.tile)


def check_image(path: Path) -> tuple[int, int]:
    """Width and height of an image, and a much faster check that `read_image` can read it.

    The checksums of a PNG are compared; a JPEG is decoded at an eighth of its size. Raises UserError as `read_image`
    does.
    """
    with opened(path, "image") as image:
        size = _stored_size(image)
        if image.mode not in _EIGHT_BIT_MODES or _is_deep(image):
            read_image(path)
        elif image.format != "PNG":  # opening compared its checksums
            image.draft(image.mode, (max(1, size[0] // 8), max(1, size[1] // 8)))
            image.load()
    return size


def read_ids(path: Path, kind: str = "label", colours: ColourIds | None = None) -> LabelMap:
    """The ids [H, W] of a label file: its grey values or palette indices, as stored, of 1 to 16 bits (or 32-bit
    integers in a TIFF).

    Three equal channels count as one, and a constant alpha channel is ignored. kind: the name of the file in messages;
    colours: the ids of other colours, if any. Raises UserError if the file is corrupt, has colours without an id or a
    transparency that varies, holds an id below 0 or above 255, or has a lossy format such as JPEG, which changes ids.
    """
    fast = _png(path, "mono")
    if fast is not None:
        return fast if colours is None else _of_palette(fast, path, kind, colours)
    channels = _png(path, "rgb")
    if channels is not None:
        return _of_channels(channels, path, f"{kind} of mode RGB", colours)
    with opened(path, kind) as image:
        _refuse_kind(image, path, kind)
        stored, described = str(image.tile), f"{kind} of mode {image.mode}"
        pixels = np.array(_as_stored(image))
    if pixels.ndim == 3:
        return _of_channels(_without_alpha(pixels, path, described), path, described, colours)
    if pixels.min() < 0 or pixels.max() > 255:
        found = pixels.min() if pixels.min() < 0 else pixels.max()
        raise UserError(f"{path}: {kind} with id {found}; expected ids of 0 to 255")
    stretch = next((factor for layout, factor in _STRETCH.items() if layout in stored), 1)
    ids = (pixels // stretch).astype(np.uint8) if stretch > 1 else pixels.astype(np.uint8, copy=False)
    return ids if colours is None else _of_palette(ids, path, kind, colours)


def _of_palette(indices: LabelMap, path: Path, kind: str, colours: ColourIds) -> LabelMap:
    """The ids of a file of one channel: the grey values, or what the indices of its palette mean."""
    if not colours.ids:
        return indices
    with opened(path, kind, header_only=True) as image:
        palette = image.getpalette("RGB") if image.mode == "P" else None
    if not palette:
        return indices
    return colours.of_palette(indices, np.array(palette, np.uint8).reshape(-1, 3), path, kind)


def _refuse_kind(image: ImageFile.ImageFile, path: Path, kind: str) -> None:
    """Raises UserError for a file that cannot hold ids, or whose pixels do not mean what they seem to."""
    compression = str(image.info.get("compression", ""))
    tags = getattr(image, "tag_v2", {})
    if image.format in _LOSSY or "jpeg" in compression or "webp" in compression:
        found = f"a {image.format}" if image.format in _LOSSY else f"compressed by {compression}"
        raise UserError(f"{path}: {kind} {found}; expected {_LABELS}: lossy files change ids; save the original again")
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        raise UserError(f"{path}: {kind} of {pages} pages; expected one page: save each in its own file")
    if tags.get(_PHOTOMETRIC) == 0 and image.mode != "1":
        raise UserError(f"{path}: {kind} with inverted grey values (0 is white); expected 0 for black: invert them")
    single = image.mode.startswith("I;16")
    if not (single or image.mode in _LABEL_MODES) or (_is_deep(image) and not single):
        found = f"of mode {image.mode}{' and 16 bits' if _is_deep(image) else ''}"
        raise UserError(f"{path}: {kind} {found}; expected {_LABELS}: convert it")


def _without_alpha(pixels: npt.NDArray[np.uint8], path: Path, kind: str) -> npt.NDArray[np.uint8]:
    """[H, W, 3] from pixels with 2 to 4 channels; a second or fourth channel is alpha."""
    channels = pixels.shape[2]
    if channels in (2, 4):
        alpha = pixels[:, :, -1]
        if alpha.min() != alpha.max():
            raise UserError(
                f"{path}: {kind} with a transparency that varies ({alpha.min()} to {alpha.max()}); expected none, "
                f"because it may mean something: save it without alpha"
            )
    return np.repeat(pixels[:, :, :1], 3, axis=2) if channels == 2 else pixels[:, :, :3]


def _of_channels(pixels: npt.NDArray[np.uint8], path: Path, kind: str, colours: ColourIds | None) -> LabelMap:
    if colours is not None:
        return colours(pixels, path, kind)
    grey = equal_channels(pixels)
    if grey is None:
        raise UserError(f"{path}: {kind}; expected {_LABELS}: convert it")
    return grey


def _png(path: Path, channels: str, without: Sequence[bytes] = ()) -> npt.NDArray[np.uint8] | None:
    """Pixels of an undamaged 8-bit PNG, read three times as fast as with Pillow; None for anything else.

    channels: "rgb" for [H, W, 3], "mono" for [H, W], grey values or the indices of a palette; without: names of parts
    that the file must not have.
    """
    if fault(path):
        return None
    try:
        content = path.read_bytes()
        width, height, depth, kind = struct.unpack_from(">IIBB", content, len(_PNG_START))
        fits = depth == 8 and kind in _PNG_KINDS[channels] and width * height <= _MOST_PIXELS
        if not fits or not content.startswith(_PNG_START) or any(part in content for part in without):
            return None
        pixels = np.asarray(decode_image_png_u8(content, (height, width), channels))
    except Exception:  # the decoder raises nothing more specific; Pillow then says what is wrong with the file
        return None
    return pixels[:, :, 0] if channels == "mono" else pixels


@contextmanager
def opened(path: Path, kind: str, *, header_only: bool = False) -> Iterator[ImageFile.ImageFile]:
    """An open image file. Any error in opening it, and in the block that uses it, becomes a UserError."""
    found = fault(path)
    if found:
        raise UserError(f"{path}: {kind} {found}; add the file, or remove it from the list, if there is one")
    try:
        with (
            _QUIET,
            _SILENT if path.suffix.lower().startswith(".tif") else nullcontext(),
            Image.open(path if header_only else _sound(path.read_bytes())) as image,
        ):
            yield image
    except UserError:
        raise
    except Exception as error:  # whatever error a decoder raises, the file is the cause
        reason = "no known kind of image" if isinstance(error, UnidentifiedImageError) else str(error).split("\n")[0]
        reason = reason or type(error).__name__
        raise UserError(
            f"{path}: corrupt or unreadable {kind} ({reason}); replace the file, or remove it from folder and list"
        ) from error


def _sound(content: bytes) -> io.BytesIO:
    """The bytes of an image file. Raises ValueError for a PNG with a wrong checksum, which Pillow may decode all the
    same."""
    position = 8
    while content.startswith(_PNG_START):
        end = position + 8 + int.from_bytes(content[position : position + 4], "big")
        kind, checksum = content[position + 4 : position + 8], content[end : end + 4]
        if len(checksum) < 4:
            raise ValueError("cut short")
        # The names of parts that a decoder may ignore begin with a lower-case letter.
        if kind[:1].isupper() and zlib.crc32(content[position + 4 : end]) != int.from_bytes(checksum, "big"):
            raise ValueError(f"the checksum of its part {ascii(kind)[2:-1]} is wrong")
        if kind == b"IEND":
            break
        position = end + 4
    return io.BytesIO(content)


class _Shared:
    """A context of the whole process that threads share: the first thread opens it, and the last one closes it."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make, self._lock, self._inside = make, threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._context = self._make()
                self._context.__enter__()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._context.__exit__(None, None, None)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Silences Pillow's warnings about odd metadata and many pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _silent() -> Iterator[None]:
    """Silences standard error, on which libtiff prints what the exception says too."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


_QUIET, _SILENT = _Shared(_no_warnings), _Shared(_silent)


@dataclass(frozen=True)
class Line:
    """One line of a list file: its number, the image's name as written, and the name of its label, if given."""

    number: int
    name: str
    label: str | None = None


def read_lines(path: str | Path) -> list[Line]:
    """The lines of a list file in UTF-8: one name per line, or an image and its label.

    Two names are separated by a tab, or, after the extension of an image file, by spaces, a comma or a semicolon;
    either may be in double quotes. Blank lines, lines that begin with "# ", CRLF, a byte-order mark and space around a
    name are ignored. So is a first line that names the columns, such as "image,label", if all names below it have the
    extension of an image; it is logged.

    Raises UserError if the file is missing or empty, or if a name contains `..` or a backslash, or appears twice. Links
    below the data folder are followed, wherever they lead: data are often linked (our choice).
    """
    path = Path(path)
    found = fault(path)
    if found:
        raise UserError(f"{path}: unreadable list ({found}); expected a text file with one relative name per line")
    try:
        texts = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: unreadable list ({error}); expected UTF-8 with one relative name per line") from error
    stripped = {number: text.strip() for number, text in enumerate(texts, start=1)}
    written = {number: text for number, text in stripped.items() if text and not _COMMENT.fullmatch(text)}
    _drop_header(path, written)
    lines: dict[str, Line] = {}
    for number, text in written.items():
        line = Line(number, *_names(path, number, text))
        if "\\" in line.name or ".." in PurePosixPath(line.name).parts:
            refuse_name(path, line)
        if line.name in lines:
            raise UserError(
                f"{path}, line {number}: {line.name!r} is also in line {lines[line.name].number}; expected every name "
                "once: remove one of the lines"
            )
        lines[line.name] = line
    if not lines:
        raise UserError(f"{path}: the list is empty; expected one relative name per line")
    return list(lines.values())


def refuse_name(path: str | Path, line: Line) -> NoReturn:
    """Raises UserError for a name that leads out of the data folder."""
    raise UserError(
        f"{path}, line {line.number}: {line.name!r}; expected a name below the data folder, with forward slashes"
    )


def _names(path: Path, number: int, text: str) -> list[str]:
    """The one or two names of a line. Raises UserError for more."""
    names = [name.strip() for name in text.split("\t") if name.strip()]
    while two := _TWO_NAMES.fullmatch(names[-1]):
        names[-1:] = two.groups()
    if len(names) > 2:
        raise UserError(
            f"{path}, line {number}: {len(names)} names; expected that of an image, or of an image and its label"
        )
    return [name[1:-1] if re.fullmatch(r'"[^"]+"', name) else name for name in names]


def _drop_header(path: Path, written: dict[int, str]) -> None:
    """Remove a line that names the columns from the lines by number, and log it."""
    first, *others = written or [0]
    if not others or not _HEADER.fullmatch(written[first]):
        return
    names = (_names(path, number, written[number])[0] for number in others)
    if all(PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES for name in names):
        log.info("%s: line %d, %s, is read as the names of the columns", path, first, written.pop(first))


def image_names(folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> list[str]:
    """Sorted names, relative to `folder` and with forward slashes, of the images anywhere below it.

    Linked folders are followed. Hidden files and folders, which systems and editors leave, are ignored. A folder that
    does not exist counts as empty. Raises UserError for a folder that cannot be read, or that is linked into itself.
    """
    return sorted(name for name in _names_below(folder) if PurePosixPath(name).suffix.lower() in suffixes)


def image_file(stem: Path, first: Sequence[str] = ()) -> Path:
    """The image whose path without suffix is `stem`; if there is none, the path with the first suffix. first: the
    suffixes to look for before the others."""
    return file_in(stem.parent, [f"{stem.name}{suffix}" for suffix in (*first, *IMAGE_SUFFIXES)])


def folder_in(root: Path, folder: str) -> Path | None:
    """`root`/`folder`, or else the one inside a folder into which its archive was unpacked: a folder whose name begins
    in the same way, such as gtFine_trainvaltest/gtFine, or RAND_CITYSCAPES. None if there is none, or several."""
    path = root / folder
    if path.is_dir():
        return path
    try:
        changed = os.stat(root).st_mtime_ns
    except OSError:
        return None
    return _folder_below(root, folder, changed)


@lru_cache(maxsize=256)
def _folder_below(root: Path, folder: str, changed: int) -> Path | None:
    """changed: the time of the folder, so that old results are not used."""
    begin = (re.split("[/_]", folder)[0].lower(), "rand_cityscapes")
    found = [
        path for name in _visible(root) if name.lower().startswith(begin) and (path := root / name / folder).is_dir()
    ]
    return found[0] if len(found) == 1 else None


def namesake(path: Path) -> str | None:
    """The name of a file beside `path` that differs only in its extension."""
    return next((name for name in _visible(path.parent) if name != path.name and Path(name).stem == path.stem), None)


def contents(folder: Path) -> str:
    """What a folder holds, in words, for messages about missing files: the first names of two levels."""
    names = _visible(folder)
    shown = ["/".join([name, *_visible(folder / name)[:1]]) for name in names[:_SHOWN]]
    return ", ".join([*shown, *(["..."] if len(names) > _SHOWN else [])]) or "nothing"


def _visible(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []


def _names_below(folder: Path, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    try:
        status = os.stat(folder)
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(f"{folder}: folder cannot be read ({error.strerror}); make it readable") from error
    here = status.st_dev, status.st_ino
    if here in above:
        raise UserError(f"{folder}: a link to a folder that contains it; expected no loop: remove the link")
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry)):
            yield from (f"{entry.name}/{name}" for name in _names_below(folder / entry.name, (*above, here)))
        else:
            yield entry.name
