"""Pinhole camera and the few solids from which the built-in street scenes are made.

World axes in metres: x to the right, y up from the ground, z forward; the camera stands at (0, eye, 0).
Everything here is our choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Points = Sequence[tuple[float, float]]

NEAR = 1.2  # metres; nothing is placed nearer to the camera


@dataclass(frozen=True)
class Camera:
    """A level camera. `width`, `height`, `focal` and `horizon` (a row) in pixels, `eye` in metres."""

    width: int
    height: int
    focal: float
    horizon: float
    eye: float

    def project(self, points: Array) -> Array:
        """World points [..., 3] -> pixel positions [..., 2] as (column, row); depths are at least NEAR."""
        scale = self.focal / np.maximum(points[..., 2:], NEAR)
        return (self.width / 2, self.horizon) + (points[..., :2] - (0.0, self.eye)) * (1.0, -1.0) * scale

    def lift(self, pixels: Array, depth: float) -> Array:
        """Pixel positions [..., 2] -> the world points [..., 3] at this depth that project there."""
        flat = (0.0, self.eye) + (pixels - (self.width / 2, self.horizon)) * (1.0, -1.0) * (depth / self.focal)
        return np.concatenate([flat, np.full_like(flat[..., :1], depth)], axis=-1)


@dataclass(frozen=True)
class Face:
    """A parallelogram in the world: `origin` plus s times `across` plus t times `up`, with s and t in 0..1.

    `facing` names the side of the light it sees: "left", "right", "front" or "top".
    """

    origin: tuple[float, float, float]
    across: tuple[float, float, float]
    up: tuple[float, float, float]
    facing: str

    def place(self, plane: Array) -> Array:
        """Points (s, t) [..., 2] on the face -> world points [..., 3]."""
        return self.origin + plane @ np.array((self.across, self.up))

    @property
    def width(self) -> float:
        """Length of the lower edge in metres."""
        return math.hypot(*self.across)

    @property
    def height(self) -> float:
        """Length of the upright edge in metres."""
        return math.hypot(*self.up)


def box_faces(x: tuple[float, float], y: tuple[float, float], z: tuple[float, float]) -> list[Face]:
    """The upright faces of an axis-aligned box that a camera at x = 0 can see, the side before the front."""
    (x0, x1), (y0, y1), (z0, z1) = x, y, z
    faces = []
    if x0 > 0 or x1 < 0:
        inner, facing = (x0, "left") if x0 > 0 else (x1, "right")
        faces.append(Face((inner, y0, z0), (0.0, 0.0, z1 - z0), (0.0, y1 - y0, 0.0), facing))
    faces.append(Face((x0, y0, z0), (x1 - x0, 0.0, 0.0), (0.0, y1 - y0, 0.0), "front"))
    return faces


def rectangle(s0: float, t0: float, s1: float, t1: float) -> Array:
    """Corner list [4, 2] of one rectangle."""
    return np.array([(s0, t0), (s1, t0), (s1, t1), (s0, t1)])


_CORNERS = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])


@lru_cache(maxsize=256)
def _cell_centres(columns: int, rows: int) -> Array:
    """Centres [columns * rows, 1, 2] of the cells of a grid on the unit square."""
    s, t = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    return np.stack([s.ravel(), t.ravel()], -1)[:, None]


def grid(columns: int, rows: int, fill: tuple[float, float], bounds: tuple[float, float, float, float]) -> Array:
    """A regular grid of rectangles [columns * rows, 4, 2] in `bounds` (s0, t0, s1, t1).

    `fill` is the part of a cell's width and height that its rectangle covers.
    """
    s0, t0, s1, t1 = bounds
    corners = _CORNERS * (fill[0] / columns, fill[1] / rows)
    return (_cell_centres(columns, rows) + corners) * (s1 - s0, t1 - t0) + (s0, t0)


def stroke(start: tuple[float, float], end: tuple[float, float], width: float, taper: float = 1.0) -> Array:
    """A straight stroke [4, 2] from `start` to `end`, `width` wide, at the end `taper` times that."""
    (x0, y0), (x1, y1) = start, end
    length = max(math.hypot(x1 - x0, y1 - y0), 1e-6)
    nx, ny = -(y1 - y0) / length * width / 2, (x1 - x0) / length * width / 2
    return np.array(
        [
            (x0 - nx, y0 - ny),
            (x0 + nx, y0 + ny),
            (x1 + nx * taper, y1 + ny * taper),
            (x1 - nx * taper, y1 - ny * taper),
        ]
    )


@lru_cache(maxsize=8)
def _unit_circle(corners: int) -> Array:
    angle = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def disc(x: float, y: float, radius: float, corners: int = 14) -> Array:
    """A regular polygon [corners, 2] about (x, y)."""
    return _unit_circle(corners) * radius + (x, y)


def ring(x: float, y: float, outer: float, inner: float, corners: int = 14) -> Array:
    """A ring [2 * corners + 2, 2] about (x, y): one outline with a seam, so that one sees through it."""
    outside, inside = disc(x, y, outer, corners), disc(x, y, inner, corners)[::-1]
    return np.concatenate([outside, outside[:1], inside[-1:], inside])


def blob(rng: np.random.Generator, x: float, y: float, radius: tuple[float, float], corners: int = 13) -> Array:
    """An irregular rounded outline [corners, 2] about (x, y) with half-axes `radius`."""
    rough = rng.uniform(0.75, 1.15, (corners, 1))
    return _unit_circle(corners) * rough * radius + (x, y)
