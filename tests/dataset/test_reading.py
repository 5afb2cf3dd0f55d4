"""Files of all kinds: supported ones give the right pixels, others are reported in one line."""

import io
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from dataset import reading
from dataset.reading import check_image, image_names, image_size, read_ids, read_image, read_lines
from tests.messages import says
from utils.system.errors import UserError, fault

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
IDS = RNG.integers(0, 34, (4, 6), dtype=np.uint8)


def png(path: Path, width: int, depth: int, row: bytes, kind: int = 0, height: int = 1) -> Path:
    """A PNG, built byte by byte, of one repeated row with `depth` bits per pixel; kind 0 is grey, 2 is RGB."""

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    path.write_bytes(png_of(header, (b"\0" + row) * min(height, 9)))
    return path


def png_of(header: bytes, data: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def palette(path: Path, ids: np.ndarray = IDS) -> Path:
    """A file with a palette that is unrelated to the ids; one of its colours is transparent."""
    image = Image.fromarray(ids)
    image.putpalette([(7 * i + 90) % 256 for i in range(768)])
    image.save(path, transparency=0)
    return path


def refused(read, path: Path, *words: str) -> None:
    with pytest.raises(UserError) as error:
        read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(read_image(path))


# Photographs.


@pytest.mark.parametrize("name", ["a.png", "a.tif", "größe 街.png", "x" * 200 + ".png"])
def test_a_photograph_of_sixteen_bits_keeps_its_high_byte(tmp_path, name):
    deep = RNG.integers(0, 65536, (4, 6, 3), dtype=np.uint16)
    deep[0, 0] = 65535
    cv2.imwrite(str(tmp_path / "b.png"), deep[:, :, ::-1])
    for pixels, expected in ((deep, deep >> 8), (deep[:, :, 1], np.repeat(deep[:, :, 1:2] >> 8, 3, axis=2))):
        cv2.imwrite(str(tmp_path / name), pixels if pixels.ndim == 2 else pixels[:, :, ::-1])
        assert np.array_equal(pixels_of(tmp_path / name), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True])
def test_a_tiff_is_read_as_stored_whatever_its_orientation(tmp_path, orientation, deep):
    image, label, grey = tmp_path / "image.tif", tmp_path / "label.tif", np.repeat(IDS[:, :, None], 3, 2)
    for path, pixels in ((image, 257 * IDS.astype(np.uint16) if deep else COLOURS), (label, IDS.astype(np.uint16))):
        Image.fromarray(pixels).save(path, tiffinfo={274: orientation})
    with Image.open(io.BytesIO(image.read_bytes())) as opened:  # by its name, Pillow 13 mixes up the pixels of 16 bits
        shown = np.asarray(opened) // (257 if deep else 1)  # Pillow turns it
    assert np.array_equal(shown, IDS if deep else COLOURS) == (orientation == 1)
    np.testing.assert_array_equal(pixels_of(image), grey if deep else COLOURS)
    np.testing.assert_array_equal(read_ids(label), IDS)
    assert image_size(image, "image") == image_size(label, "label") == check_image(image) == (6, 4)
    upright = np.asarray(ImageOps.exif_transpose(read_image(image)))  # as predict.py reads photographs
    np.testing.assert_array_equal(upright[:, :, 0] if deep else upright, shown)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
def test_twelve_bits_in_sixteen_would_turn_black(tmp_path, shape):
    cv2.imwrite(str(tmp_path / "a.png"), RNG.integers(0, 4096, shape, dtype=np.uint16))
    refused(read_image, tmp_path / "a.png", "without a value above 4095", "expected values up to 65535")


