"""States are read back as they were written, and damaged ones are recognised."""

from __future__ import annotations

import os
import random
import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.scripts import differences
from utils.states import checkpoint
from utils.system.errors import UserError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
        with pytest.raises(UserError, match=r"last\.pth: .*File too large; 0\.4 MB needed, \S+ [MG]B free"):
            checkpoint.save(tmp_path / "last.pth", {"tensor": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "last.pth").read_bytes() == before
    assert names(tmp_path) == ["last.pth"]


STATE: dict[str, Any] = {
    "method": "step1",
    "architecture": {"backbone": "tiny", "num_classes": 19},
    "optimizer": {"segmenter": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}},
    "options": {"input_size": (96, 64), "num_classes": None},
    "step": 3,
}


def test_a_state_reads_back_as_it_was(tmp_path):
    checkpoint.save(tmp_path / "last.pth", STATE)
    found = checkpoint.load(tmp_path / "last.pth", "step1", STATE["architecture"])
    assert differences(found, {"format": "bafft", "version": 2, **STATE}) == []


def test_a_state_of_version_1_reads_in_the_names_of_version_2(tmp_path):
    memory, weight = {"stuff": {"count": torch.ones(2)}}, torch.ones(3)
    old = {
        "stage": "step1",
        **{name: value for name, value in STATE.items() if name != "method"},
        "options": {"source_only": False, "input_size_target": (96, 64)},
        "discriminators": {"output.layers.0.weight": weight, "feature.layers.0.weight": 2 * weight},
        "memory": memory,
    }
    torch.save({"format": "bafft", "version": 1, **old}, tmp_path / "old.pth")
    found = checkpoint.load(tmp_path / "old.pth", "step1", STATE["architecture"])
    assert found["method"] == "step1" and found["input_size"] == (96, 64)
    networks = {"output": {"layers.0.weight": weight}, "feature": {"layers.0.weight": 2 * weight}}
    assert differences(found["networks"], networks) == []
    assert differences(found["state"], {"memory": memory}) == []
    assert not found.keys() & {"stage", "discriminators", "memory"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"format": "bafft", **STATE, "method": "step2"}, "checkpoint of step2, .* step1"),
        ({"format": "bafft", **{k: v for k, v in STATE.items() if k != "method"}}, "a checkpoint of None"),
        ({"format": "bafft", **STATE, "architecture": {"backbone": "tiny", "num_classes": 13}},
         "network has num_classes 13, expected 19"),
        ({"format": "bafft", **STATE, "architecture": None}, "network has backbone None, expected tiny"),
        ({"format": "bafft", "stage": "step1"}, "no training state in it"),
        (STATE, "no training state in it"),
        ([1], "no training state in it"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_such_state_is_refused(tmp_path, content, said):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=rf"x\.pth: .*{said}"):
        checkpoint.load(tmp_path / "x.pth", "step1", STATE["architecture"])


@pytest.fixture
def saved(tmp_path) -> Path:
    checkpoint.save(tmp_path / "last.pth", {**STATE, "weights": torch.arange(40.0), "name": "x" * 50})
    return tmp_path / "last.pth"


def test_any_flipped_bit_is_recognised_or_of_no_meaning(saved):
    """Damage in names, sizes and checksums of the archive too; the rest are dates and the like."""
    content = saved.read_bytes()
    whole = checkpoint.read(saved)
    draw = random.Random(0)
    recognised = 0
    for _ in range(400):
        place, bit = draw.randrange(len(content)), draw.randrange(8)
        saved.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        try:
            found = checkpoint.read(saved)
        except UserError as error:
            recognised += 1
            assert re.match(r".*last\.pth: .* as weights \(.+\); (give|copy)", str(error))
        else:
            assert differences(found, whole) == []
    assert recognised > 200


def test_every_bit_of_a_tensor_is_covered(saved):
    content = saved.read_bytes()
    start = content.index(torch.arange(40.0).numpy().tobytes())
    for bit in range(0, 8 * 160, 37):
        place = start + bit // 8
        saved.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit % 8]) + content[place + 1 :])
        with pytest.raises(UserError, match=r"damaged: wrong checksum of \S+/data/\d\); copy or download it again"):
            checkpoint.read(saved)


