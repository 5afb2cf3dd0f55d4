"""What is refused before data are read or drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts import exit_code
from utils.options import config
from utils.setup import build, early
from utils.system import lock
from utils.system.errors import UserError

EMPTY = ("--data-dir-target", "nowhere")  # read later: it is not what is refused


@pytest.mark.parametrize(
    ("script", "maker"),
    [("pseudo", "train_step1.py"), ("step2", "train_step1.py"), ("evaluate", "train_step2.py")],
)
def test_a_missing_checkpoint_is_refused_first_and_its_maker_named(run_folder, capsys, script, maker):
    assert exit_code(script, *EMPTY) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --restore-from: ") and f"`python {maker} --preset builtin` makes it" in error
    assert sorted(path.name for path in Path().iterdir()) == ["data"]


def test_a_folder_in_use_or_of_an_earlier_run_is_refused_first(run_folder, capsys):
    with lock.held(Path("runs/a")):
        assert exit_code("step1", *EMPTY, "--snapshot-dir", "runs/a") == 2
    assert "runs/a: in use by another run" in capsys.readouterr().err
    Path("runs/b").mkdir(parents=True)
    Path("runs/b/last.pth").touch()
    assert exit_code("step1", *EMPTY, "--snapshot-dir", "runs/b") == 2
    assert "--snapshot-dir: found runs/b/last.pth" in capsys.readouterr().err


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


def test_swapped_width_and_height_are_told_at_the_start(run_folder, caplog, monkeypatch):
    options = config.parse("step1", ["--preset", "builtin", "--input-size", "64,96", "--input-size-target", "96,64"])[0]
    monkeypatch.setattr(build.logger, "propagate", True)
    table = build.classes(options)
    with caplog.at_level("INFO", logger="bafft"):
        data = build.source_data(options, table), build.target_data(options, table, augmented=False)
        build.check_files(options, build.Skipped(), *data)
    told = {record.getMessage() for record in caplog.records if "distorts" in record.getMessage()}
    assert len(told) == 1 and "--input-size: " in told.pop()