def test_photographs_that_are_no_rgb(tmp_path):
    path = tmp_path / "a.png"
    alpha = RNG.integers(0, 256, (4, 6, 1), dtype=np.uint8)
    Image.fromarray(np.dstack([COLOURS, alpha])).save(path)
    assert np.array_equal(pixels_of(path), COLOURS)  # a transparent pixel keeps its colour
    Image.fromarray(COLOURS[:, :, 0]).save(path)
    assert np.array_equal(pixels_of(path), np.repeat(COLOURS[:, :, :1], 3, axis=2))
    palette(path)
    colours = (7 * (3 * IDS[:, :, None].astype(int) + np.arange(3)) + 90) % 256
    assert np.array_equal(pixels_of(path), colours)
    Image.fromarray(IDS > 9).save(path)
    assert np.array_equal(pixels_of(path), np.repeat((IDS > 9)[:, :, None] * 255, 3, axis=2))
    Image.fromarray(COLOURS).convert("CMYK").save(tmp_path / "a.tif")
    assert np.array_equal(pixels_of(tmp_path / "a.tif"), COLOURS)
    Image.fromarray(COLOURS).save(path.with_suffix(".tif"), compression="tiff_lzw")
    assert np.array_equal(pixels_of(path.with_suffix(".tif")), COLOURS)


def test_a_photograph_of_another_depth(tmp_path):
    for dtype in (np.int32, np.float32):
        Image.fromarray(IDS.astype(dtype)).save(tmp_path / "a.tif")
        refused(read_image, tmp_path / "a.tif", "image of mode", "expected 8 or 16 bits per channel")


# Labels.


@pytest.mark.parametrize(
    ("depth", "row", "ids"),
    [
        (1, bytes([0b01100001]), [0, 1, 1, 0, 0, 0, 0, 1]),
        (2, bytes([0b00011011, 0b11100100]), [0, 1, 2, 3, 3, 2, 1, 0]),
        (4, bytes([0x0A, 0xF1, 0x23, 0xBC]), [0, 10, 15, 1, 2, 3, 11, 12]),
        (8, bytes(range(250, 258 - 2)) + b"\0\1", [250, 251, 252, 253, 254, 255, 0, 1]),
        (16, struct.pack(">8H", 0, 1, 7, 33, 128, 200, 254, 255), [0, 1, 7, 33, 128, 200, 254, 255]),
    ],
)
def test_ids_are_the_stored_values_of_any_depth(tmp_path, depth, row, ids):
    read = read_ids(png(tmp_path / "a.png", 8, depth, row))
    assert (read.dtype, read.tolist()) == (np.uint8, [ids])


def test_ids_of_a_palette_are_its_indices(tmp_path):
    assert np.array_equal(read_ids(palette(tmp_path / "a.png")), IDS)
    few = IDS % 4  # saved with two bits per pixel
    assert np.array_equal(read_ids(palette(tmp_path / "a.png", few)), few)


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def save_interlaced(path: Path, pixels: np.ndarray) -> None:
    """Interlaced, in the seven passes of PNG: x and y of the first pixel, steps in x and y."""
    passes = [pixels[y::dy, x::dx] for x, y, dx, dy in ADAM7]
    data = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
    kind = 2 if pixels.ndim == 3 else 0
    path.write_bytes(png_of(struct.pack(">IIBBBBB", *pixels.shape[1::-1], 8, kind, 0, 0, 1), data))


def test_the_fast_decoder_takes_every_png_of_8_bits_and_agrees_with_pillow(tmp_path):
    steps = np.cumsum(RNG.random((60, 90)) < 0.1, axis=1) + np.cumsum(RNG.random((60, 90)) < 0.1, axis=0)
    path = tmp_path / "é.png"
    for ids in (steps.astype(np.uint8), RNG.integers(0, 256, (61, 89), dtype=np.uint8), IDS[:1, :1]):
        grey, coloured = Image.fromarray(ids), Image.fromarray(ids)
        coloured.putpalette(RNG.bytes(768))
        rgb = np.stack([ids, ids[::-1], 255 - ids], axis=2)
        for image, channels, expected in (
            (grey, "mono", ids),
            (coloured, "mono", ids),
            (Image.fromarray(rgb), "rgb", rgb),
        ):
            transparent = 3 if channels == "mono" else (1, 2, 3)
            for options in ({}, {"optimize": True}, {"compress_level": 0}, {"transparency": transparent}, None):
                if options is None:
                    save_interlaced(path, expected)
                else:
                    image.save(path, **options)
                fast = reading._png(path, channels)
                assert fast is not None and fast.dtype == np.uint8 and np.array_equal(fast, expected)
                assert np.array_equal(np.array(Image.open(path)), expected)
        assert np.array_equal(pixels_of(path), rgb)


