"""`train_step2.py --method plus` as a user runs it: every term, exact resuming, precisions, presets, bad input."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.classes import CITYSCAPES
from dataset.reading import image_names
from tests.dataset.test_base import write
from tests.messages import says
from tests.processes import run_in_two
from tests.scripts import (
    PSEUDO,
    SOURCE,
    STEP1,
    STEP2,
    TARGET,
    call,
    differences,
    exit_code,
    losses,
    mask,
    records,
    state,
    steps,
    training_state,
)
from utils.options import config
from utils.options.presets import PRESETS
from utils.states import checkpoint

PLUS = ("--method", "plus", "--lambda-masked", "1", "--mask-block", "16", "--rare-class-temperature", "0.5")
DACS = ("--pseudo-selection", "image", "--pseudo-threshold", "0.2")
PAPER = (
    "--lambda-adv-target",
    "0.01",
    "--lambda-adv-cls",
    "0.1",
    "--lambda-adv-ins",
    "0.1",
    "--lambda-adv-cate",
    "0.1",
)
SETTINGS = (
    *PLUS,
    *PAPER,
    *("--isia", "contrast", "--num-steps", "4", "--learning-rate", "0.02", "--save-pred-every", "2"),
    *("--random-mirror", "--random-scale", "--random-jitter", "--class-balance", "0.5"),
)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_stopped_and_resumed_equals_never_stopped(after_stage1, workers):
    settings = (*SETTINGS, "--num-workers", workers)
    call("step2", *settings, "--snapshot-dir", "whole")
    call("step2", *settings, "--num-steps-stop", "2", "--overwrite")
    call("step2", *settings, "--continue-train")
    whole, resumed = training_state(Path("whole")), training_state(STEP2)
    assert whole["method"] == "plus" and {"teacher", "output"} == set(whole["networks"])
    assert whole["state"]["seen"].sum() > 0 and whole["state"]["thresholds"].sum() > 0
    assert whole["state"]["memory"]["stuff"]["count"].sum() > 0
    assert differences(whole, resumed) == []
    assert losses(Path("whole")) == losses(STEP2)
    assert {
        "seg",
        "pseudo",
        "mix",
        "masked",
        "adv_target",
        "adv_cls",
        "adv_ins",
        "adv_cate",
        "sure",
        "teacher_classes",
    } < steps(STEP2)[-1].keys()
    teacher, student = whole["networks"]["teacher"], whole["segmenter"]
    assert not torch.equal(teacher["conv1.weight"], student["conv1.weight"])
    assert torch.equal(teacher["bn1.running_mean"], student["bn1.running_mean"])
    assert len(list(STEP2.glob("class_pixels_*.json"))) == 1


def test_no_pseudo_labels_are_needed_but_given_ones_are_used(run_folder, monkeypatch):
    call("step1", "--num-steps", "1")
    call("step2", *PLUS, "--num-steps", "2", "--pseudo-borders", "0.1,0.2", "--no-class-mixing")
    of_teacher = steps(STEP2)[-1]["pseudo"]
    call("pseudo")
    call("step2", *PLUS, "--num-steps", "2", "--ssl-target-dir", str(PSEUDO), "--overwrite")
    assert 0 < steps(STEP2)[-1]["pseudo"] != of_teacher > 0


def test_two_processes_stay_equal_and_resume_exactly(after_stage1):
    settings = ("step2", *SETTINGS, "--batch-size", "1", "--num-steps", "2", "--cpu", "--num-workers", "0")
    ended = run_in_two(
        (*settings, "--snapshot-dir", "whole"),
        (*settings, "--snapshot-dir", "half", "--num-steps-stop", "1"),
        (*settings, "--snapshot-dir", "half", "--continue-train"),
    )
    # Each save compares teacher, memory and record of classes between the processes.
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert differences(training_state(Path("whole")), training_state(Path("half"))) == []


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_resolves_with_a_teacher_and_without_the_terms_of_the_paper(preset):
    options = config.resolve("step2", {"preset": preset, "method": "plus"})
    assert options.lambda_pseudo and options.lambda_mix and options.class_mixing and 0.9 < options.ema < 1
    assert bool(options.rare_class_temperature) == (preset in ("gta5_to_cityscapes", "synthia_to_cityscapes"))
    assert not any(getattr(options, f"lambda_{name}") for name in ("adv_target", "adv_feat", "adv_cls", "masked"))
    width, height = options.input_size_target
    assert options.mask_block * 4 <= min(width, height)


def test_reduced_precision_and_summed_passes(after_stage1):
    call("step2", *PLUS, *DACS, "--num-steps", "2", "--amp", "bf16", "--iter-size", "2", "--batch-size", "1")
    assert all(torch.isfinite(value).all() for value in state(STEP2)["networks"]["teacher"].values())
    assert steps(STEP2)[-1]["mix"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ema", "0.9"], "--ema has an effect only with --method plus, ... --method paper"),
        (["--isia", "contrast"], "--isia contrast has an effect only with --method plus, ... --method paper"),
        (["--method", "plus", "--mask-ratio", "0.5", "--lambda-masked", "0"],
         "--mask-ratio has no effect ... --lambda-masked 0"),
        (["--method", "plus", "--no-class-mixing", "--lambda-mix", "0"], "--class-mixing has no effect"),
        (["--method", "plus", "--isia", "contrast"], "also give --lambda-adv-cate"),
        (["--preset", "own_images", "--aim", "released"],
         "--aim: stuff and instance matching are off ... the default of --method plus"),
        (["--method", "plus", "--absent-stuff"], "--absent-stuff: stuff and instance matching ... --lambda-adv-cls"),
        (["--method", "plus", "--lambda-mix", "0", "--strong-blur", "1"], "--strong-blur has no effect"),
        (["--method", "plus", "--ssl-target-dir", "x", "--ema", "0.9"], "--ema has no effect: --ssl-target-dir"),
        (["--lambda-adv-cate", "0", "--isia", "paper"], "--isia: ISIA is off with --lambda-adv-cate 0"),
        (["--lambda-pseudo", "0", "--ssl-target-dir", "x"], "--ssl-target-dir has no effect with --lambda-pseudo 0"),
        (["--lambda-seg", "0", "--log-gradients", "1"], "--log-gradients gives shares ... found --lambda-seg 0"),
        (["--method", "plus", "--ssl-target-dir", "x", "--lambda-pseudo", "0"], "--ssl-target-dir has no effect"),
        (["--method", "plus", "--lambda-mix", "0", "--lambda-pseudo", "0"], "nothing is learnt from the teacher"),
        (["--method", "plus", "--pseudo-threshold", "0.9"], "--pseudo-threshold ... --pseudo-selection image"),
        (["--method", "plus", "--pseudo-borders", "0.5,0.5"], "--pseudo-borders: found (0.5, 0.5), expected TOP"),
        (["--method", "plus", "--crop", "64,32", "--high-resolution-crops"], "--crop cuts the images"),
        (["--method", "plus", "--crop", "64,32", "--pseudo-borders", "0,0.1"], "--pseudo-borders 0,0"),
        (["--method", "plus", "--lambda-imagenet", "1"], "--lambda-imagenet: found no --imagenet-weights"),
        (["--method", "plus", "--imagenet-weights", "x"], "--imagenet-weights has no effect ... --lambda-imagenet 0"),
        (["--method", "plus", "--ema", "1"], "--ema: found 1.0"),
        (["--method", "plus", "--mask-block", "0"], "--mask-block: found 0"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_options(run_folder, capsys, arguments, said):
    assert exit_code("step2", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and says(error, said)
    assert not STEP2.exists()


def test_imagenet_features_are_read_from_their_file(after_stage1, capsys):
    distance = ("--lambda-imagenet", "0.1", "--num-steps", "2")
    call("step2", *PLUS, *distance, "--imagenet-weights", str(STEP1 / "last.pth"), "--random-mirror", "--bn", "frozen")
    assert "imagenet" in steps(STEP2)[-1] and set(state(STEP2)["networks"]) == {"teacher"}
    assert exit_code("step2", *PLUS, *distance, "--imagenet-weights", "nowhere.pth", "--overwrite") == 2
    assert "--imagenet-weights: nowhere.pth does not exist" in capsys.readouterr().err


def test_contrast_is_for_stage_2(run_folder, capsys):
    assert exit_code("step1", "--method", "plus", "--isia", "contrast") == 2
    assert "--isia contrast is only for stage 2" in capsys.readouterr().err


def test_labels_of_one_class_cannot_be_mixed(after_stage1, capsys):
    for path in (SOURCE / "labels").glob("*.png"):
        write(Path("roads"), path.name, np.zeros((64, 96, 3), np.uint8), np.full((64, 96), 7, np.uint8))
    assert exit_code("step2", *PLUS, "--data-dir", "roads") == 2
    assert says(capsys.readouterr().err, "roads: ... only one class, road; ... two or more")
    call("step2", *PLUS, "--data-dir", "roads", "--no-class-mixing", "--num-steps", "1")
    one = ("--data-dir", "roads", "--class-balance", "0.5", "--num-steps", "1")  # stage 1 mixes nothing
    call("step1", "--method", "plus", *one, "--overwrite")


def test_classes_that_no_source_label_shows_are_named_and_have_no_weight(after_stage1, capsys):
    shutil.copytree(SOURCE, "source")
    for path in Path("source/labels").iterdir():
        ids = mask(path)
        ids[(ids == 7) | (ids == 26)] = 11  # road and car become building
        Image.fromarray(ids).save(path)
    call("step2", *PLUS, "--data-dir", "source", "--class-balance", "0.5", "--num-steps", "1")
    said = capsys.readouterr().out
    assert "source: no label shows: road, car. " in said
    [weights] = re.findall("weights of the classes in the source cross-entropy: (.+)", said)
    assert weights.startswith("sidewalk ") and "building " in weights and "car " not in weights


def test_a_target_of_fewer_images_than_a_batch(after_stage1):
    Path("one.txt").write_text(image_names(TARGET / "leftImg8bit/train")[0])
    call("step2", *PLUS, "--data-list-target", "one.txt", "--num-steps", "1")
    assert steps(STEP2)[-1]["mix"] > 0


def test_classes_without_a_pseudo_label_are_named(after_stage1, capsys):
    made = state(STEP1)
    made["segmenter"]["layer6.conv2d_list.0.bias"][[0, 1]] = torch.tensor([-1e4, -1e4])
    checkpoint.save(Path("poor.pth"), made)
    call("pseudo", "--restore-from", "poor.pth", "--ssl-target-dir", "masks")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "these pseudo-labels have no pixel of" in line)
    assert "road, sidewalk" in line and "--method plus" in line
    kept = {int(c) for path in Path("masks").glob("*.png") for c in np.unique(mask(path))} - {255}
    named = {CITYSCAPES.names.index(name) for name in line.split(" of: ")[1].split(". ")[0].split(", ")}
    assert kept | named == set(range(19)) and not kept & named


# ---------------------------------------------------------------- scores without labels


def label_free(folder: Path) -> list[dict[str, Any]]:
    return [record for record in records(folder) if "snd" in record]


def test_checkpoints_are_scored_without_labels_and_the_best_is_kept(run_folder):
    shutil.copytree(TARGET / "leftImg8bit", "unlabelled/leftImg8bit")
    training = ("--num-steps", "4", "--save-pred-every", "1", "--learning-rate", "0.02")
    settings = ("--data-dir-target", "unlabelled", *training, "--select-by", "infomax")
    call("step1", *settings)
    scored = label_free(STEP1)
    assert [record["step"] for record in scored] == [1, 2, 3, 4] and not any("miou" in r for r in records(STEP1))
    assert all(0 < record["agreement"] <= 1 and record["snd"] > 0 for record in scored)
    best = max(scored, key=lambda record: record["infomax"])
    chosen = state(STEP1, "selected.pth")
    assert (chosen["step"], chosen["selected_by"]) == (best["step"], "infomax") and state(STEP1)["step"] == 4
    whole = losses(STEP1)
    call("step1", *settings, "--num-steps-stop", "2", "--snapshot-dir", "half")
    call("step1", *settings, "--snapshot-dir", "half", "--continue-train")
    assert losses(Path("half")) == whole
    assert differences(training_state(STEP1), training_state(Path("half"))) == []
    assert state(Path("half"), "selected.pth")["step"] == best["step"]


def test_scoring_without_labels_changes_nothing_in_training(run_folder):
    call("step1", "--num-steps", "2", "--save-pred-every", "1")
    call("step1", "--num-steps", "2", "--save-pred-every", "1", "--label-free-images", "0", "--snapshot-dir", "none")
    assert not label_free(Path("none")) and len(label_free(STEP1)) == 2
    with_scores, without = training_state(STEP1), training_state(Path("none"))
    for state_ in (with_scores, without):
        state_.pop("shares")
    assert differences(with_scores, without) == []


def test_a_class_that_disappears_from_the_predictions_is_named(run_folder, capsys):
    call("step1", "--num-steps", "2", "--save-pred-every", "1")
    made = state(STEP1)
    made["segmenter"]["layer6.conv2d_list.0.bias"][13] = 1e4  # every pixel becomes a car
    made["shares"], made["score_due"] = [0.5, 0.0004, *[0.0] * 11, 0.5, *[0.0] * 5], True
    checkpoint.save(STEP1 / "last.pth", made)
    call("step1", "--num-steps", "2", "--continue-train")
    said = "target images is road any more (50.0% of their pixels were): the network forgets a class"
    output = capsys.readouterr().out
    assert said in output and output.count("any more") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--select-by", "snd", "--source-only"],
            "--select-by scores target images, and --source-only",
        ),
        (["--select-by", "snd", "--label-free-images", "0"], "--select-by: found --label-free-images 0"),
        (["--select-by", "miou"], "--select-by: invalid choice: 'miou'"),
    ],
)
def test_bad_options_of_selection(run_folder, capsys, arguments, said):
    assert exit_code("step1", *arguments) == 2
    assert said in capsys.readouterr().err
