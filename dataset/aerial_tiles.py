"""Cuts the public aerial data sets into the tiles that the reader `Aerial` reads (for `prepare_aerial.py`)."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from dataset.aerial_downloads import IMAGES, LABELS, MANIFEST, Original
from dataset.classes import AERIAL, IGNORE, colorize
from dataset.reading import read_image
from utils.system.errors import UserError
from utils.system.files import make_folder, write_bytes, write_json

VERSION = 1  # raise it when the same settings give other tiles
JOURNAL = ".prepare_aerial.jsonl"
SPLITS = ("train", "val", "test")
WHITE = 250
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 3]

Pixels = npt.NDArray[np.uint8]
Record = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What determines the tiles. tile: side in pixels; overlap: smallest overlap of neighbours in pixels; blank_min:
    smallest blank area in pixels, 0 finds none; max_blank: largest blank fraction of a tile that is kept."""

    kind: str
    tile: int = 512
    overlap: int = 0
    blank_min: int = 4096
    max_blank: float = 0.5

    def check(self) -> None:
        if self.tile < 1 or not 0 <= self.overlap < self.tile:
            raise UserError(
                f"--tile, --overlap: found {self.tile} and {self.overlap}, expected an overlap of at least 0 and below "
                "the tile's side"
            )
        if self.blank_min < 0 or not 0 <= self.max_blank <= 1:
            raise UserError(
                f"--blank-min, --max-blank: found {self.blank_min} and {self.max_blank}, expected at least 0 pixels "
                "and a fraction from 0 to 1"
            )


def offsets(length: int, tile: int, overlap: int) -> list[int]:
    """Where the tiles along a side of `length` pixels begin: as few as possible that cover it, evenly spaced, and
    overlapping by at least `overlap` pixels. Raises ValueError if the side is shorter than a tile."""
    if length < tile:
        raise ValueError(f"{length} pixels, tile {tile}")
    count = math.ceil((length - overlap) / (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) if count > 1 else 0 for i in range(count)]


def blank_areas(image: Pixels, smallest: int) -> npt.NDArray[np.bool_]:
    """Where an RGB image [H, W, 3] has no data, as [H, W]: connected white areas (every channel at least 250) of at
    least `smallest` pixels that touch the image's edge, unlike a white roof in the middle."""
    if not smallest:
        return np.zeros(image.shape[:2], bool)
    white = (functools.reduce(np.minimum, np.moveaxis(image, 2, 0)) >= WHITE).astype(np.uint8)
    _, areas, stats, _ = cv2.connectedComponentsWithStats(white, connectivity=8)
    left, top, width, height, size = stats.T
    at_edge = (left == 0) | (top == 0) | (left + width == white.shape[1]) | (top + height == white.shape[0])
    blank = at_edge & (size >= smallest)
    blank[0] = False  # everything that is not white
    return blank[areas]


def foreground(mask: Pixels) -> Pixels:
    """A mask [H, W, 3] as 0 and 1: {0, 255} grey (Inria, Massachusetts Roads), red (Massachusetts Buildings), blurred
    (DeepGlobe, whose authors say: from 128), or {0, 1} already."""
    value = functools.reduce(np.maximum, np.moveaxis(mask, 2, 0))
    return (value >= (1 if value.max() <= 1 else 128)).astype(np.uint8)


def cut(original: Original, settings: Settings, out: Path) -> Record:
    """Write the tiles of one original; returns its part of the manifest.

    Raises UserError if a file is unreadable, sizes differ, or the image is smaller than a tile.
    """
    label = _label(original.mask)
    image = np.asarray(read_image(original.image))
    height, width = image.shape[:2]
    if label.shape != (height, width):
        raise UserError(
            f"{original.mask}: {label.shape[1]}x{label.shape[0]} pixels, but {original.image} has {width}x{height}; "
            "expected the same size: download both again"
        )
    if min(height, width) < settings.tile:
        raise UserError(
            f"{original.image}: {width}x{height} pixels, smaller than a tile of {settings.tile}; choose a smaller "
            "--tile, or move the image away"
        )
    blank = blank_areas(image, settings.blank_min)
    label[blank] = IGNORE
    tiles, dropped = [], 0
    for top in offsets(height, settings.tile, settings.overlap):
        for left in offsets(width, settings.tile, settings.overlap):
            window = np.s_[top : top + settings.tile, left : left + settings.tile]
            if blank[window].mean() > settings.max_blank:
                dropped += 1
                continue
            name = f"{original.name}_{top:05d}_{left:05d}"
            paths = out / IMAGES / f"{name}.png", out / LABELS / f"{name}.png"
            files = _png(image[window]), _palette_png(label[window])
            for path, content in zip(paths, files, strict=True):
                write_bytes(path, content, sync=False)
            tiles.append(
                {
                    "name": name,
                    "foreground": int((label[window] == 1).sum()),
                    "ignored": int((label[window] == IGNORE).sum()),
                    "bytes": [len(content) for content in files],
                    "sha256": [hashlib.sha256(content).hexdigest() for content in files],
                }
            )
    return {**_identity(original), "size": [width, height], "dropped": dropped, "tiles": tiles}


