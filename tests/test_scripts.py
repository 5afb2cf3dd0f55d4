"""The scripts end to end on the built-in benchmark: what each reads, writes and prints, and what the flags change."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.labels import labels
from PIL import Image

from dataset import Cityscapes, base, cache
from dataset.classes import CITYSCAPES, CITYSCAPES_IDS, SYNTHIA_IDS
from model.methods import bafft
from tests.labels import train_ids
from tests.messages import says
from tests.scripts import (
    COMMON,
    MAINS,
    MASKS,
    PSEUDO,
    SOURCE,
    STEP1,
    STEP2,
    TARGET,
    TINY_SIZE,
    TRUTH,
    call,
    differences,
    exit_code,
    mask,
    records,
    state,
    steps,
)
from utils.options import config
from utils.options.presets import PRESETS
from utils.prediction.pseudo_labels import Records
from utils.setup import data_sets, networks
from utils.system.errors import UserError
from utils.training.meter import Meter

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "step1": "train_step1.py",
    "pseudo": "Generate_Pseudo_Label.py",
    "step2": "train_step2.py",
    "evaluate": "evaluate_cityscapes.py",
    "iou": "compute_iou.py",
}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return state(folder)["segmenter"]


def without_options(content: dict) -> dict:
    return {key: value for key, value in content.items() if key != "options"}


def printed_means(text: str) -> dict[str, str]:
    """The lines `mean of N classes  VALUE` of a table."""
    rows = [line.split() for line in text.splitlines() if line.startswith("mean of")]
    return {row[2]: row[4] for row in rows}


@pytest.fixture
def opened(monkeypatch) -> list[Path]:
    """A list of the image files that are read during the test."""
    paths: list[Path] = []
    read_image = base.read_image

    def recorded(path):
        paths.append(path)
        return read_image(path)

    monkeypatch.setattr(base, "read_image", recorded)
    return paths


def test_restyled_images_take_the_labels_of_the_originals(run_folder, opened):
    shutil.copytree(SOURCE / "images", "restyled")
    call("step1", "--source-only", "--data-dir", "restyled", "--data-dir-labels", str(SOURCE), "--num-steps", "1")
    trained = [path for path in opened if "Cityscapes" not in path.parts]
    assert trained and {path.parent for path in trained} == {Path("restyled")}


# The scripts in the published order


def test_each_script_finds_by_default_what_the_one_before_wrote(run_folder, capsys):
    for script in ("step1", "pseudo", "step2"):
        call(script)
    capsys.readouterr()
    call("evaluate", "--json", "evaluated.json")
    evaluated = capsys.readouterr().out
    call("iou", str(TRUTH), str(MASKS), "--json", "computed.json")
    computed = capsys.readouterr().out

    assert all((folder / name).is_file() for folder in (STEP1, STEP2) for name in ("last.pth", "config.json"))
    assert "snapshots/builtin/step2/last.pth" in evaluated
    assert len([line for line in computed.splitlines() if line.startswith(CITYSCAPES.names)]) == 19
    assert list(printed_means(computed)) == ["19", "16", "13"]
    assert printed_means(evaluated) == printed_means(computed)
    scores, again = (json.loads(Path(f"{name}.json").read_text()) for name in ("evaluated", "computed"))
    assert scores.pop("checkpoint") == "snapshots/builtin/step2/last.pth" and scores.pop("skipped") == []
    assert scores == again
    assert scores["images"] == 2
    assert records(STEP2)[-1]["miou"] == pytest.approx(scores["means"]["19"], abs=1e-12)


def test_saved_masks_score_alike_in_every_form(after_stage1, capsys):
    call("evaluate", "--restore-from", str(STEP1 / "last.pth"), "--json", "0.json")
    labels = np.append(np.flatnonzero(CITYSCAPES_IDS < 19)[np.argsort(CITYSCAPES_IDS[CITYSCAPES_IDS < 19])], 0)
    for path in MASKS.glob("*_leftImg8bit.png"):
        Path("label_ids").mkdir(exist_ok=True)
        Image.fromarray(labels[mask(path)].astype(np.uint8)).save(Path("label_ids") / path.name)
    for path in TRUTH.rglob("*_labelIds.png"):
        Path("train_ids").mkdir(exist_ok=True)
        name = path.name.replace("labelIds", "labelTrainIds")
        Image.fromarray(CITYSCAPES_IDS[mask(path)]).save(Path("train_ids") / name)
    call("iou", str(TRUTH), str(MASKS), "--json", "1.json", "--workers", "2")
    call("iou", str(TRUTH), "label_ids", "--pred-ids", "label", "--json", "2.json")
    call("iou", "train_ids", str(MASKS), "--json", "3.json")
    first, *others = (json.loads(Path(f"{i}.json").read_text()) for i in range(4))
    del first["checkpoint"], first["skipped"]
    assert all(other == first for other in others)
    shrunk = next(iter(MASKS.glob("*_leftImg8bit.png")))
    Image.fromarray(mask(shrunk)[::2, ::2]).save(shrunk)
    call("iou", str(TRUTH), str(MASKS), "--json", "4.json", "--resize-pred", "nearest")
    resized = json.loads(Path("4.json").read_text())
    assert np.sum(resized["confusion"]) == np.sum(first["confusion"])


def test_masks_of_label_ids(after_stage1, capsys):
    start = ("--restore-from", str(STEP1 / "last.pth"), "--json", "0.json")
    call("evaluate", *start)
    call("evaluate", *start, "--save", "submission", "--save-ids", "label")
    official = {label.trainId: label.id for label in labels if 0 <= label.trainId < 19}
    for path in sorted(MASKS.glob("*_leftImg8bit.png")):
        sent = mask(Path("submission") / path.name)
        assert np.array_equal(sent, np.vectorize(official.get)(mask(path))) and len(np.unique(sent)) > 2
        assert (MASKS / f"{path.stem}_color.png").is_file()
    assert sorted(path.name for path in Path("submission").iterdir()) == sorted(
        path.name for path in MASKS.glob("*_leftImg8bit.png")
    )
    call("iou", str(TRUTH), "submission", "--pred-ids", "label", "--json", "1.json")
    first, second = (json.loads(Path(f"{i}.json").read_text())["confusion"] for i in range(2))
    assert first == second


def test_batches_scales_and_flips_of_the_evaluation(after_stage1, capsys):
    start = ("--restore-from", str(STEP1 / "last.pth"), "--save", "none")
    call("evaluate", *start, "--json", "plain.json")
    call("evaluate", *start, "--batch-size", "2", "--json", "batch.json")
    capsys.readouterr()
    call("evaluate", *start, "--flip", "--scales", "0.75,1.0,1.25", "--json", "mean.json")
    assert says(capsys.readouterr().out, "scales 0.75, 1.0, 1.25 ... mirror images")
    plain, batch, mean = (json.loads(Path(f"{name}.json").read_text()) for name in ("plain", "batch", "mean"))
    assert np.abs(np.subtract(plain["confusion"], batch["confusion"])).sum() <= 4
    assert (mean["scales"], mean["flip"]) == ([0.75, 1.0, 1.25], True)
    assert mean["confusion"] != plain["confusion"] and np.sum(mean["confusion"]) == np.sum(plain["confusion"])


def test_pseudo_labels_go_on_after_a_kill_unless_the_network_is_another(after_stage1, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(Records, "close", lambda _: None)
        call("pseudo", "--ssl-target-dir", "labels")  # as if it had been killed before its last step
    assert Path("labels/.unfinished/3.npz").is_file()

    def run(*arguments: str) -> str:
        caplog.clear()
        with caplog.at_level("INFO", logger="bafft"):
            logging.getLogger("bafft").propagate = True
            call("pseudo", "--ssl-target-dir", "labels", *arguments)
        return caplog.text

    with monkeypatch.context() as patch:
        patch.setattr(Records, "close", lambda _: None)
        assert "continuing a stopped run, which has predicted 4 images" in run()
        assert "continuing" not in run("--batch-size", "2")
        assert "continuing a stopped run, which has predicted 4 images" in run("--batch-size", "2")
    assert "continuing" not in run()
    labels = {path.name: path.read_bytes() for path in Path("labels").iterdir()}
    assert labels == {path.name: path.read_bytes() for path in PSEUDO.iterdir()}


def test_masks_of_an_earlier_run_are_replaced_and_it_is_said(after_stage1, capfd):
    said = []
    for _ in range(2):
        call("pseudo", "--ssl-target-dir", "labels")
        said.append("".join(capfd.readouterr()))
    assert "earlier" not in said[0]
    assert "labels: the 4 masks of an earlier run are replaced when all are made" in said[1]


def test_scores_as_json_add_up(after_stage1):
    call("evaluate", "--restore-from", str(STEP1 / "last.pth"), "--json", "scores.json")
    scores = json.loads(Path("scores.json").read_text())
    confusion = np.array(scores["confusion"])
    assert scores["classes"] == list(CITYSCAPES.names)
    valid = sum(int((train_ids(Cityscapes, path) != 255).sum()) for path in TRUTH.rglob("*.png"))
    assert confusion.sum() == valid
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    present = union > 0
    iou = confusion.diagonal() / union.clip(1)
    assert [value is not None for value in scores["iou"].values()] == present.tolist()
    assert [value or 0 for value in scores["iou"].values()] == pytest.approx(iou)
    for name, ids in CITYSCAPES.subsets.items():
        kept = [c for c in ids if present[c]]
        assert scores["means"][name] == pytest.approx(iou[kept].mean())


def test_masks_are_train_ids_at_the_labels_size_with_a_coloured_twin(after_stage1):
    call("evaluate", "--restore-from", str(STEP1 / "last.pth"), "--input-size-target", "64,32", "--save", "masks")
    names = sorted(path.name for path in Path("masks").iterdir())
    keys = ["middleton_000000_000019_leftImg8bit", "middleton_000001_000019_leftImg8bit"]
    assert names == sorted(f"{key}{end}.png" for key in keys for end in ("", "_color"))
    found = mask(Path("masks") / f"{keys[0]}.png")
    assert found.shape == TINY_SIZE[::-1] and found.max() < 19
    assert mask(Path("masks") / f"{keys[0]}_color.png").shape[:2] == TINY_SIZE[::-1]


def test_save_none_writes_no_masks(after_stage1):
    call("evaluate", "--restore-from", str(STEP1 / "last.pth"), "--save", "none")
    assert not Path("result").exists()


def test_pseudo_labels_keep_the_more_confident_half(stage1):
    labels = np.stack([mask(path) for path in sorted((stage1 / PSEUDO).glob("*.png"))])
    assert labels.shape == (4, *TINY_SIZE[::-1])
    assert set(np.unique(labels)) <= {*range(19), 255}
    assert 0.3 < (labels != 255).mean() < 0.7


def test_log_holds_every_term_the_rates_and_the_ready_counts(after_stage1):
    call("step2", "--lambda-same", "0.001")
    always = {"step", "seg", "adv_target", "adv_feat", "pseudo", "same", "D_output", "D_feature"}
    always |= {"lr_segmenter", "lr_classifier", "lr_discriminator", "ready_stuff", "ready_things", *Meter.RATES}
    first, *later = steps(STEP2)
    assert set(first) == always  # the terms that read the memory start at the second iteration
    assert [set(record) for record in later] == [always | {"adv_cls", "adv_ins", "adv_cate"}] * 2
    assert [record["step"] for record in records(STEP2)] == [1, 2, 3, 3, 3]
    assert set(records(STEP2)[-2]) == {"step", "snd", "infomax", "agreement"}
    assert set(records(STEP2)[-1]) - {"averaged"} == {"step", "miou", "classes", "miou_16", "miou_13", "iou"}
    lr = state(STEP2)["options"]["learning_rate"]
    for i, record in enumerate(steps(STEP2)):
        assert record["lr_segmenter"] == pytest.approx(lr * (1 - i / 3) ** 0.9)
        assert record["lr_classifier"] == pytest.approx(10 * record["lr_segmenter"])


def test_a_class_becomes_ready_and_the_log_says_so(run_folder):
    call("step1", "--num-steps", "30", "--log-every", "30", "--learning-rate", "0.01")
    assert steps(STEP1)[-1]["ready_stuff"] > 0
    assert steps(STEP1)[-1]["adv_cls"] > 0


def test_configuration_is_saved_as_resolved(run_folder):
    call("step1", "--lambda-adv-ins", "0.5")
    saved = json.loads((STEP1 / "config.json").read_text())
    assert saved["input_size"] == list(TINY_SIZE)
    assert saved["lambda_adv_ins"] == 0.5
    assert (saved["preset"], saved["source"], saved["target"]) == ("builtin", "gta5", "cityscapes")
    assert (saved["stride_style"], saved["normalization"]) == ("caffe", "caffe")  # not `auto`
    assert saved["num_steps_stop"] == 3


def test_configuration_names_the_network_that_a_checkpoint_brought(after_stage1):
    call("step2", "--aspp-branches", "2", "--snapshot-dir", "runs/a")
    assert json.loads(Path("runs/a/config.json").read_text())["backbone"] == state(STEP1)["architecture"]["backbone"]


def test_real_processes_exit_with_0_and_2_and_one_line(run_folder):
    def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / FILES[script]), *COMMON[script], *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    good = run("step1", "--source-only", "--num-steps", "1")
    assert (good.returncode, good.stderr) == (0, "")
    assert Path("snapshots/builtin/source_only/last.pth").is_file()
    (run_folder / "bad/images").mkdir(parents=True)
    (run_folder / "bad/images/00001.png").write_text("no image\n")
    shutil.copytree(SOURCE / "labels", "bad/labels")
    bad = run("step1", "--data-dir", "bad", "--num-workers", "3")  # the error comes from a loader process
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: bad/images/00001.png: corrupt or unreadable image")
    assert bad.stderr.count("\n") == 1
    assert not STEP1.exists()


@pytest.mark.parametrize("script", MAINS)
def test_help_lists_the_flags_and_leaves_with_0(script, capsys):
    with pytest.raises(SystemExit) as ended:
        MAINS[script](["--help"])
    assert ended.value.code == 0
    assert "--preset" in capsys.readouterr().out


# The baseline


def test_source_only_runs_without_the_target_folder(run_folder):
    call("step1", "--source-only", "--data-dir-target", "nowhere")
    folder = Path("snapshots/builtin/source_only")
    assert set(steps(folder)[0]) == {"step", "seg", "lr_segmenter", "lr_classifier", *Meter.RATES}
    assert [record["step"] for record in records(folder)] == [1, 2, 3]


def test_a_split_that_the_user_names_must_exist(run_folder, capsys):
    assert exit_code("step1", "--set", "vall") == 2
    assert says(capsys.readouterr().err, "no images of split 'vall' found")


def test_source_only_runs_without_the_list_that_the_preset_scores(run_folder, capsys):
    for kind, folder in (("images", "train"), ("labels", "trainannot")):
        shutil.copytree(SOURCE / kind, f"data/CamVid/{folder}")
    for path in Path("data/CamVid/trainannot").iterdir():
        Image.fromarray(mask(path) % 12).save(path)
    Path("data/CamVid/train_day.txt").write_text("train/00001\ntrain/00002\n")
    task = ("--preset", "camvid_day_to_dusk", "--source-only", "--backbone", "tiny", "--output-stride", "8")
    nowhere = (*task, "--data-dir-target", "nowhere")
    call("step1", *nowhere)
    assert "no scores while training: " in capsys.readouterr().out
    assert state(Path("snapshots/camvid_day_to_dusk/source_only"))["step"] == 3
    assert exit_code("step1", *nowhere, "--overwrite", "--data-list-target-test", "train_dusk.txt") == 2


@pytest.mark.parametrize("preset", PRESETS)
def test_without_a_target_there_are_no_scores_unless_a_list_of_the_user_asks_for_them(run_folder, preset):
    arguments = ["--preset", preset, "--source-only", "--data-dir-target", "nowhere"]
    options, given, _ = config.parse("step1", arguments)
    assert data_sets.test_data_if_any(options, given, CITYSCAPES) is None
    options, given, _ = config.parse("step1", [*arguments, "--data-list-target-test", "val.txt"])
    with pytest.raises(UserError, match=r"nowhere|val\.txt"):
        data_sets.test_data_if_any(options, given, CITYSCAPES)


def test_source_only_opens_no_target_training_image_and_learns_nothing_from_scoring(run_folder, opened):
    call("step1", "--source-only", "--data-dir-target", "nowhere", "--snapshot-dir", "alone")
    assert opened and all(SOURCE in path.parents for path in opened)
    opened.clear()
    call("step1", "--source-only", "--save-pred-every", "1", "--snapshot-dir", "scored")
    assert {path.parts[-3] for path in opened if TARGET in path.parents} == {"val"}
    parts = ("segmenter", "optimizer", "rng", "state", "networks")
    alone, scored = ({part: state(Path(name))[part] for part in parts} for name in ("alone", "scored"))
    assert differences(alone, scored) == []


def test_scores_while_training_do_not_change_the_training(run_folder):
    call("step1", "--snapshot-dir", "often", "--save-pred-every", "1")
    call("step1", "--snapshot-dir", "once", "--data-list-target-test", str(one_val_image(run_folder)))
    often, once = (state(Path(name)) for name in ("often", "once"))
    assert differences(without_options(often), without_options(once)) == []


def one_val_image(run_folder: Path) -> Path:
    """A list of one of the two validation images."""
    path = run_folder / "one.txt"
    path.write_text("middleton/middleton_000000_000019_leftImg8bit.png\n")
    return path


# What flags change


def test_iter_size_2_of_batch_1_equals_batch_2(run_folder):
    """With frozen BatchNorm and without memory, nothing depends on the other images of a batch."""
    # At the preset's rate a random network with frozen BatchNorm diverges, and rounding shows in the fourth digit.
    same = ["--bn", "frozen", "--num-steps", "2", "--learning-rate", "1e-4"]
    same += ["--lambda-adv-cls", "0", "--lambda-adv-ins", "0", "--lambda-adv-cate", "0"]
    call("step1", *same, "--snapshot-dir", "batch", "--batch-size", "2")
    call("step1", *same, "--snapshot-dir", "passes", "--batch-size", "1", "--iter-size", "2")
    call("step1", *same, "--snapshot-dir", "single", "--batch-size", "1")
    batch, passes, single = (weights(Path(name)) for name in ("batch", "passes", "single"))
    for name in batch:
        torch.testing.assert_close(passes[name], batch[name], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(single["layer6.conv2d_list.0.bias"], batch["layer6.conv2d_list.0.bias"], atol=1e-6)
    for name in ("seg", "adv_target", "adv_feat", "D_output", "D_feature"):
        assert [r[name] for r in steps(Path("passes"))] == pytest.approx([r[name] for r in steps(Path("batch"))], 1e-4)


def test_num_steps_stop_stops_a_run_that_is_planned_longer(run_folder):
    call("step1", "--num-steps", "10", "--num-steps-stop", "2", "--learning-rate", "0.02", "--power", "1")
    assert [record["lr_segmenter"] for record in steps(STEP1)] == pytest.approx([0.02, 0.018])
    assert state(STEP1)["step"] == 2


MATCHING_OFF = ["--lambda-adv-cls", "0", "--lambda-adv-ins", "0", "--lambda-adv-cate", "0"]


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (["--lambda-adv-target", "0"], {"adv_target", "D_output"}),
        (["--lambda-adv-feat", "0"], {"adv_feat", "D_feature"}),
        (["--lambda-adv-target", "0", "--lambda-adv-feat", "0"],
         {"adv_target", "D_output", "adv_feat", "D_feature", "lr_discriminator"}),
        (MATCHING_OFF, {"adv_cls", "adv_ins", "adv_cate", "ready_stuff", "ready_things"}),
        (["--lambda-pseudo", "0"], {"pseudo"}),
    ],
)  # fmt: skip
def test_a_weight_of_0_takes_its_term_out(after_stage1, arguments, gone):
    call("step2", "--snapshot-dir", "full", "--num-steps", "2")
    call("step2", "--snapshot-dir", "less", "--num-steps", "2", *arguments)
    assert set(steps(Path("full"))[-1]) - set(steps(Path("less"))[-1]) == gone


def test_without_their_loss_stage_2_needs_no_pseudo_labels(after_stage1):
    shutil.rmtree(PSEUDO)
    call("step2", "--num-steps", "1", "--lambda-pseudo", "0")
    assert "adv_target" in steps(STEP2)[-1] and "pseudo" not in steps(STEP2)[-1]


PLAIN = ("--no-random-mirror", "--no-random-scale", "--no-random-jitter", "--num-steps", "2")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--lambda-adv-target", "1"],
        ["--lambda-adv-feat", "1"],
        ["--lambda-adv-cate", "1"],
        ["--lambda-seg", "0.5"],
        ["--learning-rate", "0.05"],
        ["--learning-rate-D", "0.05"],
        ["--backbone-lr-mult", "3"],
        ["--optimizer", "adamw", "--learning-rate", "0.001", "--weight-decay", "0"],
        ["--momentum", "0"],
        ["--weight-decay", "0.1"],
        ["--power", "0"],
        ["--warmup-steps", "2"],
        ["--random-seed", "7"],
        ["--batch-size", "1"],
        ["--iter-size", "2"],
        ["--random-mirror"],
        ["--random-scale"],
        ["--random-jitter"],
        ["--class-balance", "0.5"],
        ["--input-size", "64,64"],
        ["--input-size-target", "64,32"],
        ["--bn", "source"],
        ["--bn", "frozen"],
        ["--num-prototype", "2"],
        ["--num-classes", "13"],
        ["--aspp-branches", "4"],
        ["--normalization", "imagenet"],
        ["--discriminator-width", "0.125"],
        ["--method", "released"],
        ["--data-list", "source.txt"],
        ["--data-list-target", "target.txt"],
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_a_flag_changes_the_training(run_folder, plain_run, arguments):
    Path("source.txt").write_text("00001.png\n00002.png\n")
    Path("target.txt").write_text("northfield/northfield_000000_000019_leftImg8bit.png\n")
    call("step1", *PLAIN, *arguments)
    parts = ("segmenter", "networks", "state")
    assert differences({k: plain_run[k] for k in parts}, {k: state(STEP1)[k] for k in parts})


@pytest.mark.parametrize("kind", [["--source-only"], ["--lambda-adv-target", "0"]])
def test_class_balance_weighs_the_source_s_cross_entropy(run_folder, capsys, kind):
    losses = []
    for power in ("0", "0.5"):
        call("step1", *kind, "--num-steps", "1", "--class-balance", power, "--snapshot-dir", power)
        losses.append(steps(Path(power))[0]["seg"])
    assert losses[0] != losses[1] > 0
    said = capsys.readouterr().out
    [(road, bicycle)] = re.findall(r"weights of the classes .*: road ([\d.]+), .*bicycle ([\d.]+)", said)
    assert float(road) < 1 < float(bicycle)  # said only by the run whose weights differ


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory, benchmark_root):
    """The state after the same run without the flag in question."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    data = ("--data-dir", str(benchmark_root / SOURCE.name), "--data-dir-target", str(benchmark_root / TARGET.name))
    call("step1", *data, *PLAIN, "--snapshot-dir", str(folder))
    return state(folder)


