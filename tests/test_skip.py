"""`--skip-bad-images`: what is left out, what replaces it, and that nothing else changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset import GTA5
from dataset.augment import Augment
from dataset.skip import Replacing
from tests.messages import says
from tests.scripts import PSEUDO, STEP1, STEP2, call, differences, exit_code, state
from utils.system.errors import UserError
from utils.system.skipped import LIST

BAD = ("--data-dir", "bad/gta5_deeplab", "--data-dir-target", "bad/Cityscapes")
SKIP = (*BAD, "--skip-bad-images")
VAL = "middleton_000000_000019_leftImg8bit"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.fixture
def bad(run_folder, benchmark_root) -> Path:
    """A benchmark in which the second source label is damaged, the third has another size, the fifth image is missing,
    one target image of four empty and one of two that are scored damaged."""
    root = run_folder / "bad"
    shutil.copytree(benchmark_root, root)
    source, target = root / "gta5_deeplab", root / "Cityscapes/leftImg8bit"
    cut(source / "labels/00002.png")
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(source / "labels/00003.png")
    (source / "images/00005.png").unlink()
    (source / "list.txt").write_text("".join(f"{i:05d}.png\n" for i in range(1, 7)))
    next(target.glob("train/southport/*1_*")).write_bytes(b"")
    cut(target / f"val/middleton/{VAL}.png")
    return root


def lines(folder: Path) -> list[str]:
    return (folder / LIST).read_text().splitlines()


def names(folder: Path) -> list[str]:
    return sorted(Path(line.split(":")[0]).name for line in lines(folder))


SOURCE = ["00002.png", "00003.png", "00005.png"]
TARGET = ["southport_000001_000019_leftImg8bit.png"]
TRAIN = (*SKIP, "--data-list", "list.txt", "--batch-size", "2")


def test_the_next_good_image_stands_in_with_the_number_of_the_bad_one(bad):
    data = GTA5(bad / "gta5_deeplab", "bad/gta5_deeplab/list.txt", augment=Augment(True, True, True), skip_bad=True)
    replaced = Replacing(data)
    for position, other, reasons in ((0, 0, 0), (1, 3, 2), (2, 3, 1), (4, 5, 1), (5, 5, 0)):
        for number in (7, 8):
            sample, expected = replaced[position, number], data[other, number]
            assert sample["name"] == expected["name"]
            assert torch.equal(sample["image"], expected["image"]) and torch.equal(sample["label"], expected["label"])
            assert len(sample["skipped"].splitlines()) == reasons
    (bad / "gta5_deeplab/images/00006.png").unlink()
    assert replaced[4, 0]["name"] == "00001.png"  # the list is a ring


def test_a_set_without_a_good_image_is_refused(bad):
    data = GTA5(bad / "gta5_deeplab", "bad/gta5_deeplab/list.txt", skip_bad=True)
    for path in (bad / "gta5_deeplab/labels").iterdir():
        cut(path)
    with pytest.raises(UserError, match=r"6 bad images in a row, .*00001\.png: corrupt"):
        Replacing(data)[0, 0]
    with pytest.raises(UserError, match=r"00001\.png: label not found .*6 of 6"):
        shutil.rmtree(bad / "gta5_deeplab/labels")
        GTA5(bad / "gta5_deeplab", "bad/gta5_deeplab/list.txt", skip_bad=True)


def test_training_goes_on_without_them_and_resumes_exactly(bad):
    settings = (*TRAIN, "--num-steps", "4", "--save-pred-every", "2")
    call("step1", *settings, "--snapshot-dir", "whole")
    assert names(Path("whole")) == sorted([*SOURCE, *TARGET, f"{VAL}.png"])
    parts = (*settings, "--snapshot-dir", "parts", "--num-workers", "1")
    call("step1", *parts, "--num-steps-stop", "2")
    call("step1", *parts, "--continue-train")
    a, b = state(Path("whole")), state(Path("parts"))
    del a["options"], b["options"]
    assert differences(a, b) == []
    assert lines(Path("parts")) == lines(Path("whole"))


def test_what_is_not_met_changes_nothing(run_folder):
    call("step1", "--snapshot-dir", "plain")
    call("step1", "--skip-bad-images", "--snapshot-dir", "skipping")
    a, b = state(Path("plain")), state(Path("skipping"))
    del a["options"], b["options"]
    assert differences(a, b) == []
    assert not Path("skipping", LIST).exists()


def test_a_new_run_starts_a_new_list(bad):
    call("step1", *TRAIN)
    assert (STEP1 / LIST).exists()
    call("step1", "--skip-bad-images", "--overwrite")
    assert not (STEP1 / LIST).exists()


def test_pseudo_labels_and_stage_2_leave_the_same_image_out(bad, stage1, capsys):
    shutil.copytree(stage1 / STEP1, STEP1)
    assert exit_code("pseudo", *BAD[2:]) == 2
    call("pseudo", *SKIP[2:])
    assert names(PSEUDO) == TARGET
    assert len(list(PSEUDO.glob("*.png"))) == 3
    capsys.readouterr()
    assert exit_code("step2", *BAD) == 2
    said = capsys.readouterr().err
    assert says(said, "pseudo-label not found ... 1 of 4 ... --skip-bad-images if they were made")
    call("step2", *TRAIN)
    assert "southport_000001_000019_leftImg8bit.png" in names(STEP2)


def test_scores_of_the_images_that_are_left(bad, stage1, capsys):
    start = ("--restore-from", str(stage1 / STEP1 / "last.pth"))
    assert exit_code("evaluate", *BAD[2:], *start, "--json", "a.json") == 2
    capsys.readouterr()
    call("evaluate", *SKIP[2:], *start, "--json", "a.json")
    assert "on 1 images of bad/Cityscapes" in capsys.readouterr().out
    assert names(Path("result/builtin")) == [f"{VAL}.png"]
    assert len(list(Path("result/builtin").glob("*.png"))) == 2
    Path("one.txt").write_text(f"middleton/{VAL.replace('000000_', '000001_', 1)}.png\n")
    call("evaluate", *start, "--data-list-target-test", "one.txt", "--json", "b.json")
    a, b = (json.loads(Path(name).read_text()) for name in ("a.json", "b.json"))
    assert a["confusion"] == b["confusion"] and a["images"] == b["images"] == 1
    assert len(a["skipped"]) == 1 and b["skipped"] == []


def test_the_start_names_all_that_headers_tell(bad, capsys):
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(bad / "gta5_deeplab/labels/00006.png")
    assert exit_code("step1", *BAD) == 2
    said = capsys.readouterr()
    assert "labels/00003.png: label of 7x5 pixels" in said.err
    assert says(said.err, "or give --skip-bad-images (2 of 5 ... logged above")
    assert "bad: bad/gta5_deeplab/labels/00006.png: label of 9x9 pixels" in said.out
    assert not STEP1.exists()


def test_images_that_turn_bad_in_the_middle_of_a_run(run_folder, benchmark_root, capsys, monkeypatch):
    """The run stops with one line, saves the steps made so far, and resumes when the files are good again."""
    from utils.states import checkpoint

    folder = Path("run")
    settings = ("--source-only", "--num-steps", "6", "--save-pred-every", "2", "--batch-size", "2")
    call("step1", *settings, "--snapshot-dir", "whole")
    shutil.copytree(benchmark_root, "bad")
    save, images = checkpoint.save, sorted(Path("bad/gta5_deeplab/images").iterdir())

    def save_and_spoil(path: Path, content: checkpoint.State) -> None:
        save(path, content)
        for image in images:
            cut(image)

    monkeypatch.setattr(checkpoint, "save", save_and_spoil)
    for workers in ("0", "1"):
        shutil.rmtree("bad")
        shutil.copytree(benchmark_root, "bad")
        arguments = (*settings, *BAD, "--num-workers", workers, "--snapshot-dir", str(folder))
        capsys.readouterr()
        assert exit_code("step1", *arguments, "--overwrite") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and ".png: corrupt or unreadable image" in error and "Traceback" not in error
        step = state(folder)["step"]
        # The batches of the next step were read before the checkpoint; a loader process reads further ahead.
        assert step in ((3,) if workers == "0" else (3, 4, 5))
        assert exit_code("step1", *arguments, "--skip-bad-images", "--continue-train") == 2
        assert "6 bad images in a row" in capsys.readouterr().err
        assert state(folder)["step"] == step
    monkeypatch.setattr(checkpoint, "save", save)
    shutil.rmtree("bad")
    shutil.copytree(benchmark_root, "bad")
    call("step1", *arguments, "--continue-train")
    a, b = state(folder), state(Path("whole"))
    del a["options"], b["options"]
    assert differences(a, b) == []
