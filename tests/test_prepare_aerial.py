"""Aerial data sets, from downloads in every original format to the scores of a trained network."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import prepare_aerial
from dataset import Aerial, aerial_tiles
from dataset.aerial_tiles import blank_areas, foreground, offsets
from dataset.classes import AERIAL
from tests.messages import says
from tests.scripts import MAINS, records
from utils.options import config
from utils.setup import data_sets
from utils.system import lock

TILE = 32
RED = (255, 0, 0)


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.chdir(tmp_path)


def image(seed: int, side: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (side, side, 3)).astype(np.uint8)


def mask(seed: int, side: int = 60) -> np.ndarray:
    return (np.random.default_rng(seed).random((side, side)) < 0.3).astype(np.uint8)


def write(path: str, pixels: np.ndarray) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def inria(*names: str) -> None:
    for i, name in enumerate(names):
        write(f"AerialImageDataset/train/images/{name}.tif", image(i))
        write(f"AerialImageDataset/train/gt/{name}.tif", mask(i) * 255)


def prepare(*arguments: str) -> None:
    prepare_aerial.main([*arguments, "--tile", str(TILE), "--workers", "2"])


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        config.run(lambda: prepare(*arguments))
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    return error


def manifest(out: str) -> dict:
    return json.loads(Path(out, "manifest.json").read_text())


def listed(out: str, split: str) -> list[str]:
    return Path(out, f"{split}.txt").read_text().split()


def tile(out: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.array(Image.open(Path(out, folder, f"{name}.png"))) for folder in ("Images", "SegmentationClass"))  # type: ignore[return-value]


def digests(out: str) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(Path(out).rglob("*")) if p.is_file()}


# The downloads as they are distributed


def test_inria_tiffs(capsys):
    inria("austin1", "austin6", "vienna12", "tyrol-w5")
    prepare("iaild", "AerialImageDataset")
    corners = [f"_{y:05d}_{x:05d}" for y in (0, 28) for x in (0, 28)]
    assert listed("data/IAILD", "train") == [f"{name}{c}" for name in ("austin6", "vienna12") for c in corners]
    assert listed("data/IAILD", "val") == [f"{name}{c}" for name in ("austin1", "tyrol-w5") for c in corners]
    found, label = tile("data/IAILD", "austin6_00028_00000")
    assert np.array_equal(found, image(1)[28:60, :32]) and np.array_equal(label, mask(1)[28:60, :32])
    counts = manifest("data/IAILD")["counts"]
    assert (counts["tiles"], counts["dropped"], counts["ignored"]) == (16, 0, 0)
    names = [name for split in ("train", "val") for name in listed("data/IAILD", split)]
    assert counts["foreground"] == sum(int(tile("data/IAILD", name)[1].sum()) for name in names)
    assert sorted(p.name for p in Path("data/IAILD").iterdir()) == [
        "Images", "SegmentationClass", "manifest.json", "train.txt", "val.txt",
    ]  # fmt: skip
    assert "16 tiles, 0 blank ones dropped" in capsys.readouterr().out


def test_massachusetts_buildings_with_red_masks_and_blank_areas():
    for i, split in enumerate(("train", "valid", "test")):
        pixels, truth = image(i), np.zeros((60, 60, 3), np.uint8)
        truth[mask(i) == 1] = RED
        pixels[:, 40:] = 255
        pixels[5:15, 5:15] = 255  # a white roof
        write(f"mass_buildings/{split}/sat/2297{i}_15.tiff", pixels)
        write(f"mass_buildings/{split}/map/2297{i}_15.tif", truth)
    prepare("mbd", "mass_buildings", "--blank-min", "64")
    # Of the right tiles, 28..60, the columns from 40 on are blank: 20 of 32.
    assert [listed("data/MBD", split) for split in ("train", "val", "test")] == [
        [f"2297{i}_15_{y:05d}_00000" for y in (0, 28)] for i in range(3)
    ]
    assert manifest("data/MBD")["counts"]["dropped"] == 6
    prepare("mbd", "mass_buildings", "--blank-min", "64", "--max-blank", "0.7", "--out", "kept")
    _, label = tile("kept", "22971_15_00000_00028")
    expected = mask(1)[:32, 28:]
    expected[:, 12:] = 255
    assert np.array_equal(label, expected)
    assert np.array_equal(tile("kept", "22971_15_00000_00000")[1], mask(1)[:32, :32])
    assert manifest("kept")["counts"]["ignored"] == 6 * 20 * 32


@pytest.mark.parametrize("prefix", ["", "tiff/", "png/"])
def test_massachusetts_roads_with_folders_of_labels(prefix):
    suffix = "png" if prefix == "png/" else "tiff"
    for i, split in enumerate(("train", "val", "test")):
        write(f"roads/{prefix}{split}/1007{i}_15.{suffix}", image(i))
        write(f"roads/{prefix}{split}_labels/1007{i}_15.{suffix.replace('tiff', 'tif')}", mask(i) * 255)
    prepare("mrd", "roads", "--overlap", "8")
    assert [listed("data/MRD", split)[-1] for split in ("train", "val", "test")] == [
        f"1007{i}_15_00028_00028" for i in range(3)
    ]
    assert np.array_equal(tile("data/MRD", "10072_15_00028_00014")[1], mask(2)[28:60, 14:46])  # three tiles per side


def test_deepglobe_jpegs_with_masks_that_are_not_pure():
    for i in range(12):
        write(f"deepglobe/train/{90 + 11 * i}_sat.jpg", image(i, 64))
        truth = np.where(mask(i, 64) == 1, 131, 124).astype(np.uint8)
        write(f"deepglobe/train/{90 + 11 * i}_mask.png", np.repeat(truth[:, :, None], 3, 2))
    write("deepglobe/valid/7_sat.jpg", image(0, 64))
    prepare("deepglobe", "deepglobe")
    train, val = ({name.split("_")[0] for name in listed("data/DeepGlobe", split)} for split in ("train", "val"))
    assert (len(train), len(val)) == (11, 1) and not train & val
    assert val == {"134"}  # fixed: the smallest CRC-32
    with Image.open("deepglobe/train/123_sat.jpg") as original:
        found, label = tile("data/DeepGlobe", "123_00032_00000")
        assert np.array_equal(found, np.array(original)[32:, :32])
    assert np.array_equal(label, mask(3, 64)[32:, :32])


def test_published_tiles_are_trained_on_and_validated_alike():
    inria("austin1", "austin6", "vienna12")
    prepare("iaild", "AerialImageDataset")
    ours, val = digests("data/IAILD"), listed("data/IAILD", "val")
    assert not {*listed("data/IAILD", "train")} & {*val}
    prepare("iaild", "AerialImageDataset", "--split", "published")
    assert {*val} < {*listed("data/IAILD", "train")} and len(listed("data/IAILD", "train")) == 12
    assert listed("data/IAILD", "val") == val
    assert manifest("data/IAILD")["split"] == "published"
    changed = {Path(p).name for p, digest in digests("data/IAILD").items() if ours[p] != digest}
    assert changed == {"train.txt", "manifest.json"}


def test_published_training_lists_hold_no_test_tiles():
    for i, split in enumerate(("train", "valid", "test")):
        write(f"mass/{split}/sat/{i}.tiff", image(i, TILE))
        write(f"mass/{split}/map/{i}.tif", mask(i, TILE) * 255)
    prepare("mrd", "mass", "--split", "published")
    lists = [listed("data/MRD", split) for split in ("train", "val", "test")]
    assert lists == [["0_00000_00000", "1_00000_00000"], ["1_00000_00000"], ["2_00000_00000"]]


def test_published_lists_are_accepted_for_tiles_of_those_names():
    for name in ("00001", "00002", "00003"):
        write(f"tiles/Images/{name}.png", image(0))
        write(f"tiles/SegmentationClass/{name}.png", mask(0))
    Path("published.txt").write_text("00001\n00003\n")
    options = config.resolve("step1", {"preset": "mrd_to_deepglobe", "data_dir": "tiles", "data_list": "published.txt"})
    assert data_sets.source_data(options, AERIAL).names == ["00001", "00003"]


def test_masks_without_an_image_are_counted(capsys):
    inria("austin1", "austin6")
    prepare("iaild", "AerialImageDataset")
    assert manifest("data/IAILD")["counts"]["masks_without_image"] == 0
    assert "without an image" not in capsys.readouterr().out
    write("AerialImageDataset/train/gt/austin7.tif", mask(0) * 255)
    write("AerialImageDataset/train/gt/vienna1.tif", mask(0) * 255)
    prepare("iaild", "AerialImageDataset")
    counts = manifest("data/IAILD")["counts"]
    assert (counts["masks_without_image"], counts["tiles"]) == (2, 8)
    first = "AerialImageDataset/train/gt/austin7.tif"
    assert says(capsys.readouterr().out, f"attention: 2 masks without an image ... {first}")


# Stopped runs


def test_a_stopped_run_goes_on_and_ends_as_an_unbroken_one(capsys):
    inria("austin1", "austin6", "vienna12")
    whole = Path("AerialImageDataset/train/images/austin6.tif").read_bytes()
    prepare("iaild", "AerialImageDataset", "--out", "unbroken")
    Path("AerialImageDataset/train/images/austin6.tif").write_bytes(whole[: len(whole) // 2])
    one = ["iaild", "AerialImageDataset", "--out", "broken", "--workers", "1"]
    with pytest.raises(SystemExit):
        config.run(lambda: prepare_aerial.main([*one, "--tile", str(TILE)]))
    assert "austin6.tif: corrupt or unreadable image" in capsys.readouterr().err
    assert not Path("broken/manifest.json").exists() and not Path("broken/train.txt").exists()
    journal = Path("broken/.prepare_aerial.jsonl")
    assert len(journal.read_text().splitlines()) == 2  # the settings and austin1
    journal.write_text(journal.read_text() + '{"name": "vien')
    Path("broken/Images/.x.png.1.tmp").write_text("of a killed run")
    first = Path("broken/Images/austin1_00000_00000.png").stat().st_mtime_ns
    Path("AerialImageDataset/train/images/austin6.tif").write_bytes(whole)
    prepare(*one)
    assert Path("broken/Images/austin1_00000_00000.png").stat().st_mtime_ns == first
    assert [*digests("broken").values()] == [*digests("unbroken").values()]


def test_a_finished_run_is_left_alone_and_a_damaged_one_repaired():
    inria("austin1", "austin6")
    prepare("iaild", "AerialImageDataset")
    before = digests("data/IAILD")
    times = {p: p.stat().st_mtime_ns for p in Path("data/IAILD/Images").iterdir()}
    prepare("iaild", "AerialImageDataset")
    assert times == {p: p.stat().st_mtime_ns for p in Path("data/IAILD/Images").iterdir()}
    Path("data/IAILD/Images/austin1_00000_00000.png").unlink()
    Path("data/IAILD/SegmentationClass/austin6_00000_00000.png").write_bytes(b"")
    prepare("iaild", "AerialImageDataset")
    assert digests("data/IAILD") == before
    inria("austin1", "austin6", "vienna9")  # the unfinished part of a download
    prepare("iaild", "AerialImageDataset")
    assert manifest("data/IAILD")["counts"]["originals"] == {"train": 2, "val": 1, "test": 0}


@pytest.mark.parametrize("kind", ["images", "gt"])
def test_a_replaced_file_of_the_same_size_is_cut_anew(kind):
    inria("austin1", "austin6")
    prepare("iaild", "AerialImageDataset")
    path = Path(f"AerialImageDataset/train/{kind}/austin6.tif")
    size, kept = path.stat().st_size, Path("data/IAILD/Images/austin1_00000_00000.png").stat().st_mtime_ns
    write(str(path), image(7) if kind == "images" else mask(7) * 255)
    assert path.stat().st_size == size
    prepare("iaild", "AerialImageDataset")
    found, label = tile("data/IAILD", "austin6_00000_00028")
    assert np.array_equal(found, image(7 if kind == "images" else 1)[:32, 28:])
    assert np.array_equal(label, mask(7 if kind == "gt" else 1)[:32, 28:])
    assert Path("data/IAILD/Images/austin1_00000_00000.png").stat().st_mtime_ns == kept


def test_a_second_run_in_the_folder_is_refused(capsys):
    inria("austin1", "austin6")
    with lock.held(Path("data/IAILD")):
        said = refused(capsys, "iaild", "AerialImageDataset")
        assert said.startswith("error: data/IAILD: in use") and not Path("data/IAILD/Images").exists()
    prepare("iaild", "AerialImageDataset")


@pytest.mark.parametrize("before", [True, False])
def test_a_run_killed_on_beginning_anew_goes_on(monkeypatch, before):
    """Killed before or after the journal is written, which replaces the manifest."""
    inria("austin1", "austin6")
    prepare("iaild", "AerialImageDataset")
    inria("austin1", "austin6", "vienna9")
    write_journal = aerial_tiles._write_journal

    def killed(*arguments):
        if not before:
            write_journal(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(aerial_tiles, "_write_journal", killed)
        prepare("iaild", "AerialImageDataset")
    times = {p: p.stat().st_mtime_ns for p in Path("data/IAILD/Images").iterdir()}
    prepare("iaild", "AerialImageDataset")
    assert manifest("data/IAILD")["counts"]["originals"] == {"train": 2, "val": 1, "test": 0}
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_verify_finds_a_changed_tile(capsys):
    inria("austin1", "austin6")
    assert "manifest.json: not found" in refused(capsys, "iaild", "AerialImageDataset", "--verify")
    prepare("iaild", "AerialImageDataset")
    prepare("iaild", "AerialImageDataset", "--verify")
    assert says(capsys.readouterr().out, "8 tiles, ... manifest")
    write("data/IAILD/Images/austin1_00000_00000.png", image(9, TILE))
    assert "austin1_00000_00000.png: missing or changed" in refused(capsys, "iaild", ".", "--verify")


@pytest.mark.parametrize(
    ("split", "found"),
    [
        ("train", "missing or changed since it was made"),
        ("val", "missing or changed since it was made"),
        ("test", "found a list of this split, expected none"),
    ],
)
def test_verify_finds_a_changed_missing_or_foreign_list(capsys, split, found):
    inria("austin1", "austin6")
    prepare("iaild", "AerialImageDataset")
    path = Path(f"data/IAILD/{split}.txt")
    before = path.read_text() if path.is_file() else None
    path.write_text(f"{before or ''}x\n")
    said = f"data/IAILD/{split}.txt: {found}; run prepare_aerial.py again"
    assert said in refused(capsys, "iaild", ".", "--verify")
    prepare("iaild", "AerialImageDataset")
    assert (path.read_text() if path.is_file() else None) == before
    if before is not None:
        path.unlink()
        assert said in refused(capsys, "iaild", ".", "--verify")


# Refusals


def _no_mask():
    Path("AerialImageDataset/train/gt/austin6.tif").unlink()


def _other_size():
    write("AerialImageDataset/train/gt/austin6.tif", mask(1, 61))


def _small():
    write("AerialImageDataset/train/images/austin6.tif", image(1, 31))
    write("AerialImageDataset/train/gt/austin6.tif", mask(1, 31))


def _twice():
    write("AerialImageDataset/train/images/austin6.png", image(1))


def _foreign():
    write("data/IAILD/Images/1.png", image(1))


def _not_ours():
    Path("data/IAILD").mkdir(parents=True)
    Path("data/IAILD/manifest.json").write_text("[]")


def _other_tiles():
    prepare_aerial.main(["iaild", "AerialImageDataset", "--tile", "16"])


def _fewer_originals():
    prepare("iaild", "AerialImageDataset")
    for folder in ("images", "gt"):
        Path(f"AerialImageDataset/train/{folder}/austin6.tif").unlink()


def _cut():
    path = Path("AerialImageDataset/train/images/austin6.tif")
    path.write_bytes(path.read_bytes()[:300])


def _loop():
    path = Path("AerialImageDataset/train/images/austin6.tif")
    path.unlink()
    path.symlink_to("austin6.tif")


def _file():
    Path("data").mkdir()
    Path("data/IAILD").touch()


@pytest.mark.parametrize(
    ("spoil", "arguments", "said"),
    [
        (_no_mask, (), "austin6.tif: no mask austin6 in AerialImageDataset/train/gt ... 1 of 2"),
        (_other_size, (), "austin6.tif: 61x61 ... AerialImageDataset/train/images/austin6.tif ... 60x60"),
        (_small, (), "austin6.tif: 31x31 ... smaller ... 32"),
        (_twice, (), "austin6.tif: austin6.png is beside it"),
        (_foreign, (), "data/IAILD: found Images/ ... not made"),
        (_not_ours, (), "data/IAILD/manifest.json: not written by prepare_aerial.py"),
        (_other_tiles, (), "data/IAILD: ... other settings (tile 16 -> 32)"),
        (_fewer_originals, (), "data/IAILD: ... austin6 (1 ... not in the download"),
        (None, ("--overlap", "32"), "--tile, --overlap: found 32 and 32"),
        (None, ("--max-blank", "1.1"), "--blank-min, --max-blank: found 0 and 1.1"),
        (None, ("--workers", "0"), "--workers: found 0"),
        (None, ("--tile", "many"), "argument --tile: invalid int value: 'many'"),
        (None, ("--tile", "-1"), "--tile, --overlap: found -1 and 0"),
        (None, ("--overlp", "3"), "unrecognized ... --overlp 3; ... --overlap?"),
        (_cut, (), "austin6.tif: corrupt or unreadable image"),
        (_loop, (), "austin6.tif: ... Too many levels"),
        (_file, (), "data/IAILD"),
    ],
)
def test_refuses(capsys, spoil, arguments, said):
    inria("austin1", "austin6")
    if spoil:
        spoil()
    # `prepare` gives --workers 2 first: the last one given counts.
    with pytest.raises(SystemExit) as ended:
        config.run(
            lambda: prepare_aerial.main(
                ["iaild", "AerialImageDataset", "--tile", str(TILE), "--workers", "2", *arguments]
            )
        )
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1
    assert says(error, said)


def test_refuses_an_empty_training_list(capsys):
    for i, split in enumerate(("valid", "test")):
        write(f"mass/{split}/sat/{i}.tiff", image(i))
        write(f"mass/{split}/map/{i}.tif", mask(i) * 255)
    said = refused(capsys, "mrd", "mass")
    assert says(said, "data/MRD/train.txt: would be empty, ... 2 images ... validation or testing")
    assert not Path("data").exists()
    write("mass/train/sat/2.tiff", np.full((60, 60, 3), 255, np.uint8))
    write("mass/train/map/2.tif", mask(2) * 255)
    said = refused(capsys, "mrd", "mass", "--blank-min", "64")
    assert says(said, "data/MRD/train.txt: would be empty, ... 0.5 ... blank")
    assert not list(Path("data/MRD").glob("*.txt")) and not Path("data/MRD/manifest.json").exists()
    prepare("mrd", "mass", "--blank-min", "64", "--split", "published")
    assert len(listed("data/MRD", "train")) == 4


def test_refuses_a_download_of_another_kind(capsys):
    inria("austin1")
    assert "nowhere: folder of the download" in refused(capsys, "mrd", "nowhere")
    said = refused(capsys, "mrd", "AerialImageDataset")
    assert says(said, "AerialImageDataset: no images with masks ... {train,valid,test}/")
    write("mass/train/sat/1.tiff", image(0))
    write("mass/train/map/1.tif", mask(0) * 255)
    write("mass/valid/sat/2.tiff", image(0))
    assert "mass/valid/sat: no masks in mass/valid/map" in refused(capsys, "mrd", "mass")
    write("mass/valid/map/1.tif", mask(0) * 255)
    Path("mass/valid/sat/2.tiff").rename("mass/valid/sat/1.tiff")
    assert "has the same name" in refused(capsys, "mrd", "mass")


def test_refuses_tiles_that_are_prepared_already(capsys):
    write("tiles/Images/00001.png", image(0))
    truth = mask(0)
    truth[:3] = 255
    write("tiles/SegmentationClass/00001.png", truth)
    assert says(refused(capsys, "mrd", "tiles"), "00001.png: ... 1 and 255, ... tiles that prepare_aerial.py has made")
    write("tiles/SegmentationClass/00001.png", mask(0) * 255)
    prepare("mrd", "tiles")
    assert np.array_equal(tile("data/MRD", "00001_00000_00000")[1], mask(0)[:32, :32])


# Parts


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "expected"),
    [
        (1024, 512, 0, [0, 512]),
        (1500, 512, 0, [0, 494, 988]),
        (512, 512, 100, [0]),
        (1024, 512, 1, [0, 256, 512]),
        (5000, 512, 64, [0, 408, 816, 1224, 1632, 2040, 2448, 2856, 3264, 3672, 4080, 4488]),
    ],
)
def test_offsets(length, tile, overlap, expected):
    assert offsets(length, tile, overlap) == expected


def test_offsets_cover_with_the_overlap_and_no_tile_too_many():
    for length in range(10, 60):
        for overlap in range(10):
            found = offsets(length, 10, overlap)
            steps = np.diff(found)
            assert found[0] == 0 and found[-1] == length - 10 and (steps <= 10 - overlap).all()
            assert len(found) == 1 or (len(found) - 2) * (10 - overlap) + 10 < length


def test_blank_areas_touch_the_edge_and_are_large():
    pixels = image(0, 40)
    pixels[:4, :5] = 255  # 20 pixels at the edge
    pixels[4, 5] = 250  # a 21st, across the corner
    pixels[20:30, 20:30] = 255  # inside
    pixels[-1, -3:] = 255  # small
    expected = np.zeros((40, 40), bool)
    expected[:4, :5] = expected[4, 5] = True
    assert np.array_equal(blank_areas(pixels, 21), expected)
    assert not blank_areas(pixels, 22).any()
    assert not blank_areas(pixels, 0).any()
    pixels[4, 5] = (255, 255, 249)
    assert blank_areas(pixels, 20).sum() == 20


def test_foreground_of_every_kind_of_mask():
    def grey(*values: int) -> np.ndarray:
        return np.repeat(np.array([values], np.uint8)[:, :, None], 3, 2)

    assert foreground(grey(0, 255)).tolist() == [[0, 1]]
    assert foreground(grey(0, 1)).tolist() == [[0, 1]]
    assert foreground(grey(0, 127, 128, 1)).tolist() == [[0, 0, 1, 0]]
    assert foreground(grey(0, 0)).tolist() == [[0, 0]]
    assert foreground(np.array([[RED, (0, 0, 0)]], np.uint8)).tolist() == [[1, 0]]


@pytest.mark.skipif("BAFFT_MASSROADS" not in os.environ, reason="BAFFT_MASSROADS names no Massachusetts Roads folder")
def test_massachusetts_roads_itself():
    prepare_aerial.main(["mrd", os.environ["BAFFT_MASSROADS"]])
    names = [name for split in ("train", "val") for name in listed("data/MRD", split)]
    assert len(names) == manifest("data/MRD")["counts"]["tiles"]
    for name in names:
        found, label = tile("data/MRD", name)
        assert found.shape == (512, 512, 3) and label.shape == (512, 512)
        assert (label == 255).mean() <= 0.5
        assert ((found.min(2) == 255) & (label != 255)).mean() < 0.01  # remaining white: roofs


# From tiles to scores


def test_every_script_on_a_prepared_pair(capsys):
    inria("austin1", "austin6")
    for i, split in enumerate(("train", "valid")):
        pixels = image(i)
        pixels[:20] = 255
        write(f"mass/{split}/sat/{i}.tiff", pixels)
        write(f"mass/{split}/map/{i}.tif", mask(i) * 255)
    prepare("iaild", "AerialImageDataset")
    prepare("mbd", "mass", "--blank-min", "64", "--max-blank", "0.9")
    network = ("--preset", "iaild_to_mbd", "--cpu", "--num-workers", "0", "--input-size-target", "32,32")
    tiny = ("--backbone", "tiny", "--discriminator-width", "0.25", "--input-size", "32,32", "--num-steps", "2")
    MAINS["step1"]([*network, *tiny, "--restore-from", "none", "--num-prototype", "1", "--log-every", "1"])
    MAINS["pseudo"]([*network])
    MAINS["step2"]([*network, *tiny, "--num-prototype", "1"])
    scored = records(Path("snapshots/iaild_to_mbd/step2"))[-1]
    capsys.readouterr()
    MAINS["evaluate"]([*network, "--json", "a.json"])
    MAINS["iou"](["data/MBD", "result/iaild_to_mbd", "--preset", "iaild_to_mbd", "--json", "b.json"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("fore", "mean", "F1"))]
    titles = [row.rsplit(maxsplit=1)[0].strip() for row in rows]
    assert titles == ["foreground", "mean of 2 classes", "F1 of foreground"] * 2
    first, second = (json.loads(Path(name).read_text()) for name in ("a.json", "b.json"))
    assert first.items() >= second.items()
    assert first["means"]["2"] == pytest.approx(scored["miou"]) and scored["classes"] == "2"
    confusion = np.array(first["confusion"])
    hit, wrong = confusion[1, 1], confusion[0, 1] + confusion[1, 0]
    assert first["f1"]["foreground"] == pytest.approx(2 * hit / (2 * hit + wrong))
    labels = Aerial("data/MBD", split="val")
    assert confusion.sum() == sum(int((labels[i]["label"] != 255).sum()) for i in range(len(labels)))
    assert any((labels[i]["label"] == 255).any() for i in range(len(labels)))