def test_the_same_command_gives_the_same_run(run_folder, plain_run):
    call("step1", *PLAIN)
    assert differences(without_options(plain_run), without_options(state(STEP1))) == []


@pytest.mark.parametrize(
    "arguments", [["--num-workers", "1"], ["--cpu"], ["--log-every", "2"], ["--save-pred-every", "1"]]
)
def test_a_flag_leaves_the_training_as_it_is(run_folder, plain_run, arguments):
    call("step1", *PLAIN, *arguments)
    assert differences(without_options(plain_run), without_options(state(STEP1))) == []


def test_frozen_batchnorm_keeps_its_statistics_and_shared_does_not(run_folder):
    for bn in ("frozen", "shared"):
        call("step1", "--bn", bn, "--snapshot-dir", bn, "--num-steps", "1")
    assert torch.equal(weights(Path("frozen"))["bn1.running_mean"], torch.zeros(16))
    assert not torch.equal(weights(Path("shared"))["bn1.running_mean"], torch.zeros(16))


def test_frozen_batchnorm_stays_frozen_after_a_score_half_way(run_folder):
    call("step1", "--bn", "frozen", "--num-steps", "2", "--save-pred-every", "1")
    assert sum("miou" in record for record in records(STEP1)) == 2
    trained = weights(STEP1)
    assert torch.equal(trained["bn1.running_mean"], torch.zeros(16)) and trained["bn1.num_batches_tracked"] == 0


