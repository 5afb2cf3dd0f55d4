"""The headers of all files, which are read before a run starts."""

from __future__ import annotations

import threading
import time

import pytest

from dataset import READERS
from utils.setup import data_sets
from utils.system import distributed


@pytest.fixture
def images(benchmark_root):
    return READERS["gta5"](benchmark_root / "gta5_deeplab")


def test_faults_of_headers_come_in_the_order_of_the_images(images, monkeypatch):
    def fault(name: str) -> str | None:
        time.sleep(0.02 if name == images.names[0] else 0)
        seen.append(threading.current_thread())
        return None if name == images.names[1] else f"{name}: bad"

    seen: list[threading.Thread] = []
    monkeypatch.setattr(images, "header_fault", fault)
    assert data_sets.header_faults(images) == [f"{name}: bad" for name in images.names if name != images.names[1]]
    assert len(seen) == len(images) and threading.main_thread() not in seen


def test_one_process_reads_headers_for_all(images, monkeypatch):
    monkeypatch.setattr(images, "header_fault", lambda name: pytest.fail("is read"))
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    monkeypatch.setattr(distributed, "objects", lambda faults: [["a.png: bad"], faults])
    assert data_sets.header_faults(images) == ["a.png: bad"]
