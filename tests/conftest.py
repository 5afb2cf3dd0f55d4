"""Shared by all tests: a tiny built-in benchmark, folders to run scripts in, and fixtures that restore global state."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from dataset.builtin import write_benchmark
from tests.scripts import PSEUDO, STEP1, TINY_SIZE, call

# The same few examples every time, and no deadline: a slow machine is not a failure.
settings.register_profile("bafft", derandomize=True, database=None, deadline=None, max_examples=60)
settings.load_profile("bafft")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what is equal bit for bit on a CPU may differ on a GPU
    else:
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # read when CUDA starts: no TF32 in comparisons


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")


@pytest.fixture(scope="session")
def benchmark_root(tmp_path_factory) -> Path:
    """A built-in benchmark of 6 source, 4 target training and 2 target validation images; tests must not change it."""
    root = tmp_path_factory.mktemp("builtin")
    write_benchmark(root, size=TINY_SIZE, source=6, target_train=4, target_val=2)
    return root


@pytest.fixture
def run_folder(tmp_path, monkeypatch, benchmark_root) -> Path:
    """An empty folder to run scripts in, with the benchmark where the preset `builtin` looks for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no file here has to survive a power failure
    (tmp_path / "data").mkdir()
    (tmp_path / "data/builtin").symlink_to(benchmark_root)
    return tmp_path


@contextmanager
def logger_as_imported() -> Iterator[None]:
    """The project's logger as after its import, before and afterwards.

    A script's `main` sets it up, also in the fixture of a module: tests would then miss its lines, or see too many.
    """

    def reset() -> None:
        logger = logging.getLogger("bafft")
        logger.handlers, logger.level, logger.propagate = [], logging.NOTSET, True

    reset()
    yield
    reset()


@pytest.fixture(scope="session")
def stage1(tmp_path_factory, benchmark_root) -> Path:
    """A folder in which stage 1 has run and pseudo-labels were made; tests must not change it."""
    root = tmp_path_factory.mktemp("stage1")
    # This fixture runs before the one that resets the logger for a single test.
    with pytest.MonkeyPatch.context() as patch, logger_as_imported():
        patch.chdir(root)
        (root / "data").mkdir()
        (root / "data/builtin").symlink_to(benchmark_root)
        call("step1")
        call("pseudo")
    return root


@pytest.fixture
def after_stage1(run_folder, stage1) -> Path:
    """Like `run_folder`, with a copy of what stage 1 and the pseudo-labels left."""
    for folder in (STEP1, PSEUDO):
        shutil.copytree(stage1 / folder, run_folder / folder)
    return run_folder


@pytest.fixture(autouse=True)
def _signals_are_heard() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, and give SIGHUP its default, even if the tests run in the background of a
    shell or under nohup, where they are ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in zip((signal.SIGINT, signal.SIGHUP), before):
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _operations_as_before() -> Iterator[None]:
    """Restore the settings that a script makes for the whole process (`utils.system.machine.set_up`)."""
    before, cudnn = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn
    benchmark, tf32 = cudnn.benchmark, cudnn.allow_tf32
    yield
    torch.use_deterministic_algorithms(before)
    cudnn.benchmark, cudnn.allow_tf32 = benchmark, tf32


@pytest.fixture(autouse=True)
def _no_map(request, monkeypatch) -> None:
    """Leave out the map of the feature space, which takes seconds per run; only the tests of the reports compute it."""
    if "reporting" not in request.path.parts:
        monkeypatch.setattr("utils.reporting.features.has_layout", lambda: False)


@pytest.fixture(autouse=True)
def _logger_as_imported() -> Iterator[None]:
    with logger_as_imported():
        yield
