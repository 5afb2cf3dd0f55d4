"""`restyle_source.py` from beginning to end, on the tiny benchmark."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import restyle_source
from model.networks.translation import Generator
from tests.messages import says
from tests.processes import ROOT, run_in_two
from tests.scripts import (
    SOURCE,
    call,
    differences,
    exit_code,
    losses,
    records,
    state,
    training_state,
)
from utils.prediction import restyling
from utils.reporting.names import describe
from utils.states import checkpoint

RUN, OUT = Path("snapshots/builtin/restyle"), Path("data/restyled")
HALF, ALL = "2", "4"
SETTINGS = ("--num-steps", ALL, "--save-pred-every", HALF)
TERMS = {"adv_target", "adv_source", "cycle", "identity", "D_target", "D_source"}


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


SIZE = [80, 56]  # that the generator was trained with


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A checkpoint of `train` whose generator is far from the identity; tests must not change it."""
    torch.manual_seed(0)
    network = Generator(6, 0.05)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0.0, 0.2)
    path = tmp_path_factory.mktemp("trained") / "last.pth"
    content = {"networks": {"to_target": network.state_dict()}, "state": {"generator": {"blocks": 6, "width": 0.05}}}
    checkpoint.save(path, {"method": "cyclegan", "step": 7, **content, "options": {"input_size": SIZE}})
    return path


def apply(trained: Path, *arguments: str) -> None:
    call("restyle_apply", "--restore-from", str(trained), *arguments)


# ---------------------------------------------------------------- train


@pytest.mark.parametrize("extra", [(), ("--amp", "bf16"), ("--iter-size", "2", "--batch-size", "2")])
def test_stopped_and_resumed_equals_never_stopped(run_folder, extra):
    call("restyle_train", *SETTINGS, *extra, "--snapshot-dir", "whole")
    call("restyle_train", *SETTINGS, *extra, "--num-steps-stop", HALF)
    assert state(RUN)["step"] == int(HALF)
    call("restyle_train", *SETTINGS, *extra, "--continue-train")
    whole = training_state(Path("whole"))
    assert set(whole["networks"]) == {"to_target", "to_source", "real_target", "real_source"}
    images = int(ALL) if not extra or "--amp" in extra else 4 * int(ALL)
    assert whole["state"]["pools"]["source"].shape[:2] == (1, images)
    assert differences(whole, training_state(RUN)) == []
    assert losses(Path("whole")) == losses(RUN)


def test_the_log_holds_every_term_and_the_rates_of_both_halves(run_folder):
    call("restyle_train", *SETTINGS)
    log = records(RUN)
    assert all(set(record) >= TERMS for record in log) and len(log) == int(ALL)
    assert [record["lr_generator"] for record in log] == [2e-4, 2e-4, 2e-4, 1e-4]


def test_the_report_has_time_and_memory_and_names_the_terms(run_folder):
    call("restyle_train", *SETTINGS)
    (session,) = json.loads((RUN / "run.json").read_text())["sessions"]
    assert session["step"] == int(ALL) and session["memory_mb"] > 100
    assert all(describe(term).title != term for term in (*TERMS, "semantic"))


def test_no_label_is_needed(run_folder):
    shutil.copytree(SOURCE / "images", "unlabelled/images")
    call("restyle_train", "--num-steps", "1", "--data-dir", "unlabelled")
    call("restyle_train", "--num-steps", "1", "--source", "folder:unlabelled", "--overwrite")
    assert state(RUN)["step"] == 1


def test_a_frozen_segmenter_takes_part(run_folder):
    call("step1", "--source-only", "--num-steps", "1")
    segmenter = "snapshots/builtin/source_only/last.pth"
    call("restyle_train", *SETTINGS, "--semantic", segmenter, "--snapshot-dir", "whole")
    call("restyle_train", *SETTINGS, "--semantic", segmenter, "--num-steps-stop", HALF)
    call("restyle_train", *SETTINGS, "--semantic", segmenter, "--continue-train")
    assert all(record["semantic"] > 0 for record in records(RUN))
    assert differences(training_state(Path("whole")), training_state(RUN)) == []


