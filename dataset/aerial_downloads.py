"""Finds images and masks in the public aerial data sets, in the layouts in which they are distributed."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from dataset.reading import IMAGE_SUFFIXES
from utils.system.errors import UserError

IMAGES, LABELS, MANIFEST = "Images", "SegmentationClass", "manifest.json"  # of prepared tiles

_UNSPLIT = tuple((images, masks, "") for images, masks in (("images", "gt"), ("images", "masks"), (IMAGES, LABELS)))


@dataclass(frozen=True)
class Kind:
    """A public data set. layouts: alternatives, each of (image folder, mask folder, split); "" is split by name.

    image_end, mask_end: what follows the common stem in a file name, before the extension. blank: whether images have
    areas without data, which are white. cities: whether images are numbered per city, such as `austin1`.
    """

    folder: str
    layout: str
    layouts: tuple[tuple[tuple[str, str, str], ...], ...]
    image_end: str = ""
    mask_end: str = ""
    blank: bool = False
    cities: bool = False


def _massachusetts(folder: str) -> Kind:
    names = (("train", "train"), ("valid", "val"), ("val", "val"), ("test", "test"))
    site = tuple((f"{name}/sat", f"{name}/map", split) for name, split in names)
    flat = tuple((name, f"{name}_labels", split) for name, split in names)
    below = tuple(
        tuple((f"{prefix}/{images}", f"{prefix}/{masks}", split) for images, masks, split in flat)
        for prefix in ("tiff", "png")
    )
    layout = (
        "{train,valid,test}/{sat,map}/NAME.tiff, or tiff/{train,train_labels,...}/NAME.tiff, or {images,masks}/NAME"
    )
    return Kind(folder, layout, (site, flat, *below, *((pair,) for pair in _UNSPLIT)), blank=True)


KINDS: dict[str, Kind] = {
    "iaild": Kind(
        "IAILD",
        "train/{images,gt}/CITYn.tif, as in AerialImageDataset/",
        tuple(((f"{prefix}train/images", f"{prefix}train/gt", ""),) for prefix in ("", "AerialImageDataset/"))
        + tuple((pair,) for pair in _UNSPLIT),
        cities=True,
    ),
    "mbd": _massachusetts("MBD"),
    "mrd": _massachusetts("MRD"),
    "deepglobe": Kind(
        "DeepGlobe",
        "train/ID_sat.jpg and train/ID_mask.png",
        ((("train", "train", ""),), ((".", ".", ""),)),
        image_end="_sat",
        mask_end="_mask",
    ),
}


@dataclass(frozen=True)
class Original:
    """One image of the download with its mask. split: "train", "val" or "test"."""

    name: str
    image: Path
    mask: Path
    split: str


def find_originals(kind: Kind, root: Path) -> tuple[list[Original], list[Path]]:
    """All labelled images of a download, sorted by name, and the masks that have no image.

    Raises UserError if the layout is not as distributed, a partner is missing, or a name is in two splits.
    """
    if not root.is_dir():
        raise UserError(f"{root}: folder of the download not found; expected {kind.layout} in it")
    for layout in kind.layouts:
        found: list[Original] = []
        alone: list[Path] = []
        for images, masks, split in layout:
            if (root / images).is_dir() and (root / masks).is_dir():
                pairs, without_image = _pairs(kind, root / images, root / masks, split)
                found += pairs
                alone += without_image
        if found:
            _refuse_half(root, layout)
            break
    else:
        raise UserError(f"{root}: no images with masks found; expected {kind.layout}")
    by_name: dict[str, Original] = {}
    for original in sorted(found, key=lambda original: (original.name, original.split)):
        other = by_name.setdefault(original.name, original)
        if other != original:
            raise UserError(
                f"{original.image}: {other.image} has the same name; expected only one of them: remove the other"
            )
    originals = list(by_name.values())
    if not any(original.split for original in originals):
        held_out = _held_out(kind, [original.name for original in originals])
        originals = [Original(o.name, o.image, o.mask, "val" if o.name in held_out else "train") for o in originals]
    return originals, alone


def _held_out(kind: Kind, names: list[str]) -> set[str]:
    """Which originals are for validation if the download does not say so: the first five of each city, as Inria's
    authors suggest, else the tenth of the names with the smallest CRC-32 (of two names, at least one)."""
    if kind.cities:
        return {name for name in names if re.fullmatch(r".*\D[1-5]", name)}
    count = max(len(names) // 10, 1) if len(names) > 1 else 0
    return set(sorted(names, key=lambda name: (zlib.crc32(name.encode()), name))[:count])


def _refuse_half(root: Path, layout: tuple[tuple[str, str, str], ...]) -> None:
    for images, masks, _ in layout:
        if (root / images).is_dir() and not (root / masks).is_dir():
            raise UserError(f"{root / images}: no masks in {root / masks}; download them, or move the images away")


def _pairs(kind: Kind, images: Path, masks: Path, split: str) -> tuple[list[Original], list[Path]]:
    """Images with their masks, and masks without an image. Raises UserError for an image without a mask."""
    mask_of = _by_stem(masks, kind.mask_end)
    image_of = _by_stem(images, kind.image_end)
    missing = sorted(image_of.keys() - mask_of.keys())
    if missing:
        raise UserError(
            f"{image_of[missing[0]]}: no mask {missing[0]}{kind.mask_end} in {masks} ({len(missing)} of "
            f"{len(image_of)} missing); expected one for every image: download it, or move the image away"
        )
    pairs = [Original(stem, image, mask_of[stem], split) for stem, image in image_of.items()]
    return pairs, [mask for stem, mask in mask_of.items() if stem not in image_of]


def _by_stem(folder: Path, end: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.stem.endswith(end) and not path.name.startswith("."):
            stem = path.stem.removesuffix(end)
            if stem in found:
                raise UserError(
                    f"{path}: {found[stem].name} is beside it; expected one file per name: remove one of them"
                )
            found[stem] = path
    return found
