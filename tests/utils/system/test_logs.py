"""The log of a run, line by line."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from utils.system.errors import UserError
from utils.system.logs import JsonLines


def lines(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("up_to", "kept"), [(0, []), (2, [1, 2, 2]), (9, [1, 2, 2, 3])])
def test_a_log_keeps_whole_lines_up_to_a_step(tmp_path, up_to, kept):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 2, "miou": null}\n{"step": 3}\n{"ste')
    log = JsonLines(path, lambda record: record["step"] <= up_to)
    assert lines(path) == kept
    log.write({"step": 4, "seg": 0.5})
    assert lines(path) == [*kept, 4]


def test_a_log_on_a_full_disk_ends_with_a_whole_line(tmp_path):
    path = tmp_path / "log.jsonl"
    log = JsonLines(path)
    log.write({"step": 1, "seg": 0.5})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        with pytest.raises(UserError, match=r"log\.jsonl: cannot be written \(No space left on device\); make room"):
            log.write({"step": 2, "seg": 0.25})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert lines(path) == [1]
    log.write({"step": 3})
    assert lines(path) == [1, 3]
