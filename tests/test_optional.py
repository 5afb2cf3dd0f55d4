"""What requirements-optional.txt brings (`make test-optional`)."""

from __future__ import annotations

import pytest
import torch
from torch import nn


@pytest.mark.optional
def test_inplace_abn_is_batchnorm_then_leaky_relu() -> None:
    inplace_abn = pytest.importorskip("inplace_abn")
    torch.manual_seed(0)
    images = torch.randn(2, 8, 5, 7)
    fused = inplace_abn.InPlaceABN(8, activation="leaky_relu", activation_param=0.01)
    plain = nn.Sequential(nn.BatchNorm2d(8), nn.LeakyReLU(0.01))
    expected = plain(images)
    # The package scales by |weight| + eps.
    torch.testing.assert_close(fused(images.clone()), expected, rtol=1e-3, atol=1e-3)
