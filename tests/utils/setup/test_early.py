"""What is refused before data are read or made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts import exit_code
from utils.options import config
from utils.setup import data_sets, early
from utils.system import lock
from utils.system.errors import UserError

EMPTY = ("--data-dir-target", "nowhere")  # read later, and not what is refused here
SOURCELESS = ("--data-dir", "nowhere")


@pytest.mark.parametrize(
    ("script", "maker"),
    [
        ("pseudo", "train_step1.py"),
        ("step2", "train_step1.py"),
        ("evaluate", "train_step2.py"),
        ("restyle_apply", "restyle_source.py train"),
    ],
)
def test_a_missing_checkpoint_is_refused_first_and_its_maker_named(run_folder, capsys, script, maker):
    assert exit_code(script, *(SOURCELESS if script == "restyle_apply" else EMPTY)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --restore-from: ") and f"`python {maker} --preset builtin` makes it" in error
    assert sorted(path.name for path in Path().iterdir()) == ["data"]


@pytest.mark.parametrize("script", ["step1", "restyle_train"])
def test_a_folder_in_use_or_of_an_earlier_run_is_refused_first(run_folder, capsys, script):
    with lock.held(Path("runs/a")):
        assert exit_code(script, *EMPTY, "--snapshot-dir", "runs/a") == 2
    assert "runs/a: in use by another run" in capsys.readouterr().err
    Path("runs/b").mkdir(parents=True)
    Path("runs/b/last.pth").touch()
    assert exit_code(script, *EMPTY, "--snapshot-dir", "runs/b") == 2
    assert "--snapshot-dir: found runs/b/last.pth" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--continue-train", "--restore-from"])
def test_a_folder_in_the_place_of_its_checkpoint_is_refused_first(run_folder, capsys, option):
    Path("run").mkdir()
    Path("run/last.pth").touch()
    assert exit_code("step1", *EMPTY, "--snapshot-dir", "run", option, "run") == 2
    said = "is a folder; expected a weight file saved by torch.save; it holds last.pth: give that file"
    assert capsys.readouterr().err == f"error: run: {said}\n"


@pytest.mark.parametrize(
    ("script", "given"), [("restyle_apply", (*SOURCELESS, "--out")), ("pseudo", (*EMPTY, "--ssl-target-dir"))]
)
def test_a_folder_of_images_or_pseudo_labels_in_use_is_refused_first(run_folder, capsys, script, given):
    Path("network.pth").touch()
    with lock.held(Path("out")):
        assert exit_code(script, "--restore-from", "network.pth", *given, "out") == 2
    assert "out: in use by another run" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--continue-train", "no.pth"), ("--semantic", "no.pth")])
def test_other_missing_checkpoints_of_restyling_are_refused_first(run_folder, capsys, option, value):
    assert exit_code("restyle_train", *SOURCELESS, option, value) == 2
    assert capsys.readouterr().err.startswith(f"error: {option}: {value} does not exist; expected ")


def test_missing_weights_of_imagenet_are_refused_first(run_folder, capsys):
    Path("start.pth").touch()
    distance = ("--method", "plus", "--lambda-imagenet", "1", "--imagenet-weights", "no.pth")
    assert exit_code("step2", *EMPTY, "--restore-from", "start.pth", *distance) == 2
    assert capsys.readouterr().err.startswith("error: --imagenet-weights: no.pth does not exist; expected ")


def test_missing_pseudo_labels_are_refused_first_and_their_maker_named(run_folder, capsys):
    Path("my weights.pth").touch()
    given = ("--restore-from", "my weights.pth", "--ssl-target-dir", "masks")
    assert exit_code("step2", *EMPTY, *given) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --ssl-target-dir: masks: does not exist; expected ")
    command = (
        "python Generate_Pseudo_Label.py --preset builtin --data-dir-target nowhere --restore-from 'my weights.pth' "
        "--ssl-target-dir masks"
    )
    assert f"`{command}`" in error
    Path("masks").mkdir()
    assert exit_code("step2", *EMPTY, *given) == 2
    assert "masks: no mask in it; expected " in capsys.readouterr().err
    assert exit_code("step2", *EMPTY, *given[:2], "--method", "plus") == 2
    assert "--ssl-target-dir" not in capsys.readouterr().err  # that method needs no mask


@pytest.mark.parametrize(
    ("preset", "method", "words"),
    [("own_images", "paper", " --method paper"), ("own_images", "plus", ""), ("builtin", "plus", " --method plus")],
)
def test_the_command_that_makes_the_checkpoint_of_stage_1_has_the_same_method(
    run_folder, capsys, preset, method, words
):
    assert exit_code("step2", "--preset", preset, "--method", method) == 2
    assert f"`python train_step1.py --preset {preset}{words}` makes it" in capsys.readouterr().err


def test_pseudo_labels_that_the_method_does_not_use_are_mentioned(run_folder, capsys):
    Path("target_ssl_gt/builtin").mkdir(parents=True)
    Path("target_ssl_gt/builtin/a.png").touch()
    Path("start.pth").touch()
    for given, mentioned in (((), True), (("--ssl-target-dir", "target_ssl_gt/builtin"), False)):
        assert exit_code("step2", *EMPTY, "--restore-from", "start.pth", "--method", "plus", *given) == 2
        said = capsys.readouterr().out
        assert ("--method plus does not use the pseudo-labels in target_ssl_gt/builtin" in said) == mentioned


@pytest.mark.parametrize(("size", "mentioned"), [("120,96", True), ("120,104", False)])
def test_a_window_of_fda_that_only_changes_the_mean_colour_is_mentioned(run_folder, capsys, size, mentioned):
    arguments = ("--restore-from", "none", "--image-level", "fda", "--input-size", size)
    assert exit_code("step1", *EMPTY, *arguments) == 2
    said = capsys.readouterr().out
    assert (
        "--fda-beta 0.01: only changes the mean colour of images of 120x96; give at least 0.011" in said
    ) == mentioned


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ""),
        (("--target", "folder:mine", "--classes", "c.yaml"), " --target folder:mine --classes c.yaml"),
        (("--data-list-target", "some.txt"), " --data-list-target some.txt"),
    ],
)
def test_the_command_that_makes_pseudo_labels_has_the_same_data(arguments, words):
    options = config.parse("step2", ["--preset", "builtin", *arguments])[0]
    command = early.pseudo_label_command(options)
    assert command == f"python Generate_Pseudo_Label.py --preset builtin{words}"
    made = config.parse("pseudo", command.split()[2:])[0]
    for name in ("target", "data_dir_target", "data_list_target", "classes", "restore_from", "ssl_target_dir"):
        assert getattr(made, name) == getattr(options, name)


def test_a_folder_that_is_resumed_or_replaced_is_fine(tmp_path):
    last = tmp_path / "last.pth"
    last.touch()
    early.refuse_used(tmp_path, last, overwrite=False)
    early.refuse_used(tmp_path, None, overwrite=True)
    with pytest.raises(UserError):
        early.refuse_used(tmp_path, None, overwrite=False)


def test_nothing_is_left_of_the_look(run_folder):
    options = config.parse("step1", ["--preset", "builtin"])[0]
    early.refuse(options, "step1")
    assert not Path("snapshots").exists()


def only_message(caplog, word: str) -> str:
    """The only logged message with this word; a record that two handlers caught counts once."""
    (message,) = {id(record): record.getMessage() for record in caplog.records if word in record.getMessage()}.values()
    return message


def test_swapped_width_and_height_are_told_at_the_start(run_folder, caplog, monkeypatch):
    options = config.parse("step1", ["--preset", "builtin", "--input-size", "64,96", "--input-size-target", "96,64"])[0]
    monkeypatch.setattr(data_sets.logger, "propagate", True)
    table = data_sets.class_table(options)
    with caplog.at_level("INFO", logger="bafft"):
        data = data_sets.source_data(options, table), data_sets.target_data(options, table, augmented=False)
        data_sets.check_files(options, data_sets.Skipped(), *data)
    assert "--input-size: " in only_message(caplog, "distorts")


def test_a_size_that_distorts_the_target_is_told_once(run_folder, caplog, monkeypatch):
    options = config.parse("step1", ["--preset", "builtin", "--input-size", "96,64", "--input-size-target", "64,96"])[0]
    monkeypatch.setattr(data_sets.logger, "propagate", True)
    table = data_sets.class_table(options)
    with caplog.at_level("INFO", logger="bafft"):
        data = data_sets.target_data(options, table, augmented=False), data_sets.test_data(options, table)
        data_sets.check_files(options, data_sets.Skipped(), *data)
    assert "--input-size-target: " in only_message(caplog, "distorts")