def _label(path: Path) -> Pixels:
    mask = np.asarray(read_image(path))
    if path.parent.name == LABELS and (mask == 1).any() and (mask == 255).any():
        raise UserError(
            f"{path}: holds 1 and 255, like tiles that prepare_aerial.py has made; expected masks of {{0, 255}} or "
            "{0, 1}: use the public download"
        )
    return foreground(mask)


def _png(rgb: Pixels) -> bytes:
    # Through OpenCV, whose encoder lets other threads run.
    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), _PNG)[1].tobytes()


def _palette_png(label: Pixels) -> bytes:
    encoded = io.BytesIO()
    colorize(label, AERIAL).save(encoded, "PNG")
    return encoded.getvalue()


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _identity(original: Original) -> Record:
    """What identifies an original: name, split, and the content of its files (their sizes are often equal)."""
    sums = [sha256(path) for path in (original.image, original.mask)]
    return {"name": original.name, "split": original.split, "sha256": sums}


def prepare(
    originals: list[Original],
    settings: Settings,
    out: Path,
    *,
    published_split: bool = False,
    workers: int = 1,
    masks_alone: int = 0,
) -> Record:
    """Cut all originals into `out`, write the lists and, last, the manifest, which is returned.

    Originals of an earlier, stopped run with the same settings are kept. published_split: the training list also holds
    the validation tiles. masks_alone: number of masks without an image, for the manifest. Raises UserError if the
    training list would be empty.
    """
    done = _done(originals, settings, out, workers)
    if not any(original.split in _trained(published_split) for original in originals):
        raise UserError(
            f"{out / 'train.txt'}: would be empty, because all {len(originals)} images of the download are for "
            "validation or testing; expected some for training: download them too, or choose --split published"
        )
    make_folder(out / IMAGES)
    make_folder(out / LABELS)
    todo = [original for original in originals if original.name not in done]
    if todo:
        _write_journal(out, settings, done)
        (out / MANIFEST).unlink(
            missing_ok=True
        )  # only now, because a folder without either is assumed to hold other data
        with open(out / JOURNAL, "a", encoding="utf-8") as journal:
            for record in _cut_all(todo, settings, out, workers, len(done)):
                journal.write(json.dumps(record) + "\n")
                journal.flush()
                done[record["name"]] = record
    return _finish([done[original.name] for original in originals], settings, out, published_split, masks_alone)


def _trained(published_split: bool) -> tuple[str, ...]:
    """The splits whose tiles are trained on."""
    return ("train", "val") if published_split else ("train",)


def _cut_all(todo: list[Original], settings: Settings, out: Path, workers: int, before: int) -> Iterator[Record]:
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(cut, original, settings, out) for original in todo]
        try:
            bar = tqdm(as_completed(futures), total=before + len(todo), initial=before, unit="image", disable=None)
            for future in bar:
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _done(originals: list[Original], settings: Settings, out: Path, workers: int) -> dict[str, Record]:
    """Records of the originals that `out` holds already, by name. Raises UserError if it holds anything else."""
    for folder in (IMAGES, LABELS):
        for path in (out / folder).glob(".*.tmp"):  # of a killed run
            path.unlink()
    before, records = _read_state(out)
    if before is None:
        if any((out / IMAGES).glob("*")):
            raise UserError(
                f"{out}: found {IMAGES}/ that prepare_aerial.py has not made; expected a new folder: choose another "
                "--out"
            )
        return {}
    if before != _settings(settings):
        changed = [f"{k} {v} -> {_settings(settings)[k]}" for k, v in before.items() if _settings(settings).get(k) != v]
        raise UserError(
            f"{out}: holds tiles made with other settings ({', '.join(changed)}); choose another --out, or remove it"
        )
    known = {original.name: original for original in originals}
    foreign = [record["name"] for record in records if record["name"] not in known]
    if foreign:
        raise UserError(
            f"{out}: holds tiles of {foreign[0]} ({len(foreign)} such images), which is not in the download; choose "
            "another --out, or remove it"
        )
    whole = [record for record in records if all(_there(out, tile) for tile in record["tiles"])]
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(_identity, (known[record["name"]] for record in whole))
        bar = tqdm(found, "compare", total=len(whole), unit="image", disable=None, leave=False)
        return {
            record["name"]: record
            for record, identity in zip(whole, bar, strict=True)
            if identity.items() <= record.items()
        }


