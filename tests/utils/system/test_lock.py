"""One run per folder."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import time

import pytest

from utils.system import lock
from utils.system.errors import UserError


def test_the_second_is_refused_and_told_who_the_first_is(tmp_path):
    folder = tmp_path / "a/run"
    with lock.held(folder):
        said = rf"a/run: in use by another run \(process {os.getpid()} on {socket.gethostname()}\)"
        with pytest.raises(UserError, match=said), lock.held(folder):
            pass
        assert folder.is_dir()
        (folder / "last.pth").touch()
    assert [path.name for path in folder.iterdir()] == ["last.pth"]
    with lock.held(folder):
        pass


def test_a_folder_in_which_nothing_was_written_goes_again(tmp_path):
    with pytest.raises(ZeroDivisionError), lock.held(tmp_path / "a/run"):
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_frees_its_folder_though_its_reading_processes_live_on(tmp_path):
    first, beside = os.pipe()
    run = os.fork()
    if run == 0:
        with lock.held(tmp_path):
            reader = os.fork()
            if reader:
                os.write(beside, str(reader).encode())
            time.sleep(60)
        os._exit(0)
    reader = int(os.read(first, 20))
    try:
        with pytest.raises(UserError, match=f"process {run} on"), lock.held(tmp_path):
            pass
        os.kill(run, signal.SIGKILL)
        os.waitpid(run, 0)
        os.kill(reader, 0)  # the process is alive
        with lock.held(tmp_path):
            assert (tmp_path / lock.NAME).read_text().startswith(f"process {os.getpid()} on")
    finally:
        os.kill(reader, signal.SIGKILL)


def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock.held(tmp_path):
        pass
    assert "this file system has no locks" in caplog.text


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with (
        pytest.raises(UserError, match=rf"{tmp_path}: .*Read-only file system"),
        lock.held(tmp_path),
    ):
        pass


@pytest.mark.parametrize("main", [True, False])
def test_the_main_process_holds_the_folder_for_all(tmp_path, monkeypatch, main):
    monkeypatch.setattr(lock, "is_main", lambda: main)
    with lock.held_for_all(tmp_path / "run"):
        assert (tmp_path / "run" / lock.NAME).exists() == main