@pytest.mark.parametrize("left", [0, 1, 0.3, 0.9, -1])
def test_a_cut_off_file_is_recognised(saved, left):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(left * len(content)) if 0 < left < 1 else left])
    with pytest.raises(UserError, match=r"last\.pth: cannot be read as weights"):
        checkpoint.read(saved)


def test_the_newest_sound_checkpoint_is_offered_in_the_place_of_a_damaged_one(saved):
    folder = saved.parent
    for step in (1, 2, 30):
        checkpoint.keep_last(folder, step, 9)
        checkpoint.save(saved, {"weights": torch.arange(40.0)})  # as a new file
    content = bytearray(saved.read_bytes())
    content[content.index(torch.arange(40.0).numpy().tobytes())] ^= 1
    for name in ("last.pth", "step_00000030.pth"):
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=r"newest good one .*/step_00000002\.pth: give"):
        checkpoint.read(saved)


def test_numbered_checkpoints_are_the_last_ones_and_none_of_later_steps(tmp_path):
    def save(step: int, number: int) -> list[int]:
        checkpoint.save(tmp_path / "last.pth", {**STATE, "step": step})
        checkpoint.keep_last(tmp_path, step, number)
        found = [checkpoint.read(path)["step"] for path in checkpoint.numbered(tmp_path)]
        assert [int(path.stem[5:]) for path in checkpoint.numbered(tmp_path)] == found
        return found

    (tmp_path / "step_mine.pth").touch()
    assert [save(step, 2) for step in (5, 10, 15)] == [[5], [10, 5], [15, 10]]
    assert save(10, 2) == [10]  # resumed from an earlier checkpoint
    assert save(10, 2) == [10]
    assert save(12, 3) == [12, 10]
    assert save(14, 0) == []
    assert names(tmp_path) == ["last.pth", "step_mine.pth"]


def test_a_file_system_without_links_gets_a_copy(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    checkpoint.save(tmp_path / "last.pth", STATE)
    checkpoint.keep_last(tmp_path, 3, 1)
    assert (tmp_path / "step_00000003.pth").read_bytes() == (tmp_path / "last.pth").read_bytes()
    assert names(tmp_path) == ["last.pth", "step_00000003.pth"]


def test_a_digest_is_of_tensors_and_counters_in_whatever_order_and_not_of_the_options():
    state = {"a": torch.tensor([1.0, 2.0]), "b": {"x": 1, "y": [2.5, None]}, "options": {"snapshot_dir": "here"}}
    same = {"format": "bafft", "b": {"y": [2.5, None], "x": 1}, "a": torch.tensor([1.0, 2.0]), "options": {}}
    digest = checkpoint.digest(state)
    assert checkpoint.digest(same) == digest
    others: list[dict[str, Any]] = [
        {"a": torch.tensor([1.0, 2.0000002])},
        {"a": torch.tensor([[1.0, 2.0]])},
        {"a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {"b": {"x": 2, "y": [2.5, None]}},
        {"c": 0},
    ]
    assert len({digest, *(checkpoint.digest(state | other) for other in others)}) == 6


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


def test_a_kept_content_is_handed_on_once_and_only_while_the_file_is_the_same(saved, monkeypatch):
    reads = []
    real = torch.load

    def load(path, **how):
        reads.append(path)
        return real(path, **how)

    monkeypatch.setattr(torch, "load", load)
    first = checkpoint.read(saved, keep=True)
    assert checkpoint.read(saved, keep=True) is first
    assert checkpoint.read(saved) is first and len(reads) == 1
    assert checkpoint.read(saved) is not first and len(reads) == 2  # the file is no longer kept open
    checkpoint.read(saved, keep=True)
    checkpoint.save(saved, {"step": 9})
    assert checkpoint.read(saved)["step"] == 9
    checkpoint.read(saved, keep=True)
    checkpoint.save(saved.parent / "other.pth", {"step": 1})
    checkpoint.read(saved.parent / "other.pth")
    assert len(reads) == 6
    checkpoint.read(saved)
    assert len(reads) == 7  # another file has replaced it
