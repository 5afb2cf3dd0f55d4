"""Files are written completely or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.system import files
from utils.system.errors import UserError


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
        files.write_atomically(path, half_then_raise(error))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_is_a_user_error_that_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    said = r"file: cannot be written \(No space left on device; [\d.]+ [MG]B free on that disk\)"
    with pytest.raises(UserError, match=said):
        files.write_atomically(path, half_then_raise(OSError(28, "No space left on device")))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_place_to_write_is_tried_and_left_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "old").write_bytes(b"old")
    for name in ("a/b/new", "old"):
        files.check_can_write("--json", tmp_path / name)
    files.check_can_write("--log-dir", tmp_path / "d/e", folder=True)
    monkeypatch.chdir(tmp_path)
    files.check_can_write("--log-dir", Path("."), folder=True)
    for name in ("old/new", "x" * 250, "c/" + "x" * 250, "c/" + "x" * 300 + "/new"):
        with pytest.raises(UserError, match=f"^--json: {tmp_path / name}: cannot be written "):
            files.check_can_write("--json", tmp_path / name)
    with pytest.raises(UserError, match=rf"^--log-dir: {tmp_path}/old: .*a file is in the way"):
        files.check_can_write("--log-dir", tmp_path / "old", folder=True)
    with pytest.raises(UserError, match=f"^--json: found the folder {tmp_path}, "):
        files.check_can_write("--json", tmp_path)
    assert names(tmp_path) == ["old"] and (tmp_path / "old").read_bytes() == b"old"


def test_missing_parents_are_made_and_a_file_in_the_way_is_named(tmp_path):
    files.write_json(tmp_path / "a/b/file", [])
    assert (tmp_path / "a/b/file").read_text() == "[]\n"
    with pytest.raises(UserError, match="file/c: cannot be written"):
        files.write_atomically(tmp_path / "a/b/file/c", lambda file: None)


def test_json_and_images_replace_the_old_file(tmp_path):
    for content in ([1], {"a": None}):
        files.write_json(tmp_path / "file.json", content)
        assert json.loads((tmp_path / "file.json").read_text()) == content
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    files.write_image(tmp_path / "mask.png", Image.fromarray(pixels))
    assert np.array_equal(np.array(Image.open(tmp_path / "mask.png")), pixels)
    assert names(tmp_path) == ["file.json", "mask.png"]


def test_staged_files_appear_together_at_the_end(tmp_path):
    folder = tmp_path / "a/masks"
    with files.staged(folder) as scratch:
        (scratch / "1.png").write_text("new")
        assert not (folder / "1.png").exists()
    assert names(folder) == ["1.png"]


@pytest.mark.parametrize("existed", [True, False])
def test_a_stage_that_raises_leaves_the_folder_as_it_was(tmp_path, existed):
    folder = tmp_path / "a/masks"
    if existed:
        folder.mkdir(parents=True)
        (folder / "1.png").write_text("old")
    with pytest.raises(Broken), files.staged(folder) as scratch:
        (scratch / "1.png").write_text("new")
        raise Broken
    assert names(tmp_path) == (["a"] if existed else [])
    assert not existed or (names(folder) == ["1.png"] and (folder / "1.png").read_text() == "old")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EDQUOT, "Disk quota exceeded"),
        (errno.EROFS, "Read-only file system"),
        (errno.EACCES, "Permission denied"),
        (errno.ENOSPC, "No space left on device"),
    ],
)
def test_the_message_says_what_happened_to_which_file_and_how_much_was_needed(tmp_path, monkeypatch, number, said):
    path = tmp_path / "scores.json"
    files.write_json(path, "old")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError) as refused:
        files.write_json(path, "x" * 1_999_997)
    expected = (
        rf"{path}: cannot be written \({said}; 2 MB needed, [\d.]+ [MG]B free on that disk\); make room or choose"
    )
    assert re.match(expected, str(refused.value))
    assert json.loads(path.read_text()) == "old"
    assert names(tmp_path) == ["scores.json"]


def test_a_rename_is_made_to_last_after_the_content(tmp_path, monkeypatch):
    done: list[str] = []
    kinds = {True: "folder", False: "file"}
    monkeypatch.setattr(os, "fsync", lambda number: done.append(kinds[stat.S_ISDIR(os.fstat(number).st_mode)]))
    replace = os.replace

    def rename(*paths):
        done.append("rename")
        replace(*paths)

    monkeypatch.setattr(os, "replace", rename)
    files.write_json(tmp_path / "file", 1)
    assert done == ["file", "rename", "folder"]


def test_processes_of_one_number_on_two_machines_write_the_same_file(tmp_path, monkeypatch):
    """The second writer begins and ends while the first one writes."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    path = tmp_path / "entry"

    def first(file):
        file.write(b"fir")
        files.write_bytes(path, b"second")
        assert path.read_bytes() == b"second"
        file.write(b"st")

    files.write_atomically(path, first)
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["entry"]


def test_what_killed_processes_left_is_removed(tmp_path):
    for name in (".last.pth.123.tmp", "last.pth", ".other"):
        (tmp_path / name).touch()
    files.remove_leftovers(tmp_path)
    assert names(tmp_path) == [".other", "last.pth"]


def test_a_line_is_added_or_the_file_is_named(tmp_path):
    for line in ("first", "größe"):
        files.append_line(tmp_path / "lines", line)
    assert (tmp_path / "lines").read_bytes() == "first\ngröße\n".encode()
    with pytest.raises(UserError, match=r"missing/lines: cannot be written"):
        files.append_line(tmp_path / "missing/lines", "x")
