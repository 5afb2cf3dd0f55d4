"""docs/FIDELITY.md and docs/PLUS.md: their options exist, and their hyper-parameters are those of the options."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from utils.options import config, contradictions
from utils.options.flags import flag
from utils.options.presets import METHOD_OPTIONS
from utils.options.table import TRAIN, Options

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "FIDELITY.md").read_text(encoding="utf-8")
PLUS_PAGE = (DOCS / "PLUS.md").read_text(encoding="utf-8")
OPTIONS = {flag(item.name): item for item in fields(Options)}
COLUMNS = [(method, stage) for method in ("paper", "released") for stage in TRAIN]
ROWS = dict(re.findall(r"^\| `(--[\w-]+)` \| (.*) \|$", PAGE, flags=re.MULTILINE))
PLUS = {*contradictions.PLUS, "rare_class_temperature", "class_balance"}  # docs/PLUS.md has them
ELSEWHERE = {  # files, folders, logs and machines, which are not hyper-parameters
    *("preset", "method", "source", "target", "classes", "data_dir", "data_dir_labels", "data_dir_target", "data_list"),
    *("data_list_target", "data_list_target_test", "set", "num_classes", "num_workers", "stride_style"),
    *("normalization", "restore_from", "not_restore_last", "source_only", "random_seed", "cpu", "report"),
    *("continue_train", "snapshot_dir", "overwrite", "save_pred_every", "select_on_target_labels", "log_every"),
    *("log_dir", "tensorboard", "ssl_target_dir", "skip_bad_images", "cache", "channels_last", "sync_bn"),
    *("autotune", "compile", "compile_mode", "checkpoint_activations", "keep_last", "deterministic", "log_gradients"),
    *("label_free_images", "select_by"),
    *PLUS,
}


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def test_every_option_named_exists() -> None:
    named = set(re.findall(r"--[a-z][\w-]*", PAGE))
    assert named - {"--method"} and named <= OPTIONS.keys()


def test_every_choice_named_exists() -> None:
    for name, cell in re.findall(r"`(--[\w-]+) (\w+)`", PAGE):
        choices = OPTIONS[name].metadata["choices"]
        assert not choices or cell in choices, f"{name} {cell}"


def test_every_hyper_parameter_has_a_row() -> None:
    wanted = {flag(f.name) for f in fields(Options) if {*TRAIN} & {*f.metadata["on"]} and f.name not in ELSEWHERE}
    assert ROWS.keys() == wanted


@pytest.mark.parametrize(("method", "stage"), COLUMNS)
def test_every_value_is_what_the_options_resolve_to(method: str, stage: str) -> None:
    options = config.resolve(stage, {"method": method})
    for name, cells in ROWS.items():
        item = OPTIONS[name]
        value = shown(getattr(options, item.name)) if stage in item.metadata["on"] else "–"
        assert cells.split(" | ")[COLUMNS.index((method, stage))] == value, name


@pytest.mark.parametrize("stage", TRAIN)
def test_paper_is_the_default(stage: str) -> None:
    assert config.resolve(stage, {}) == config.resolve(stage, {"method": "paper"})
    assert METHOD_OPTIONS["paper"][stage].keys() <= METHOD_OPTIONS["released"][stage].keys()


def test_the_page_of_plus_has_every_option_of_it_and_its_default() -> None:
    options = config.resolve("step2", {"method": "plus"})
    rows = dict(re.findall(r"^\| `(--[\w-]+)` \| ([^|]*) \|", PLUS_PAGE, flags=re.MULTILINE))
    names = (*PLUS, "optimizer", "learning_rate", "warmup_steps", "weight_decay")
    assert rows == {flag(name): shown(getattr(options, name)) for name in names}
    assert set(re.findall(r"--[a-z][\w-]*", PLUS_PAGE)) <= OPTIONS.keys()