def test_two_processes_train_alike_and_resume_with_the_pools_of_both(run_folder):
    whole = ("restyle_train", *SETTINGS, "--cpu", "--snapshot-dir", "whole")
    half = ("restyle_train", *SETTINGS, "--cpu", "--num-steps-stop", HALF)
    rest = ("restyle_train", *SETTINGS, "--cpu", "--continue-train")
    for code, _, error in run_in_two(whole, half, rest):
        assert code == 0, error
    found = training_state(Path("whole"))
    assert found["state"]["pools"]["target"].shape[:2] == (2, int(ALL))
    assert not torch.equal(*found["state"]["pools"]["target"])
    assert differences(found, training_state(RUN)) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--crop", "97,32"], "--crop: found 97,32, ... --input-size 96,64"),
        (["--crop", "64,64", "--input-size-target", "96,48"], "--crop: found 64,64, ... --input-size-target 96,48"),
        (["--crop", "16,16"], "--crop: found (16, 16), ... at least 32"),
        (["--generator-width", "0"], "--generator-width: found 0.0, ... above 0"),
        (["--lambda-cycle", "-1"], "--lambda-cycle: found -1.0"),
        (["--lambda-semantic", "2"], "--lambda-semantic has an effect only with --semantic; ... --semantic CHECKPOINT"),
        (["--semantic", "nowhere.pth"], "nowhere.pth"),
        (["--lambda-seg", "1"], "unrecognized arguments: --lambda-seg 1"),
        (["--data-dir", "nowhere"], "nowhere: data folder"),
    ],
)
def test_bad_input_is_one_line(run_folder, capsys, arguments, said):
    assert exit_code("restyle_train", *arguments) == 2
    error = capsys.readouterr().err
    assert says(error, said) and error.count("\n") == 1 and not Path("snapshots").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--crop", "64,64"], "does not fit ... 64x32 ... 64x64"),
        (["--generator-width", "0.1"], "does not fit ("),
    ],
)
def test_a_state_of_other_options_is_refused(run_folder, capsys, arguments, said):
    call("restyle_train", *SETTINGS, "--num-steps-stop", HALF)
    assert exit_code("restyle_train", *SETTINGS, "--continue-train", *arguments) == 2
    error = capsys.readouterr().err
    assert says(error, said) and error.count("\n") == 1


def test_the_parts_are_named_by_the_script_itself():
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "restyle_source.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    wrong, helped = run("learn"), run("--help")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1
    assert says(wrong.stderr, "found 'learn', ... train, apply")
    assert helped.returncode == 0 and "restyle_source.py apply" in helped.stdout


# ---------------------------------------------------------------- apply