def test_log_every_and_save_pred_every(run_folder):
    call("step1", "--num-steps", "5", "--log-every", "4", "--save-pred-every", "2")
    # There is a line before every checkpoint too, so that no broken network is saved.
    assert [record["step"] for record in steps(STEP1)] == [2, 4, 5]
    assert [record["step"] for record in records(STEP1) if "miou" in record] == [2, 4, 5]


def test_best_is_kept_on_request_only(run_folder):
    call("step1", "--save-pred-every", "1")
    assert not (STEP1 / "best.pth").exists()
    call("step1", "--save-pred-every", "1", "--select-on-target-labels", "--snapshot-dir", "chosen")
    scores = [record["miou"] for record in records(Path("chosen")) if "miou" in record]
    best = state(Path("chosen"), "best.pth")
    assert best["selected_by"] == "target labels"
    assert best["step"] == 1 + scores.index(max(scores))
    assert best["best"] == max(scores)


def test_of_synthia_the_mean_of_the_sixteen_classes_that_it_has_leads(run_folder, capsys):
    shutil.copytree(SOURCE / "images", "syn/RGB")
    Path("syn/GT/LABELS").mkdir(parents=True)
    synthia_id = np.append(np.argsort(SYNTHIA_IDS, kind="stable")[:19], np.zeros(237, np.intp))
    for path in (SOURCE / "labels").iterdir():
        red = synthia_id[CITYSCAPES_IDS[mask(path)]].astype(np.uint16)
        cv2.imwrite(f"syn/GT/LABELS/{path.name}", np.dstack([np.zeros_like(red)] * 2 + [red]))
    call("step1", "--source", "synthia:syn", "--save-pred-every", "1", "--select-on-target-labels")
    said = capsys.readouterr().out
    lines = [record for record in records(STEP1) if "miou" in record]
    kept = {"step", "miou", "classes", "miou_19", "miou_13", "iou"}
    assert [set(record) - {"averaged"} for record in lines] == [kept] * 3
    assert {record["classes"] for record in lines} == {"16"}
    last = lines[-1]
    counted = {name: f"{number} of {name}" for name, number in last.get("averaged", {}).items()}
    means = (("miou", "16"), ("miou_19", "19"), ("miou_13", "13"))
    shown = ", ".join(f"{100 * last[key]:.2f} ({counted.get(name, name)} classes)" for key, name in means)
    assert f"step1 3  target mIoU {shown}" in said
    best = state(STEP1, "best.pth")
    assert best["best"] == max(record["miou"] for record in lines)
    # The checkpoint knows which mean is the main one.
    call("evaluate", "--restore-from", str(STEP1 / "last.pth"), "--json", "scores.json")
    assert list(printed_means(capsys.readouterr().out)) == ["16", "19", "13"]
    means = json.loads(Path("scores.json").read_text())["means"]
    assert [last["miou_19"], last["miou"], last["miou_13"]] == pytest.approx([means["19"], means["16"], means["13"]])


