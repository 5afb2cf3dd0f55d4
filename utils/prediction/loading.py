"""Loading a trained network, in one call: `load(checkpoint) -> segmenter, classes, input size`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dataset.classes import ClassTable
from model.networks.deeplab import DeepLab, build_segmenter
from model.networks.high_resolution import HighResolution, read_size
from utils.options.flags import flag
from utils.states.weights import FileInfo, describe_file, load_weights
from utils.system.errors import UserError
from utils.system.logs import logger

ARCHITECTURE = ("backbone", "output_stride", "aspp_branches", "stride_style", "normalization", "norm")
"""The options that determine how a segmenter is built; the number of classes is that of the class table."""


def pick_device(cpu: bool, amp: str = "off") -> torch.device:
    """The GPU, if there is one and `--cpu` is not given. Raises UserError if `--amp` needs a GPU and there is none."""
    chosen = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
    if chosen.type == "cpu" and amp not in ("off", "bf16"):
        raise UserError(f"--amp {amp}: found no GPU; expected one: use --amp off")
    return chosen


class Loaded(NamedTuple):
    """A segmenter in eval mode, its classes, and the width and height at which it expects target images."""

    segmenter: DeepLab
    classes: ClassTable
    size: tuple[int, int]


def load(checkpoint: str | Path, device: torch.device | str = "cpu") -> Loaded:
    """The segmenter of a checkpoint of this project, ready to predict.

    Raises UserError if the file cannot be read or is not such a checkpoint: weights of other projects do not say which
    classes and sizes they are for.
    """
    info = describe_file(checkpoint)
    if info.architecture is None or info.classes is None or info.input_size is None:
        raise UserError(
            f"{checkpoint}: holds weights, but no classes and no input size; expected a checkpoint of the training "
            f"scripts, such as last.pth (evaluate_cityscapes.py also predicts with weights of other projects)"
        )
    segmenter = build(str(checkpoint), info.classes, {name: "auto" for name in ARCHITECTURE})
    load_weights(segmenter, checkpoint, needs_classifier=True)
    size = read_size(info.input_size, info.high_resolution_crops)
    return Loaded(segmenter.to(device).eval(), info.classes, size)


def build(
    path: str | None, classes: ClassTable, wanted: Mapping[str, Any], given: Collection[str] = frozenset()
) -> DeepLab:
    """A segmenter with random weights, built so that the weights of the file `path` fit; None stands for no file.

    wanted: the values of `ARCHITECTURE`; "auto" leaves one to the file. An explicit value overrides what the file
    suggests. A checkpoint of this project determines the whole architecture, which is logged if it differs from the
    preset's; raises UserError if an option in `given` contradicts it. "high_resolution_crops" in `wanted` adds them.
    """
    info = FileInfo("none", "caffe", "caffe", None) if path is None else describe_file(path)
    built = dict(wanted)
    taken_over = []
    for name, value in (info.architecture or {}).items():
        if name not in ARCHITECTURE:
            continue
        if built[name] not in ("auto", value):
            if name in given:
                raise UserError(
                    f"{flag(name)}: found {built[name]}, but {path} was trained with {value}; leave the option out"
                )
            taken_over.append(f"{flag(name)} {value} (the preset has {built[name]})")
        built[name] = value
    if taken_over:
        logger.info("taken from the checkpoint %s: %s", path, ", ".join(taken_over))
    crops = built.pop("high_resolution_crops", False) or info.high_resolution_crops
    for name, value in (("stride_style", info.stride_style), ("normalization", info.normalization)):
        built[name] = value if built[name] == "auto" else built[name]
    try:
        return build_segmenter(
            num_classes=classes.num_classes,
            kind=HighResolution if crops else DeepLab,
            **{name: value for name, value in built.items() if value != "auto"},
        )
    except ValueError as error:
        raise UserError(f"{error}: give the option of that name") from error
