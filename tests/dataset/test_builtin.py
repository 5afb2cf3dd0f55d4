"""The built-in benchmark: what is drawn, and how it is written."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset.builtin import CAMERA, GAME, draw_example, write, write_benchmark
from dataset.builtin.__main__ import main
from dataset.builtin.domains import Domain
from dataset.builtin.geometry import Camera
from tests.messages import says
from utils.options import config
from utils.system.errors import UserError

SIZE = (96, 48)
COUNTS = {"source": 3, "target_train": 3, "target_val": 1}
EVALUATED = {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33}
VOID = {1, 4}


def exit_code(arguments: list[str]) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        config.run(lambda: main(arguments))
    return ended.value.code


def digest(root: Path) -> dict[str, str]:
    """Relative path -> hash of the contents, for all files below `root`."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built") / "builtin"
    write_benchmark(root, seed=5, size=SIZE, **COUNTS)
    return root


def test_camera_projects_and_lifts() -> None:
    camera = Camera(width=256, height=128, focal=200.0, horizon=60.0, eye=1.5)
    point = np.array([2.0, 0.5, 10.0])
    np.testing.assert_allclose(camera.project(point), [128 + 2.0 * 20, 60 + 1.0 * 20])
    np.testing.assert_allclose(camera.lift(camera.project(point), 10.0), point)


@pytest.mark.parametrize("domain", [GAME, CAMERA])
def test_example_depends_on_the_seed_only(domain: Domain) -> None:
    image, labels = draw_example(domain, SIZE, (0, 1, 2))
    again, labels_again = draw_example(domain, SIZE, (0, 1, 2))
    other, labels_other = draw_example(domain, SIZE, (1, 1, 2))
    assert image.shape == (48, 96, 3) and image.dtype == np.uint8
    assert labels.shape == (48, 96) and labels.dtype == np.uint8
    assert np.array_equal(image, again) and np.array_equal(labels, labels_again)
    assert (image != other).mean() > 0.5 and (labels != labels_other).mean() > 0.1


@pytest.mark.parametrize("domain", [GAME, CAMERA])
def test_every_class_is_frequent_enough_to_be_learnt(domain: Domain) -> None:
    counts = np.array(
        [np.bincount(draw_example(domain, (256, 128), (0, 0, n))[1].ravel(), minlength=256) for n in range(40)]
    )
    assert set(np.flatnonzero(counts.sum(0))) <= EVALUATED | VOID
    for label in EVALUATED:
        assert (counts[:, label] >= 30).mean() >= 0.25, label


def test_sky_is_above_the_road() -> None:
    _, labels = draw_example(CAMERA, (128, 64), (0, 0, 0))
    rows = np.arange(64)[:, None] * np.ones(128)
    assert rows[labels == 23].mean() < rows[labels == 11].mean() < rows[labels == 7].mean()


def test_domains_look_apart_and_are_laid_out_apart() -> None:
    pairs = [[draw_example(domain, SIZE, (0, 0, n))[0] for n in range(12)] for domain in (GAME, CAMERA)]
    spread = [np.mean([image.max(-1).astype(float) - image.min(-1) for image in images]) for images in pairs]
    assert spread[0] > 1.5 * spread[1]  # the game is the more colourful domain


def test_layout_of_folders(benchmark: Path) -> None:
    target, numbered = "Cityscapes", ("00001.png", "00002.png", "00003.png")
    stems = [
        "train/northfield/northfield_000000_000019",
        "train/northfield/northfield_000001_000019",
        "train/southport/southport_000000_000019",
        "val/middleton/middleton_000000_000019",
    ]
    expected = {f"gta5_deeplab/{kind}/{name}" for kind in ("images", "labels") for name in numbered}
    expected |= {f"{target}/leftImg8bit/{stem}_leftImg8bit.png" for stem in stems}
    expected |= {f"{target}/gtFine/{stem}_gtFine_labelIds.png" for stem in stems}
    assert set(digest(benchmark)) == expected | {"manifest.json"}


def test_files_hold_what_was_drawn(benchmark: Path) -> None:
    image, labels = draw_example(GAME, SIZE, (5, 0, 1))
    with Image.open(benchmark / "gta5_deeplab/images/00002.png") as file:
        assert file.mode == "RGB" and file.size == SIZE
        assert np.array_equal(np.asarray(file), image)
    with Image.open(benchmark / "gta5_deeplab/labels/00002.png") as file:
        assert file.mode == "L" and file.size == SIZE
        assert np.array_equal(np.asarray(file), labels)


def test_same_parameters_same_bytes(benchmark: Path, tmp_path: Path) -> None:
    write_benchmark(tmp_path / "again", seed=5, size=SIZE, **COUNTS)
    write_benchmark(tmp_path / "other", seed=6, size=SIZE, **COUNTS)
    first, again, other = digest(benchmark), digest(tmp_path / "again"), digest(tmp_path / "other")
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_a_larger_benchmark_begins_like_a_smaller_one(benchmark: Path, tmp_path: Path) -> None:
    write_benchmark(tmp_path, seed=5, size=SIZE, **{**COUNTS, "source": 4})
    first, larger = digest(benchmark), digest(tmp_path)
    assert all(larger[name] == value for name, value in first.items() if name != "manifest.json")


