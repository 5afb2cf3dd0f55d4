"""The discriminators: their layers, their sizes, and their smallest input."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from model.networks.discriminator import FeatureDiscriminator, OutputDiscriminator


def layout(network: nn.Module) -> list[tuple[int, ...]]:
    """(inputs, outputs, kernel, stride, padding) of every convolution, in order."""
    return [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], int(m.padding[0]))
        for m in network.modules()
        if isinstance(m, nn.Conv2d)
    ]


def by_hand(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    for number, conv in enumerate(convs):
        if number:
            x = torch.where(x > 0, x, 0.2 * x)
        x = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)
    return x


def test_output_discriminator_layers() -> None:
    channels = [19, 64, 128, 256, 512, 1]
    expected = [(a, b, 4, 2, 1) for a, b in pairwise(channels)]
    assert layout(OutputDiscriminator(19)) == expected


def test_feature_discriminator_layers() -> None:
    network = FeatureDiscriminator(2048)
    assert layout(network) == [
        (2048, 256, 1, 1, 0),
        (256, 128, 3, 1, 1),
        (128, 64, 4, 2, 2),
        (64, 1, 4, 2, 2),
    ]


@pytest.mark.parametrize(
    ("network", "shape"),
    [(OutputDiscriminator(5), (2, 5, 64, 97)), (FeatureDiscriminator(12), (2, 12, 9, 17))],
)
def test_values(network: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    torch.testing.assert_close(network(x), by_hand(network, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((32, 32), (1, 1)), ((720, 1280), (22, 40)), ((512, 1024), (16, 32)), ((95, 33), (2, 1))],
)
def test_output_discriminator_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    with torch.device("meta"):
        assert OutputDiscriminator(19)(torch.empty(2, 19, *size)).shape == (2, 1, *expected)


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (1, 1)])
def test_output_discriminator_refuses_small_maps(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[1]}x{size[0]}.*32x32"):
        OutputDiscriminator(3)(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(
    ("size", "expected"), [((1, 1), (1, 1)), ((1, 7), (1, 3)), ((91, 161), (24, 41)), ((2, 2), (2, 2))]
)
def test_feature_discriminator_takes_any_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    with torch.device("meta"):
        assert FeatureDiscriminator(2048)(torch.empty(2, 2048, *size)).shape == (2, 1, *expected)
