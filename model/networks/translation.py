"""The networks of CycleGAN (Zhu et al., ICCV 2017), which restyle images of one domain as images of the other.

Layers, padding, normalisation and initial weights are those of the paper and its published code. Images are RGB in
-1..1 (`to_range` and `to_pixels` convert).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 64
GENERATOR_MULTIPLE = 4  # two halvings
_SMALLEST = 32  # of the discriminator; its last norm then meets a map of 3x3


def blocks_for(size: tuple[int, int]) -> int:
    """Residual blocks for training images of this width and height: 9, or 6 if a side is below 256 (Zhu et al.)."""
    return 9 if min(size) >= 256 else 6


def to_range(images: Tensor) -> Tensor:
    """uint8 RGB in 0..255 to float32 in -1..1."""
    return images.float() / 127.5 - 1


def to_pixels(images: Tensor) -> Tensor:
    """float in -1..1 to float32 in 0..255; not rounded, with a gradient."""
    return (images.float() + 1) * 127.5


class ResidualBlock(nn.Module):
    """x + (reflection, 3x3, norm, ReLU, reflection, 3x3, norm)(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w], h and w at least 2."""
        return maps + self.layers(maps)


class Generator(nn.Module):
    """ResNet generator: c7s1-64, d128, d256, residual blocks, u128, u64, c7s1-3, tanh (Zhu et al., section 7.2).

    blocks: residual blocks, see `blocks_for`. width: factor on the inner channels (our choice, for CPUs).
    """

    def __init__(self, blocks: int = 9, width: float = 1.0) -> None:
        super().__init__()
        first, second, third = (_scaled(width, CHANNELS * factor) for factor in (1, 2, 4))
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, first, 7), *_normed(first)]
        for a, b in ((first, second), (second, third)):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), *_normed(b)]
        layers += [ResidualBlock(third) for _ in range(blocks)]
        for a, b in ((third, second), (second, first)):
            layers += [nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=1), *_normed(b)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(first, 3, 7), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> the same shape and range.

        Sides that are not multiples of 4 are extended by reflection and cut again. Raises ValueError for a side below
        8.
        """
        height, width = images.shape[2:]
        if min(height, width) < 8:
            raise ValueError(f"images of {width}x{height} pixels; the generator needs 8x8 or more")
        extended = F.pad(images, (0, -width % GENERATOR_MULTIPLE, 0, -height % GENERATOR_MULTIPLE), mode="reflect")
        return self.layers(extended)[:, :, :height, :width]


class PatchDiscriminator(nn.Module):
    """70x70 PatchGAN: C64-C128-C256-C512 and one map of scores (Zhu et al., section 7.2).

    4x4 convolutions with padding 1, the first three of stride 2, LeakyReLU 0.2, instance norm except on the first and
    the last. Each score sees 70x70 pixels. width: factor on the inner channels.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels = [_scaled(width, CHANNELS * factor) for factor in (1, 2, 4, 8)]
        layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for a, b, stride in zip(channels, channels[1:], (2, 2, 1), strict=False):
            layers += [nn.Conv2d(a, b, 4, stride=stride, padding=1), nn.InstanceNorm2d(b)]
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 4, padding=1))
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> scores [B, 1, H // 8 - 2, W // 8 - 2]. ValueError for a side below 32."""
        height, width = images.shape[2:]
        if min(height, width) < _SMALLEST:
            raise ValueError(
                f"images of {width}x{height} pixels; the discriminator needs {_SMALLEST}x{_SMALLEST} or more"
            )
        return self.layers(images)


def _scaled(width: float, channels: int) -> int:
    return max(1, round(width * channels))


def _normed(channels: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(channels), nn.ReLU(inplace=True)]


def _initialise(network: nn.Module) -> None:
    """Weights from N(0, 0.02), biases 0 (Zhu et al., published code)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
