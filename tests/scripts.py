"""Runs the scripts in the test's own process, on the tiny benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import compute_iou
import evaluate_cityscapes
import Generate_Pseudo_Label
import restyle_source
import train_step1
import train_step2
from utils.options import config
from utils.states import checkpoint
from utils.training.meter import Meter

TINY_SIZE = (96, 64)
MAINS: dict[str, Callable[[list[str]], None]] = {
    "step1": train_step1.main,
    "step2": train_step2.main,
    "pseudo": Generate_Pseudo_Label.main,
    "evaluate": evaluate_cityscapes.main,
    "iou": compute_iou.main,
    "restyle_train": lambda arguments: restyle_source.main(["train", *arguments]),
    "restyle_apply": lambda arguments: restyle_source.main(["apply", *arguments]),
}
# The preset decides only what belongs to the task; its schedule is for the demo.
NETWORK = ("--preset", "builtin", "--input-size-target", "96,64", "--num-workers", "0")
TRAINING = (
    *NETWORK,
    *("--input-size", "96,64", "--batch-size", "2", "--num-steps", "3", "--log-every", "1", "--warmup-steps", "0"),
    *("--num-prototype", "1", "--no-report"),
)
RESTYLE = ("--preset", "builtin", "--input-size", "96,64", "--num-workers", "0")
RESTYLE_TRAIN = (
    *(*RESTYLE, "--input-size-target", "96,64", "--num-steps", "3", "--log-every", "1"),
    *("--crop", "64,32", "--generator-width", "0.05", "--discriminator-width", "0.05"),
)
COMMON: dict[str, Sequence[str]] = {
    "step1": (*TRAINING, "--restore-from", "none"),
    "step2": TRAINING,
    "pseudo": NETWORK,
    "evaluate": NETWORK,
    "iou": ("--preset", "builtin"),
    "restyle_train": RESTYLE_TRAIN,
    "restyle_apply": RESTYLE,
}
STEP1, STEP2 = Path("snapshots/builtin/step1"), Path("snapshots/builtin/step2")
SOURCE, TARGET = Path("data/builtin/gta5_deeplab"), Path("data/builtin/Cityscapes")
TRUTH, MASKS, PSEUDO = TARGET / "gtFine/val", Path("result/builtin"), Path("target_ssl_gt/builtin")


def call(script: str, *arguments: str) -> None:
    """Call a script's `main` with short, tiny settings; `arguments` override them."""
    MAINS[script]([*COMMON[script], *arguments])


def exit_code(script: str, *arguments: str) -> int | str | None:
    """Like `call`, through the wrapper that turns bad input into a line and an exit code."""
    with pytest.raises(SystemExit) as ended:
        config.run(lambda: call(script, *arguments))
    return ended.value.code


def records(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's log."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def steps(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log that hold losses, not scores."""
    return [record for record in records(folder) if "seg" in record]


def state(folder: Path, name: str = "last.pth") -> checkpoint.State:
    return checkpoint.read(folder / name)


def training_state(folder: Path, name: str = "last.pth") -> checkpoint.State:
    """All of a checkpoint except the options, which contain names of folders."""
    return {key: value for key, value in state(folder, name).items() if key != "options"}


def losses(folder: Path) -> list[dict[str, Any]]:
    """A run's log without its times."""
    return [{k: v for k, v in record.items() if k not in Meter.RATES} for record in records(folder)]


def differences(a: Any, b: Any, where: str = "state") -> list[str]:
    """The paths at which two nested states differ, even in a single bit."""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return [] if type(a) is type(b) and a.dtype == b.dtype and torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{where}: keys"]
        return [found for key in a for found in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return [f"{where}: length"]
        return [found for i, pair in enumerate(zip(a, b, strict=True)) for found in differences(*pair, f"{where}[{i}]")]
    return [] if a == b else [where]


def mask(path: Path) -> np.ndarray:
    return np.array(Image.open(path))
