"""What a scene is made of, and the stage on which things are put: camera, light, colours, chance.

A scene is made once, as a list of painted and labelled outlines in drawing order, and drawn twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from .domains import RGB, Domain, Span
from .geometry import Array, Camera, Face


class Raw(IntEnum):
    """Raw label ids of Cityscapes, which GTA5's label files use too."""

    UNLABELED = 0
    EGO_VEHICLE = 1
    STATIC = 4
    ROAD = 7
    SIDEWALK = 8
    BUILDING = 11
    WALL = 12
    FENCE = 13
    POLE = 17
    TRAFFIC_LIGHT = 19
    TRAFFIC_SIGN = 20
    VEGETATION = 21
    TERRAIN = 22
    SKY = 23
    PERSON = 24
    RIDER = 25
    CAR = 26
    TRUCK = 27
    BUS = 28
    TRAIN = 31
    MOTORCYCLE = 32
    BICYCLE = 33


Outlines = list[Array] | Array


GROUND = "ground"


@dataclass(frozen=True)
class Part:
    """Outlines in the world, each [N, 3], with the colour they are painted in and the class of their label.

    `colour` None: only labelled (an annotator's outline about something with holes); `label` None: only
    painted (a detail of the thing drawn before it).
    """

    outlines: Outlines
    colour: RGB | None
    label: Raw | None


@dataclass
class Item:
    """One thing: its distance in metres, by which things hide each other, and its parts, hindmost first."""

    depth: float
    parts: list[Part] = field(default_factory=list)


@dataclass(frozen=True)
class Scene:
    """All outlines in drawing order. `shadows` fall on the ground, which is painted before the `parts`."""

    camera: Camera
    ground: list[Part]
    shadows: list[Array]
    parts: list[Part]
    sky: tuple[RGB, RGB]  # at the top, at the horizon
    clouds: float  # 0..1
    shadow: float  # loss of light in a shadow, 0..1
    haze: float  # metres after which 63 % of a colour is haze


class Stage:
    """Camera, light and colours of one image, and the generator from which all of its layout is drawn."""

    def __init__(self, domain: Domain, size: tuple[int, int], rng: np.random.Generator) -> None:
        self.domain, self.rng = domain, rng
        width, height = size
        layout, look = domain.layout, domain.look
        self.camera = Camera(
            width,
            height,
            focal=self.span(layout.focal) * width,
            horizon=self.span(layout.horizon) * height,
            eye=self.span(layout.eye),
        )
        sun = self.span(look.sun)
        sides = ("left", "right") if rng.random() < 0.5 else ("right", "left")
        self.gain = {
            sides[0]: 1 + 0.15 * sun,
            sides[1]: 1 - 0.45 * sun,
            "front": 1 + rng.uniform(-0.35, 0.1) * sun,
            "top": 1 + 0.15 * sun,
            GROUND: 1 + 0.15 * sun,
        }
        self.slant = (-1.0 if sides[0] == "left" else 1.0) * -rng.uniform(0.3, 1.0) * sun
        self.haze = self.span(look.haze_range)
        self.shadows: list[Array] = []

    def span(self, span: Span) -> float:
        """A number drawn uniformly from `span`."""
        return float(self.rng.uniform(*span))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return bool(self.rng.random() < probability)

    def choose(self, weights: dict[str, float]) -> str:
        """A key of `weights`, drawn in proportion to its value."""
        rest = self.rng.random() * sum(weights.values())
        for key, weight in weights.items():
            rest -= weight
            if rest < 0:
                return key
        raise ValueError("weights must be positive")

    def paint(self, material: str) -> RGB:
        """A colour of this material, a little off the listed ones."""
        paints = self.domain.look.paints[material]
        red, green, blue = paints[int(self.rng.integers(len(paints)))]
        spread = self.domain.look.paint_jitter
        level, *tint = (self.rng.standard_normal(4) * spread).tolist()
        return red + level + tint[0] / 3, green + level + tint[1] / 3, blue + level + tint[2] / 3

    def part(
        self,
        outlines: Outlines,
        colour: RGB | None,
        label: Raw | None,
        facing: str = "front",
        lit: bool = True,
    ) -> Part:
        """World outlines (each [N, 3], or one array [K, N, 3]) as a Part, lit by `facing`, hazed by distance.

        The ground reaches from here to the horizon: its haze is drawn with it, row by row.
        """
        if colour is not None:
            gain, veil = self.gain[facing] if lit else 1.0, 0.0
            if facing != GROUND:
                first, last = outlines[0], outlines[-1]
                veil = 1 - math.exp(-(first[0, 2] + last[len(last) // 2, 2]) / 2 / self.haze)
                gain *= 1 - veil
            haze = self.domain.look.haze_colour
            colour = (
                colour[0] * gain + haze[0] * veil,
                colour[1] * gain + haze[1] * veil,
                colour[2] * gain + haze[2] * veil,
            )
        return Part(outlines, colour, label)

    def on(self, face: Face, plane: Outlines, colour: RGB | None, label: Raw | None, lit: bool = True) -> Part:
        """Outlines given on a face (each [N, 2], s and t in 0..1) as a Part."""
        placed = face.place(plane) if isinstance(plane, np.ndarray) else [face.place(outline) for outline in plane]
        return self.part(placed, colour, label, face.facing, lit)

    def shade(self, x: Span, z: Span, height: float) -> None:
        """Let a thing that stands on [x] by [z] and is `height` metres high cast a shadow on the ground."""
        reach = self.slant * min(height, 4.0)
        left, right = min(x[0], x[0] + reach), max(x[1], x[1] + reach)
        corners = np.array([(left, 0, z[0]), (right, 0, z[0]), (right, 0, z[1]), (left, 0, z[1])], float)
        self.shadows.append(corners)


class Figure:
    """A flat thing that stands upright at (x, z), facing the camera; drawn in metres from its foot.

    `stretch` narrows (below 1) and turns round (below 0) what is drawn.
    """

    def __init__(self, stage: Stage, x: float, z: float, stretch: float = 1.0, scale: float = 1.0) -> None:
        self.stage, self.item = stage, Item(z)
        self.foot = np.array((x, 0.0, z))
        self.axes = np.array(((stretch * scale, 0.0, 0.0), (0.0, scale, 0.0)))

    def add(self, outlines: Outlines, colour: RGB | None, label: Raw | None, lit: bool = True) -> None:
        """Add outlines, each [N, 2], in metres."""
        placed = [outline @ self.axes + self.foot for outline in outlines]
        self.item.parts.append(self.stage.part(placed, colour, label, lit=lit))
