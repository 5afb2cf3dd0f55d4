"""Examines every file of a run, and reports what is wrong, what is worth knowing, and a table."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset.augment import Size
from dataset.base import SegmentationDataset
from dataset.check.examine import (
    Beside,
    File,
    Map,
    ReadLabel,
    beside_labels,
    digest,
    examine,
    mapper,
    percent,
    train_ids_instead,
    unread_formats,
)
from dataset.reading import namesake
from utils.system.errors import UserError

_SHOWN = 3  # files named of each fault


@dataclass
class Part:
    """One set of images of a run.

    title: "source", "target" (the images adapted to) or "scored"; labels: whether all labels must exist ("all"), some
    may be missing ("some"), or none are read ("none").
    """

    title: str
    data: SegmentationDataset
    labels: str = "none"


@dataclass
class Report:
    """wrong: what must be repaired; notes: what may be intended; table: lines to print."""

    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    table: list[str] = field(default_factory=list)

    def add(self, part: str, what: str, paths: Sequence[object], of: int, *, skipped: bool = False) -> None:
        """Add a line for faulty files; if they are skipped, only a note."""
        if paths:
            more = ", ..." if len(paths) > _SHOWN else ""
            lines = self.notes if skipped else self.wrong
            lines.append(f"{part}: {len(paths)} of {of} {what}: {', '.join(map(str, paths[:_SHOWN]))}{more}")


@dataclass
class _Count:
    """Counts of one part: images by size, and pixels by label id."""

    sizes: Counter[Size] = field(default_factory=Counter)
    labels: int = 0
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))


def check(parts: Sequence[Part], workers: int = 0) -> Report:
    """Examine every image and label of the parts, with `workers` processes and a progress bar on a terminal.

    These are wrong: files that are missing, unreadable or without a partner; pairs of different shapes; ids outside the
    class table; labels that show only one class; labels that seem to hold train ids instead of label ids; and images
    that are in two parts (by content, or by name within one data set). All scored images may be among those adapted to,
    because the labels of these are never trained on. With `skip_bad`, images that training would leave out are only
    noted, unless that would be all.
    """
    report = Report()
    with mapper(workers) as run:
        files = _examine(parts, run)
        counts = [_check_part(part, files, report) for part in parts]
        scored = [part for part, count in zip(parts, counts, strict=True) if part.title != "scored" or count.labels]
        for one, other in combinations(scored, 2):
            _check_overlap(one, other, run, report)
    report.table = [*_overview(parts, counts), "", *_histogram(parts, counts)]
    return report


def _examine(parts: Sequence[Part], run: Map) -> dict[Path, File]:
    tasks: dict[Path, ReadLabel | None] = {}
    for part in parts:
        for name in part.data.names:
            tasks[part.data.image_path(name)] = None
            if part.labels != "none":
                tasks[part.data.label_path(name)] = part.data.decode
    present = [(path, read) for path, read in tasks.items() if os.path.isfile(path)]
    found = tqdm(run(examine, present), total=len(present), desc="check", unit="file", disable=None, leave=False)
    return {path: file for (path, _), file in zip(present, found, strict=True)}


def _check_part(part: Part, files: dict[Path, File], report: Report) -> _Count:
    data, title = part.data, part.title
    count = _Count()
    missing: dict[str, list[Path]] = {"image": [], "label": []}
    faults: dict[str, list[str]] = {"image": [], "label": []}
    mismatched: list[str] = []
    resized: list[Path] = []
    bad: set[str] = set()
    in_labels: dict[int, list[Path]] = defaultdict(list)
    for name in data.names:
        found: dict[str, Size] = {}
        paths = {"image": data.image_path(name), "label": data.label_path(name)}
        for kind, path in list(paths.items())[: 1 if part.labels == "none" else 2]:
            file = files.get(path)
            if file is None:
                missing[kind].append(path)
                if kind == "image" or part.labels == "all":
                    bad.add(name)
            elif file.fault is not None:
                faults[kind].append(file.fault)
                bad.add(name)
            else:
                found[kind] = file.size
        if "image" in found:
            count.sizes[found["image"]] += 1
        if "label" in found:
            count.labels += 1
            file = files[paths["label"]]
            count.pixels[list(file.ids)] += file.pixels
            for label_id in file.ids:
                in_labels[label_id].append(paths["label"])
        if len(found) == 2:
            if found["label"] != found["image"]:
                resized.append(paths["label"])
            try:
                data.refuse_other_size(name, found["label"], found["image"])
            except UserError as error:
                mismatched.append(str(error))
                bad.add(name)
    n = len(data)
    skipped = data.skip_bad and len(bad) < n
    report.add(title, "images are missing", _with_namesakes(missing["image"]), n, skipped=skipped)
    if part.labels == "all":
        report.add(title, "images have no label; missing", _with_namesakes(missing["label"]), n, skipped=skipped)
    report.add(title, "images cannot be read", faults["image"], n, skipped=skipped)
    report.add(title, "labels cannot be read", faults["label"], n, skipped=skipped)
    report.add(title, "pairs differ in size", mismatched, n, skipped=skipped)
    if skipped and bad:
        report.notes.append(f"{title}: --skip-bad-images leaves out {len(bad)} of {n} images")
    if resized:
        report.notes.append(f"{title}: labels of another size than their images: {len(resized)}, first {resized[0]}")
    beside = None if part.labels == "none" else beside_labels(data)
    unread = data.unread if beside is None else [*data.unread, *beside.unread]
    report.notes += [f"{title}: {line}" for line in unread_formats(unread)]
    if data.left_out:
        report.notes.append(
            f"{title}: left out {', '.join(data.left_out)}, whose labels are known to have another size"
        )
    if beside is not None:
        _check_partners(part, count, beside, report)
        _check_ids(part, count, in_labels, report)
    return count


def _with_namesakes(missing: Sequence[Path]) -> Sequence[object]:
    """The paths; those that will be shown name the file that exists instead, if any."""
    others = ((path, namesake(path)) for path in missing[:_SHOWN])
    return [*(f"{path} ({other} exists)" if other else path for path, other in others), *missing[_SHOWN:]]


def _check_partners(part: Part, count: _Count, beside: Beside, report: Report) -> None:
    strays = beside.strays
    report.add(part.title, f"labels have no image in {beside.images}", strays, len(strays) + count.labels)
    if part.labels == "some" and count.labels < len(part.data):
        scores = f"scores come from the {count.labels} others" if count.labels else "no scores"
        report.notes.append(f"{part.title}: {len(part.data) - count.labels} images have no label; {scores}")


def _check_ids(part: Part, count: _Count, in_labels: dict[int, list[Path]], report: Report) -> None:
    data, title, total = part.data, part.title, count.pixels.sum()
    if not total:
        return
    unknown = np.flatnonzero(np.where(data.known_ids(), 0, count.pixels)).tolist()
    for ids in [unknown] if len(unknown) > _SHOWN else [[label_id] for label_id in unknown]:
        paths = list(dict.fromkeys(path for label_id in ids for path in in_labels[label_id]))
        named = f"label id {ids[0]} is" if len(ids) == 1 else f"{len(ids)} label ids ({', '.join(map(str, ids))}) are"
        report.wrong.append(
            f"{title}: {named} not in the class table of {data.table.name}: "
            f"{percent(count.pixels[ids].sum() / total)} of the pixels, in {len(paths)} labels, first {paths[0]}; "
            f"give {'it' if len(ids) == 1 else 'each'} a class, or list it under ignore"
        )
    per_class = _per_class(data, count)
    present = np.flatnonzero(per_class)
    absent = [name for name, pixels in zip(data.table.names, per_class, strict=True) if not pixels]
    if part.title == "scored" and not np.where(data.known_void(), 0, count.pixels).any():
        report.notes.append(f"{title}: the labels hold only ignored pixels, so there are no scores")
        return
    binary = data.binary_fault(np.flatnonzero(count.pixels).tolist())
    mistaken = binary or train_ids_instead(data.label_ids(data.table), count.pixels)
    if mistaken:
        report.wrong.append(f"{title}: {mistaken}")
    elif present.size < 2:
        names = ", ".join(data.table.names[i] for i in present) or "none"
        report.wrong.append(f"{title}: classes in the labels: {names}; expected at least two of {data.table.name}")
    elif absent:
        report.notes.append(f"{title}: no pixel of {', '.join(absent)} in the labels")


def _per_class(data: SegmentationDataset, count: _Count) -> np.ndarray:
    train_ids = data.train_ids()
    return np.array([count.pixels[train_ids == i].sum() for i in range(data.table.num_classes)])


def _check_overlap(one: Part, other: Part, run: Map, report: Report) -> None:
    pairs = _same_images(one.data, other.data, run)
    if not pairs:
        return
    within = f"{len(pairs)} of {len(other.data)} {other.title} images are also {one.title} images"
    first = next(iter(pairs.items()))
    if one.title == "target" and other.title == "scored" and len(pairs) == len(other.data):
        report.notes.append(f"{within} (their labels are never trained on)")
    else:
        report.wrong.append(f"{within}, by {first[1][1]}: {first[0]} is {first[1][0]}; keep them apart with lists")


def _same_images(one: SegmentationDataset, other: SegmentationDataset, run: Map) -> dict[Path, tuple[Path, str]]:
    """Images of `other` -> the same image of `one`, and whether name or content shows it."""
    here, there = ({data.image_path(name): data.key(name) for name in data.names} for data in (one, other))
    found: dict[Path, tuple[Path, str]] = {}
    if type(one) is type(other) and os.path.realpath(one.root) == os.path.realpath(other.root):
        by_key = {key: path for path, key in here.items()}
        found = {path: (by_key[key], "name") for path, key in there.items() if key in by_key}
    sizes: tuple[dict[int, list[Path]], ...] = (defaultdict(list), defaultdict(list))
    for paths, by_size in zip((here, there), sizes, strict=True):
        for path in paths:
            if path not in found and os.path.isfile(path):
                by_size[os.path.getsize(path)].append(path)
    common = sizes[0].keys() & sizes[1].keys()
    suspects = sorted({path for by_size in sizes for size in common for path in by_size[size]})
    digests = dict(zip(suspects, run(digest, suspects), strict=True))
    by_content = {digests[path]: path for size in common for path in sizes[0][size]}
    for path in (path for size in common for path in sizes[1][size]):
        if digests[path] in by_content:
            found[path] = by_content[digests[path]], "content"
    return found


def _overview(parts: Sequence[Part], counts: Sequence[_Count]) -> list[str]:
    rows = [["", *(part.title for part in parts)]]
    rows.append(["folder", *(str(part.data.root) for part in parts)])
    rows.append(["images", *(str(len(part.data)) for part in parts)])
    rows.append(["labels", *("not read" if p.labels == "none" else str(c.labels) for p, c in zip(parts, counts))])
    rows.append(["sizes", *(_sizes(count.sizes) for count in counts)])
    return _aligned(rows)


def _sizes(sizes: Counter[Size]) -> str:
    shown = ", ".join(f"{width}x{height}" for (width, height), _ in sizes.most_common(2))
    return shown + (f", {len(sizes) - 2} more" if len(sizes) > 2 else "")


def _histogram(parts: Sequence[Part], counts: Sequence[_Count]) -> list[str]:
    """The share of the label pixels by class, and of those in no class."""
    shown = [(part, count) for part, count in zip(parts, counts, strict=True) if count.labels]
    if not shown:
        return ["no labels were read"]
    table = shown[0][0].data.table
    columns = [_per_class(part.data, count) for part, count in shown]
    totals = [count.pixels.sum() for _, count in shown]
    rows = [["class", "label ids", *(f"{part.title}" for part, _ in shown)]]
    train_ids = [part.data.train_ids() for part, _ in shown]
    for i, name in enumerate(table.names):
        ids = " / ".join(dict.fromkeys(_ids(lookup == i) for lookup in train_ids))
        rows.append([name, ids, *(percent(column[i] / n) for column, n in zip(columns, totals))])
    known = [part.data.known_ids() for part, _ in shown]
    outside = [np.where(mask, 0, count.pixels).sum() for mask, (_, count) in zip(known, shown)]
    left_out = [n - column.sum() - out for n, column, out in zip(totals, columns, outside)]
    rows.append(["left out", "", *(percent(value / n) for value, n in zip(left_out, totals))])
    rows.append(["outside the table", "", *(percent(value / n) for value, n in zip(outside, totals))])
    return _aligned(rows)


def _ids(mask: np.ndarray) -> str:
    ids = np.flatnonzero(mask).tolist()
    return ",".join(map(str, ids[:6])) + (",..." if len(ids) > 6 else "")


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
