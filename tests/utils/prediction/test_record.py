"""What the record of an output folder knows, also after its process was killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from utils.prediction.record import NAME, Record


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder, with the files a and b of one size and one time."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(name).write_bytes(b"1")
        os.utime(name, ns=(5, 5))
    return tmp_path


def finished(folder: Path, key: str, path: str) -> bool:
    entry = Record(folder).known(key, Path(path))
    return entry is not None and entry.frames is not None


def test_a_file_is_known_until_it_is_another_or_changes(folder):
    record = Record(folder)
    record.finish("key", Path("a"))
    Path("link").symlink_to("a")
    assert finished(folder, "key", "a") and finished(folder, "key", str(folder / "link"))
    assert not finished(folder, "key", "b") and not finished(folder, "other", "a")
    os.utime("a", ns=(4, 4))  # an older date
    assert not finished(folder, "key", "a")
    os.utime("a", ns=(5, 5))
    assert finished(folder, "key", "a")
    Path("a").write_bytes(b"22")
    os.utime("a", ns=(5, 5))
    assert not finished(folder, "key", "a")


def test_a_file_that_changes_during_the_run_is_not_known_by_the_next(folder):
    record = Record(folder)
    assert record.known("key", Path("a")) is None
    os.utime("a", ns=(6, 6))
    record.finish("key", Path("a"))
    assert not finished(folder, "key", "a")


def test_files_that_are_being_overwritten_belong_to_the_new_input(folder):
    record = Record(folder)
    record.finish("key", Path("a"))
    record.start("key", Path("b"))
    assert Record(folder).known("key", Path("a")) is None
    assert Record(folder).known("key", Path("b")) is not None and not finished(folder, "key", "b")


def test_a_line_that_a_kill_cut_short_counts_as_missing(folder):
    record = Record(folder)
    record.finish("1", Path("a"), 7, whole=False)
    good = Path(NAME).read_bytes()
    record.finish("2", Path("a"))
    both = Path(NAME).read_bytes()
    for end in range(len(good) + 1, len(both) - 1):
        Path(NAME).write_bytes(both[:end])
        assert finished(folder, "1", "a") and not finished(folder, "2", "a")
        assert Path(NAME).read_bytes() == good
        Record(folder).finish("2", Path("a"))
        assert finished(folder, "2", "a")
    Path(NAME).write_bytes(both[:-1])  # only the line break is missing
    assert finished(folder, "2", "a") and Path(NAME).read_bytes() == both
    for line in (b"\xff\n", b"[]\n", b"{}\n", b'{"key": "3"}\n', b"7\n"):
        Path(NAME).write_bytes(line + good)
        assert finished(folder, "1", "a")
    entry = Record(folder).known("1", Path("a"))
    assert entry is not None and (entry.frames, entry.whole) == (7, False)


def test_names_that_are_not_utf8_are_kept(folder):
    Path("x\n\udcff").write_bytes(b"1")
    Record(folder).finish("x\n\udcff", Path("x\n\udcff"))
    assert finished(folder, "x\n\udcff", "x\n\udcff")
