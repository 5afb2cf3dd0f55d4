"""Strong augmentation of the student's images, on the device: colour jitter and Gaussian blur (DACS)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_GREY = (0.299, 0.587, 0.114)
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def strong_augmentation(images: Tensor, jitter: float, blur: float, generator: torch.Generator) -> Tensor:
    """Jitter the colours of four images in five and blur one in two (DACS), independently of each other.

    images: uint8 RGB [B, 3, H, W]; so is the result. jitter: the strength of `colour_jitter`, 0 for none; blur: the
    largest sigma of the Gaussian in pixels, 0 for none (DACS: 1.15 at 512 x 512). The random numbers come from
    `generator`, on the CPU, and are drawn whether they are used or not.
    """
    changed = []
    for image in images:
        coloured, blurred, sigma, *factors = torch.rand(7, generator=generator).tolist()
        pixels = image.float()
        with torch.autocast(images.device.type, enabled=False):
            if jitter and coloured < 0.8:
                pixels = colour_jitter(pixels, *(jitter * (2 * factor - 1) for factor in factors))
            if blur and blurred < 0.5:
                pixels = gaussian_blur(pixels, 0.15 + sigma * max(blur - 0.15, 0))
        changed.append(pixels)
    return torch.stack(changed).round().clamp(0, 255).to(torch.uint8)


def colour_jitter(image: Tensor, brightness: float, contrast: float, saturation: float, hue: float) -> Tensor:
    """One image, float RGB [3, H, W] in 0..255, with changed colours; all changes are one linear map and a shift.

    brightness, contrast, saturation: each from -1 to 1, 0 for no change: the pixels are multiplied by 1 + brightness,
    moved away from the image's mean grey by the factor 1 + contrast, and from their own grey by 1 + saturation.
    hue: the part of a full turn by which the colours are turned around the grey axis in the YIQ space (our choice: it
    needs no HSV conversion, and a quarter of the time). The result is clamped to 0..255.
    """
    identity = torch.eye(3, dtype=torch.float64)
    grey = torch.tensor(_GREY, dtype=torch.float64).expand(3, 3)
    to_yiq = torch.tensor(_TO_YIQ, dtype=torch.float64)
    cos, sin = math.cos(2 * math.pi * hue), math.sin(2 * math.pi * hue)
    turn = torch.tensor([[1, 0, 0], [0, cos, -sin], [0, sin, cos]], dtype=torch.float64)
    colours = to_yiq.inverse() @ turn @ to_yiq @ ((1 + saturation) * identity - saturation * grey)
    matrix = ((1 + brightness) * (1 + contrast) * colours).to(image, non_blocking=True)
    # A change of contrast does not move the mean grey; the later changes do not move any grey.
    mean = (image.mean((1, 2)) * torch.tensor(_GREY).to(image, non_blocking=True)).sum() * (1 + brightness)
    return ((matrix @ image.flatten(1)).view(image.shape) - contrast * mean).clamp(0, 255)


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """One image, float [3, H, W], convolved with a Gaussian of `sigma` pixels, cut off at 3 sigma; mirrored edges."""
    radius = min(math.ceil(3 * sigma), *(side - 1 for side in image.shape[1:]))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(image, non_blocking=True)
    planes = F.pad(image[:, None], (radius, radius, radius, radius), mode="reflect")
    return F.conv2d(F.conv2d(planes, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]