def test_overwrite_leaves_nothing_of_the_run_before(run_folder):
    call("step1", "--save-pred-every", "1", "--select-on-target-labels", "--report")
    call("step1", "--overwrite", "--num-steps", "2")
    assert sorted(path.name for path in STEP1.iterdir()) == [
        "config.json",
        "last.pth",
        "log.jsonl",
        "step_00000002.pth",
    ]
    assert [record["step"] for record in steps(STEP1)] == [1, 2]


def test_a_fault_in_the_pictures_of_a_method_does_not_end_the_run(run_folder, monkeypatch, capsys):
    monkeypatch.setattr(bafft.Alignment, "panels", lambda *_: 1 / 0)
    call("step1", "--num-steps", "1", "--report")
    assert "no pictures of the method: ZeroDivisionError" in capsys.readouterr().out
    assert (STEP1 / "report.html").exists() and state(STEP1)["step"] == 1


def test_tensorboard_writes_to_log_dir(run_folder):
    pytest.importorskip("torch.utils.tensorboard")
    call("step1", "--num-steps", "1", "--tensorboard")
    assert list((STEP1 / "tensorboard").glob("events.*"))
    call("step1", "--num-steps", "1", "--tensorboard", "--log-dir", "board", "--overwrite")
    assert list(Path("board").glob("events.*"))


