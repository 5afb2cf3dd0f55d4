"""Class tables and data sets from the resolved options."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from dataset import READERS
from dataset.augment import Augment, Size
from dataset.base import SegmentationDataset
from dataset.builtin import write_benchmark
from dataset.cache import Cache
from dataset.check.quick import distortion, quick_check, void_alone
from dataset.class_pixels import Pixels, class_pixels, class_shares
from dataset.class_sampler import class_probabilities
from dataset.classes import ClassTable, LabelMap, to_label_ids
from dataset.tables import load_classes
from model.networks.high_resolution import read_size
from utils.options.flags import flag
from utils.options.table import Options
from utils.setup.networks import resumed_from
from utils.states.weights import describe_file
from utils.system import distributed
from utils.system.errors import UserError, fault
from utils.system.logs import logger
from utils.system.skipped import Skipped

HEADER_THREADS = 16
Item = TypeVar("Item")
BUILTIN_ROOT = Path("data/builtin")


def class_table(options: Options, *, training: bool = False) -> ClassTable:
    """The class table, cut to `--num-classes`: that of `--classes`, else that of the checkpoint whose classifier is
    loaded, else that of the target's data set, else that of the source's. training: whether the source's labels will be
    read."""
    table: ClassTable | None
    if options.classes is not None:
        table = load_classes(options.classes)
    else:
        readers = [READERS[options.target], READERS[options.source]]
        own = [reader.table for reader in readers if hasattr(reader, "table")]
        table = _trained_classes(options, readers if training else readers[:1]) or next(iter(own), None)
    if table is None:
        raise UserError(
            "--classes: not given, and data of the reader 'folder' has no classes of its own; expected a class table, "
            "YAML or info.json: docs/OWN_IMAGES.md shows one"
        )
    table = table if options.num_classes is None else table.first(options.num_classes)
    table = table.led_by(READERS[options.source].trained_ids(table))
    logger.info("%d classes: %s", table.num_classes, ", ".join(table.names))
    if options.ignore_label < table.num_classes:
        raise UserError(
            f"--ignore-label: found {options.ignore_label}, expected at least {table.num_classes}, which is no class"
        )
    return table


def _trained_classes(options: Options, readers: list[type[SegmentationDataset]]) -> ClassTable | None:
    """The table of the checkpoint that is loaded, if it has one. Raises UserError if the labels of `readers` mean other
    classes."""
    path = str(resumed_from(options) or options.restore_from)
    table = None if options.not_restore_last or not Path(path).is_file() else describe_file(path).classes
    for reader in readers:
        own = getattr(reader, "table", None)
        if table and own and table.label_ids is None and table.names != own.names[: table.num_classes]:
            raise UserError(
                f"{path}: its {table.num_classes} classes of {table.name} are not those of {own.name}, expected the "
                f"same; give --classes FILE with label ids, or another checkpoint"
            )
    return table


def source_data(
    options: Options, table: ClassTable, *, labels: bool = True, augmented: bool = True, check: bool = True
) -> SegmentationDataset:
    """Training images of the source, and their labels unless `labels` is False.

    Raises UserError if the source's own label ids mean other classes than the table's.
    """
    own = getattr(READERS[options.source], "table", None)
    if own is not None and table.label_ids is None and own.names[: table.num_classes] != table.names:
        raise UserError(
            f"--source: found {options.source} with the classes of {own.name}, expected those of {table.name}; choose "
            f"another --source or --target, or give --classes FILE with the source's label ids"
        )
    return _dataset(
        options,
        table,
        "data_list",
        label_root=options.data_dir_labels,
        labels=labels,
        augment=_augment(options) if augmented else None,
        seed=options.random_seed,
        check=check,
    )


def source_pixels(options: Options, source: SegmentationDataset, script: str) -> Pixels | None:
    """The pixels of every class in every source label, if `--rare-class-temperature` or `--class-balance` needs them.

    They are counted once and stored in the folder of `--cache`, or else in that of the run. Raises UserError if classes
    are to be mixed and the labels show only one class.
    """
    if not (options.rare_class_temperature or options.class_balance):
        return None
    with distributed.main_first():
        bar = functools.partial(_bar, total=len(source), desc="pixels of each class")
        pixels = class_pixels(source, options.cache or options.snapshot_dir, options.num_workers, bar)
    names, shares = source.table.names, class_shares(pixels)
    if options.rare_class_temperature:
        probabilities = class_probabilities(pixels, options.rare_class_temperature)
        drawn = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, probabilities, strict=True) if share)
        logger.info("source images are drawn by class: %s", drawn)
    mixed = script == "step2" and options.method == "plus" and options.class_mixing and options.lambda_mix
    if mixed and (shares > 0).sum() < 2:
        raise UserError(
            f"{source.root}: the labels show only one class, {names[int(shares.argmax())]}; expected two or more, of "
            f"which class mixing chooses half: give --no-class-mixing, or labels with more classes"
        )
    missing = ", ".join(name for name, share in zip(names, shares, strict=True) if not share)
    if missing:
        logger.warning("%s: no label shows: %s. That cannot be learnt; is the class table right?", source.root, missing)
    return pixels


def target_data(
    options: Options,
    table: ClassTable,
    *,
    pseudo_labels: bool = False,
    augmented: bool = True,
    check: bool = True,
) -> SegmentationDataset:
    """Training images of the target; their own labels are never touched."""
    return _dataset(
        options,
        table,
        "data_list_target",
        labels=pseudo_labels,
        augment=_augment(options) if augmented else None,
        seed=options.random_seed + 1,
        pseudo_label_dir=options.ssl_target_dir if pseudo_labels else None,
        check=check,
    )


def test_data(
    options: Options, table: ClassTable, *, labels: bool | None = True, check: bool = True
) -> SegmentationDataset:
    """Target images to score on, with their labels at native size."""
    return _dataset(
        options,
        table,
        "data_list_target_test",
        split=options.set,
        labels=labels,
        label_size="native",
        check=check,
    )


def check_files(options: Options, skipped: Skipped, *data: SegmentationDataset | None) -> None:
    """Read the headers of all files before anything starts, so that a file that is not an image, a pair of different
    shapes, or a `--cache` without enough room is found now and not in the middle of an epoch.

    All faults are logged. Raises UserError if there is one; with `--skip-bad-images`, only if all images of a set have
    one.
    """
    distorted: set[str] = set()  # options, each told once: target images to train on and to score on have the same size
    for images in (images for images in data if images is not None):
        faults = header_faults(images)
        if options.skip_bad_images and len(faults) < len(images):
            skipped.add(faults)
        elif faults:
            for found in faults[1:]:
                logger.info("bad: %s", found)
            count = f" ({len(faults)} of {len(images)} are bad, logged above)" if faults[1:] else ""
            raise UserError(f"{faults[0]}{'' if options.skip_bad_images else '; or give --skip-bad-images'}{count}")
        logger.info("%s: %d images, all files found, sizes match", images.root, len(images) - len(faults))
        odd = distortion(images)
        source_size = read_size(options.input_size, options.high_resolution_crops)
        own = images.size == source_size and images.root == Path(options.data_dir)
        option = f"{'twice ' * options.high_resolution_crops}{'--input-size' if own else '--input-size-target'}"
        if odd and option not in distorted:
            distorted.add(option)
            logger.info("attention: %s: %s: %s", images.root, option, odd)
        for line in quick_check(images):
            logger.info("attention: %s: %s; python -m dataset.check tells more", images.root, line)
    if options.cache is not None:
        with distributed.main_first():
            _cache(options.cache).announce(
                item for images in data if images is not None for item in images.cache_wanted()
            )


def header_faults(images: SegmentationDataset) -> list[str]:
    """What is wrong with the headers of the files, one line per bad image, in the order of the images.

    Process 0 reads them, with threads, for all processes: most of the time is spent waiting for a disk or network.
    """
    faults: list[str] = []
    if distributed.is_main():
        with ThreadPoolExecutor(HEADER_THREADS) as pool:
            found = pool.map(images.header_fault, images.names)
            faults = [fault for fault in _bar(found, len(images), "headers") if fault]
    return distributed.objects(faults)[0]


def _bar(items: Iterable[Item], total: int, desc: str) -> Iterable[Item]:
    """The items, with a progress bar that disappears at the end."""
    return tqdm(items, total=total, desc=desc, disable=distributed.no_bar(), leave=False)


@functools.cache
def _cache(folder: str) -> Cache:
    """The cache in a folder: one object for all data sets, which share what it knows about the files."""
    return Cache(folder)


def test_data_if_any(options: Options, given: frozenset[str], table: ClassTable) -> SegmentationDataset | None:
    """`test_data`, or None, with a log line, if the target has no labels. For the reader `folder`, only the images with
    labels.

    A list of images or a split that the user gave (not one that the preset names) must exist; otherwise, raises
    UserError.
    """
    try:
        images = test_data(options, table, labels=None)
    except UserError as error:
        if given & {"data_list_target_test", "set"}:
            raise
        logger.info("no scores while training: %s", error)
        return None
    labelled = images.labelled_names()
    if not labelled:
        logger.info("no scores while training: none of the %d images of %s has a label", len(images), images.root)
        return None
    if void_alone(images):
        logger.info("no scores while training: the labels of %s hold only ignored pixels", images.root)
        return None
    if options.target != "folder":
        return test_data(options, table)
    return images.limited_to(labelled)


def evaluation_data(options: Options, table: ClassTable) -> SegmentationDataset:
    """Images to predict. Those with labels are scored; in a folder, these may be all, some or none."""
    images = test_data(options, table, labels=None)
    if void_alone(images):
        logger.info(
            "%s: the labels of split %s hold only ignored pixels, which counts as no labels", images.root, options.set
        )
        return test_data(options, table, labels=False)
    return images if options.target == "folder" or not images.labelled_names() else test_data(options, table)


def saved_ids(options: Options, table: ClassTable) -> LabelMap | None:
    """Lookup [256] from train ids to the ids of `--save-ids`; None if these are train ids.

    Raises UserError if the classes have no label ids.
    """
    if options.save_ids == "train":
        return None
    reader = READERS[options.target]
    if table.label_ids is None and not hasattr(reader, "table"):
        raise UserError(
            f"--save-ids: found label, but the classes of {table.name} have no label ids; expected train: leave the "
            f"flag out, or give --classes FILE with label ids"
        )
    return to_label_ids(reader.label_ids(table), table)


def check_output(option: str, folder: Path, images: SegmentationDataset, *, coloured: bool = True) -> None:
    """Raises UserError if a mask of `images` in `folder` would replace an image or a label of the data. Without
    `coloured` masks, also if the folder holds coloured masks of an earlier run: the official evaluation would find two
    masks per image."""
    for name in images.names:
        mask = folder / f"{images.key(name)}.png"
        colour = folder / f"{images.key(name)}_color.png"
        if not coloured and colour.exists():
            raise UserError(
                f"{flag(option)}: found the coloured mask {colour}, expected a folder without coloured masks, because "
                f"the official evaluation accepts one file per image: give another folder"
            )
        if not os.path.exists(mask):
            continue
        paths = [images.image_path(name)]
        with suppress(UserError):  # a name that cannot have a label
            paths.append(images.label_path(name))
        if any(path.exists() and path.samefile(mask) for path in paths):
            raise UserError(f"{flag(option)}: {mask} belongs to the data set, expected a folder outside it")


def _augment(options: Options) -> Augment:
    return Augment(options.random_mirror, options.random_scale, options.random_jitter, options.crop)


class Domain(NamedTuple):
    """folder: the option of the data folder; size: width and height of the images that the network gets."""

    reader: type[SegmentationDataset]
    folder: str
    size: Size


def _domain(options: Options, names: str) -> Domain:
    """The domain that the list of the option `names` belongs to."""
    if names == "data_list":
        return Domain(READERS[options.source], "data_dir", options.input_size)
    return Domain(READERS[options.target], "data_dir_target", options.input_size_target)


def _dataset(options: Options, table: ClassTable, names: str, **arguments: Any) -> SegmentationDataset:
    """The images of the option `names`, at the size at which they are read."""
    reader, folder, size = _domain(options, names)
    root = getattr(options, folder)
    if BUILTIN_ROOT in Path(root).parents:
        with distributed.main_first():
            if not Path(root).exists():
                logger.info("%s does not exist yet: drawing the built-in data", root)
                write_benchmark(BUILTIN_ROOT)
    arguments |= {"ignore_label": options.ignore_label, "skip_bad": options.skip_bad_images}
    cache = None if options.cache is None else _cache(options.cache)
    # If there is no folder, the message of the reader says what it should hold.
    found = list_file(options, names) if os.path.isdir(root) else None
    size = read_size(size, options.high_resolution_crops)
    return reader(root, found, table=table, cache=cache, size=size, **arguments)


def list_file(options: Options, names: str) -> Path | None:
    """The list file of the option `names`, as given or inside the data folder. A list that the reader derives from the
    folders need not exist there. Raises UserError if it is in neither place."""
    name = getattr(options, names)
    if name is None:
        return None
    reader, folder, _ = _domain(options, names)
    root = getattr(options, folder)
    found = next((path for path in (Path(name), Path(root) / name) if os.path.isfile(path)), Path(name))
    if fault(found) == "not found":
        if name in reader.tree_lists and os.path.isdir(root):
            return Path(root) / name
        raise UserError(
            f"{name}: unreadable list (not found), also below {root}; expected a file of image names: give the folder "
            f"that holds it with {flag(folder)}, or another {flag(names)}"
        )
    return found
