"""The benchmark of the real pairs: its arms, what is run again, and its tables; nothing is trained."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import real, real_pairs
from bench.real import Runner, table
from bench.real_arms import APPLY_CYCLEGAN, ARMS, PSEUDO, STEP1, STEP2, TRAIN_CYCLEGAN, Stage
from bench.real_pairs import PAIRS
from utils.options import config


class Pretended(Runner):
    """Writes what the scripts would write, and records the calls."""

    def __init__(self, pair: str, out: Path, fails: str = "", gpu: bool = False) -> None:
        super().__init__(PAIRS[pair], 2, Path("/data"), out, out, gpu)
        self.calls: list[list[str]] = []
        self.fails = fails

    def call(self, command: list[str], log: Path) -> int:
        self.calls.append(command)
        if "--json" in command:
            scores = {"means": {"all": 0.25}, "iou": {"road": 0.5, "pole": 0.0}, "images": 3}
            Path(command[command.index("--json") + 1]).write_text(json.dumps(scores))
        elif "--snapshot-dir" in command:
            folder = Path(command[command.index("--snapshot-dir") + 1])
            (folder / "last.pth").touch()
            (folder / "log.jsonl").write_text('{"seg": 1, "grad_seg": 2.0, "grad_same": 0.1}\n{"grad_same": 0.3}\n')
        return 1 if self.fails and log.stem == self.fails else 0


def value(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def trained(last: Stage) -> list[Stage]:
    """The stages that train the segmenter of the arm, in order."""
    stages, stage = [last], last.after
    while stage is not None:
        stages.insert(0, stage)
        stage = stage.after
    assert all(one.script in (STEP1, STEP2) for one in stages)
    return stages


@pytest.mark.parametrize(("pair", "arm"), [(pair, arm) for pair in PAIRS for arm in ARMS[pair].stages])
def test_each_arm_takes_the_same_source_steps_without_a_gap(pair: str, arm: str) -> None:
    stages = trained(ARMS[pair].stages[arm])
    assert stages[0].first == 0 and stages[-1].last == PAIRS[pair].schedule.total
    assert all(before.last == after.first for before, after in pairwise(stages))


@pytest.mark.parametrize("arm", ARMS["carla_to_cityscapes"].stages)
def test_each_arm_has_the_learning_rates_of_one_run(arm: str) -> None:
    """A run over the remaining steps starts from the rate that was reached and decays as the whole run would have."""
    runner = Runner(PAIRS["carla_to_cityscapes"], 1, Path(), Path(), Path())
    stages = trained(ARMS["carla_to_cityscapes"].stages[arm])
    first = 3e-4 if "adamw" in arm else 4e-3
    for stage in stages:
        assert stage.optimizer == stages[0].optimizer
        options = list(runner.options(stage))
        rate, planned, stop = (
            float(value(options, f"--{name}")) for name in ("learning-rate", "num-steps", "num-steps-stop")
        )
        assert planned - stop == 3000 - stage.last
        for left in (1, planned - stop or 1):
            step = planned - left  # counted from the start of this run
            assert rate * (1 - step / planned) ** 0.9 == pytest.approx(first * (left / 3000) ** 0.9, rel=1e-3)


def test_an_arm_runs_its_stages_in_order_and_none_twice(tmp_path: Path) -> None:
    runner = Pretended("camvid_day_to_dusk", tmp_path)
    record = runner.finish(ARMS["camvid_day_to_dusk"].stages["paper_step2"])
    scripts = [(command[0],) for command in runner.calls]
    assert scripts == [STEP1, STEP1, PSEUDO, STEP2, *[("evaluate_cityscapes.py",)] * 2]
    start, align, masks, second, *_ = runner.calls
    assert "--source-only" in start and value(start, "--restore-from") == "/data/pretrained/mobilenet_v2_features.pth"
    assert value(align, "--restore-from") == str(tmp_path / "start_none" / "last.pth")
    assert value(masks, "--restore-from") == value(second, "--restore-from") == str(tmp_path / "align" / "last.pth")
    assert value(masks, "--ssl-target-dir") == value(second, "--ssl-target-dir")
    assert (record["miou"], record["source_miou"], record["steps"]) == (0.25, 0.25, 2000)
    assert record["gradients"] == {"same": pytest.approx(0.2)}
    assert [stage["name"] for stage in record["stages"]] == ["start_none", "align", "paper_step2_masks", "paper_step2"]
    runner.calls.clear()
    runner.finish(ARMS["camvid_day_to_dusk"].stages["source_only"])
    rest = runner.calls[0]
    assert value(rest, "--continue-train") == str(tmp_path / "start_none" / "last.pth")
    assert (value(rest, "--num-steps"), value(rest, "--num-steps-stop")) == ("2000", "2000")
    assert len(runner.calls) == 3


def test_an_arm_runs_on_one_thread_or_on_a_gpu_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA X")
    for gpu in (False, True):
        runner = Pretended("camvid_to_idd", tmp_path / str(gpu), gpu=gpu)
        record = runner.finish(ARMS["camvid_to_idd"].stages["source_only"])
        assert len(runner.calls) == 3
        assert all(("--cpu" in call, "--no-tf32" in call) == (not gpu, gpu) for call in runner.calls)
        assert record["machine"].endswith("one thread") != gpu
    assert record["machine"] == "NVIDIA X, shared with other arms"


def test_a_killed_stage_resumes_and_its_time_counts(tmp_path: Path) -> None:
    stage = ARMS["camvid_to_idd"].stages["source_only"].after
    assert stage is not None
    with pytest.raises(real.UserError, match="start_none: exit code 1"):
        Pretended("camvid_to_idd", tmp_path, fails="start_none").stage(stage)
    runner = Pretended("camvid_to_idd", tmp_path)
    runner.stage(stage)
    assert runner.calls[0][-1] == "--continue-train" and "--restore-from" not in runner.calls[0]
    assert len((tmp_path / "start_none" / "attempts.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("half_trained", [False, True])
def test_a_stage_that_was_trained_otherwise_is_refused(tmp_path: Path, half_trained: bool) -> None:
    """For example, an arm of the same name of an earlier version of these scripts."""
    stage = ARMS["camvid_to_idd"].stages["source_only"].after
    assert stage is not None
    runner = Pretended("camvid_to_idd", tmp_path, fails="start_none" if half_trained else "")
    with pytest.raises(real.UserError, match="exit code 1") if half_trained else nullcontext():
        runner.stage(stage)
    said = r"start_none: trained with .*; expected .*--lambda-same 1.*; give another"
    with pytest.raises(real.UserError, match=said):
        runner.stage(replace(stage, options=(*stage.options, "--lambda-same", "1")))
    assert len(runner.calls) == 1


def test_cyclegan_restyles_the_images_that_its_arm_learns_from(tmp_path: Path) -> None:
    runner = Pretended("carla_to_cityscapes", tmp_path)
    runner.finish(ARMS["carla_to_cityscapes"].stages["cyclegan"])
    learn, apply, start, train, *_ = runner.calls
    assert tuple(learn[:2]) == TRAIN_CYCLEGAN and tuple(apply[:2]) == APPLY_CYCLEGAN
    assert value(learn, "--random-seed") == "2" and "--classes" not in learn
    assert value(apply, "--restore-from") == str(tmp_path / "train_cyclegan" / "last.pth")
    assert "--source-only" in start and value(train, "--continue-train") == str(
        tmp_path / "start_cyclegan" / "last.pth"
    )
    for training in (start, train):
        assert value(training, "--data-dir") == value(apply, "--out")
        assert value(training, "--data-dir-labels") == "/data/carla"
    runner.calls.clear()
    runner.finish(ARMS["carla_to_cityscapes"].stages["paper_step2_cyclegan"])
    align, masks, second, *_ = runner.calls  # the restyled images and the start are shared
    assert value(align, "--data-dir") == value(second, "--data-dir") == value(start, "--data-dir")
    assert "--data-dir" not in masks and "paper_step2_cyclegan" not in ARMS["camvid_to_idd"].stages


def test_the_semantic_loss_of_cyclegan_has_the_segmenter_that_learnt_the_source(tmp_path: Path) -> None:
    runner = Pretended("carla_to_cityscapes", tmp_path)
    runner.finish(ARMS["carla_to_cityscapes"].stages["cyclegan_semantic"])
    first, learn, apply, start, *_ = runner.calls
    assert "--source-only" in first and value(first, "--snapshot-dir") == str(tmp_path / "start_none")
    assert value(learn, "--semantic") == str(tmp_path / "start_none" / "last.pth") and "--restore-from" not in learn
    assert value(apply, "--restore-from") == str(tmp_path / "train_cyclegan_semantic" / "last.pth")
    assert value(start, "--data-dir") == value(apply, "--out")


def test_large_arms_read_larger_images_and_train_on_crops(tmp_path: Path) -> None:
    for arm, size, crop in (("lab", "320,240", None), ("lab_large", "512,384", "320,192")):
        runner = Pretended("carla_to_cityscapes", tmp_path / arm)
        runner.finish(ARMS["carla_to_cityscapes"].stages[arm])
        start, rest, target, source = runner.calls
        assert value(start, "--input-size") == value(rest, "--input-size") == size
        assert (value(start, "--crop") if "--crop" in start else None) == crop
        assert "--input-size-target" not in target and value(source, "--input-size-target") == size


def test_all_stages_of_an_arm_have_its_output_stride() -> None:
    training = list(ARMS["carla_to_cityscapes"].stages["plus_lab_early_stride8"].chain())
    assert [value(list(stage.options), "--output-stride") for stage in training] == ["8", "8"]
    assert training[0].name == "start_lab_early_stride8" and ARMS["carla_to_cityscapes"].titles["lab_stride8"] == (
        "source only, on `lab` images, output stride 8"
    )


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(
    ("arm", "power", "temperature"),
    [
        ("plus_lab", 0.5, 0),
        ("plus_lab_early", 0.5, 0),
        ("plus_lab_early_without_class_balance", 0, 0),
        ("plus_lab_early_stride8", 0, 0),
        ("plus_lab_without_class_balance", 0, 0),
        ("plus_lab_with_rare_class_sampling", 0.5, 0.01),
        ("plus_lab_early_rare_class_sampling_only", 0, 0.01),
    ],
)
def test_how_plus_favours_rare_classes(pair: str, arm: str, power: float, temperature: float) -> None:
    first, second = (
        config.parse(script, ["--preset", PAIRS[pair].preset, *stage.options])[0]
        for script, stage in zip(("step1", "step2"), ARMS[pair].stages[arm].chain(), strict=True)
    )
    assert (first.class_balance, second.class_balance, second.rare_class_temperature) == (power, power, temperature)
    if arm == "plus_lab":
        for script in ("step1", "step2"):
            assert config.resolve(script, {"preset": PAIRS[pair].preset, "method": "plus"}).class_balance == power


def test_camvid_gets_the_classes_of_carla(tmp_path: Path) -> None:
    camvid, ids = tmp_path / "CamVid", np.arange(12, dtype=np.uint8)[None]
    for part in ("train", "val"):
        (camvid / part).mkdir(parents=True)
        (camvid / f"{part}annot").mkdir()
        (camvid / f"{part}_day.txt").write_text(f"{part}/a\n")
        Image.fromarray(ids).save(camvid / f"{part}annot" / "a.png")
        Image.fromarray(ids).save(camvid / part / "a.jpg")
    for _ in range(2):  # the second call keeps the files of the first
        real_pairs.camvid_in_classes_of_carla(tmp_path, tmp_path / "made")
    made = tmp_path / "made" / "camvid_as_carla"
    assert np.asarray(Image.open(made / "labels/val/a.png")).tolist() == [[8, 2, 5, 0, 1, 6, 255, 4, 10, 9, 255, 255]]
    assert (made / "train.txt").read_text() == "train/a.jpg\n" and (made / "images/train/a.jpg").exists()


def test_table_compares_arms_on_the_same_seeds(tmp_path: Path) -> None:
    def write(arm: str, seed: int, miou: float, machine: str = "2 cores, one thread") -> None:
        path = real.path_of(tmp_path, "camvid_to_idd", arm, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"miou": miou, "iou": {"road": miou, "pole": 0.0}, "source_miou": None, "machine": machine}
        record |= {"gradients": {"same": miou}} if arm == "paper_step2" else {}
        path.write_text(json.dumps(record | {"minutes": 3.0, "processor_minutes": 2.0}))

    write("source_only", 1, 0.2)
    write("source_only", 2, 0.3)
    write("paper_step2", 2, 0.35)
    write("plus", 1, 0.4, "NVIDIA X, shared with other arms")
    write("plus", 3, 0.4)
    write("lab", 1, 0.4, "NVIDIA X, shared with other arms")
    write("plus_without_mixed_images", 3, 0.3996)
    lines = table(tmp_path)
    assert "| source only | 20.0 | 30.0 | not run | 25.0 ± 7.1 | – | – | 3 | 2 |" in lines
    assert "| the paper's stage 1 and 2 | not run | 35.0 | not run | 35.0 | 5.0 | – | 3 | 2 |" in lines
    assert "| plus | 40.0 (GPU) | not run | 40.0 | 40.0 ± 0.0 | 20.0 | – | 3 | 2 |" in lines
    assert "| source only, on `lab` images | 40.0 (GPU) | not run | not run | 40.0 | 20.0 | – | on a GPU | – |" in lines
    assert "| plus, without mixed images |  |  | +0.0 | +0.0 |" in lines
    assert "| source only | 25.0 | 0.0 |" in lines
    assert "- the paper's stage 1 and 2: same 35.0 %" in lines
    assert lines.count("No arm has been run.") == len(PAIRS) - 1


def test_what_is_missing_is_listed_by_group_and_shrinks(tmp_path: Path) -> None:
    def write(arm: str, seed: int) -> None:
        path = real.path_of(tmp_path, "camvid_to_idd", arm, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")

    lines = [line for line in real.not_run(tmp_path) if line.startswith("- ")]
    assert lines == [f"- None of {len(ARMS[pair].stages)} arms run." for pair in PAIRS]
    write("source_only", 1)
    lines = real.not_run(tmp_path)
    assert "- Source only: 1 of 9 arms run (source only)." in lines
    assert "- With 1 of 3 seeds: source only." in lines
    groups = ARMS["camvid_to_idd"].groups
    assert sorted(arm for members in groups.values() for arm in members) == sorted(ARMS["camvid_to_idd"].stages)
    for arm in groups["Source only"][:-1]:
        for seed in real.SEEDS:
            write(arm, seed)
    lines = real.not_run(tmp_path)
    assert "- Source only: 8 of 9 arms run (missing: source only, class balance, `lab`)." in lines
    assert not any(line.startswith("- With") for line in lines)
