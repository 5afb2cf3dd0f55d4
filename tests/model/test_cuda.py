"""What only a GPU can show."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from model.methods.bafft import Adaptation, Terms
from model.networks.deeplab import build_segmenter
from model.networks.discriminator import FeatureDiscriminator, OutputDiscriminator
from model.terms.memory import SourceMemory
from model.terms.regions import ClassSplit
from utils.system import transfer

pytestmark = pytest.mark.gpu


def test_a_full_iteration_waits_for_the_two_label_maps_alone() -> None:
    device = torch.device("cuda")
    torch.manual_seed(0)
    segmenter = build_segmenter("tiny", 19, width=0.5).to(device).train()
    discriminators = nn.ModuleDict(
        {"output": OutputDiscriminator(19, 0.1), "feature": FeatureDiscriminator(segmenter.feature_dim, 0.1)}
    ).to(device)
    memory = SourceMemory(ClassSplit(19, tuple(range(8)), tuple(range(8, 19))), segmenter.feature_dim, 2, device)
    for buffers in (memory.stuff, memory.things):
        buffers.count += buffers.size + 1
    adaptation = Adaptation(segmenter, discriminators, memory, Terms())
    source, target = (
        {
            "image": torch.randint(256, (2, 3, 128, 256), dtype=torch.uint8, device=device),
            "label": torch.randint(19, (2, 128, 256), device=device),
        }
        for _ in range(2)
    )

    def iteration() -> None:
        adaptation.iteration(source, target, lambda loss, player: loss.backward())

    iteration()  # cuDNN chooses its kernels
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            before = transfer.host_copies
            iteration()
            float(memory.stuff.count.sum())  # one that is seen
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in caught if "synchroniz" in str(warning.message)]
    # The two copies, of label maps, are waited for by events, which are not seen as such.
    assert transfer.host_copies == before + 2 and len(waits) == 1, waits