def _there(out: Path, tile: Record) -> bool:
    """Whether both files exist at full length: they are not synced one by one, so a power cut may shorten them."""
    pairs = zip(_files(out, tile), tile["bytes"], strict=True)
    return all(path.is_file() and path.stat().st_size == size for path, size in pairs)


def _files(out: Path, tile: Record) -> tuple[Path, Path]:
    return out / IMAGES / f"{tile['name']}.png", out / LABELS / f"{tile['name']}.png"


def _settings(settings: Settings) -> Record:
    return {"version": VERSION, **asdict(settings)}


def _read_state(out: Path) -> tuple[Record | None, list[Record]]:
    """Settings and records of a finished run (its manifest) or a stopped one (its journal); None if there is
    neither."""
    if (out / MANIFEST).exists():
        settings, records = _read_manifest(out, "settings", "originals")
        return settings, records
    if not (out / JOURNAL).is_file():
        return None, []
    lines = []
    for line in (out / JOURNAL).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # the last line of a killed run
            break
    return (lines[0], lines[1:]) if lines else (None, [])


def _read_manifest(out: Path, *parts: str) -> list[Any]:
    """Parts of the manifest. Raises UserError if the file is not a manifest."""
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        return [manifest[part] for part in parts]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{out / MANIFEST}: not written by prepare_aerial.py ({error}); choose another --out, or remove it"
        ) from error


def _write_journal(out: Path, settings: Settings, done: dict[str, Record]) -> None:
    lines = "".join(json.dumps(line) + "\n" for line in (_settings(settings), *done.values()))
    write_bytes(out / JOURNAL, lines.encode())


def _finish(records: list[Record], settings: Settings, out: Path, published_split: bool, masks_alone: int) -> Record:
    parts = {"train": _trained(published_split), "val": ("val",), "test": ("test",)}
    names = {split: [t["name"] for r in records if r["split"] in parts[split] for t in r["tiles"]] for split in SPLITS}
    if not names["train"]:
        raise UserError(
            f"{out / 'train.txt'}: would be empty, because more than {settings.max_blank} of every training tile is "
            "blank; expected some tiles: give a higher --max-blank and another --out, or check the images"
        )
    lists = {}
    for split in SPLITS:
        path, text = out / f"{split}.txt", "".join(f"{name}\n" for name in names[split])
        if text:
            write_bytes(path, text.encode())
            lists[split] = {"tiles": len(names[split]), "sha256": sha256(path)}
        else:
            path.unlink(missing_ok=True)
    tiles = [tile for record in records for tile in record["tiles"]]
    manifest = {
        "settings": _settings(settings),
        "split": "published" if published_split else "by original",
        "lists": lists,
        "counts": {
            "originals": {split: sum(r["split"] == split for r in records) for split in SPLITS},
            "masks_without_image": masks_alone,
            "tiles": len(tiles),
            "dropped": sum(record["dropped"] for record in records),
            "pixels": len(tiles) * settings.tile**2,
            "foreground": sum(tile["foreground"] for tile in tiles),
            "ignored": sum(tile["ignored"] for tile in tiles),
        },
        "originals": records,
    }
    write_json(out / MANIFEST, manifest)
    (out / JOURNAL).unlink(missing_ok=True)
    return manifest


def verify(out: Path) -> int:
    """The number of tiles in `out`, after comparing every list and file with the manifest's checksums. Raises UserError
    if one differs."""
    if not (out / MANIFEST).is_file():
        raise UserError(f"{out / MANIFEST}: not found; expected a finished run: run prepare_aerial.py without --verify")
    lists, records = _read_manifest(out, "lists", "originals")
    for split in SPLITS:
        path, expected = out / f"{split}.txt", lists.get(split, {}).get("sha256")
        if (sha256(path) if path.is_file() else None) != expected:
            raise UserError(
                f"{path}: missing or changed since it was made; run prepare_aerial.py again, which rewrites the lists"
                if expected
                else f"{path}: found a list of this split, expected none; run prepare_aerial.py again, which removes it"
            )
    tiles = [tile for record in records for tile in record["tiles"]]
    for tile in tqdm(tiles, unit="tile", disable=None):
        for path, expected in zip(_files(out, tile), tile["sha256"], strict=True):
            if not path.is_file() or sha256(path) != expected:
                raise UserError(
                    f"{path}: missing or changed since it was made; remove it and run prepare_aerial.py again"
                )
    return len(tiles)
