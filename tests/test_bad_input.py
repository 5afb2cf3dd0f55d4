"""Bad input of every kind: exit code 2, one line on stderr that names it, and nothing written."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.sampler import EndlessSampler
from tests.messages import says
from tests.scripts import MASKS, PSEUDO, SOURCE, STEP1, STEP2, TARGET, TINY_SIZE, TRUTH, call, exit_code, mask, state

Spoil = Callable[[Path], object]
FIRST_VAL = "middleton_000000_000019_leftImg8bit"
START = ["--restore-from", str(STEP1 / "last.pth")]
BAD_SOURCE, BAD_TARGET = ["--data-dir", "bad/gta5_deeplab"], ["--data-dir-target", "bad/Cityscapes"]


def refused(capsys, script: str, *arguments: str) -> str:
    """The one line of a refusal, after checking that it is one and that nothing was written."""
    here = Path.cwd()
    before = sorted(here.rglob("*"))
    capsys.readouterr()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default", UserWarning)  # warnings would be lines on stderr
        code = exit_code(script, *arguments)
    error = capsys.readouterr().err
    assert code == 2
    assert [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)] == []
    assert error.startswith("error: ") and error.count("\n") == 1 and error.endswith("\n")
    assert "Traceback" not in error
    assert sorted(here.rglob("*")) == before
    return error


@pytest.fixture
def bad(run_folder, benchmark_root) -> Path:
    """A copy of the benchmark that a test may damage."""
    shutil.copytree(benchmark_root, run_folder / "bad")
    return run_folder / "bad"


def each(pattern: str, change: Callable[[Path], object]) -> Spoil:
    """Damage all files below the root that match."""

    def spoil(root: Path) -> None:
        paths = sorted(root.glob(pattern))
        assert paths
        for path in paths:
            change(path)

    return spoil


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def make_text(path: Path) -> None:
    path.write_text("no image\n")


def shrink(path: Path) -> None:
    image = Image.open(path)
    image.resize((32, 32), Image.Resampling.NEAREST).save(path)


IMAGES, LABELS = "gta5_deeplab/images/*.png", "gta5_deeplab/labels/*.png"
TARGET_IMAGES, VAL_LABELS = "Cityscapes/leftImg8bit/train/*/*.png", "Cityscapes/gtFine/val/*/*.png"


def delete_last_val_label(root: Path) -> None:
    sorted(root.glob(VAL_LABELS))[-1].unlink()


@pytest.mark.parametrize(
    ("spoil", "arguments", "said"),
    [
        (each(LABELS.replace("*", "00003"), Path.unlink), BAD_SOURCE,
         "labels/00003.png: label not found ... 1 of 6"),
        (each(LABELS, Path.unlink), BAD_SOURCE, "labels/00001.png: label not found ... 6 of 6"),
        (each(IMAGES, Path.unlink), BAD_SOURCE, "bad/gta5_deeplab: no images ... 'train'"),
        (each(IMAGES, cut), BAD_SOURCE, ".png: corrupt or unreadable image"),
        (each(IMAGES, make_text), BAD_SOURCE, ".png: corrupt or unreadable image"),
        (each(LABELS, cut), BAD_SOURCE, ".png: corrupt or unreadable label"),
        (each(LABELS, shrink), BAD_SOURCE, ".png: label of 32x32 ... its image"),
        (each(TARGET_IMAGES, cut), BAD_TARGET, "leftImg8bit.png: corrupt or unreadable image"),
        (each(TARGET_IMAGES, Path.unlink), BAD_TARGET, "bad/Cityscapes: no images ... 'train'"),
        (delete_last_val_label, BAD_TARGET,
         "middleton_000001_000019_gtFine_labelIds.png: label not found ... 1 of 2"),
        (each(VAL_LABELS, Path.unlink), [*BAD_TARGET, "--select-on-target-labels"],
         "--select-on-target-labels: no labels ... 'val' ... bad/Cityscapes"),
    ],
)  # fmt: skip
def test_bad_data_stops_stage_1_before_it_writes(bad, capsys, spoil, arguments, said):
    spoil(bad)
    assert says(refused(capsys, "step1", *arguments), said)


LISTS = {
    "empty.txt": "\n \n",
    "absent.txt": "00001.png\n99999.png\n",
    "escape.txt": "../secret.png\n",
    "absolute.txt": "00001.png\n/etc/passwd.png\n",
    "backslash.txt": "a\\00001.png\n",
    "twice.txt": "00001.png\r\n00002.png\r\n\r\n00001.png\r\n",
    "aliases.txt": "00001.png\n./00001.png\n",
    "long.txt": "x" * 300 + ".png\n",
    "zero.txt": "0\0.png\n",
    "folder.txt": ".\n",
    "targets.txt": "northfield/a.png\n",
}
LOOKS_LIKE = {"text.pth": b"no checkpoint\n", "zero.pth": b"", "image.pth": b"\x89PNG\r\n\x1a\n", "zip.pth": b"PK\3\4"}
LONG = "x" * 300


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data-dir", "nowhere"], "nowhere: data folder"),
        (["--data-dir-target", "nowhere"], "nowhere: data folder"),
        (["--data-list", "empty.txt"], "empty.txt: the list is empty"),
        (["--data-list", "absent.txt"], "99999.png: image not found ... 1 of 2"),
        (["--data-list", "escape.txt"], "escape.txt, line 1"),
        (["--data-list", "nowhere.txt"], "nowhere.txt: unreadable list (not found)"),
        (["--data-list", "nowhere.txt"],
         ("nowhere.txt", "data/builtin/gta5_deeplab", "--data-dir,", "--data-list\n")),
        (["--data-list-target", "nowhere.txt"], ("--data-dir-target,", "--data-list-target\n")),
        (["--data-list-target-test", "nowhere.txt"], ("--data-dir-target,", "--data-list-target-test\n")),
        (["--data-list", "nowhere.txt", "--data-dir", "nowhere"], "nowhere: data folder ... images/"),
        (["--data-list", "absolute.txt"], "absolute.txt, line 2: '/etc/passwd.png'"),
        (["--data-list", "backslash.txt"], "backslash.txt, line 1: 'a\\\\00001.png'"),
        (["--data-list", "twice.txt"], "twice.txt, line 4: '00001.png' ... line 1"),
        (["--data-list", "aliases.txt"], "'./00001.png' ... line 1"),
        (["--data-list", "long.txt"], ".png: image cannot be opened ... File name too long"),
        (["--data-list", "zero.txt"], "images/0\\x00.png: image not found"),
        (["--data-list", "folder.txt"], "images: image is a folder"),
        (["--data-list", "image.pth"], "image.pth: unreadable list ('utf-8'"),
        (["--data-list", "folder"], "folder: unreadable list (is a folder)"),
        (["--data-list", "pipe"], "pipe: unreadable list ... pipe or device"),
        (["--data-list", "/dev/zero"], "/dev/zero: unreadable list ... pipe or device"),
        (["--data-list", LONG], "unreadable list ... File name too long"),
        (["--data-list-target", "targets.txt"], "northfield/a.png: image not found ... 1 of 1"),
        (["--data-list-target-test", "absent.txt"], "00001.png: image not found ... 2 of 2"),
        (["--data-dir", "text.pth"], "text.pth: data folder is a file"),
        (["--data-dir", "data/builtin"], "data/builtin: no images ... 'train' ... images/00001.png"),
        (["--data-dir", str(TARGET)], "Cityscapes: no images ... 'train' ... images/00001.png"),
        (["--data-dir", LONG], "File name too long"),
        (["--data-dir", ""], "--data-dir: found an empty value"),
        (["--data-dir-target", str(SOURCE)], "gta5_deeplab: no images ... 'train' ... leftImg8bit"),
        (["--source", "camvid"], "--source: found camvid ... classes of camvid, ... those of cityscapes"),
        (["--target", "camvid"], "--source: found gta5 ... classes of cityscapes, ... those of camvid"),
        (["--classes", "pipe"], "pipe: cannot be read ... pipe or device"),
        (["--classes", "/dev/zero"], "/dev/zero: cannot be read ... pipe or device"),
        (["--classes", "folder"], "folder: cannot be read ... is a folder"),
        (["--classes", "image.pth"], "image.pth: is not text"),
        (["--classes", "zero.pth"], "zero.pth: found nothing; ... keys classes"),
        (["--set", "../train"], "--set: found ../train"),
        (["--set", "/etc"], "--set: found /etc"),
        (["--data-list-target", "empty.txt"], "empty.txt: the list is empty"),
        (["--data-list-target-test", "empty.txt"], "empty.txt: the list is empty"),
        (["--preset", "mars"], "--preset: invalid choice: 'mars' (choose from"),
        (["--method", "mars"], "--method: invalid choice: 'mars'"),
        (["--backbone", "mars"], "--backbone: invalid choice: 'mars'"),
        (["--bn", "mars"], "--bn: invalid choice"),
        (["--learning-rat", "1"], "unrecognized ... --learning-rat 1; ... --learning-rate?"),
        (["--save", "x"], "unrecognized ... --save x; it is an option of evaluate_cityscapes.py (see --help-all)"),
        (["--num-step=3"], "unrecognized ... --num-step=3; ... --num-steps?"),
        (["--Data-Dir", "x"], "unrecognized arguments: --Data-Dir x"),
        (["--gpu", "0"], "unrecognized arguments: --gpu 0"),
        (["positional"], "unrecognized arguments: positional"),
        (["--num-steps"], "--num-steps: expected one argument"),
        (["--num-steps", "0"], "--num-steps: found 0, ... at least 1"),
        (["--num-steps", "-3"], "--num-steps: found -3"),
        (["--num-steps", "1.5"], "--num-steps: invalid int value: '1.5'"),
        (["--num-steps", "3", "--num-steps-stop", "4"], "--num-steps-stop: found 4, ... --num-steps 3"),
        (["--num-steps-stop", "0"], "--num-steps-stop: found 0"),
        (["--num-steps", "9" * 30], "--num-steps: found 999999999999999999999999999999"),
        (["--num-workers", "100000"], "--num-workers: found 100000, ... at least 0 ... at most 512"),
        (["--batch-size", "1000000"], "--batch-size: found 1000000, expected"),
        (["--num-prototype", "1" + "0" * 9], "--num-prototype: found 1000000000, expected"),
        (["--input-size", "100000,100000"], "--input-size: found (100000, 100000), expected"),
        (["--input-size", "9" * 5000 + ",64"], "--input-size: found '999"),
        (["--source-only", "--data-list-target", "x"], ("--source-only", "--data-list-target")),
        (["--source-only", "--lambda-adv-cls", "1"], ("--source-only", "--lambda-adv-cls")),
        (["--source-only", "--isia", "paper"], ("--source-only", "--isia")),
        (["--continue-train", "--overwrite"], ("--continue-train", "--overwrite")),
        (["--continue-train", "--restore-from", "text.pth"], ("--continue-train", "--restore-from")),
        (["--continue-train", "--not-restore-last"], ("--continue-train", "--not-restore-last")),
        (["--not-restore-last"], ("--not-restore-last", "--restore-from is none")),
        (["--source-only", "--image-level", "lab"], ("--source-only", "--image-level lab")),
        (["--image-level-share", "0.5"], ("--image-level-share", "--image-level lab or fda")),
        (["--fda-beta", "0.05"], ("--fda-beta", "--image-level fda")),
        (["--image-level", "lab", "--fda-beta", "0.05"], ("--fda-beta", "--image-level fda")),
        (["--image-level-share", "1.5"], "--image-level-share: found 1.5, ... 0 to 1"),
        (["--fda-beta", "0.5"], "--fda-beta: found 0.5, ... at least 0 ... below 0.5"),
        (["--image-level", "cyclegan"], "--image-level: invalid choice"),
        (["--crop", "16,16"], "--crop: found (16, 16), ... at least 32"),
        (["--crop", "128,32"], ("--crop: found 128,32", "--input-size ")),
        (["--aim-beta", "2"], ("--aim-beta", "--aim released", "--aim paper")),
        (["--warmup-steps", "4"], "--warmup-steps: found 4, ... --num-steps 3"),
        (["--learning-rate", "-1"], "--learning-rate: found -1.0, ... above 0"),
        (["--learning-rate", "nan"], "--learning-rate: found nan"),
        (["--learning-rate", "inf"], "--learning-rate: found inf"),
        (["--learning-rate-D", "0"], "--learning-rate-D: found 0.0"),
        (["--momentum", "1"], "--momentum: found 1.0, ... at least 0 ... below 1"),
        (["--optimizer", "adamw", "--momentum", "0.5"], ("--momentum", "--optimizer sgd", "adamw")),
        (["--optimizer", "adam"], "--optimizer: invalid choice"),
        (["--weight-decay", "-0.1"], "--weight-decay: found -0.1"),
        (["--power", "-1"], "--power: found -1.0"),
        (["--lambda-adv-target", "-1"], "--lambda-adv-target: found -1.0"),
        (["--lambda-adv-cls", "many"], "--lambda-adv-cls: invalid float value: 'many'"),
        (["--num-prototype", "0"], "--num-prototype: found 0"),
        (["--batch-size", "0"], "--batch-size: found 0"),
        (["--iter-size", "0"], "--iter-size: found 0"),
        (["--num-workers", "-1"], "--num-workers: found -1"),
        (["--save-pred-every", "0"], "--save-pred-every: found 0"),
        (["--random-seed", "-1"], "--random-seed: found -1"),
        (["--random-seed", str(2**70)], "--random-seed: found"),
        (["--input-size", "96"], "--input-size: found '96'"),
        (["--input-size", "96x64"], "--input-size: found '96x64'"),
        (["--input-size", "96,64,3"], "--input-size: found '96,64,3'"),
        (["--input-size=-96,64"], "--input-size: found '-96,64'"),
        (["--input-size-target", "96,0"], "--input-size-target: found (96, 0)"),
        (["--num-classes", "1"], "--num-classes: found 1"),
        (["--num-classes", "20"], "number of classes: 20 ... cityscapes ... 2 to 19"),
        (["--ignore-label", "5"], "--ignore-label: found 5, ... at least 19"),
        (["--ignore-label", "256"], "--ignore-label: found 256"),
        (["--amp", "fp16", "--cpu"], "--amp fp16 needs a GPU"),
        (["--compile", "--checkpoint-activations"], ("--compile", "--checkpoint-activations")),
        (["--compile-mode", "reduce-overhead"], "--compile-mode reduce-overhead has an effect only with --compile"),
        (["--norm", "inplace-abn", "--sync-bn"], ("--sync-bn", "--norm batchnorm")),
        (["--output-stride", "16"], "output_stride is 16; tiny ... 8"),
        (["--snapshot-dir", "empty.txt"], "empty.txt: ... a file is in the way"),
        (["--snapshot-dir", "empty.txt/run"], "empty.txt/run: ... a file is in the way"),
        (["--continue-train"], "--continue-train: snapshots/builtin/step1/last.pth does not exist"),
        (["--continue-train", "nowhere.pth"], "--continue-train: nowhere.pth does not exist"),
        (["--continue-train", "empty.txt"], "empty.txt: cannot be read as weights"),
        (["--restore-from", "nowhere.pth"], "--restore-from: nowhere.pth does not exist"),
        (["--restore-from", "text.pth"], "text.pth: cannot be read as weights"),
        (["--restore-from", "zero.pth"], "zero.pth: cannot be read as weights"),
        (["--restore-from", "image.pth"], "image.pth: "),
        (["--restore-from", "zip.pth"], "zip.pth: "),
        (["--restore-from", "pipe"], "pipe: is a pipe ... weight file"),
        (["--restore-from", "/dev/zero"], "/dev/zero: is a pipe"),
        (["--restore-from", LONG], "File name too long"),
        (["--restore-from", "names.pth"], "names.pth: ... backbone tiny: 0 of"),
        (["--continue-train", "folder"], "folder: is a folder; ... weight file"),
        (["--continue-train", "pipe"], "pipe: is a pipe ... weight file"),
        (["--snapshot-dir", "/proc/nowhere"], "/proc/nowhere: cannot be made into a folder"),
        (["--snapshot-dir", LONG], "File name too long"),
        (["--restore-from", "code.pth"], "code.pth: cannot be read as weights"),
        (["--restore-from", "list.pth"], "list.pth: holds no weights"),
        (["--restore-from", "folder"], "folder: is a folder; ... weight file"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_options_of_stage_1(run_folder, capsys, arguments, said):
    for name, text in LISTS.items():
        Path(name).write_text(text)
    for name, content in LOOKS_LIKE.items():
        Path(name).write_bytes(content)
    os.mkfifo("pipe")
    torch.save({"encoder.stem.weight": torch.zeros(3, 3)}, "names.pth")
    Path("code.pth").write_bytes(pickle.dumps(print))
    torch.save([1, 2], "list.pth")
    Path("folder").mkdir()
    error = refused(capsys, "step1", *arguments)
    parts = said if isinstance(said, tuple) else (said,)
    assert [part for part in parts if not says(error, part)] == [], error


@pytest.mark.parametrize("script", ["step1", "step2", "pseudo", "evaluate"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--num-classes", "13"], "last.pth: its classifier ... 19 classes, ... 13"),
        (["--backbone", "resnet18"],
         "--backbone: found resnet18, ... snapshots/builtin/step1/last.pth ... with tiny"),
        (["--normalization", "imagenet"], "--normalization: found imagenet"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_class_count_or_network(after_stage1, capsys, script, arguments, said):
    folder = ["--snapshot-dir", "new"] if script.startswith("step") else []
    error = refused(capsys, script, *START, *folder, *arguments)
    assert says(error, said)
    assert ("--not-restore-last" in error) == (script == "step1" and "classifier" in said)


@pytest.mark.parametrize("script", ["step2", "pseudo", "evaluate"])
def test_weights_without_a_classifier_are_for_stage_1_alone(after_stage1, capsys, script):
    body = {name: value for name, value in state(STEP1)["segmenter"].items() if not name.startswith("layer6.")}
    torch.save(body, "body.pth")
    said = refused(capsys, script, "--restore-from", "body.pth")
    assert says(said, "body.pth: no classifier ... (layer6), ... 19 classes")
    said = refused(capsys, script, "--restore-from", "none")
    assert says(said, "--restore-from: found none, ... random weights")
    said = refused(capsys, script, "--restore-from", "nowhere.pth")
    assert "--restore-from: nowhere.pth does not exist" in said and "random" not in said
    call("step1", "--restore-from", "body.pth", "--snapshot-dir", "new")
    assert state(Path("new"))["step"] == 3


def test_plain_weights_of_another_backbone(after_stage1, capsys):
    torch.save(state(STEP1)["segmenter"], "plain.pth")
    said = refused(capsys, "evaluate", "--restore-from", "plain.pth", "--backbone", "resnet18")
    assert says(said, "plain.pth: does not fit ... backbone resnet18") and "--backbone tiny" in said


def test_a_checkpoint_of_the_other_stage_is_not_resumed(after_stage1, capsys):
    said = refused(capsys, "step2", "--continue-train", str(STEP1 / "last.pth"))
    assert says(said, "last.pth: a checkpoint of step1, ... of step2")


def test_weights_without_a_training_state_are_not_resumed(after_stage1, capsys):
    torch.save(state(STEP1)["segmenter"], "plain.pth")
    said = refused(capsys, "step1", "--continue-train", "plain.pth", "--snapshot-dir", "new")
    assert "plain.pth: no training state" in said


def test_a_cut_off_checkpoint(after_stage1, capsys):
    content = (STEP1 / "last.pth").read_bytes()
    Path("cut.pth").write_bytes(content[: len(content) // 2])
    assert "cut.pth: cannot be read as weights" in refused(capsys, "evaluate", "--restore-from", "cut.pth")


def test_tensorboard_without_its_package(run_folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "--tensorboard: the package tensorboard is missing" in refused(capsys, "step1", "--tensorboard")


def test_a_place_for_tensorboard_that_cannot_be_written(run_folder, capsys):
    pytest.importorskip("torch.utils.tensorboard")
    Path("file.txt").touch()
    for folder in ("/proc/nowhere/board", "file.txt"):
        said = refused(capsys, "step1", "--tensorboard", "--log-dir", folder)
        assert said.startswith(f"error: --log-dir: {folder}: cannot be written (")


@pytest.mark.parametrize("path", ["/proc/nowhere/a.json", "file.txt/a.json", "folder", LONG])
@pytest.mark.parametrize("script", ["evaluate", "iou"])
def test_a_place_for_scores_that_cannot_be_written_is_refused_before_the_work(after_stage1, capsys, script, path):
    Path("file.txt").touch()
    Path("folder").mkdir()
    arguments = START if script == "evaluate" else ["no labels", "no masks"]
    said = refused(capsys, script, *arguments, "--json", path)
    assert said.startswith(f"error: --json: {'found the folder ' * (path == 'folder')}{path}")


# Faults that appear only during a run: what was written before is complete.


def test_one_corrupt_image_among_good_ones_leaves_whole_files_and_a_run_that_can_be_resumed(bad, capsys):
    good = (bad / "gta5_deeplab/images/00003.png").read_bytes()
    cut(bad / "gta5_deeplab/images/00003.png")
    arguments = [*BAD_SOURCE, "--batch-size", "1", "--num-steps", "6"]
    assert exit_code("step1", *arguments) == 2
    error = capsys.readouterr().err
    assert "images/00003.png: corrupt or unreadable image" in error and error.count("\n") == 1
    drawn = [batch[0][0] for batch in islice(EndlessSampler(6, 1, 1234), 6)]
    assert state(STEP1)["step"] == drawn.index(2) > 0  # the steps before the one that needs the image
    assert not list(STEP1.glob(".*"))
    (bad / "gta5_deeplab/images/00003.png").write_bytes(good)
    call("step1", *arguments, "--continue-train")
    assert state(STEP1)["step"] == 6


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(run_folder, capsys):
    arguments = ["--learning-rate", "1e30", "--num-steps", "20", "--log-every", "100", "--save-pred-every", "1"]
    assert exit_code("step1", *arguments) == 2
    error = capsys.readouterr().err
    assert " not finite (" in error and "try a lower --learning-rate" in error and error.count("\n") == 1
    assert "NaN" not in (STEP1 / "log.jsonl").read_text()
    if (STEP1 / "last.pth").exists():
        assert all(torch.isfinite(tensor).all() for tensor in state(STEP1)["segmenter"].values())


# The other scripts.


def break_pseudo_label(_: Path) -> None:
    for path in PSEUDO.glob("*.png"):
        Image.fromarray(np.full(TINY_SIZE[::-1], 77, np.uint8)).save(path)


@pytest.mark.parametrize(
    ("spoil", "arguments", "said"),
    [
        (lambda _: None, ["--ssl-target-dir", "nowhere"], "--ssl-target-dir: nowhere: does not exist"),
        (lambda _: next(PSEUDO.glob("*.png")).unlink(), [], "leftImg8bit.png: pseudo-label not found ... 1 of 4"),
        (break_pseudo_label, [], "leftImg8bit.png: pseudo-label with id 77"),
        (lambda _: shutil.rmtree(STEP1), [], "--restore-from: snapshots/builtin/step1/last.pth does not exist"),
        (lambda _: None, ["--lambda-pseudo", "-1"], "--lambda-pseudo: found -1.0"),
        (lambda _: None, ["--source-only"], "unrecognized arguments: --source-only"),
    ],
)  # fmt: skip
def test_bad_input_of_stage_2(after_stage1, capsys, spoil, arguments, said):
    spoil(after_stage1)
    assert says(refused(capsys, "step2", *arguments), said)
    assert not STEP2.exists()


@pytest.mark.parametrize(
    ("spoil", "arguments", "said"),
    [
        (each(TARGET_IMAGES, cut), [], "corrupt or unreadable image"),
        (each("Cityscapes/leftImg8bit/train/southport/*.png", make_text), [],
         "southport_000000_000019_leftImg8bit.png:"),
        (lambda _: None, ["--ssl-target-dir", "file.txt"], "file.txt: ... a file is in the way"),
        (lambda _: None, ["--batch-size", "0"], "--batch-size: found 0, ... at least 1"),
        (lambda _: None, ["--iter-size", "2"], "unrecognized arguments: --iter-size 2"),
        (lambda _: None, ["--restore-from", "nowhere.pth"], "--restore-from: nowhere.pth does not exist"),
    ],
)  # fmt: skip
def test_bad_input_of_the_pseudo_labels(after_stage1, bad, capsys, spoil, arguments, said):
    Path("file.txt").touch()
    spoil(bad)
    before = {path.name: path.read_bytes() for path in PSEUDO.iterdir()}
    assert says(refused(capsys, "pseudo", *BAD_TARGET, "--ssl-target-dir", "labels", *arguments), said)
    assert not Path("labels").exists()
    refused(capsys, "pseudo", *BAD_TARGET, *arguments)
    assert {path.name: path.read_bytes() for path in PSEUDO.iterdir()} == before  # an earlier set stays complete


@pytest.mark.parametrize(
    ("spoil", "arguments", "said"),
    [
        (each("Cityscapes/leftImg8bit/val/*/*1_*.png", cut), [], "middleton_000001_000019_leftImg8bit.png: corrupt or"),
        (delete_last_val_label, [], "middleton_000001_000019_gtFine_labelIds.png: label not found ... 1 of 2"),
        (each(VAL_LABELS, shrink), [], "_gtFine_labelIds.png: label of 32x32 ... its image"),
        (lambda _: None, ["--scales", "0.75x"], "--scales: found '0.75x', ... 0.75,1,1.25"),
        (lambda _: None, ["--scales", "1,0"], "--scales: found (1.0, 0.0), ... 0.1 to 10"),
        (lambda _: None, ["--set", "nowhere"], "no images ... 'nowhere'"),
        (lambda _: None, ["--data-dir-target", "nowhere"], "nowhere: data folder"),
        (lambda _: None, ["--save", "file.txt"], "file.txt: ... a file is in the way"),
    ],
)  # fmt: skip
def test_bad_input_of_the_evaluation(after_stage1, bad, capsys, spoil, arguments, said):
    Path("file.txt").touch()
    spoil(bad)
    assert says(refused(capsys, "evaluate", *START, *BAD_TARGET, "--json", "scores.json", *arguments), said)


def test_an_evaluation_without_a_checkpoint(run_folder, capsys):
    said = refused(capsys, "evaluate")
    assert "--restore-from: snapshots/builtin/step2/last.pth does not exist" in said


def rewrite(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[], None]:
    def spoil() -> None:
        path = MASKS / f"{FIRST_VAL}.png"
        Image.fromarray(change(mask(path))).save(path)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "arguments", "said"),
    [
        (None, ["nowhere", str(MASKS)], "nowhere: folder of labels"),
        (lambda: Path("list.txt").write_text("a/b_leftImg8bit.png\n"),
         [str(TRUTH), str(MASKS), "--data-list-target-test", "list.txt"],
         "list.txt: 1 of 1 ... have no label"),
        (None, [str(TRUTH), str(MASKS), "--preset", "camvid_day_to_dusk", "--data-list-target-test", "train_dusk.txt"],
         "--data-list-target-test: train_dusk.txt not found ... "
         f"train_dusk.txt, {TRUTH}/train_dusk.txt, {TRUTH}/../train_dusk.txt, data/CamVid/train_dusk.txt)"),
        (None, [str(TARGET / "leftImg8bit/val"), str(MASKS)], "leftImg8bit/val: no label files found"),
        (None, [str(TRUTH), "nowhere"], "nowhere: folder of predictions"),
        (None, [str(TRUTH)], "required: PRED_DIR"),
        (None, [str(TRUTH), str(MASKS), "more"], "unrecognized arguments: more"),
        (lambda: (MASKS / f"{FIRST_VAL}.png").unlink(), [str(TRUTH), str(MASKS)],
         f"{MASKS}: 1 of 2 ... missing, ... {FIRST_VAL}.png"),
        (rewrite(lambda m: m[::2, ::2]), [str(TRUTH), str(MASKS)], f"{FIRST_VAL}.png: 48x32 ... 96x64"),
        (rewrite(lambda m: np.full_like(m, 19)), [str(TRUTH), str(MASKS)],
         f"{FIRST_VAL}.png: prediction: id 19 ... 0 to 18 or 255: ... number of classes"),
        (None, [str(TRUTH), str(MASKS), "--gt-ids", "train"], "val: no label files found"),
        (None, [str(TRUTH), str(MASKS), "--workers", "0"], "--workers: found 0, ... at least 1"),
        (lambda: cut(MASKS / f"{FIRST_VAL}.png"), [str(TRUTH), str(MASKS)], f"{FIRST_VAL}.png: corrupt or unreadable"),
        (None, [str(TRUTH), str(MASKS), "--restore-from", "x"], "unrecognized arguments: --restore-from x"),
    ],
)  # fmt: skip
def test_bad_input_of_compute_iou(run_folder, capsys, spoil, arguments, said):
    MASKS.mkdir(parents=True)
    for number in (0, 1):
        name = FIRST_VAL.replace("000000", f"{number:06d}")
        Image.fromarray(np.zeros(TINY_SIZE[::-1], np.uint8)).save(MASKS / f"{name}.png")
    if spoil:
        spoil()
    assert says(refused(capsys, "iou", *arguments, "--json", "scores.json"), said)