def test_set_chooses_the_split_and_a_list_its_images(after_stage1):
    start = ("--restore-from", str(STEP1 / "last.pth"), "--save", "masks", "--json", "scores.json")
    one = ["--data-list-target-test", str(one_val_image(after_stage1))]
    for arguments, number in ((["--set", "train"], 4), (one, 1)):
        call("evaluate", *start, *arguments)
        assert json.loads(Path("scores.json").read_text())["images"] == number
    shutil.rmtree("masks")
    call("evaluate", *start, *one)
    call("iou", str(TRUTH), "masks", *one, "--json", "again.json")
    scores, again = (json.loads(Path(f"{name}.json").read_text()) for name in ("scores", "again"))
    assert again == {key: value for key, value in scores.items() if key not in ("checkpoint", "skipped")}


def test_ssl_target_dir_and_ignore_label_agree_between_the_scripts(after_stage1):
    labels = ("--ssl-target-dir", "labels", "--ignore-label", "200")
    call("pseudo", *labels)
    values = {int(v) for path in Path("labels").glob("*.png") for v in np.unique(mask(path))}
    assert 200 in values and 255 not in values
    call("step2", *labels)
    assert all(math.isfinite(record["pseudo"]) for record in steps(STEP2))


def test_num_classes_cuts_the_table_everywhere(run_folder, capsys):
    for script in ("step1", "pseudo", "step2", "evaluate"):
        call(script, "--num-classes", "13")
    call("iou", str(TRUTH), str(MASKS), "--num-classes", "13", "--json", "scores.json")
    assert weights(STEP2)["layer6.conv2d_list.0.bias"].shape == (13,)
    assert list(json.loads(Path("scores.json").read_text())["iou"]) == list(CITYSCAPES.names[:13])


