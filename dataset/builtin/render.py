"""Draws a Scene: its label map, and its picture as a game or a camera shows it. All values are our choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from .domains import RGB, Domain, Look, Span
from .geometry import Array, Camera
from .stage import Part, Raw, Scene

OVERSAMPLING = 2  # the canvas is this many times as large as the picture
MIDDLE = 0.45  # the level that a change of contrast does not move
FRACTION_BITS = 4  # of the fixed-point positions that OpenCV draws at

# How strongly the surface of each class shows (soft blotches, grain), relative to the domain's own strength.
ROUGHNESS: dict[Raw, tuple[float, float]] = {
    Raw.ROAD: (0.5, 0.6),
    Raw.SIDEWALK: (0.5, 0.6),
    Raw.BUILDING: (0.8, 0.5),
    Raw.WALL: (1.0, 1.2),
    Raw.VEGETATION: (1.6, 2.5),
    Raw.TERRAIN: (1.4, 1.8),
    Raw.SKY: (0.0, 0.0),
}
OTHER_ROUGHNESS = (0.4, 0.3)
_AMPLITUDES = np.full((256, 2), OTHER_ROUGHNESS, np.float32)
for _label, _pair in ROUGHNESS.items():
    _AMPLITUDES[_label] = _pair

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Corners = NDArray[np.int32]


def _project(camera: Camera, outlines: list[Array]) -> list[Corners]:
    """World outlines -> fixed-point positions on the canvas, all at once, within what OpenCV can draw."""
    if not outlines:
        return []
    limit = 6.0 * max(camera.width, camera.height)
    pixels = camera.project(np.concatenate(outlines))
    fixed = (pixels.clip(-limit, limit) * (OVERSAMPLING << FRACTION_BITS)).astype(np.int32)
    ends = np.cumsum([len(outline) for outline in outlines]).tolist()
    return [fixed[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _draw(canvas: Image, labels: Image, camera: Camera, parts: list[Part]) -> None:
    corners = iter(_project(camera, [outline for part in parts for outline in part.outlines]))
    for part in parts:
        colour = None if part.colour is None else tuple(min(max(channel, 0.0), 255.0) for channel in part.colour)
        for polygon in islice(corners, len(part.outlines)):
            if colour is not None:
                cv2.fillPoly(canvas, [polygon], colour, cv2.LINE_8, FRACTION_BITS)
            if part.label is not None:
                cv2.fillPoly(labels, [polygon], int(part.label), cv2.LINE_8, FRACTION_BITS)


def _sky(scene: Scene, width: int, height: int, rng: np.random.Generator) -> Image:
    """A sky of [height, width, 3] that fades towards the horizon, with clouds."""
    top, low = (np.asarray(colour, np.float32) for colour in scene.sky)
    slope = np.clip(np.linspace(0, scene.camera.height / scene.camera.horizon, height, dtype=np.float32), 0, 1)
    sky = top + (low - top) * slope[:, None, None] * np.ones((1, width, 1), np.float32)
    cover = np.clip(_blotches(rng, width, height, (6, 5)) * 1.5 + 2 * scene.clouds - 1, 0, 1) * min(scene.clouds * 2, 1)
    return (sky + (245 - sky) * cover[..., None] * 0.8).clip(0, 255).astype(np.uint8)


def _blotches(rng: np.random.Generator, width: int, height: int, cells: tuple[int, int]) -> Floats:
    """Smooth noise [height, width] of unit spread with `cells` (columns, rows) of independent values."""
    coarse = rng.standard_normal((cells[1], cells[0]), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _light_ground(canvas: Image, scene: Scene, haze_colour: RGB) -> None:
    """Shadows, and haze by the distance of each row, on everything below the horizon; in place."""
    camera = scene.camera
    tall, wide = canvas.shape[:2]
    first = max(math.ceil(camera.horizon * OVERSAMPLING), 0)
    below = np.arange(first, tall) + 0.5 - camera.horizon * OVERSAMPLING
    clear = np.exp(-camera.focal * OVERSAMPLING * camera.eye / below / scene.haze).astype(np.float32)[:, None]
    shade = np.zeros((tall, wide), np.uint8)
    for polygon in _project(camera, scene.shadows):
        cv2.fillPoly(shade, [polygon], 255, cv2.LINE_8, FRACTION_BITS)
    light = (1 - cv2.blur(shade[first:], (5, 5)) * np.float32(scene.shadow / 255)) * clear
    haze = np.asarray(haze_colour, np.float32) * (1 - clear)
    canvas[first:] = canvas[first:] * light[..., None] + haze[:, None]


def draw(scene: Scene, domain: Domain, rng: np.random.Generator) -> tuple[Image, Image]:
    """Flat colours [H, W, 3] (RGB) and raw label ids [H, W], in the camera's size, from the same outlines."""
    width, height = scene.camera.width, scene.camera.height
    wide, tall = width * OVERSAMPLING, height * OVERSAMPLING
    sky = _sky(scene, width // 2, height // 2, rng)
    canvas = np.asarray(cv2.resize(sky, (wide, tall), interpolation=cv2.INTER_LINEAR), np.uint8)
    labels = np.full((tall, wide), Raw.SKY, np.uint8)
    _draw(canvas, labels, scene.camera, scene.ground)
    _light_ground(canvas, scene, domain.look.haze_colour)
    _draw(canvas, labels, scene.camera, scene.parts)
    picture = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(picture, np.uint8), np.ascontiguousarray(labels[::OVERSAMPLING, ::OVERSAMPLING])


def _texture(image: Floats, labels: Image, look: Look, rng: np.random.Generator) -> Floats:
    """Give surfaces their blotches and grain, by class."""
    height, width = labels.shape
    amplitude = _AMPLITUDES[labels]
    soft = _blotches(rng, width, height, (22, 14)) + 0.7 * _blotches(rng, width, height, (70, 40))
    grain = _blotches(rng, width, height, (256, max(256 * height // width, 1)))
    field = amplitude[..., 0] * (look.coarse * soft) + amplitude[..., 1] * (look.fine * grain)
    return np.asarray(image * (1 + field[..., None]), np.float32)


def _blurred(image: Floats, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)


def _grading(balance: Sequence[float], exposure: float, saturation: float, contrast: float) -> NDArray[np.float64]:
    """Balance, exposure, saturation about grey, contrast about MIDDLE, in this order, as one map [3, 4]."""
    saturate = saturation * np.eye(3) + (1 - saturation) / 3
    linear = contrast * saturate * (np.asarray(balance) * exposure)
    return np.concatenate([linear, np.full((3, 1), MIDDLE * (1 - contrast))], axis=1)


def grade(image: Image, labels: Image, domain: Domain, rng: np.random.Generator) -> Image:
    """Flat colours [H, W, 3] as the renderer or sensor of the domain shows them: surface, optics, tone and noise."""
    look = domain.look
    height, width = labels.shape
    unit = width / 256

    def span(bounds: Span) -> float:
        return float(rng.uniform(*bounds))

    picture = _texture(image.astype(np.float32) / np.float32(255), labels, look, rng)
    picture += look.bloom * np.maximum(_blurred(picture, 5 * unit) - 0.6, 0)
    sigma = span(look.blur) * unit
    if sigma > 0.2:
        picture = _blurred(picture, sigma)
    if look.sharpen:
        picture += look.sharpen * (picture - _blurred(picture, 0.9 * unit))
    balance, exposure = [span(channel) for channel in look.balance], span(look.exposure)
    toned = cv2.transform(picture, _grading(balance, exposure, span(look.saturation), span(look.contrast)))
    picture = np.asarray(cv2.pow(np.maximum(toned, 0), span(look.gamma)), np.float32)
    row, column = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    picture *= (1 - span(look.vignette) / 2 * (row**2 + column**2)).astype(np.float32)[..., None]
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * span(look.noise)
    return np.asarray((picture * 255).round().clip(0, 255), np.uint8)
