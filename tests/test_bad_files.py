"""Bad files of every kind in every place where a script reads one, and odd files that are fine."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import get_worker_info

from dataset import READERS
from dataset.base import SegmentationDataset
from dataset.classes import CITYSCAPES
from tests.dataset.test_reading import png
from tests.labels import train_ids
from tests.messages import says
from tests.scripts import MASKS, PSEUDO, STEP1, TINY_SIZE, TRUTH, call, exit_code, mask, records, state
from tests.test_bad_input import BAD_SOURCE, BAD_TARGET, FIRST_VAL, START, refused
from utils.options import config
from utils.system.errors import UserError

WIDTH, HEIGHT = TINY_SIZE
Damage = Callable[[Path], object]


def replaced(make: Damage) -> Damage:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def rgb(path: Path) -> None:
    Image.new("RGB", TINY_SIZE, (1, 2, 3)).save(path)


ANY = {
    "empty": (replaced(Path.touch), "(no known kind of image)"),
    "text": (replaced(lambda path: path.write_text("a,b\n")), "(no known kind of image)"),
    "start of a PNG": (lambda path: path.write_bytes(path.read_bytes()[:40]), "(cut short)"),
    "start of a TIFF": (replaced(lambda path: path.write_bytes(b"II*\0\x08\0\0\0\xff\xff")), "corrupt or unreadable"),
    "start of a JPEG": (replaced(lambda path: path.write_bytes(b"\xff\xd8\xff\xe0\0\x10")), "corrupt or unreadable"),
    "bomb": (lambda path: png(path, 30_000, 8, bytes(30_000), height=30_000), "exceeds limit of"),
    "loop of links": (replaced(lambda path: path.symlink_to(path.name)), "levels of symbolic links"),
    "dead link": (replaced(lambda path: path.symlink_to("nowhere")), "is a link that leads nowhere"),
    "pipe": (replaced(os.mkfifo), "is a pipe or device"),
    "folder": (replaced(Path.mkdir), "is a folder"),
}
LABEL = {
    "RGB": (rgb, "label of mode RGB"),
    "RGBA": (lambda path: Image.new("RGBA", TINY_SIZE, (1, 2, 3, 255)).save(path), "label of mode RGBA"),
    "JPEG": (lambda path: Image.new("L", TINY_SIZE).save(path, "JPEG"), "label a JPEG"),
    "16 bits": (lambda path: cv2.imwrite(str(path), np.full((HEIGHT, WIDTH), 7001, np.uint16)), "label with id 7001"),
    "32 bits": (lambda path: Image.new("I", TINY_SIZE, 7001).save(path, "TIFF"), "label with id 7001"),
    "fractions": (lambda path: Image.new("F", TINY_SIZE).save(path, "TIFF"), "label of mode F"),
    "other size": (lambda path: Image.new("L", (5, 7)).save(path), "5x7"),
}
VAL = f"middleton/{FIRST_VAL}"
PLACES = {
    "source image": ("step1", [*BAD_SOURCE, "--overwrite"], "bad/gta5_deeplab/images/00003.png"),
    "source label": ("step1", [*BAD_SOURCE, "--overwrite"], "bad/gta5_deeplab/labels/00003.png"),
    "target image": ("pseudo", BAD_TARGET, "bad/Cityscapes/leftImg8bit/train/northfield/northfield_000000_000019_"
                     "leftImg8bit.png"),
    "pseudo-label": ("step2", [], f"{PSEUDO}/northfield_000000_000019_leftImg8bit.png"),
    "scored image": ("evaluate", [*START, *BAD_TARGET], f"bad/Cityscapes/leftImg8bit/val/{VAL}.png"),
    "scored label": ("evaluate", [*START, *BAD_TARGET],
                     f"bad/Cityscapes/gtFine/val/{VAL.removesuffix('_leftImg8bit')}_gtFine_labelIds.png"),
    "saved mask": ("iou", [str(TRUTH), str(MASKS)], f"{MASKS}/{FIRST_VAL}.png"),
    "ground truth": ("iou", ["bad/Cityscapes/gtFine/val", str(MASKS)],
                     f"bad/Cityscapes/gtFine/val/{VAL.removesuffix('_leftImg8bit')}_gtFine_labelIds.png"),
}  # fmt: skip
IN_A_TREE = (  # here a folder may have any name
    "source image",
    "target image",
    "scored image",
    "ground truth",
)
MISSING = {"saved mask": "predictions missing"}  # the message for what is not a file


@pytest.fixture
def bad(after_stage1, benchmark_root) -> Path:
    shutil.copytree(benchmark_root, after_stage1 / "bad")
    MASKS.mkdir(parents=True)
    for number in (0, 1):
        name = FIRST_VAL.replace("000000", f"{number:06d}")
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(MASKS / f"{name}.png")
    return after_stage1


@pytest.mark.parametrize(
    ("place", "kind"), [(place, kind) for place in PLACES for kind in ANY if kind != "folder" or place not in IN_A_TREE]
)
def test_a_file_that_is_no_image(bad, capsys, place, kind):
    script, arguments, path = PLACES[place]
    damage, said = ANY[kind]
    damage(Path(path))
    error = refused(capsys, script, *arguments)
    assert Path(path).name in error
    assert said in error or (place in MISSING and MISSING[place] in error and not os.path.isfile(path))


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (place, kind)
        for place in PLACES
        for kind in LABEL
        if "image" not in place and (place, kind) != ("pseudo-label", "other size")  # these images may have any size
    ],
)
def test_a_label_of_another_kind(bad, capsys, place, kind):
    script, arguments, path = PLACES[place]
    damage, said = LABEL[kind]
    for other in Path(path).parent.glob("*.png"):
        damage(other)
    said = said.replace("label", "prediction") if place == "saved mask" else said
    assert said in refused(capsys, script, *arguments)


@pytest.mark.parametrize("reader", ["gta5", "cityscapes", "camvid", "synthia", "aerial", "folder"])
@pytest.mark.parametrize("kind", [*ANY, "RGB", "JPEG"])
def test_every_reader_names_a_bad_label(tmp_path, reader, kind):
    path = tmp_path / "label.png"
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(path)
    {**ANY, **LABEL}[kind][0](path)
    with pytest.raises(UserError) as error:
        train_ids(READERS[reader], path, table=getattr(READERS[reader], "table", CITYSCAPES))
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


# Permissions. Root can read everything unless it drops that capability for a while.


@contextmanager
def like_others() -> Iterator[None]:
    libc, header, old = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if os.getuid() == 0:
        assert libc.capget(header, old) == 0
        new = (ctypes.c_uint32 * 6)(*old)
        new[0] &= ~0b110  # effective: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert libc.capset(header, new) == 0
    try:
        yield
    finally:
        if os.getuid() == 0:
            libc.capset(header, old)


@pytest.mark.parametrize("place", PLACES)
def test_a_file_that_may_not_be_read(bad, capsys, place):
    script, arguments, path = PLACES[place]
    Path(path).chmod(0)
    with like_others():
        if os.access(path, os.R_OK, effective_ids=True):
            pytest.skip("this user reads everything")
        error = refused(capsys, script, *arguments)
    assert Path(path).name in error and "Permission denied" in error


@pytest.mark.parametrize(
    ("locked", "script", "arguments", "said"),
    [
        ("bad/gta5_deeplab/images", "step1", [*BAD_SOURCE, "--overwrite"], "images: ... Permission denied"),
        ("bad", "step1", [*BAD_SOURCE, "--overwrite"], "Permission denied"),
        ("locked", "step1", ["--snapshot-dir", "locked/run"], "locked/run"),
        ("locked", "pseudo", ["--ssl-target-dir", "locked/labels"], "locked/labels"),
        ("locked", "evaluate", [*START, "--save", "locked/masks"], "locked/masks"),
        ("last.pth", "evaluate", ["--restore-from", "last.pth"], "last.pth: "),
        ("list.txt", "step1", ["--data-list", "list.txt", "--overwrite"], "list.txt: unreadable list"),
    ],
)
def test_places_that_may_not_be_used(bad, capsys, locked, script, arguments, said):
    Path("locked").mkdir()
    Path("list.txt").write_text("00001.png\n")
    shutil.copy(STEP1 / "last.pth", "last.pth")
    Path(locked).chmod(0o500 if locked == "locked" else 0)
    try:
        with like_others():
            if os.access(locked, os.W_OK, effective_ids=True):
                pytest.skip("this user may do everything")
            assert exit_code(script, *arguments) == 2
    finally:
        Path(locked).chmod(0o700)
    error = capsys.readouterr().err
    assert says(error, said) and error.count("\n") == 1 and "Traceback" not in error
    assert not list(Path("locked").iterdir())


# Odd files that are fine.


def test_labels_of_ignored_pixels_only(bad, capsys):
    """Labels of ignored pixels: their loss is 0; if all are so, a source is refused, and a target has no labels."""
    for pattern in ("gta5_deeplab/labels/*[1-5].png", "Cityscapes/gtFine/val/*/*_000000_*.png"):
        for path in Path("bad").glob(pattern):
            Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(path)
    settings = ("--snapshot-dir", "run", "--source-only", "--num-steps", "6", "--batch-size", "1")
    call("step1", *BAD_SOURCE, *BAD_TARGET, *settings)
    losses = [record["seg"] for record in records(Path("run")) if "seg" in record]
    assert losses.count(0) == 5 and np.isfinite(losses).all()
    assert all(tensor.isfinite().all() for tensor in state(Path("run"))["segmenter"].values())
    Path("one.txt").write_text(f"{VAL}.png\n")
    arguments = (*START, *BAD_TARGET, "--json", "scores.json")
    capsys.readouterr()
    call("evaluate", *arguments, "--data-list-target-test", "one.txt")
    said = capsys.readouterr().out
    assert [line.count("split val") for line in said.splitlines() if "only ignored pixels" in line] == [1]
    assert says(said, "bad/Cityscapes: ... split val ... only ignored pixels")
    assert says(said, "no scores ... 1 of 1 images of bad/Cityscapes") and "IoU" not in said
    assert not Path("scores.json").exists() and mask(MASKS / f"{FIRST_VAL}.png").max() < 19
    call("step1", *BAD_TARGET, "--num-steps", "1", "--snapshot-dir", "b", "--data-list-target-test", "one.txt")
    assert says(capsys.readouterr().out, "no scores while training: ... bad/Cityscapes ... only ignored pixels")
    for path in Path("bad/gta5_deeplab/labels").iterdir():
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(path)
    error = refused(capsys, "step1", *BAD_SOURCE, *BAD_TARGET, "--snapshot-dir", "c")
    assert says(error, "none of the label ids 0 ... cityscapes")
    call("evaluate", *arguments)
    scores = json.loads(Path("scores.json").read_text())
    assert scores["images"] == 2 and 0 < np.sum(scores["confusion"]) <= WIDTH * HEIGHT


def test_names_and_links_of_all_kinds(bad):
    """Linked folders, long and non-ASCII names, a list with CRLF, blank lines and a byte-order mark: the same run."""
    settings = ("--source-only", "--num-steps", "1")
    call("step1", *settings, "--snapshot-dir", "plain")
    root = Path("Größe 街/link")
    root.mkdir(parents=True)
    names = [f"{number:05d} äöü 街{'x' * 180}.png" for number in range(1, 7)]
    for folder in ("images", "labels"):
        Path("disk", folder).mkdir(parents=True)
        for number, name in enumerate(names, start=1):
            os.link(f"bad/gta5_deeplab/{folder}/{number:05d}.png", Path("disk", folder, name))
        (root / folder).symlink_to(Path("disk", folder).absolute())
    (root / "liste é.txt").write_bytes("\ufeff\r\n".encode() + "\r\n \r\n".join(names).encode())
    call("step1", *settings, "--data-dir", str(root), "--data-list", "liste é.txt", "--snapshot-dir", "läuft")
    plain, odd = (state(Path(folder))["segmenter"] for folder in ("plain", "läuft"))
    assert all(torch.equal(plain[name], odd[name]) for name in plain)


# Faults of the machine


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("Unable to allocate 9 GiB"), "out of memory ... allocate 9 GiB ... --batch-size"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory.\nmore"), "out of memory (CUDA out of memory.)"),
        (PermissionError(13, "Permission denied", "/x"), "/x: Permission denied"),
    ],
)
def test_what_a_machine_lacks_is_one_line(capsys, error, said):
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        config.run(main)
    assert ended.value.code == 2
    assert says(line := capsys.readouterr().err, said) and line.count("\n") == 1


def test_a_fault_of_ours_keeps_its_traceback():
    def main() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError):
        config.run(main)


def test_a_killed_reading_process_is_one_line(run_folder, capsys, monkeypatch):
    def die(*_: object) -> None:
        assert get_worker_info() is not None
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(SegmentationDataset, "__getitem__", die)
    error = refused(capsys, "step1", "--num-workers", "1")
    assert says(error, "process ... was killed ... --num-workers")


def test_masks_never_replace_the_data(after_stage1, benchmark_root, capsys):
    shutil.copytree(benchmark_root, "bad")
    folder = Path("bad/Cityscapes/leftImg8bit/val/middleton")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    said = refused(capsys, "evaluate", *START, *BAD_TARGET, "--save", str(folder))
    assert "--save: " in said and "belongs to the data set" in said
    train = Path("bad/Cityscapes/leftImg8bit/train/northfield")
    assert "--ssl-target-dir: " in refused(capsys, "pseudo", *BAD_TARGET, "--ssl-target-dir", str(train))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert "given as labels and as predictions" in refused(capsys, "iou", str(TRUTH), str(TRUTH))