def test_not_restore_last_starts_the_classifier_anew(after_stage1, caplog):
    start = state(STEP1)["segmenter"]

    def loaded(*arguments: str) -> dict[str, torch.Tensor]:
        options, given, _ = config.parse(
            "step1", ["--preset", "builtin", "--restore-from", str(STEP1 / "last.pth"), *arguments]
        )
        return networks.segmenter(options, given, data_sets.class_table(options)).state_dict()

    bias = "layer6.conv2d_list.0.bias"
    assert torch.equal(loaded()[bias], start[bias])
    anew = loaded("--not-restore-last")
    assert not torch.equal(anew[bias], start[bias])
    assert torch.equal(anew["conv1.weight"], start["conv1.weight"])
    assert loaded("--not-restore-last", "--num-classes", "13")[bias].shape == (13,)


def test_what_a_checkpoint_brings_is_said_where_it_is_not_the_presets(after_stage1, caplog):
    def said(preset: str) -> list[str]:
        caplog.clear()
        options, given, _ = config.parse("evaluate", ["--preset", preset, "--restore-from", str(STEP1 / "last.pth")])
        with caplog.at_level("INFO", logger="bafft"):
            logging.getLogger("bafft").propagate = True
            segmenter = networks.segmenter(options, given, CITYSCAPES)
        assert networks.with_architecture(options, segmenter).backbone == "tiny"
        records = dict.fromkeys(caplog.records)  # caplog may see each twice, here and at the root
        return [record.getMessage() for record in records if "taken from" in record.getMessage()]

    assert said("builtin") == []
    assert said("gta5_to_cityscapes") == [
        f"taken from the checkpoint {STEP1}/last.pth: --backbone tiny (the preset has resnet101)"
    ]
    both = "--backbone tiny (the preset has mobilenet_v2), --output-stride 8 (the preset has 16)"
    assert said("own_images") == [f"taken from the checkpoint {STEP1}/last.pth: {both}"]


