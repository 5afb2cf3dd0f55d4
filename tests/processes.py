"""Runs scripts in two connected processes, as torchrun starts them, on the tiny benchmark."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
Call = tuple[str, ...]  # a script of `tests.scripts.MAINS`, then its arguments


Ended = list[tuple[int, str, str]]  # exit code, output and errors of each process
Meanwhile = Callable[[list[subprocess.Popen[str]]], object]


def run_in_two(*calls: Call, timeout: float = 240, meanwhile: Meanwhile = lambda _: None) -> Ended:
    """Make the calls one after the other in the working folder. meanwhile: called with both processes once they run."""
    return start_two(["-m", "tests.processes", json.dumps(calls)], timeout, meanwhile)


def start_two(arguments: list[str], timeout: float = 240, meanwhile: Meanwhile = lambda _: None) -> Ended:
    """Run Python with these arguments in two connected processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in ("0", "1"):
        environment = os.environ | {
            **{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
        }
        pipe = subprocess.PIPE
        command = [sys.executable, *arguments]
        started.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))
    try:
        meanwhile(started)
        outputs = [process.communicate(timeout=timeout) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(started, outputs, strict=True)]


def main() -> None:
    from tests.scripts import call
    from utils.options import config

    def make_calls() -> None:
        for arguments in json.loads(sys.argv[1]):
            call(*arguments)

    with patch("os.fsync"):  # no file here has to survive a power failure
        config.run(make_calls)


if __name__ == "__main__":
    main()