def test_apply_keeps_names_sizes_and_folders(run_folder, trained):
    shutil.copytree(SOURCE / "images", "photos/images/north/1")
    Image.open(SOURCE / "images/00001.png").resize((101, 67)).save("photos/images/odd.jpg")
    apply(trained, "--source", "folder:photos", "--out", str(OUT))
    originals, restyled = files(Path("photos")), files(OUT)
    assert set(restyled) == {*originals, "restyled.json"} and len(originals) == 7
    for name in originals:
        before, after = pixels(Path("photos") / name), pixels(OUT / name)
        assert before.shape == after.shape and np.abs(before.astype(int) - after).mean() > 3
    with Image.open(OUT / "images/odd.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (101, 67))


def test_the_images_are_those_of_the_generator(run_folder, trained):
    apply(trained, "--out", str(OUT))
    saved = checkpoint.read(trained)
    network = Generator(6, 0.05)
    network.load_state_dict(saved["networks"]["to_target"])
    for path in (SOURCE / "images").iterdir():
        image = torch.from_numpy(pixels(path).copy()).permute(2, 0, 1)[None]
        with torch.no_grad():
            wanted = (network(image.float() / 127.5 - 1) + 1) * 127.5
        found = torch.from_numpy(pixels(OUT / "images" / path.name).copy()).permute(2, 0, 1)[None]
        assert (found - wanted).abs().max() < 0.51


def test_images_are_restyled_at_the_size_of_training_and_saved_at_their_own(run_folder, trained, monkeypatch):
    seen = []
    restyle = restyling.restyle

    def noted(generator, images, amp):
        seen.append(tuple(images.shape[2:]))
        return restyle(generator, images, amp)

    monkeypatch.setattr(restyling, "restyle", noted)
    restyle_source.main(["apply", "--preset", "builtin", "--restore-from", str(trained), "--out", str(OUT), "--cpu"])
    assert {*seen} == {(SIZE[1], SIZE[0])}
    seen.clear()
    apply(trained, "--out", str(OUT), "--input-size", "48,32", "--overwrite")
    assert {*seen} == {(32, 48)}
    assert pixels(OUT / "images/00001.png").shape == (64, 96, 3)


def test_the_folder_takes_the_place_of_the_data(run_folder, trained):
    apply(trained, "--out", str(OUT))
    call("step1", "--source-only", "--data-dir", str(OUT), "--data-dir-labels", str(SOURCE), "--num-steps", "1")
    call("step1", "--data-dir", str(OUT), "--data-dir-labels", str(SOURCE), "--num-steps", "1")
    assert state(Path("snapshots/builtin/step1"))["step"] == 1


def test_a_restyled_image_without_a_label_is_one_line(run_folder, trained, capsys):
    apply(trained, "--out", str(OUT))
    (OUT / "images/00001.png").rename(OUT / "images/other.png")
    assert exit_code("step1", "--data-dir", str(OUT), "--data-dir-labels", str(SOURCE)) == 2
    error = capsys.readouterr().err
    assert says(error, "labels/other.png: label not found ... 1 of 6") and error.count("\n") == 1


def test_killed_and_restarted_it_gives_the_same_files(run_folder, trained, monkeypatch):
    apply(trained, "--out", "whole")
    written: list[Path] = []
    write_bytes = restyling.write_bytes

    def killed(path, content):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write_bytes(path, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(restyling, "write_bytes", killed)
        apply(trained, "--out", str(OUT))
    there = {path: path.stat().st_mtime_ns for path in written}
    assert len(files(OUT / "images")) == 3
    apply(trained, "--out", str(OUT))
    assert files(OUT) == files(Path("whole"))
    assert {path: path.stat().st_mtime_ns for path in written} == there
    apply(trained, "--out", str(OUT))  # nothing remains to be done
    assert files(OUT) == files(Path("whole"))


def test_the_image_of_a_changed_source_file_is_made_again(run_folder, trained, capsys):
    shutil.copytree(SOURCE, "own")
    own = ("--data-dir", "own", "--out", str(OUT))
    apply(trained, *own)
    before = files(OUT / "images")
    shutil.copy2("own/images/00002.png", "own/images/00001.png")  # as old as any
    capsys.readouterr()
    apply(trained, *own)
    after = files(OUT / "images")
    assert {name for name in after if after[name] != before[name]} == {"00001.png"}
    assert after["00001.png"] == after["00002.png"]
    said = capsys.readouterr().out
    assert "1 images are made again" in said and "5 of 6 images exist already" in said
    note = json.loads((OUT / "restyled.json").read_text())
    del note["files"]["00003.png"]  # as an earlier version left it
    (OUT / "restyled.json").write_text(json.dumps(note))
    apply(trained, *own)
    assert "6 of 6 images exist already" in capsys.readouterr().out and files(OUT / "images") == after


def test_two_processes_write_the_files_of_one(run_folder, trained):
    apply(trained, "--out", "one")
    two = ("restyle_apply", "--restore-from", str(trained), "--out", "two", "--cpu")
    for code, _, error in run_in_two(two):
        assert code == 0, error
    assert files(Path("one")) == files(Path("two"))


def test_a_folder_of_other_weights_is_refused_unless_it_is_to_be_overwritten(run_folder, trained, capsys):
    apply(trained, "--out", str(OUT))
    before = files(OUT)
    other = checkpoint.read(trained)
    other["networks"]["to_target"]["layers.1.weight"] *= -1
    checkpoint.save(Path("other.pth"), {name: other[name] for name in ("method", "step", "networks", "state")})
    assert exit_code("restyle_apply", "--restore-from", "other.pth", "--out", str(OUT)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --out: {OUT}/images/00001.png was made with other") and error.count("\n") == 1
    assert files(OUT) == before
    apply(Path("other.pth"), "--out", str(OUT), "--overwrite")
    after = files(OUT)
    assert after.keys() == before.keys() and all(after[name] != before[name] for name in before)


def test_the_data_are_not_written_over(run_folder, trained, capsys):
    shutil.copytree(SOURCE, "own")
    before = files(Path("own"))
    assert exit_code("restyle_apply", "--restore-from", str(trained), "--data-dir", "own", "--out", "own") == 2
    assert "own/images/00001.png belongs to the data set" in capsys.readouterr().err
    assert files(Path("own")) == before


def test_a_list_in_the_data_goes_along(run_folder, trained):
    shutil.copytree(SOURCE, "own")
    Path("own/few.txt").write_text("00002.png\n00001.png\n")
    apply(trained, "--data-dir", "own", "--data-list", "few.txt", "--out", str(OUT))
    assert set(files(OUT)) == {"few.txt", "images/00001.png", "images/00002.png", "restyled.json"}
    labels = ("--data-dir-labels", "own", "--data-list", "few.txt")
    call("step1", "--source-only", "--data-dir", str(OUT), *labels, "--num-steps", "1")


def test_bad_images_are_named_or_skipped(run_folder, trained, capsys):
    shutil.copytree(SOURCE, "own")
    Path("own/images/00002.png").write_bytes(b"no image")
    assert exit_code("restyle_apply", "--restore-from", str(trained), "--data-dir", "own", "--out", str(OUT)) == 2
    assert "own/images/00002.png" in capsys.readouterr().err
    apply(trained, "--data-dir", "own", "--out", str(OUT), "--skip-bad-images")
    assert "own/images/00002.png" in (OUT / "skipped_images.txt").read_text()
    assert len(files(OUT / "images")) == 5


@pytest.mark.parametrize("kind", ["step1", "none", "text"])
def test_other_weights_are_refused_in_one_line(run_folder, capsys, kind):
    if kind == "step1":
        call("step1", "--num-steps", "1", "--source-only", "--snapshot-dir", ".")
    elif kind == "text":
        Path("last.pth").write_text("no weights")
    assert exit_code("restyle_apply", "--restore-from", "last.pth", "--out", str(OUT)) == 2
    error = capsys.readouterr().err
    assert "last.pth" in error and error.count("\n") == 1 and not OUT.exists()


def test_what_the_images_were_made_with_is_noted(run_folder, trained):
    apply(trained, "--out", str(OUT))
    note = json.loads((OUT / "restyled.json").read_text())
    assert note["input_size"] == [96, 64] and note["source"] == str(SOURCE.resolve())


def test_after_training_apply_finds_the_weights_by_itself(run_folder):
    call("restyle_train", "--num-steps", "1")
    call("restyle_apply")
    assert len(files(Path("data/restyled/builtin/images"))) == 6