@pytest.mark.parametrize("kind", ["1", "LA", "RGBA", "I;16", "P", "L", "other channels", "JPEG", "cut", "flipped"])
def test_the_fast_decoder_leaves_everything_else_to_pillow(tmp_path, kind):
    path = tmp_path / "a.png"
    image = Image.fromarray(RNG.integers(0, 4, (20, 30), dtype=np.uint8))
    if kind == "P":
        image.putpalette(bytes(range(48)))
    if kind in ("P", "L"):
        image.save(path, bits=4)
    elif kind == "JPEG":
        image.save(path, "JPEG")
    elif kind in ("1", "LA", "RGBA", "I;16"):
        image.convert(kind).save(path)
    else:
        image.save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255 * (kind == "flipped")
    path.write_bytes(data[: len(data) // 2] if kind == "cut" else data)
    assert reading._png(path, "rgb") is None
    assert kind == "other channels" or reading._png(path, "mono") is None


def test_labels_that_have_no_ids(tmp_path):
    path = tmp_path / "a.png"
    for mode in ("RGB", "RGBA"):
        Image.fromarray(COLOURS).convert(mode).save(path)
        refused(read_ids, path, f"label of mode {mode}", "expected a grey or palette PNG")
    png(path, 2, 16, struct.pack(">2H", 7, 7001))
    refused(read_ids, path, "label with id 7001", "expected ids of 0 to 255")
    Image.fromarray(IDS).save(path, "JPEG")
    refused(read_ids, path, "label a JPEG")


# Damaged files.

WRITERS = {
    "png": lambda path: Image.fromarray(COLOURS.repeat(8, 0)).save(path),
    "jpg": lambda path: Image.fromarray(COLOURS.repeat(8, 0).repeat(8, 1)).save(path, quality=90),
    "tif": lambda path: Image.fromarray(COLOURS.repeat(8, 0)).save(path, compression="tiff_lzw"),
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("keep", [0, 1, 8, 0.3, 0.8])
def test_a_truncated_photograph(tmp_path, suffix, keep):
    path = tmp_path / f"a.{suffix}"
    WRITERS[suffix](path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if isinstance(keep, int) else keep * len(content))])
    refused(read_image, path, "corrupt or unreadable image")


@pytest.mark.parametrize("suffix", WRITERS)
def test_random_damage_never_escapes(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    WRITERS[suffix](path)
    content = np.frombuffer(path.read_bytes(), np.uint8)
    for number in range(60):
        rng = np.random.default_rng(number)
        damaged = content.copy()
        # Half of the faults lie in the first 64 bytes, where the headers are.
        damaged[rng.integers(0, (64, len(content))[number % 2], 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        for read in (read_image, read_ids):
            try:
                pixels = np.asarray(read(path))
            except UserError as error:
                assert str(path) in str(error) and "\n" not in str(error)
            else:
                assert suffix != "png" or np.array_equal(pixels, COLOURS.repeat(8, 0))  # others have no checksum


def test_pixels_that_do_not_fit_their_checksum(tmp_path):
    """Only Pillow decodes such a file, and to other pixels."""
    path = tmp_path / "a.png"
    for mode, read in (("RGB", read_image), ("RGBA", read_image), ("L", read_ids), ("1", read_ids)):
        Image.fromarray(COLOURS.repeat(8, 0)).convert(mode).save(path, compress_level=0)
        content = bytearray(path.read_bytes())
        content[-40] ^= 1
        path.write_bytes(content)
        refused(read, path, "corrupt or unreadable", "the checksum of its part IDAT is wrong")


def test_libtiff_adds_no_lines_of_its_own(tmp_path, capfd):
    path = tmp_path / "a.tif"
    Image.fromarray(COLOURS.repeat(50, 0)).save(path, compression="tiff_deflate")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 255
    path.write_bytes(content)
    refused(read_image, path, "corrupt or unreadable image")
    assert capfd.readouterr().err == ""


def test_threads_leave_standard_error_and_warnings_as_they_were(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(COLOURS.repeat(99, 0)).save(path, compression="tiff_lzw")
    before = os.fstat(2).st_ino, list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: pixels_of(path).tobytes(), range(200)))) == 1
    assert (os.fstat(2).st_ino, list(warnings.filters)) == before


def test_a_decompression_bomb(tmp_path):
    png(tmp_path / "a.png", 30_000, 8, bytes(90_000), kind=2, height=30_000)
    for read in (read_image, read_ids):
        refused(read, tmp_path / "a.png", "corrupt or unreadable", "exceeds limit of")


def test_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "dead.png").symlink_to("nowhere.png")
    said = {
        "pipe.png": "is a pipe or device",
        "folder.png": "is a folder",
        "loop.png": "cannot be opened (Too many levels of symbolic links)",
        "dead.png": "is a link that leads nowhere",
        "x" * 300 + ".png": "cannot be opened (File name too long)",
        "none.png": "not found",
        "\0.png": "not found",
    }
    for name, words in said.items():
        for read in (read_image, read_ids, read_lines):
            refused(read, tmp_path / name, words)
    assert says(str(fault("/dev/zero")), "pipe or device")
    assert fault(__file__) is None


# Folders.


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_linked_folders_are_followed_and_hidden_files_are_not_images(tmp_path):
    touch(tmp_path / "disk", "deep/b.PNG", "ü.jpeg", "notes.txt")
    touch(tmp_path / "images", "a.png", "._a.png", ".ipynb_checkpoints/a.png")
    (tmp_path / "images/linked").symlink_to(tmp_path / "disk")
    (tmp_path / "images/again.tif").symlink_to(tmp_path / "disk/ü.jpeg")
    assert image_names(tmp_path / "images") == ["a.png", "again.tif", "linked/deep/b.PNG", "linked/ü.jpeg"]
    (tmp_path / "data").symlink_to(tmp_path / "images")
    assert image_names(tmp_path / "data") == image_names(tmp_path / "images")
    assert image_names(tmp_path / "none") == image_names(tmp_path / "images/a.png") == []


def test_a_folder_linked_into_itself(tmp_path):
    touch(tmp_path / "images", "a/b/c.png")
    (tmp_path / "images/a/b/up").symlink_to(tmp_path / "images/a")
    with pytest.raises(UserError, match=r"images/a/b/up: a link to a folder"):
        image_names(tmp_path / "images")
    (tmp_path / "self").symlink_to("self")
    with pytest.raises(UserError, match=r"self: folder .*Too many levels"):
        image_names(tmp_path / "self")


# Lists.

# The names contain characters that Python treats as ends of lines, but a list does not.
NAMES = st.text(st.sampled_from("ab.é街-_/ \u00a0\u2028\x85\x0b\x1c😀"), min_size=1).map(str.strip)


def plain(name: str) -> bool:
    return bool(name) and not name.startswith("/") and ".." not in name.split("/") and not name.startswith("\ufeff")


@given(
    names=st.lists(NAMES.filter(plain), min_size=1, unique=True),
    start=st.sampled_from(["", "\ufeff"]),
    end=st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\r\n"]),
)
def test_any_list_of_names_comes_back(tmp_path_factory, names, start, end):
    path = tmp_path_factory.getbasetemp() / "list.txt"
    path.write_bytes((start + end.join(names) + end).encode())
    assert [line.name for line in read_lines(path)] == names


@given(content=st.one_of(st.binary(), st.text(alphabet="ab/.\\ \r\n\0\ufeff").map(str.encode)))
def test_any_bytes_are_names_below_the_folder_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "list.txt"
    path.write_bytes(content)
    try:
        names = [line.name for line in read_lines(path)]
    except UserError as error:
        assert str(path) in str(error)
        return
    root = Path("/data/root")
    assert names and len(set(names)) == len(names)
    below = [name for name in names if not name.startswith("/")]  # `resolved` sees to the others
    assert all(Path(os.path.normpath(root / name)).is_relative_to(root) for name in below)


@pytest.mark.parametrize("line", ["..", "a/../../b.png", "..\\a.png", "C:\\a.png", "a\\b.png"])
def test_a_name_that_leaves_the_folder(tmp_path, line):
    (tmp_path / "list.txt").write_text(f"a.png\n\n{line}\n")
    refused(read_lines, tmp_path / "list.txt", "line 3", "expected a name below the data folder")


def test_a_list_in_another_encoding(tmp_path):
    (tmp_path / "list.txt").write_text("größe.png\n", encoding="utf-16")
    refused(read_lines, tmp_path / "list.txt", "unreadable list", "expected UTF-8")
