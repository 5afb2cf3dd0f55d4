"""Discriminators of the image-wide alignment, on soft-max maps and on features. Source = 0, target = 1."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

_SLOPE = 0.2
_SMALLEST = 32  # five halvings


def _leaky(*convs: nn.Conv2d) -> nn.Sequential:
    """The convolutions with LeakyReLU 0.2 between them."""
    layers: list[nn.Module] = [convs[0]]
    for conv in convs[1:]:
        layers += [nn.LeakyReLU(_SLOPE, inplace=True), conv]
    return nn.Sequential(*layers)


class OutputDiscriminator(nn.Module):
    """Output-space discriminator (AdaptSegNet's): five 4x4 convolutions of stride 2 and padding 1.

    Channels C -> 64 -> 128 -> 256 -> 512 -> 1, LeakyReLU 0.2 between, no normalisation, no final sigmoid. `width` is a
    factor on the inner channels (our choice, for small segmenters).
    """

    def __init__(self, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        channels = (num_classes, *(max(1, round(width * c)) for c in (64, 128, 256, 512)), 1)
        self.layers = _leaky(*(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(channels)))

    def forward(self, probabilities: Tensor) -> Tensor:
        """Soft-max maps at image size [B, C, H, W] -> domain logits [B, 1, H // 32, W // 32], target above 0.

        Raises:
            ValueError: a map below 32x32, of which nothing is left after five halvings.
        """
        height, width = probabilities.shape[-2:]
        if min(height, width) < _SMALLEST:
            least = f"{_SMALLEST}x{_SMALLEST}"
            raise ValueError(f"map of {width}x{height} pixels; the output discriminator needs {least} or more")
        return self.layers(probabilities)


class FeatureDiscriminator(nn.Module):
    """Feature-space discriminator (paper: global feature alignment; its layers are our choice).

    Four convolutions with LeakyReLU 0.2 between: 1x1 D -> 256, 3x3 256 -> 128, 4x4 of stride 2 128 -> 64,
    4x4 of stride 2 64 -> 1. The strided ones are padded by 2, so that a side n becomes n // 2 + 1: a map of
    1x1 works. `width` is a factor on the inner channels.
    """

    def __init__(self, feature_dim: int, width: float = 1.0) -> None:
        super().__init__()
        first, second, third = (max(1, round(width * c)) for c in (256, 128, 64))
        self.layers = _leaky(
            nn.Conv2d(feature_dim, first, 1),
            nn.Conv2d(first, second, 3, padding=1),
            nn.Conv2d(second, third, 4, stride=2, padding=2),
            nn.Conv2d(third, 1, 4, stride=2, padding=2),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, D, h, w], any size from 1x1 -> domain logits [B, 1, about h / 4, about w / 4]."""
        return self.layers(features)