def test_step2_starts_from_the_classifier_of_step1_with_an_empty_memory(after_stage1):
    call("step2", "--num-steps", "1", "--learning-rate", "1e-30", "--weight-decay", "0", "--bn", "frozen")
    before, after = weights(STEP1), weights(STEP2)
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert [name for name in changed if not name.endswith("num_batches_tracked")] == []
    assert state(STEP2)["state"]["memory"]["stuff"]["count"].max() <= 2  # of its own single iteration with two images


def test_amp_bf16_trains_and_predicts(run_folder):
    call("step1", "--amp", "bf16")
    assert weights(STEP1)["conv1.weight"].dtype == torch.float32
    assert all(math.isfinite(record["seg"]) for record in steps(STEP1))
    call("pseudo", "--amp", "bf16")
    assert len(list(PSEUDO.glob("*.png"))) == 4


# Cache.


def test_a_cache_changes_no_weight_label_or_score(after_stage1, capsys, caplog):
    def results(*arguments: str) -> tuple[dict, list, str]:
        shutil.rmtree(STEP2, ignore_errors=True)
        call("pseudo", *arguments)
        labels = [mask(path).tolist() for path in sorted(PSEUDO.glob("*.png"))]
        call("step2", *arguments)
        call("evaluate", "--json", "scores.json", *arguments)
        return without_options(state(STEP2)), labels, Path("scores.json").read_text()

    plain = results()
    for _ in range(2):
        capsys.readouterr()
        assert differences(list(plain), list(results("--cache", "cache"))) == []
    # Reads of pseudo-labels, training (source, target, scores) and evaluation; pseudo-labels were just written.
    printed = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines() if "cache cache: " in line]
    found = [line.split(" images and labels are stored")[0] for line in printed]
    assert found[0::2] == ["4 of 4", "4 of 4"] and found[1].endswith(" of 24")