def test_nothing_is_done_twice(tmp_path: Path) -> None:
    write_benchmark(tmp_path, size=SIZE, **COUNTS)
    image = tmp_path / "gta5_deeplab/images/00001.png"
    image.write_bytes(b"left alone")
    write_benchmark(tmp_path, size=SIZE, **COUNTS)
    assert image.read_bytes() == b"left alone"


def test_a_folder_that_was_removed_is_drawn_again(tmp_path: Path) -> None:
    write_benchmark(tmp_path, size=SIZE, **COUNTS)
    shutil.rmtree(tmp_path / "Cityscapes")
    write_benchmark(tmp_path, size=SIZE, **COUNTS)
    assert (tmp_path / "Cityscapes").is_dir()


def test_what_another_process_has_drawn_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "gta5_deeplab/images/00001.png"

    def meanwhile(*arguments: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(write, "_write_trees", write_trees)
            write_benchmark(tmp_path, size=SIZE, **COUNTS)
        image.write_bytes(b"being read")
        write_trees(*arguments)

    write_trees = write._write_trees
    monkeypatch.setattr(write, "_write_trees", meanwhile)
    write_benchmark(tmp_path, size=SIZE, **COUNTS)
    assert image.read_bytes() == b"being read"
    assert {path.name for path in tmp_path.iterdir()} == {"gta5_deeplab", "Cityscapes", "manifest.json"}


def test_other_parameters_replace_our_own_data_only(tmp_path: Path) -> None:
    write_benchmark(tmp_path, size=SIZE, **COUNTS)
    (tmp_path / "notes.txt").write_text("mine")
    write_benchmark(tmp_path, size=SIZE, **{**COUNTS, "source": 1})
    assert len(list((tmp_path / "gta5_deeplab/images").iterdir())) == 1
    assert json.loads((tmp_path / "manifest.json").read_text())["source"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {
        "gta5_deeplab",
        "Cityscapes",
        "manifest.json",
        "notes.txt",
    }


def test_an_interrupted_write_leaves_nothing_and_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dataset.builtin.write.draw_example", fail)
        with pytest.raises(KeyboardInterrupt):
            write_benchmark(tmp_path, size=SIZE, **COUNTS)
    assert list(tmp_path.iterdir()) == []
    write_benchmark(tmp_path, size=SIZE, **COUNTS)
    (tmp_path / "manifest.json").write_text('{"generator": "builtin", "complete": false}')
    (tmp_path / "gta5_deeplab/images/00001.png").unlink()
    write_benchmark(tmp_path, size=SIZE, **COUNTS)
    assert (tmp_path / "gta5_deeplab/images/00001.png").exists()


def test_data_of_someone_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "Cityscapes").mkdir()
    with pytest.raises(UserError, match="Cityscapes"):
        write_benchmark(tmp_path, size=SIZE, **COUNTS)
    assert [path.name for path in tmp_path.iterdir()] == ["Cityscapes"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": (32, 32)}, "--size"),
        ({"source": 0}, "--source"),
        ({"target_val": -1}, "--target-val"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_values_out_of_range(tmp_path: Path, options: dict[str, int], named: str) -> None:
    with pytest.raises(UserError, match=named):
        write_benchmark(tmp_path / "root", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "root").exists()


def test_command_line(tmp_path: Path) -> None:
    arguments = [
        "--root",
        str(tmp_path / "root"),
        "--source",
        "1",
        "--target-train",
        "1",
        "--target-val",
        "1",
    ]
    assert exit_code([*arguments, "--size", "64,32"]) == 0
    with Image.open(tmp_path / "root/gta5_deeplab/images/00001.png") as file:
        assert file.size == (64, 32)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "10,10"], "--size: found 10,10, ... 64,32 to 4096,4096"),
        (["--size", "100000,100000"], "--size: found 100000,100000, ... 64,32 to 4096,4096"),
        (["--size", "wide"], "--size: found 'wide'"),
        (["--seed", "4294967296"], "--seed: found 4294967296, ... 0 to 4294967295"),
        (["--source", "100000"], "--source: found 100000, ... 1 to 99999"),
        (["--source", "many"], "--source: invalid int value: 'many'"),
        (["--sourc", "1"], "unrecognized ... --sourc 1; ... --source?"),
        (["--root", "file.txt/x"], "file.txt/x: ... a file is in the way"),
        (["--root", "file.txt"], "file.txt: found a file"),
        (["--root", "/proc/nowhere"], "/proc/nowhere: cannot be made into a folder"),
        (["--root", "foreign"], "foreign: found Cityscapes/ without the manifest"),
    ],
)
def test_command_line_with_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").touch()
    (tmp_path / "foreign/Cityscapes").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert exit_code(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says(error, said) and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(UserError, match=r"new/root: .*No space left"):
        write_benchmark(tmp_path / "new/root", size=SIZE, **COUNTS)
    assert list(tmp_path.iterdir()) == []
