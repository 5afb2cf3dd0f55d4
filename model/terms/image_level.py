"""Image level (the paper's first level): source images restyled as target images, before the forward pass.

Two closed forms, which need no training: `lab` (Reinhard et al., "Color transfer between images", 2001, in CIELAB) and
`fda` (Yang and Soatto, "FDA: Fourier domain adaptation for semantic segmentation", CVPR 2020). All of it is computed in
float32 on the images' device, which the CPU never waits for.

The border of an image that was shrunk and padded (`--random-scale`) is no part of the image (our choice): it gives no
style, and it stays as it is. It is known by its colour, see `visible`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.terms.borders import visible
from model.terms.choices import IMAGE_LEVELS

# sRGB (IEC 61966-2-1): linear RGB to XYZ. White is the sum of its columns, so that grey has a = b = 0.
_XYZ_OF_RGB = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_RGB_OF_XYZ: list[list[float]] = torch.linalg.inv(torch.tensor(_XYZ_OF_RGB, dtype=torch.float64)).tolist()
_WHITE = tuple(sum(row) for row in _XYZ_OF_RGB)
_DELTA = 6 / 29

# A channel that varies less than this, in units of CIELAB, counts as constant: its rounding is not amplified.
_LEAST_DEVIATION = 0.01


@dataclass(frozen=True)
class ImageLevel:
    """Restyles a share of each source batch; the other images stay as they are.

    kind: one of `IMAGE_LEVELS`. share: probability, 0 to 1, with which a source image is restyled. beta: that of FDA,
    at least 0 and below 0.5.
    """

    kind: str = "none"
    share: float = 1.0
    beta: float = 0.01

    def __post_init__(self) -> None:
        if self.kind not in IMAGE_LEVELS:
            raise ValueError(f"kind is {self.kind!r}; choose one of {', '.join(IMAGE_LEVELS)}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}; it must be from 0 to 1")
        _check_beta(self.beta)

    def styles(self, sources: int, targets: int, generator: torch.Generator) -> list[int | None]:
        """For each source image of a batch, the target image that gives its style, or None to leave it as it is.

        sources, targets: the images in each batch. generator: on the CPU; what it draws does not depend on the share.
        """
        if self.kind == "none":
            return [None] * sources
        restyled = (torch.rand(sources, generator=generator) < self.share).tolist()
        styles = torch.randint(targets, (sources,), generator=generator).tolist()
        return [style if yes else None for yes, style in zip(restyled, styles, strict=True)]

    def restyle(self, source: Tensor, target: Tensor, styles: Sequence[int | None]) -> Tensor:
        """The source batch with the images that have a style restyled; a new tensor if there are any.

        source: uint8 RGB [B, 3, H, W]; target: uint8 RGB [B', 3, H', W']; styles: see `styles`. Returns uint8
        [B, 3, H, W].
        """
        pairs = [(number, style) for number, style in enumerate(styles) if style is not None]
        if not pairs:
            return source
        # Slices and stacks instead of index tensors, which would make the CPU wait for the GPU.
        content = torch.stack([source[number] for number, _ in pairs])
        style = torch.stack([target[style] for _, style in pairs])
        images = lab(content, style) if self.kind == "lab" else fda(content, style, self.beta)
        restyled = dict(zip((number for number, _ in pairs), images.round().to(source.dtype), strict=True))
        return torch.stack([restyled.get(number, image) for number, image in enumerate(source)])

    def __call__(self, source: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        """`restyle` with the `styles` that the generator draws."""
        return self.restyle(source, target, self.styles(len(source), len(target), generator))


def lab(source: Tensor, target: Tensor) -> Tensor:
    """Source images with the mean and standard deviation of each CIELAB channel of the target images.

    source: RGB in 0..255, uint8 or floating, [B, 3, H, W]; target: [B, 3, H', W'], its image i is the style of source
    image i. Borders do not count, and those of the source stay. Returns float32 [B, 3, H, W] in 0..255; colours outside
    of sRGB are clipped. Raises ValueError for other shapes.
    """
    _check_pair(source, target)
    content, style, inside = rgb_to_lab(source), rgb_to_lab(target), visible(source)
    deviation, mean = _deviation_and_mean(content, inside)
    deviation_t, mean_t = _deviation_and_mean(style, visible(target))
    factor = deviation_t / deviation.clamp(min=_LEAST_DEVIATION)
    return torch.where(inside, lab_to_rgb((content - mean) * factor + mean_t), source.float())


def fda(source: Tensor, target: Tensor, beta: float) -> Tensor:
    """Source images with the amplitudes of the target images' lowest frequencies; the phases stay (FDA, eq. 3).

    Per RGB channel, in a window of (2b + 1) x (2b + 1) frequencies around zero with b = floor(beta min(H, W)).

    source: RGB in 0..255, uint8 or floating, [B, 3, H, W]; target: [B, 3, H', W'], resized to H, W (bilinear,
    anti-aliased; our choice); its image i is the style of source image i. Borders count as if they had the mean colour
    of the rest of their image, and those of the source stay. beta: at least 0 and below 0.5. Returns float32
    [B, 3, H, W], clipped to 0..255. Raises ValueError for other shapes and values.
    """
    _check_pair(source, target)
    _check_beta(beta)
    size, inside = source.shape[2:], visible(source)
    content, style = _borders_levelled(source.float(), inside), _borders_levelled(target.float(), visible(target))
    if style.shape[2:] != size:
        style = F.interpolate(style, size, mode="bilinear", antialias=True)
    b = fda_window(beta, size)
    # The spectrum of a real image is symmetric, so half of the columns are enough. Rows are 0..b and -b..-1.
    spectrum, amplitude = torch.fft.rfft2(content), torch.fft.rfft2(style).abs()
    for rows in (slice(0, b + 1), slice(size[0] - b, size[0])):
        window = (..., rows, slice(0, b + 1))
        spectrum[window] = torch.polar(amplitude[window], spectrum[window].angle())
    return torch.where(inside, torch.fft.irfft2(spectrum, s=size).clamp(0, 255), source.float())


def _mean(images: Tensor, inside: Tensor) -> Tensor:
    """Mean [B, C, 1, 1] of the pixels inside (bool [B, 1, H, W]) of images [B, C, H, W]."""
    return (images * inside).sum((2, 3), keepdim=True) / inside.sum((2, 3), keepdim=True)


def _deviation_and_mean(images: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean of the pixels inside, as `_mean`."""
    mean = _mean(images, inside)
    return _mean((images - mean).square(), inside).sqrt(), mean


def _borders_levelled(images: Tensor, inside: Tensor) -> Tensor:
    """Images whose borders have the mean colour of the pixels inside."""
    return torch.where(inside, images, _mean(images, inside))


def rgb_to_lab(images: Tensor) -> Tensor:
    """CIELAB (D65, 2 degrees; L in 0..100) of sRGB images in 0..255; float32 [B, 3, H, W] of the same shape."""
    values = images.float() / 255
    linear = torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    xyz = [channel / white for channel, white in zip(_mixed(linear.unbind(1), _XYZ_OF_RGB), _WHITE, strict=True)]
    x, y, z = (
        torch.where(value > _DELTA**3, value.clamp(min=0) ** (1 / 3), value / (3 * _DELTA**2) + 4 / 29) for value in xyz
    )
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def lab_to_rgb(images: Tensor) -> Tensor:
    """sRGB images in 0..255 of CIELAB ones, clipped to that range; float32 [B, 3, H, W] of the same shape."""
    lightness, a, b = images.float().unbind(1)
    y = (lightness + 16) / 116
    roots = (y + a / 500, y, y - b / 200)
    xyz = [
        white * torch.where(root > _DELTA, root**3, 3 * _DELTA**2 * (root - 4 / 29))
        for root, white in zip(roots, _WHITE, strict=True)
    ]
    linear = torch.stack(_mixed(xyz, _RGB_OF_XYZ), 1).clamp(0, 1)
    values = torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * values).clamp(0, 255)


def _mixed(channels: Sequence[Tensor], matrix: Sequence[Sequence[float]]) -> list[Tensor]:
    """A 3x3 matrix times the channels, one by one, because autocast would compute a matrix product in low precision."""
    first, second, third = channels
    return [a * first + b * second + c * third for a, b, c in matrix]


def _check_pair(source: Tensor, target: Tensor) -> None:
    for name, images in (("source", source), ("target", target)):
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"{name} has shape {tuple(images.shape)}; expected [B, 3, H, W]")
    if len(source) != len(target):
        raise ValueError(f"{len(source)} source images and {len(target)} target images; expected equally many")


def fda_window(beta: float, size: tuple[int, ...] | torch.Size) -> int:
    """b of `fda` for images of these two sides; 0 changes only the mean colour."""
    return math.floor(beta * min(size))


def _check_beta(beta: float) -> None:
    if not 0 <= beta < 0.5:
        raise ValueError(f"beta is {beta}; it must be at least 0 and below 0.5")
