"""High-resolution crops (HRDA, Hoyer et al., ECCV 2022): one DeepLab on a whole image and on windows of it.

The *context* is the whole image at half its size, the *detail* a window of the image that is as large as the context.
A small head on the context's features says for each class and place how far the detail is to be trusted.

Maps are up-sampled from corner to corner (`align_corners`), as everywhere in this project. If a map of the context has
n points along a side, the fused map has 2 n - 1: every second one is a point of the context. A window whose first
point is one of the fused map's then has all of its n points on the fused map, within a pixel of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.backbones import Stages
from model.networks.deeplab import DeepLab
from model.networks.upsampling import exact, upsample

ATTENTION_WIDTH = 64
"""Channels between the two convolutions of the attention head (our choice)."""
Place = tuple[int, int]
"""Row and column on the fused map of a window's first point."""


class Window(NamedTuple):
    """A part of every image of a batch, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, pixels: Tensor) -> Tensor:
        """That part of images, labels or weights [..., H, W]."""
        # By indices: a slice would limit the sizes that an exported network takes to those of its example.
        rows = self.top + torch.arange(self.height, device=pixels.device)
        columns = self.left + torch.arange(self.width, device=pixels.device)
        return pixels.index_select(-2, rows).index_select(-1, columns)


class Detail(NamedTuple):
    """What a window of a batch of images shows: logits [B, C, n, m].

    weight: that of the detail's own loss beside the one of the fused logits.
    """

    logits: Tensor
    window: Window
    weight: float = 1.0


class HighResolution(DeepLab):
    """A DeepLab that looks at images twice; see the module.

    It has the interface of `DeepLab`, whose tensors keep their names; `attention` is new. Images are read at twice the
    size at which the plain network would read them. Features are the context's, [B, D, n, m]; logits are the fused
    ones [B, C, 2 n - 1, 2 m - 1], in float32 at least. The architecture is that of the plain network, and says
    "high_resolution_crops"; `build_segmenter` builds it with `kind=HighResolution`.
    """

    def __init__(self, stages: Stages, architecture: dict[str, Any]) -> None:
        super().__init__(stages, architecture | {"high_resolution_crops": True})
        last = nn.Conv2d(ATTENTION_WIDTH, architecture["num_classes"], 3, padding=1)
        assert last.bias is not None
        nn.init.normal_(last.weight, 0.0, 0.01)
        nn.init.zeros_(last.bias)  # context and detail count alike at first
        self.attention = nn.Sequential(nn.Conv2d(self.feature_dim, ATTENTION_WIDTH, 1), nn.ReLU(inplace=True), last)

    @property
    def heads(self) -> list[nn.Module]:
        return [*super().heads, self.attention]

    def context(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W], normalised, at half their size."""
        return halved(self.prepared(images))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the context; logits of the context fused with the detail everywhere.

        The detail is the mean over 3x3 windows that cover the image and overlap by half. images: as in `DeepLab`, of
        any size.
        """
        images = self.prepared(images)
        context = self.context(images)
        features, logits = super().forward(context)
        down, across = ((0, (points - 1) // 2, points - 1) for points in logits.shape[2:])
        places = [(row, column) for row in down for column in across]
        windows = [_window(images, context, logits, place) for place in places]
        details = super().forward(torch.cat([window.of(images) for window in windows]))[1]
        return features, self._fused(features, logits, details.unflatten(0, (len(places), -1)).unbind(), places)

    def with_detail(self, images: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Detail]:
        """As `forward` with one window; outside of it, the context decides. Also what the window shows.

        place: [2] on the CPU, of at least 0 and below 1: where the window lies between top and bottom, and between left
        and right. All images of the batch share it.
        """
        images = self.prepared(images)
        context = self.context(images)
        features, logits = super().forward(context)
        row, column = (int(share * side) for share, side in zip(place.tolist(), logits.shape[2:], strict=True))
        window = _window(images, context, logits, (row, column))
        detail = super().forward(window.of(images))[1]
        return features, self._fused(features, logits, [detail], [(row, column)]), Detail(detail, window)

    def _fused(self, features: Tensor, context: Tensor, details: Sequence[Tensor], places: Sequence[Place]) -> Tensor:
        """(1 - a) * context + a * detail on the fused map, with a = 0 where no window lies (HRDA)."""
        height, width = context.shape[2:]
        size = (2 * height - 1, 2 * width - 1)
        attention = self.attention(features)
        with torch.autocast(context.device.type, enabled=False):
            whole, trust = upsample(exact(context), size), upsample(exact(attention).sigmoid(), size)
            total, covered = torch.zeros_like(whole), torch.zeros_like(whole[:1, :1])
            for detail, (row, column) in zip(details, places, strict=True):
                around = (column, width - 1 - column, row, height - 1 - row)
                total = total + F.pad(exact(detail), around)
                covered = covered + F.pad(torch.ones_like(covered[:, :, :height, :width]), around)
            return whole + trust * (total - covered * whole) / covered.clamp_min(1)


def read_size(size: tuple[int, int], crops: bool) -> tuple[int, int]:
    """The width and height at which images are read for the input size of a network: with the crops, twice that."""
    factor = 2 if crops else 1
    return factor * size[0], factor * size[1]


def halved(images: Tensor) -> Tensor:
    """Images [B, D, H, W], floating point, at half their size, rounded up: means of 2x2 pixels."""
    return F.avg_pool2d(images, 2, ceil_mode=True, count_include_pad=False)


def _window(images: Tensor, context: Tensor, logits: Tensor, place: Place) -> Window:
    """The window of the images at a place; it is as large as the context."""
    height, width = context.shape[2:]
    top, left = (
        _first_pixel(at, points, side - length)
        for at, points, side, length in zip(place, logits.shape[2:], images.shape[2:], (height, width), strict=True)
    )
    return Window(top, left, height, width)


def _first_pixel(place: int, points: int, last: int) -> int:
    """The first pixel of the window that begins at a point: place * last / (points - 1), rounded.

    last: the first pixel of the last window, which begins at the point `points` - 1.
    """
    steps = max(points - 1, 1)
    return (2 * place * last + steps) // (2 * steps)
