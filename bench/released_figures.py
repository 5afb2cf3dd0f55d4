"""Check the released forms against figures that the published code computed (inputs .npz, figures .json beside it).

    python bench/released_figures.py tests/data/released_case*.npz

Prints every figure beside ours; exits with code 1 if one differs by more than 1e-5 (values, memory) or 1e-4
(gradients).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils.system.machine  # noqa: F401 - before torch

import numpy as np
import torch
from torch import Tensor

from model.methods.bafft import Forms, category_terms
from model.terms.memory import RingBuffers, SourceMemory
from model.terms.regions import ClassSplit, LabelMaps, pool_regions

SPLIT = ClassSplit(19, (0, 1, 2, 3, 4, 8, 9, 10), (5, 6, 7, *range(11, 19)))
RELEASED = {
    "step1": Forms(aim="none", isia="released", absent_stuff=True),
    "step2": Forms(aim="released", isia="released", absent_stuff=True),
}
TERM_OF_FIGURE = {"loss_cls": "adv_cls", "loss_ins": "adv_ins", "loss_gap": "adv_cate"}
Row = tuple[str, float, float, float]  # figure, published, ours, tolerance (relative)


def load_memory(inputs: dict[str, np.ndarray]) -> SourceMemory:
    memory = SourceMemory(SPLIT, inputs["src_feature"].shape[0], int(inputs["num_prototype"]))
    for buffers, name in ((memory.stuff, "stuff"), (memory.things, "thing")):
        entries = torch.from_numpy(inputs[f"{name}_memory"].astype(np.float32) / 16)
        buffers.load_state_dict(
            {"entries": entries, "count": torch.from_numpy(inputs[f"{name}_count"].astype(np.int64))}
        )
    return memory


def update_memory(memory: SourceMemory, inputs: dict[str, np.ndarray], classify: torch.nn.Linear) -> None:
    """The source half: features and labels of the correctly predicted pixels, given as such."""
    features = torch.from_numpy(inputs["src_feature"].astype(np.float32) / 16)[None]
    right = torch.from_numpy(inputs["right_label"].astype(np.int64))[None]
    memory.update(features, LabelMaps(right), classify)


def compare(path: Path) -> list[Row]:
    inputs = dict(np.load(path))
    published = json.loads(path.with_suffix(".json").read_text())
    classify = torch.nn.Linear(inputs["cls_weight"].shape[1], SPLIT.num_classes)
    classify.weight.data = torch.from_numpy(inputs["cls_weight"].astype(np.float32))
    classify.bias.data = torch.from_numpy(inputs["cls_bias"].astype(np.float32))
    memory = load_memory(inputs)
    update_memory(memory, inputs, classify)

    rows: list[Row] = []
    for name, buffers in (("stuff", memory.stuff), ("thing", memory.things)):
        rows += memory_rows(name, buffers, published)
    prediction = torch.from_numpy(inputs["pred_target"].astype(np.int64))[None]
    for step, forms in RELEASED.items():
        for figure, expected in published.get(step, {}).items():
            ours = loss_figures(inputs, memory, classify, prediction, forms, TERM_OF_FIGURE[figure])
            rows += [
                (f"{step} {figure} {key}", expected[key], ours[key], 1e-5 if key == "value" else 1e-4)
                for key in expected
            ]
    return rows


def memory_rows(name: str, buffers: RingBuffers, published: dict) -> list[Row]:
    # Instances of equal size enter the memory in another order than published (ours is raster order), so
    # the slots of a class are compared as a sorted list.
    sums = buffers.entries.double().sum(2).sort(1).values.flatten().tolist()
    expected = np.sort(np.asarray(published[f"{name}_slot_sums_after"], dtype=float), axis=1).ravel().tolist()
    counts = zip(published[f"{name}_count_after"], buffers.count.tolist(), strict=True)
    rows: list[Row] = [(f"{name} count {i}", a, b, 0.0) for i, (a, b) in enumerate(counts)]
    return rows + [(f"{name} slot {i}", a, b, 1e-5) for i, (a, b) in enumerate(zip(expected, sums, strict=True))]


def loss_figures(
    inputs: dict[str, np.ndarray],
    memory: SourceMemory,
    classify: torch.nn.Linear,
    prediction: Tensor,
    forms: Forms,
    term: str,
) -> dict[str, float]:
    features = torch.from_numpy(inputs["trg_feature"].astype(np.float32) / 16)[None].requires_grad_()
    [image] = pool_regions(features, LabelMaps(prediction), SPLIT)
    loss = category_terms(image, memory, memory.centroids(), classify, forms)[term]
    (gradient,) = torch.autograd.grad(loss, features, allow_unused=True)
    gradient = torch.zeros_like(features) if gradient is None else gradient
    direction = np.random.default_rng(0).standard_normal(inputs["trg_feature"].shape).astype(np.float32)
    return {
        "value": loss.item(),
        "grad_norm": gradient.norm().item(),
        "grad_dot_v": (gradient[0].double() * torch.from_numpy(direction).double()).sum().item(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE.npz", help="inputs")
    paths: list[Path] = parser.parse_args(argv).paths
    for path in paths:
        if not path.is_file():
            parser.error(f"{path}: there is no such file; expected inputs such as tests/data/released_case1.npz")
    failures = 0
    for path in paths:
        for figure, published, ours, tolerance in compare(path):
            agrees = abs(published - ours) <= tolerance * max(abs(published), 1e-6)
            failures += not agrees
            print(f"{path.stem}  {figure:28s} {published:18.9g} {ours:18.9g}  {'ok' if agrees else 'DIFFERS'}")
    print(f"{failures} figures differ" if failures else "all figures agree")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