def test_a_read_only_cache_of_moved_data_hashes_them_once(after_stage1, benchmark_root, monkeypatch, capsys):
    shutil.copytree(benchmark_root, "first")
    for path in Path("first").rglob("*.png"):
        os.utime(path, (1, 1))
    monkeypatch.setattr(cache, "_SETTLED", -60.0)  # files that were just written count as settled
    start = ("--restore-from", str(STEP1 / "last.pth"), "--save", "none", "--cache", "cache")
    call("evaluate", *start, "--data-dir-target", "first/Cityscapes")
    Path("first").rename("moved")
    hashed = []

    def recorded(digest, file, name):
        hashed.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(cache.hashlib, "file_digest", partial(recorded, cache.hashlib.file_digest))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    before = sorted(Path("cache").rglob("*"))
    capsys.readouterr()
    call("evaluate", *start, "--data-dir-target", "moved/Cityscapes")
    assert "cache cache: 4 of 4 images and labels" in capsys.readouterr().out
    assert len(set(hashed)) == len(hashed) == 4
    assert sorted(Path("cache").rglob("*")) == before


@pytest.mark.parametrize("script", ["step1", "pseudo", "step2", "evaluate"])
def test_a_cache_that_does_not_fit_is_refused(after_stage1, capsys, monkeypatch, script):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    start = ["--restore-from", str(STEP1 / "last.pth")] if script in ("step1", "evaluate") else []
    overwrite = ["--overwrite"] if script == "step1" else []
    assert exit_code(script, "--cache", "here/cache", *start, *overwrite) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --cache: here/cache needs about ") and error.count("\n") == 1
    assert not Path("here").exists()
