"""Options for speed and memory on a GPU: losses equal those of the plain iteration within precision, without waits."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from dataset.classes import CITYSCAPES
from model.methods.base import Batch
from utils.options import config
from utils.setup import networks
from utils.system import machine
from utils.training.finite import copied
from utils.training.trainer import Data, Trainer

pytestmark = pytest.mark.gpu
REAL = pytest.mark.skipif(torch.version.cuda is None, reason="a pretended GPU compiles nothing and has no memory")


def trainer(**options: Any) -> Trainer:
    given = {"preset": "builtin", "num_prototype": 1, "autotune": False, **options}
    resolved = config.resolve("step1", given)
    machine.set_up(resolved)
    segmenter = networks.segmenter(resolved, frozenset(), CITYSCAPES)
    method = networks.method(resolved, "step1", segmenter, CITYSCAPES)
    method.set_training_mode()
    domain = cast(Any, SimpleNamespace(table=CITYSCAPES))
    return Trainer(resolved, method, Data(domain, domain))


def batches() -> tuple[Batch, Batch]:
    g = torch.Generator().manual_seed(1)
    image = torch.randint(256, (2, 2, 3, 128, 256), dtype=torch.uint8, generator=g)
    label = torch.randint(19, (2, 2, 128, 256), dtype=torch.uint8, generator=g)
    pair = [{"image": i.cuda(), "label": v.cuda()} for i, v in zip(image, label)]
    return pair[0], pair[1]


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"channels_last": False}, 1e-3),
        ({"checkpoint_activations": True}, 1e-3),
        pytest.param({"compile": True}, 1e-2, marks=REAL),
        pytest.param({"compile": True, "compile_mode": "reduce-overhead"}, 1e-2, marks=REAL),
        ({"autotune": True}, 1e-3),
        ({"amp": "bf16"}, 0.05),
        ({"amp": "fp16"}, 0.02),
    ],
    ids=str,
)
def test_losses_equal_the_plain_ones_within_the_precision(options: dict[str, Any], tolerance: float) -> None:
    # One after the other: `--autotune` holds for the whole process.
    found = []
    for given in ({}, options):
        made = trainer(**given)
        found.append([made.step([batches()]) for _ in range(2)])
    for expected, losses in zip(*found):
        assert losses.keys() == expected.keys()
        for name in ("seg", "adv_target", "adv_feat", "D_output", "D_feature"):
            torch.testing.assert_close(losses[name], expected[name], rtol=tolerance, atol=1e-5, msg=name)


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_an_iteration_with_its_steps_waits_for_the_label_maps_alone(amp: str) -> None:
    made, pair = trainer(amp=amp), batches()
    for _ in range(2):  # the states of the optimisers, and cuDNN's choices
        made.step([pair])
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made.step([pair])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in caught if "synchroniz" in str(warning.message)]
    assert not waits  # apart from the events of the two label maps, which are not noticed


def test_kept_copies_are_pinned() -> None:
    made = trainer()
    state = made.method.segmenter.state_dict()
    assert state["conv1.weight"].is_cuda
    kept = copied(made.state_dict())["segmenter"]["conv1.weight"]
    assert kept.is_pinned() and torch.equal(kept, state["conv1.weight"].cpu())


@REAL
def test_what_an_iteration_adds_to_the_memory_is_less_with_recomputed_activations() -> None:
    added = []
    for again in (True, False):
        made = trainer(backbone="resnet50", checkpoint_activations=again)
        for _ in range(2):  # the states of the optimisers, and cuDNN's choices
            made.step([batches()])
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        made.step([batches()])
        added.append(torch.cuda.max_memory_allocated() - before)
        del made
    assert added[0] < 0.7 * added[1]
