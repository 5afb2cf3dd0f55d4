"""Files whole or not at all, and states that read back as they were."""

from __future__ import annotations

import json
import os
import random
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.scripts import differences
from utils import checkpoint
from utils.errors import UserError


class Broken(Exception):
    pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def half_then_raise(error: BaseException):
    def write(file):
        file.write(b"half")
        raise error

    return write


@pytest.mark.parametrize("error", [Broken(), KeyboardInterrupt()], ids=["any", "ctrl-c"])
def test_a_writer_that_raises_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(type(error)):
        checkpoint.write_atomically(path, half_then_raise(error))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_is_a_user_error_that_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(UserError, match=r"file: cannot be written \(No space left on device\)"):
        checkpoint.write_atomically(path, half_then_raise(OSError(28, "No space left on device")))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_while_saving_a_state(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "last.pth", {"step": 1})
    before = (tmp_path / "last.pth").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"last.pth: cannot be written"):
        checkpoint.save(tmp_path / "last.pth", {"step": 2})
    assert (tmp_path / "last.pth").read_bytes() == before
    assert names(tmp_path) == ["last.pth"]


def test_a_disk_that_fills_up_in_the_middle_of_a_tensor(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoint.save(tmp_path / "last.pth", {"step": 1})
    before = (tmp_path / "last.pth").read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(UserError, match=r"last.pth: cannot be written"):
            checkpoint.save(tmp_path / "last.pth", {"tensor": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "last.pth").read_bytes() == before
    assert names(tmp_path) == ["last.pth"]


def test_a_file_that_refuses_bytes_while_torch_writes(tmp_path):
    big = {"tensor": torch.zeros(1000)}

    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

        def flush(self):
            pass

    file: Any = Full()
    with pytest.raises(UserError, match=r"last.pth: cannot be written"):
        checkpoint.write_atomically(tmp_path / "last.pth", lambda _: torch.save(big, file))
    assert names(tmp_path) == []


def test_missing_parents_are_made_and_a_file_in_the_way_is_named(tmp_path):
    checkpoint.write_json(tmp_path / "a/b/file", [])
    assert (tmp_path / "a/b/file").read_text() == "[]\n"
    with pytest.raises(UserError, match="file/c: cannot be written"):
        checkpoint.write_atomically(tmp_path / "a/b/file/c", lambda file: None)


def test_json_and_images_replace_the_old_file(tmp_path):
    for content in ([1], {"a": None}):
        checkpoint.write_json(tmp_path / "file.json", content)
        assert json.loads((tmp_path / "file.json").read_text()) == content
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    checkpoint.write_image(tmp_path / "mask.png", Image.fromarray(pixels))
    assert np.array_equal(np.array(Image.open(tmp_path / "mask.png")), pixels)
    assert names(tmp_path) == ["file.json", "mask.png"]


def test_staged_files_appear_together_at_the_end(tmp_path):
    folder = tmp_path / "a/masks"
    with checkpoint.staged(folder) as scratch:
        (scratch / "1.png").write_text("new")
        assert not (folder / "1.png").exists()
    assert names(folder) == ["1.png"]


@pytest.mark.parametrize("existed", [True, False])
def test_a_stage_that_raises_leaves_the_folder_as_it_was(tmp_path, existed):
    folder = tmp_path / "a/masks"
    if existed:
        folder.mkdir(parents=True)
        (folder / "1.png").write_text("old")
    with pytest.raises(Broken), checkpoint.staged(folder) as scratch:
        (scratch / "1.png").write_text("new")
        raise Broken
    assert names(tmp_path) == (["a"] if existed else [])
    assert not existed or (names(folder) == ["1.png"] and (folder / "1.png").read_text() == "old")


STATE: dict[str, Any] = {
    "stage": "step1",
    "architecture": {"backbone": "tiny", "num_classes": 19},
    "optimizer": {"segmenter": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}},
    "options": {"input_size": (96, 64), "num_classes": None},
    "step": 3,
}


def test_a_state_reads_back_as_it_was(tmp_path):
    checkpoint.save(tmp_path / "last.pth", STATE)
    found = checkpoint.load(tmp_path / "last.pth", "step1", STATE["architecture"])
    assert differences(found, {"format": "bafft", "version": 1, **STATE}) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"format": "bafft", **STATE, "stage": "step2"}, "a checkpoint of step2, expected one of step1"),
        ({"format": "bafft", **{k: v for k, v in STATE.items() if k != "stage"}}, "a checkpoint of None"),
        ({"format": "bafft", **STATE, "architecture": {"backbone": "tiny", "num_classes": 13}},
         "its network has num_classes 13, expected 19"),
        ({"format": "bafft", **STATE, "architecture": None}, "its network has backbone None, expected tiny"),
        ({"format": "bafft", "stage": "step1"}, "no training state in it"),
        (STATE, "no training state in it"),
        ([1], "no training state in it"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_such_state_is_refused(tmp_path, content, said):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=rf"x\.pth: .*{said}"):
        checkpoint.load(tmp_path / "x.pth", "step1", STATE["architecture"])


def test_code_in_a_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil\.pth: cannot be read as weights"):
        checkpoint.read(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_random_generators_go_on_as_if_never_stopped(tmp_path):
    def draw():
        return random.random(), np.random.random(), np.random.normal(), torch.rand(3).tolist()

    draw()
    torch.save(checkpoint.rng_state(), tmp_path / "rng.pth")
    expected = draw()
    draw()
    checkpoint.set_rng_state(checkpoint.read(tmp_path / "rng.pth"))
    assert draw() == expected
