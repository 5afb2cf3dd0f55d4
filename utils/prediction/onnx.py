"""Export to ONNX, and comparison of the file with PyTorch."""

from __future__ import annotations

import importlib
import json
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dataset.augment import Size, resized
from dataset.builtin import CAMERA, draw_example
from dataset.classes import ClassTable
from model.networks.deeplab import INPUTS, DeepLab
from model.networks.upsampling import upsample
from utils.prediction.any_size import network_size
from utils.prediction.inputs import Pixels, Still, find, opened, read_still
from utils.system.errors import UserError

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OPSET = 18
KINDS = ("logits", "upsampled", "labels")
"""What a file returns: logits at the size of the features, logits at the size of the images, or labels."""
TOLERANCE = 1e-3  # of logits, relative to their size if that is above 1
AGREEMENT = 0.999  # share of the labels
_RUNS = 5  # of which the median is the latency


class Exported(nn.Module):
    """What a file computes: uint8 RGB images [B, 3, H, W] to one of `KINDS`."""

    def __init__(self, segmenter: DeepLab, kind: str) -> None:
        super().__init__()
        self.segmenter, self.kind = segmenter, kind

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.segmenter(images)[1].float()
        if self.kind == "logits":
            return logits
        full = upsample(logits, images.shape[2:])
        return full if self.kind == "upsampled" else full.argmax(1).to(torch.uint8)


def check_packages() -> None:
    """Raises UserError if one of the optional packages is missing."""
    missing = []
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise UserError(
            f"export_onnx.py: found no {', '.join(missing)}; expected these optional packages: pip install "
            f"{' '.join(missing)}"
        )


def export(segmenter: DeepLab, table: ClassTable, size: Size, kind: str, path: Path) -> None:
    """Write a segmenter on the CPU, in eval mode, as ONNX with dynamic batch and size; kind: one of `KINDS`.

    size: width and height that it was trained at, for the metadata. Raises UserError for a network of the package
    inplace-abn, whose layer is code of its own that ONNX has no operation for.
    """
    if segmenter.architecture.get("norm") == "inplace-abn":
        raise UserError(
            "export_onnx.py: found a network of --norm inplace-abn, which cannot be exported; expected one of --norm "
            "batchnorm: train it with that"
        )
    import onnx

    importlib.import_module("torch._dynamo")  # a signal while the exporter imports it would end in its traceback
    width, height = size
    example = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    batch, rows, columns = (
        torch.export.Dim(name, min=low) for name, low in (("batch", 1), ("height", 32), ("width", 32))
    )
    with _quiet():
        torch.onnx.export(
            Exported(segmenter, kind).eval(),
            (example,),
            str(path),
            input_names=["images"],
            output_names=["labels" if kind == "labels" else "logits"],
            dynamic_shapes=({0: batch, 2: rows, 3: columns},),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
        )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata(segmenter, table, size, kind))
    onnx.save(model, path)
    onnx.checker.check_model(path)


def metadata(segmenter: DeepLab, table: ClassTable, size: Size, kind: str) -> dict[str, str]:
    """What the file says about itself, each value as JSON."""
    normalization = segmenter.architecture["normalization"]
    content = {
        "classes": table.names,
        "palette": table.palette,
        "output": kind,
        "input": "uint8 RGB [batch, 3, height, width], normalised inside",
        "normalization": {"name": normalization, **INPUTS[normalization]},
        "trained_size": {"width": size[0], "height": size[1]},
        "architecture": segmenter.architecture,
    }
    return {name: json.dumps(value) for name, value in content.items()}


def frames(source: str | None, count: int, size: Size) -> list[Pixels]:
    """Images uint8 RGB [H, W, 3] in their own shapes, with about as many pixels as the training images. Without a
    source, synthetic images.

    source: as for `inputs.find`; raises UserError if it gives no image.
    """
    if source is None:
        found = [np.asarray(draw_example(CAMERA, size, (0, number))[0]) for number in range(count)]
    else:
        found = list(islice(_frames_of(source), count))
    return [resized(one, network_size((one.shape[1], one.shape[0]), size), Image.Resampling.BICUBIC) for one in found]


def _frames_of(text: str) -> Iterator[Pixels]:
    for source in find([text]):
        if isinstance(source, Still):
            yield read_still(source.path)
        else:
            with opened(source) as clip:
                yield from clip


@dataclass(frozen=True)
class Comparison:
    """Results of a file in onnxruntime compared with PyTorch, both on the CPU.

    logits: the largest absolute difference, None for a file that returns labels; labels: the share of pixels with equal
    labels; seconds: per image, of PyTorch and of onnxruntime (medians); size: of PyTorch's logits, the median over the
    pixels of the largest absolute one.
    """

    frames: int
    logits: float | None
    labels: float
    seconds: tuple[float, float]
    size: float = 1.0

    @property
    def allowed(self) -> float:
        """By how much logits may differ: `TOLERANCE` times their size, if that is above 1.

        float32 holds seven digits, so that two correct programs differ by a part of the size of their logits, and a
        deep network multiplies the rounding of its first layers.
        """
        return TOLERANCE * max(1.0, self.size)

    @property
    def agrees(self) -> bool:
        return self.labels >= AGREEMENT and (self.logits is None or self.logits <= self.allowed)

    def __str__(self) -> str:
        logits = ""
        if self.logits is not None:
            limits = f"allowed: {self.allowed:.2g}; their size: {self.size:.2g}"
            logits = f"logits differ by at most {self.logits:.2g} ({limits}), "
        torch_ms, onnx_ms = (1000 * seconds for seconds in self.seconds)
        return (
            f"{self.frames} frames: {logits}labels equal on {100 * self.labels:.4f} % of the pixels; per image PyTorch "
            f"{torch_ms:.3g} ms, onnxruntime {onnx_ms:.3g} ms (CPU, {torch.get_num_threads()} threads)"
        )


@torch.inference_mode()
def compare(segmenter: DeepLab, kind: str, path: Path, images: Sequence[Pixels]) -> Comparison:
    """Compare on every image, on a batch of the first image and its mirror image, and on a part of it of another
    size."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    exported = Exported(segmenter, kind).eval()
    whole = [torch.from_numpy(np.ascontiguousarray(one.transpose(2, 0, 1)))[None] for one in images]
    first = whole[0]
    batches = [*whole, torch.cat([first, first.flip(3)]), first[:, :, : max(32, first.shape[2] - 13)]]
    equal, total = 0, 0
    differences: list[float] = []
    sizes: list[float] = []
    for batch in batches:
        ours, theirs = exported(batch).numpy(), session.run(None, {"images": batch.numpy()})[0]
        if kind != "labels":
            differences.append(float(np.abs(ours - theirs).max()))
            sizes.append(float(np.median(np.abs(ours).max(1))))
            ours, theirs = ours.argmax(1), theirs.argmax(1)
        equal, total = equal + int((ours == theirs).sum()), total + ours.size
    seconds = (
        _latency(lambda: exported(first)),
        _latency(lambda: session.run(None, {"images": first.numpy()})),
    )
    difference = None if kind == "labels" else float(np.max(differences))  # nan if one is
    return Comparison(len(images), difference, equal / total, seconds, median(sizes or [1.0]))


def _latency(run: Any) -> float:
    taken = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return median(taken)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the progress that the exporter prints, and its warnings about torch's own code."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
