"""The cache changes no sample, never returns outdated data, and survives kills, disk errors and other processes."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import signal
import time
from collections import namedtuple
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from dataset import GTA5, Cityscapes, base, cache, layout
from dataset.augment import Augment
from dataset.cache import Cache
from dataset.classes import CITYSCAPES
from dataset.tables import parse_classes, plain_values
from tests.messages import says
from utils.system.errors import UserError

NATIVE, SIZE = (40, 24), (24, 16)
FLAGS = [
    Augment(mirror=mirror, scale=scale, jitter=jitter)
    for mirror, scale, jitter in itertools.product((False, True), repeat=3)
]


def write_pair(root: Path, number: int, seed: int | None = None) -> None:
    rng = np.random.default_rng(number if seed is None else seed)
    shape = NATIVE[::-1]
    for folder, pixels in (
        ("images", rng.integers(0, 256, (*shape, 3), dtype=np.uint8)),
        ("labels", rng.integers(0, 34, shape, dtype=np.uint8)),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / folder / f"0000{number}.png")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(cache, "_SETTLED", -60.0)  # files that were just written count as settled
    for number in (1, 2, 3):
        write_pair(tmp_path / "data", number)
    return tmp_path / "data"


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cache"


def samples(dataset, draws=3) -> list[dict]:
    return [dataset[index, 10 * draw + index] for draw in range(draws) for index in range(len(dataset))]


def assert_same(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert a.keys() == b.keys() and (a["name"], *a["size"]) == (b["name"], *b["size"])
        for key in {"image", "label"} & a.keys():
            assert a[key].dtype == torch.uint8 and a[key].is_contiguous()
            assert torch.equal(a[key], b[key])


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "seen" not in path.parts)


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """A list of the names of the files that are decoded during the test."""
    names: list[str] = []

    def recorded(read, path, **given):
        names.append(path.name)
        return read(path, **given)

    monkeypatch.setattr(base, "read_image", partial(recorded, base.read_image))
    for module in (base, layout):
        monkeypatch.setattr(module, "read_ids", partial(recorded, module.read_ids))
    return names


# Samples are the same with and without the cache.


@pytest.mark.parametrize("size", [SIZE, NATIVE, None], ids=str)
@pytest.mark.parametrize("augment", FLAGS, ids=str)
def test_samples_are_the_same_cold_and_warm(root, folder, decoded, augment, size):
    options: dict[str, Any] = {"size": size, "augment": augment, "seed": 5}
    expected = samples(GTA5(root, **options))
    cached = GTA5(root, cache=Cache(folder), **options)
    assert_same(samples(cached), expected)
    decoded.clear()
    assert_same(samples(cached), expected)
    assert_same(samples(GTA5(root, cache=Cache(folder), **options)), expected)
    assert decoded == []
    assert len(entries(folder)) == 6


def test_the_same_bytes_under_a_name_that_says_train_ids_are_other_labels(root, folder):
    GTA5(root, cache=Cache(folder))[0]
    expected = GTA5(root)[0]["label"]
    for path in (root / "labels").iterdir():
        ids = np.where(np.asarray(Image.open(path)) < 19, np.asarray(Image.open(path)), 255)
        Image.fromarray(ids.astype(np.uint8)).save(path)
    assert not torch.equal(GTA5(root, cache=Cache(folder))[0]["label"], torch.from_numpy(ids.astype(np.uint8)))
    for path in list((root / "labels").iterdir()):
        path.rename(path.with_stem(f"{path.stem}_labelTrainIds"))
    data = GTA5(root, cache=Cache(folder))
    assert torch.equal(data[0]["label"], GTA5(root)[0]["label"]) and not torch.equal(data[0]["label"], expected)


def test_labels_for_evaluation_stay_native(root, folder, decoded):
    options: dict[str, Any] = {"size": SIZE, "label_size": "native"}
    expected = samples(GTA5(root, **options))
    decoded.clear()
    for _ in range(2):
        assert_same(samples(GTA5(root, cache=Cache(folder), **options)), expected)
    assert len(decoded) == 6
    assert expected[0]["label"].shape == NATIVE[::-1]


def test_a_sample_may_be_changed(root, folder):
    cached = GTA5(root, size=SIZE, cache=Cache(folder))
    for _ in range(2):
        cached[0]["image"].zero_()
        cached[0]["label"].zero_()
    assert_same([cached[0]], [GTA5(root, size=SIZE)[0]])


def test_errors_are_the_same(root, folder):
    Image.new("L", (4, 4)).save(root / "labels" / "00002.png")
    (root / "images" / "00003.png").write_bytes(b"no image")
    cached = GTA5(root, size=SIZE, cache=Cache(folder))
    for _ in range(2):
        with pytest.raises(UserError, match=r"00002\.png: label of 4x4 .* image .* 40x24"):
            cached[1]
        with pytest.raises(UserError, match=r"00003\.png: corrupt or unreadable image"):
            cached[2]
    (root / "images" / "00001.png").unlink()
    with pytest.raises(UserError, match=r"00001\.png"):
        cached[0]


# What identifies an entry.


def test_settings_do_not_share_labels(root, folder):
    other_ids = replace(CITYSCAPES, label_ids={i: i % 19 for i in range(256)})
    for options in (
        {"size": SIZE},
        {"size": SIZE, "ignore_label": 77},
        {"size": SIZE, "table": CITYSCAPES.first(13)},
        {"size": SIZE, "table": other_ids},
        {"size": NATIVE},
        {"size": (16, 24)},
    ):
        assert_same(samples(GTA5(root, cache=Cache(folder), **options)), samples(GTA5(root, **options)))
    assert len(entries(folder)) == 3 * 6 + 3 * 3


def test_a_colour_that_is_no_longer_ignored_is_refused_in_spite_of_the_cache(root, folder):
    Image.fromarray(np.full((*NATIVE[::-1], 3), (0, 9, 0), np.uint8)).save(root / "labels/00001.png")
    classes = [{"name": "a", "kind": "stuff", "id": 1, "color": [255, 0, 0]}, {"name": "b", "kind": "thing", "id": 2}]
    table = parse_classes({"classes": classes, "ignore": "rest"}, "classes.yaml")
    assert GTA5(root, table=table, cache=Cache(folder))[0]["label"].unique().tolist() == [255]
    with pytest.raises(UserError, match="the colour"):
        GTA5(root, table=replace(table, label_ids={1: 0, 2: 1}), cache=Cache(folder))[0]


def test_a_table_from_a_checkpoint_finds_the_labels_of_its_file(root, folder):
    classes = [{"name": "a", "kind": "stuff", "id": [1, 9]}, {"name": "b", "kind": "thing", "id": 2}]
    table = parse_classes({"classes": classes, "ignore": "rest"}, "classes.yaml")
    kinds = {GTA5(root, table=found).label_kind for found in (table, parse_classes(plain_values(table), "last.pth"))}
    assert len(kinds) == 1


def test_readers_do_not_share_labels(root, folder):
    class Shifted(GTA5):
        @staticmethod
        def read_label(path, colours=None):
            return GTA5.read_label(path, colours) + 1

    for reader in (GTA5, Shifted):
        assert_same(samples(reader(root, cache=Cache(folder))), samples(reader(root)))


def test_a_changed_file_gives_another_sample(root, folder):
    cached = GTA5(root, size=SIZE, cache=Cache(folder))
    before = cached[0]
    times = [(path, path.stat()) for path in (root / "images/00001.png", root / "labels/00001.png")]
    write_pair(root, 1, seed=9)
    for path, status in times:  # as unpacking an archive over it would
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = cached[0]
    assert not torch.equal(before["image"], after["image"]) and not torch.equal(before["label"], after["label"])
    assert_same([after], [GTA5(root, size=SIZE)[0]])


def test_a_file_overwritten_in_the_same_instant_is_noticed(root, folder, monkeypatch):
    """File times are so coarse that two writes may share them, so a young file is hashed at every read."""
    monkeypatch.setattr(cache, "_SETTLED", 2.0)
    path = root / "labels" / "00001.png"
    status = path.stat()
    real = Path.stat
    monkeypatch.setattr(Path, "stat", lambda p, **options: status if p == path else real(p, **options))
    cached = GTA5(root, size=SIZE, cache=Cache(folder))
    before = cached[0]
    path.write_bytes((root / "labels" / "00002.png").read_bytes())
    after = cached[0]
    assert not torch.equal(before["label"], after["label"])
    assert_same([after], [GTA5(root, size=SIZE)[0]])


def test_touched_and_moved_files_are_known_by_their_content(root, folder, decoded):
    expected = samples(GTA5(root, size=SIZE, cache=Cache(folder)))
    for path in root.rglob("*.png"):
        os.utime(path, (1, 1))
    moved = root.with_name("moved")
    shutil.copytree(root, moved)
    decoded.clear()
    assert_same(samples(GTA5(root, size=SIZE, cache=Cache(folder))), expected)
    assert_same(samples(GTA5(moved, size=SIZE, cache=Cache(folder))), expected)
    assert decoded == []


def test_a_warm_start_hashes_nothing(root, folder, monkeypatch):
    samples(GTA5(root, size=SIZE, cache=Cache(folder)))
    monkeypatch.setattr(cache.hashlib, "file_digest", None)
    samples(GTA5(root, size=SIZE, cache=Cache(folder)))


def test_pseudo_labels_are_never_out_of_date(root, folder):
    def write(seed: int) -> None:
        pseudo.mkdir(exist_ok=True)
        for number in (1, 2, 3):
            label = np.random.default_rng([seed, number]).integers(0, 19, SIZE[::-1], dtype=np.uint8)
            Image.fromarray(label).save(pseudo / f"0000{number}.png", compress_level=0)  # all files have the same size

    pseudo = root.with_name("pseudo")
    options: dict[str, Any] = {"size": SIZE, "pseudo_label_dir": pseudo, "augment": Augment(mirror=True)}
    for seed in range(4):
        write(seed)
        expected = samples(GTA5(root, **options))
        for _ in range(2):
            assert_same(samples(GTA5(root, cache=Cache(folder), **options)), expected)
    # Images are not stored again, and a pseudo-label is not confused with a label of the same bytes.
    assert len(entries(folder)) == 3 + 4 * 3
    shutil.copy(root / "labels" / "00001.png", pseudo / "00002.png")
    samples(GTA5(root, size=SIZE, cache=Cache(folder)))
    with pytest.raises(UserError, match="pseudo-label with id"):
        GTA5(root, cache=Cache(folder), **options)[1]


def test_a_file_replaced_while_it_is_read_is_not_stored(root, folder):
    path = root / "images" / "00001.png"
    old, new = path.read_bytes(), (root / "images" / "00002.png").read_bytes()
    reads = []

    def read(source: Path):
        reads.append(source)
        source.write_bytes(new)  # after the hash, before the decoding
        with Image.open(source) as image:
            return np.asarray(image), image.size

    shared = Cache(folder)
    shared.get(path, "image", read)
    assert entries(folder) == []
    path.write_bytes(old)
    shared.get(path, "image", read)
    assert len(reads) == 2


# Several processes, kills and disk errors.


def test_workers_fill_it_together(root, folder):
    cached = GTA5(root, size=SIZE, cache=Cache(folder))
    order = [0, 1, 2] * 4
    expected = [cached[i] for i in order]
    shutil.rmtree(folder)
    loaders = [iter(DataLoader(cached, batch_size=None, sampler=order, num_workers=2)) for _ in range(2)]
    for found in zip(*loaders):
        assert_same(list(found), [expected.pop(0)] * 2)
    assert len(entries(folder)) == 6


def test_a_killed_writer_leaves_no_wrong_entry(root, folder):
    """A process that keeps storing entries is killed at random moments; every entry that exists is complete."""
    pixels = np.arange(300 * 400 * 3, dtype=np.uint32).astype(np.uint8).reshape(300, 400, 3)
    files = sorted((root / "images").iterdir())
    rng = np.random.default_rng(0)
    stored = 0
    for life in range(10):
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                for number in itertools.count():
                    Cache(folder).get(files[number % 3], f"life{life} {number}", lambda _: (pixels, (400, 300)))
            os._exit(1)
        while not list(folder.glob(f"v2/life{life}-*/*/*")):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    for path in entries(folder):
        if path.suffix != ".tmp":
            found = cache._load(path)
            assert found is not None and found[1] == (400, 300) and np.array_equal(found[0], pixels)
            stored += 1
    assert stored >= 10


@pytest.mark.parametrize("damage", ["empty", "cut", "longer", "foreign", "zeros", "hole", "changed", "folder"])
def test_a_damaged_entry_is_made_anew(root, folder, damage):
    cached = GTA5(root, size=SIZE, cache=Cache(folder))
    expected = samples(cached)
    for path in entries(folder):
        data = path.read_bytes()
        if damage == "folder":
            path.unlink()
            path.mkdir()
        else:
            hole = data[:200] + bytes(100) + data[300:]
            broken = {"empty": b"", "cut": data[:-1], "longer": data + b"x", "foreign": b"x" * len(data), "hole": hole}
            broken |= {"zeros": bytes(48), "changed": data[:-1] + bytes([data[-1] ^ 1])}
            path.write_bytes(broken[damage])
    assert_same(samples(cached), expected)
    seen = list(folder.rglob("seen/*/*"))
    for number, path in enumerate(seen):
        path.write_bytes(bytes(64 * (number % 2)))
    assert_same(samples(cached), expected)
    if damage != "folder":
        assert len(seen) == 6 and all(len(path.read_text()) == 64 for path in seen)
        assert all(cache._load(path) is not None for path in entries(folder))


def test_storing_does_not_wait_for_the_disk(root, folder, monkeypatch):
    monkeypatch.setattr(os, "fsync", None)
    samples(GTA5(root, size=SIZE, cache=Cache(folder)))
    assert len(entries(folder)) == 6


def test_a_full_disk_in_the_middle_warns_once_and_goes_on(root, folder, monkeypatch, caplog):
    cached = GTA5(root, size=SIZE, cache=Cache(folder))
    cached[0]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.WARNING, logger="bafft"):
        found = samples(cached)
    assert_same(found, samples(GTA5(root, size=SIZE)))
    assert [record.getMessage().count("No space left on device") for record in caplog.records] == [1]
    assert len(entries(folder)) == 2 and not list(folder.rglob(".*.tmp"))


def test_leftovers_of_killed_runs_are_swept(root, folder):
    samples(GTA5(root, size=SIZE, cache=Cache(folder)))
    old, young = (entries(folder)[0].with_name(f".{name}.tmp") for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    Cache(folder).announce([])
    assert not old.exists() and young.exists()


# What is reported before the cache is used.

Usage = namedtuple("Usage", "total used free")


def announced(caplog, dataset, times: int = 1) -> str:
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="bafft"):
        dataset.cache.announce(times * dataset.cache_wanted())
    return caplog.text


@pytest.mark.parametrize("augment", [Augment(), Augment(jitter=True), Augment(scale=True)], ids=str)
@pytest.mark.parametrize("label_size", ["input", "native", None])
def test_the_estimate_is_what_it_takes(root, folder, caplog, augment, label_size):
    options: dict[str, Any] = {"labels": label_size is not None, "label_size": label_size or "input"}
    options["augment"] = augment if options["label_size"] == "input" else None
    dataset = GTA5(root, size=SIZE, cache=Cache(folder), **options)
    wanted = dataset.cache_wanted()
    assert "0 of" in announced(caplog, dataset) and not folder.exists()
    assert f"0 of {len(wanted)} images and labels" in announced(caplog, dataset, times=2)
    samples(dataset)
    assert sum(item.size for item in wanted) == sum(path.stat().st_size - 48 for path in entries(folder))
    assert f"{len(wanted)} of {len(wanted)} images and labels" in announced(caplog, dataset)


def test_a_disk_too_small_is_refused(root, folder, monkeypatch, caplog):
    dataset = GTA5(root, size=SIZE, cache=Cache(folder))
    need = 3 * 4 * SIZE[0] * SIZE[1]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, need - 1))
    with pytest.raises(UserError, match=r"--cache: .* 0 MiB more \(0 of 6 .*found 0 MiB free"):
        announced(caplog, dataset)
    assert not folder.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, need))
    announced(caplog, dataset)
    dataset[0]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, need * 2 // 3))
    assert "2 of 6" in announced(caplog, dataset)


@pytest.mark.parametrize("disk", ["full", "read-only", "large"])
@pytest.mark.parametrize("cheap", [0, cache._CHEAP])
def test_a_full_cache_of_moved_data_is_there(root, folder, monkeypatch, caplog, decoded, disk, cheap):
    expected = samples(GTA5(root, size=SIZE, cache=Cache(folder)))
    decoded.clear()
    moved = GTA5(root.rename(root.with_name("moved")), size=SIZE, cache=Cache(folder))
    monkeypatch.setattr(cache, "_CHEAP", cheap)
    hashed: list[Any] = []

    def recorded(digest, *arguments):
        hashed.append(arguments)
        return digest(*arguments)

    monkeypatch.setattr(cache.hashlib, "file_digest", partial(recorded, cache.hashlib.file_digest))
    if disk == "full":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 0))
    if disk == "read-only":
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        monkeypatch.setattr(cache, "write_atomically", None)
    said = announced(caplog, moved)
    if disk == "large" and not cheap:
        assert says(said, "0 of 6 images and labels ... (for 6 more files")
    else:
        assert says(said, "6 of 6 images and labels ... 0 MiB") and len(hashed) == 6
    assert_same(samples(moved), expected)
    assert decoded == [] and len(hashed) == 6


def test_a_run_that_goes_on_filling_hashes_nothing_in_advance(root, folder, monkeypatch, caplog):
    dataset = GTA5(root, size=SIZE, cache=Cache(folder))
    dataset[0]
    monkeypatch.setattr(cache.hashlib, "file_digest", None)
    assert says(announced(caplog, dataset), "2 of 6 images and labels ... others")


def test_a_file_in_the_way_is_refused(root, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        dataset = GTA5(root, size=SIZE, cache=Cache(tmp_path / place))
        with pytest.raises(UserError, match=r"--cache: .*file is a file"):
            announced(caplog, dataset)


def test_a_folder_that_cannot_be_written_serves_only_when_complete(root, folder, monkeypatch, caplog):
    dataset = GTA5(root, size=SIZE, cache=Cache(folder))
    dataset[0]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"--cache: .* cannot be written .* 2 of 6"):
        announced(caplog, dataset)
    samples(GTA5(root, size=SIZE, cache=Cache(folder)))
    announced(caplog, dataset)


def test_only_random_scales_need_images_at_their_native_size(root, folder):
    for augment, side in ((Augment(mirror=True, jitter=True), SIZE), (Augment(scale=True), None)):
        dataset = GTA5(root, size=SIZE, cache=Cache(folder), augment=augment)
        assert {f"size {side} " in item.kind for item in dataset.cache_wanted()} == {True}


def test_every_reader_takes_a_cache(benchmark_root, folder):
    options: dict[str, Any] = {"split": "val", "size": (48, 32), "label_size": "native"}
    plain = samples(Cityscapes(benchmark_root / "Cityscapes", **options))
    for _ in range(2):
        assert_same(samples(Cityscapes(benchmark_root / "Cityscapes", cache=Cache(folder), **options)), plain)
