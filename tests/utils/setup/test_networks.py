"""Networks from the options: what is refused because of the network in a checkpoint."""

from __future__ import annotations

import pytest

from tests.scripts import call, exit_code
from utils.prediction import loading


def test_sync_bn_is_refused_for_a_checkpoint_with_inplace_abn(run_folder, capsys, monkeypatch: pytest.MonkeyPatch):
    """Converted, its layers would lose their activations."""
    call("step1", "--num-steps", "1")
    build = loading.build

    def fused(*arguments, **named):
        network = build(*arguments, **named)
        network.architecture["norm"] = "inplace-abn"
        return network

    monkeypatch.setattr(loading, "build", fused)
    assert exit_code("step2", "--method", "plus", "--sync-bn") == 2
    assert "step1/last.pth has InPlace-ABN layers, expected BatchNorm" in capsys.readouterr().err
