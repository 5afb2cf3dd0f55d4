"""What only a GPU can show."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from model.methods.bafft import Alignment
from model.methods.base import Step
from model.networks.deeplab import build_segmenter
from model.terms.regions import ClassSplit
from tests.copies import counted_copies
from tests.methods import method_of

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("level", ["none", "lab", "fda"])
def test_a_full_iteration_waits_for_the_two_label_maps_alone(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda")
    torch.manual_seed(0)
    segmenter = build_segmenter("tiny", 19, width=0.5).to(device).train()
    split = ClassSplit(19, tuple(range(8)), tuple(range(8, 19)))
    options: dict[str, Any] = {"num_prototype": 2, "image_level": level}
    method = method_of(segmenter, split, Alignment, lambda network: network.to(device), **options)
    memory = method.memory
    assert memory is not None
    for buffers in (memory.stuff, memory.things):
        buffers.count += buffers.size + 1
    source, target = (
        {
            "image": torch.randint(256, (2, 3, 128, 256), dtype=torch.uint8, device=device),
            "label": torch.randint(19, (2, 128, 256), device=device),
        }
        for _ in range(2)
    )

    def iteration() -> None:
        method.iteration(source, target, lambda loss, player: loss.backward(), Step(1))

    iteration()  # cuDNN chooses its kernels
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            copies = counted_copies(monkeypatch)
            iteration()
            float(memory.stuff.count.sum())  # a wait that is noticed
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in caught if "synchroniz" in str(warning.message)]
    # The waits for the copies of the two label maps use events, which are not noticed.
    assert len(copies) == 2 and len(waits) == 1, waits
