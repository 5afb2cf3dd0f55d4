"""`--high-resolution-crops` as a user runs it: training, exact resuming, and everything that uses the checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import export_onnx
import predict
from model.networks.high_resolution import HighResolution
from tests.conftest import logger_as_imported
from tests.messages import says
from tests.processes import run_in_two
from tests.scripts import MASKS, PSEUDO, STEP1, STEP2, TARGET, call, differences, exit_code, mask, state, steps
from tests.scripts import training_state as saved
from utils.prediction import onnx as exporting
from utils.prediction.loading import load
from utils.states import checkpoint

CROPS = ("--method", "plus", "--lambda-masked", "1", "--mask-block", "16", "--high-resolution-crops")
SIZE = ("--input-size", "48,32", "--input-size-target", "48,32")  # images are then read at 96x64
SETTINGS = (*CROPS, *SIZE, "--num-steps", "2", "--learning-rate", "0.02", "--label-free-images", "1")
ALL_TERMS = ("--lambda-adv-target", "0.01", "--lambda-adv-cate", "0.1", "--isia", "contrast")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, stage1) -> Path:
    """A checkpoint of a short run; tests must not change it."""
    folder = tmp_path_factory.mktemp("crops")
    with pytest.MonkeyPatch.context() as patch, logger_as_imported():
        patch.chdir(stage1)
        call("step2", *SETTINGS, "--snapshot-dir", str(folder))
    return folder / "last.pth"


def test_stopped_and_resumed_equals_never_stopped(after_stage1):
    settings = (*SETTINGS, *ALL_TERMS, "--save-pred-every", "1", "--random-mirror", "--random-scale")
    call("step2", *settings, "--snapshot-dir", "whole")
    call("step2", *settings, "--num-steps-stop", "1")
    call("step2", *settings, "--continue-train")
    whole = saved(Path("whole"))
    assert differences(whole, saved(STEP2)) == []
    attention = "attention.2.weight"
    before, after = state(STEP2, "step_00000001.pth")["segmenter"][attention], whole["segmenter"][attention]
    assert not torch.equal(before, after)  # the head learns, and the teacher has one too
    assert not torch.equal(whole["networks"]["teacher"][attention], after)
    assert {"seg", "mix", "masked", "adv_target", "adv_cate"} < steps(STEP2)[-1].keys()


def test_two_processes_stay_equal_and_resume(after_stage1):
    settings = ("step2", *SETTINGS, "--batch-size", "1", "--cpu", "--snapshot-dir")
    ended = run_in_two((*settings, "half", "--num-steps-stop", "1"), (*settings, "half", "--continue-train"))
    assert [code for code, _, _ in ended] == [0, 0], ended  # each save compares all weights
    assert state(Path("half"))["step"] == 2 and 0 < steps(Path("half"))[-1]["masked"] < 20


def test_reduced_precision(after_stage1):
    call("step2", *SETTINGS, "--amp", "bf16", "--iter-size", "2", "--batch-size", "1", "--checkpoint-activations")
    assert all(torch.isfinite(value).all() for value in state(STEP2)["networks"]["teacher"].values())
    assert 0 < steps(STEP2)[-1]["mix"] < 20


def test_the_checkpoint_says_what_it_needs(trained):
    segmenter, _, size = load(trained)
    assert isinstance(segmenter, HighResolution) and size == (96, 64)
    content = checkpoint.read(trained)
    assert content["options"]["input_size_target"] == (48, 32)  # so that resuming reads images at the same size
    assert content["architecture"]["high_resolution_crops"] is True


def test_everything_that_predicts_takes_the_checkpoint(after_stage1, trained, capsys):
    call("evaluate", "--restore-from", str(trained), "--preset", "builtin", "--input-size-target", "48,32")
    assert "attention" not in capsys.readouterr().out  # the size means what it means in training
    masks = sorted(MASKS.glob("**/*_leftImg8bit.png"))
    assert len(masks) == 2 and mask(masks[0]).shape == (64, 96)
    call("pseudo", "--restore-from", str(trained), "--input-size-target", "48,32", "--ssl-target-dir", "masks")
    made = list(Path("masks").glob("**/*.png"))
    assert len(made) == 4 and mask(made[0]).shape == (64, 96)  # as stage 2 with the crops reads them
    photo = TARGET / "leftImg8bit/val"
    predict.main([str(trained), str(photo), "--out", "predicted", "--write", "ids", "--cpu", "--flip"])
    predict.main([str(trained), str(photo), "--out", "same", "--write", "ids", "--cpu"])
    found = sorted(Path("same/ids").glob("**/*.png"))
    assert len(found) == 2 and len(list(Path("predicted/ids").glob("**/*.png"))) == 2
    for one, other in zip(found, masks, strict=True):
        assert np.array_equal(mask(one), mask(other))
    capsys.readouterr()


def test_the_input_size_is_taken_over_from_the_checkpoint(after_stage1, trained, capsys, monkeypatch):
    from tests import scripts

    monkeypatch.setitem(scripts.COMMON, "evaluate", ("--preset", "builtin", "--num-workers", "0"))
    call("evaluate", "--restore-from", str(trained))
    assert "--input-size-target 48,32" in capsys.readouterr().out


def test_an_image_of_any_shape_is_predicted(run_folder, trained):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (77, 31, 3), dtype=np.uint8)).save("odd.png")
    predict.main([str(trained), "odd.png", "--out", "predicted", "--write", "ids", "--cpu"])
    assert mask(Path("predicted/ids/odd.png")).shape == (77, 31)


def test_the_exported_file_is_the_network(run_folder, trained, capsys):
    for name in exporting.PACKAGES:
        pytest.importorskip(name, reason=f"needs the optional package {name}")
    export_onnx.main([str(trained), "--count", "1", "--out", "crops.onnx"])
    assert "labels equal on 100.0000 %" in capsys.readouterr().out


def test_a_plain_run_refuses_the_checkpoint_and_its_own_stage_takes_it(after_stage1, trained, capsys):
    wanted = "trained with --high-resolution-crops, ... --method plus --high-resolution-crops"
    for script, arguments in (("step2", ("--method", "plus")), ("step2", ()), ("step1", ("--overwrite",))):
        assert exit_code(script, *arguments, "--restore-from", str(trained)) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and says(error, wanted)
    assert not STEP2.exists()
    call("step2", *SETTINGS, "--num-steps", "1", "--learning-rate", "1e-12", "--restore-from", str(trained))
    assert "no attention" not in capsys.readouterr().out
    name = "attention.0.weight"
    torch.testing.assert_close(state(STEP2)["segmenter"][name], checkpoint.read(trained)["segmenter"][name])


def test_a_plain_checkpoint_is_announced_and_cannot_be_resumed_with_crops(after_stage1, capsys):
    call("step2", *CROPS, *SIZE, "--num-steps", "1")
    assert "no attention for high-resolution crops in the file" in capsys.readouterr().out
    call("step2", "--method", "plus", *SIZE, "--num-steps", "1", "--snapshot-dir", "plain")
    assert (
        exit_code("step2", *CROPS, *SIZE, "--continue-train", "plain/last.pth", "--num-steps", "2", "--overwrite") == 2
    )
    assert "its network has high_resolution_crops None, expected True" in capsys.readouterr().err


def test_pseudo_labels_of_stage_1_and_imagenet_features_are_used_too(after_stage1):
    imagenet = ("--lambda-imagenet", "0.1", "--imagenet-weights", str(STEP1 / "last.pth"))
    call("step2", *SETTINGS, "--num-steps", "1", "--ssl-target-dir", str(PSEUDO), *imagenet)
    assert steps(STEP2)[-1]["pseudo"] > 0 and steps(STEP2)[-1]["imagenet"] >= 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--high-resolution-crops"], "--high-resolution-crops ... only with --method plus, found --method paper"),
        (["--method", "plus", "--lambda-detail", "0.2"], "--lambda-detail ... only with --high-resolution-crops"),
        ([*CROPS, "--compile"], "--high-resolution-crops: found --compile"),
        ([*CROPS, "--lambda-detail", "-1"], "--lambda-detail: found -1.0"),
    ],
)
def test_bad_options(run_folder, capsys, arguments, said):
    assert exit_code("step2", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says(error, said)
    assert not STEP2.exists()
