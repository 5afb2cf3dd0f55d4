"""Twin of `model.terms.image_level` in NumPy and float64: CIELAB pixel by pixel, FDA on the whole shifted spectrum.

The border of an image, outside of the box around all pixels of another colour than `BORDER`, is found row by row.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

Pixels = np.ndarray
"""RGB [H, W, 3] in 0..255."""

MATRIX = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
BORDER = (123, 117, 104)
WHITE = MATRIX @ np.ones(3)


def to_lab(rgb: tuple[float, float, float]) -> tuple[float, float, float]:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (channel / 255 for channel in rgb)]
    x, y, z = (t ** (1 / 3) if t > (6 / 29) ** 3 else t * (29 / 6) ** 2 / 3 + 4 / 29 for t in MATRIX @ linear / WHITE)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def to_rgb(lab: tuple[float, float, float]) -> tuple[float, float, float]:
    lightness, a, b = lab
    y = (lightness + 16) / 116
    roots = (y + a / 500, y, y - b / 200)
    xyz = WHITE * [t**3 if t > 6 / 29 else 3 * (6 / 29) ** 2 * (t - 4 / 29) for t in roots]
    linear = [min(max(float(v), 0.0), 1.0) for v in np.linalg.solve(MATRIX, xyz)]
    red, green, blue = (255 * (12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055) for v in linear)
    return red, green, blue


Box = tuple[slice, slice]


def box(image: Pixels) -> Box:
    """Rows and columns without the border; all of an image that has the border's colour only."""
    found = [(y, x) for y, row in enumerate(image.tolist()) for x, pixel in enumerate(row) if tuple(pixel) != BORDER]
    if not found:
        return slice(None), slice(None)
    rows, columns = zip(*found, strict=True)
    return slice(min(rows), max(rows) + 1), slice(min(columns), max(columns) + 1)


def lab(source: Pixels, target: Pixels) -> Pixels:
    """The image without its border, put back into it."""
    result = source.astype(np.float64)
    result[box(source)] = _lab(source[box(source)], target[box(target)])
    return result


def _lab(source: Pixels, target: Pixels) -> Pixels:
    content = np.array([[to_lab(pixel) for pixel in row] for row in source.tolist()])
    style = np.array([[to_lab(pixel) for pixel in row] for row in target.tolist()])
    for channel in range(3):
        values = content[..., channel]
        factor = style[..., channel].std() / max(values.std(), 0.01)
        content[..., channel] = (values - values.mean()) * factor + style[..., channel].mean()
    return np.array([[to_rgb(pixel) for pixel in row] for row in content.tolist()])


def levelled(image: Pixels) -> Pixels:
    """The border in the mean colour of the rest."""
    inside = image[box(image)].astype(np.float64)
    result = np.empty(image.shape)
    result[:] = inside.mean((0, 1))
    result[box(image)] = inside
    return result


def fda(source: Pixels, target: Pixels, beta: float) -> Pixels:
    result = source.astype(np.float64)
    result[box(source)] = _fda(levelled(source), levelled(target), beta)[box(source)]
    return result


def _fda(source: Pixels, target: Pixels, beta: float) -> Pixels:
    height, width = source.shape[:2]
    b = math.floor(beta * min(height, width))
    centre_y, centre_x = height // 2, width // 2
    result = np.empty(source.shape)
    for channel in range(3):
        plane = Image.fromarray(target[..., channel].astype(np.float32))
        style = np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR), np.float64)
        spectrum = np.fft.fftshift(np.fft.fft2(source[..., channel].astype(np.float64)))
        spectrum_t = np.fft.fftshift(np.fft.fft2(style))
        for y in range(centre_y - b, centre_y + b + 1):
            for x in range(centre_x - b, centre_x + b + 1):
                spectrum[y, x] = abs(spectrum_t[y, x]) * np.exp(1j * np.angle(spectrum[y, x]))
        plain = np.fft.ifft2(np.fft.ifftshift(spectrum))
        assert np.abs(plain.imag).max() < 1e-6
        result[..., channel] = plain.real
    return result.clip(0, 255)
