"""What moves in, or stands on, the street: vehicles, people, cycles, poles with signs and lights.

Each function puts one thing on the stage and returns it as an Item. Lengths in metres. Our choice throughout.
"""

from __future__ import annotations

import numpy as np

from .domains import RGB
from .geometry import Array, Points, blob, disc, grid, rectangle, ring, stroke
from .stage import Figure, Item, Raw, Stage

GLASS, LIGHTS = "glass", {"tail": (214.0, 36.0, 30.0), "head": (250.0, 246.0, 220.0)}


class Hull:
    """A body extruded from its outline in side view: what vehicles are made of.

    The outline lies in (l, y), l from 0 at the rear. It stands on the ground [x] by [z]. `way` is "along" the
    street (its rear to the camera), "oncoming" (its nose to it) or "across" (its side to it).
    """

    def __init__(self, stage: Stage, label: Raw, x: tuple[float, float], z: tuple[float, float], way: str) -> None:
        self.stage, self.label, self.x, self.z, self.way = stage, label, x, z, way
        self.length = (x[1] - x[0]) if way == "across" else (z[1] - z[0])
        self.mirror = way == "oncoming" or (way == "across" and stage.chance(0.5))
        self.item = Item(z[0])
        nose = -1.0 if self.mirror else 1.0
        if way == "across":
            self.facing, along, far, near = "front", (nose, 0.0, 0.0), z[1], z[0]
            origin, to_side = (x[self.mirror], 0.0, far), (0.0, 0.0, near - far)
        else:
            self.facing, along = ("right" if x[1] < 0 else "left"), (0.0, 0.0, nose)
            far, near = x if x[1] < 0 else (x[1], x[0])
            origin, to_side = (far, 0.0, z[self.mirror]), (near - far, 0.0, 0.0)
        self.axes, self.origin, self.to_side = (
            np.array((along, (0.0, 1.0, 0.0))),
            np.array(origin),
            np.array(to_side),
        )
        self.side_seen = way == "across" or x[0] > 0 or x[1] < 0

    def _place(self, outline: Array, side: float) -> Array:
        """Points (l, y) on a plane across the hull (0: its far side, 1: its near side) -> world points."""
        return outline @ self.axes + (self.origin + side * self.to_side)

    def skin(self, outline: Points, colours: list[RGB]) -> None:
        """The body: a strip across for each edge of the outline, in `colours`, then the side in the first."""
        points = np.asarray(outline, float)
        strips = []
        far, near = self._place(points, 0.0), self._place(points, 1.0)
        for number, colour in enumerate(colours):
            quad = np.concatenate([far[number : number + 2], near[number : number + 2][::-1]])
            (l0, y0), (l1, y1) = outline[number], outline[number + 1]
            strips.append(
                (
                    float(quad[0, 2] + quad[1, 2]),
                    quad,
                    colour,
                    "front" if abs(y1 - y0) > abs(l1 - l0) else "top",
                )
            )
        for _, quad, colour, facing in sorted(strips, key=lambda strip: -strip[0]):
            self.item.parts.append(self.stage.part([quad], colour, self.label, facing))
        if self.side_seen:
            self.item.parts.append(self.stage.part([near], colours[0], self.label, self.facing))

    def side(self, outlines: list[Array], colour: RGB, labelled: bool = False, lit: bool = True) -> None:
        """Details on the near side, in (l, y)."""
        if self.side_seen:
            placed = [self._place(outline, 1.0) for outline in outlines]
            label = self.label if labelled else None
            self.item.parts.append(self.stage.part(placed, colour, label, self.facing, lit))

    def end(self, outlines: list[Array], colour: RGB, labelled: bool = False, lit: bool = True) -> None:
        """Details on the end that faces the camera, in (s, y) with s in 0..1 across the hull."""
        if self.way == "across":
            return
        axes, origin = (
            np.array(((self.x[1] - self.x[0], 0.0, 0.0), (0.0, 1.0, 0.0))),
            (self.x[0], 0.0, self.z[0]),
        )
        placed = [outline @ axes + origin for outline in outlines]
        self.item.parts.append(self.stage.part(placed, colour, self.label if labelled else None, "front", lit))

    @property
    def nose_seen(self) -> bool:
        """Whether the end that faces the camera is the front of the vehicle."""
        return self.way == "oncoming"

    def lamps(self, low: float, high: float) -> None:
        """Two lamps on the end that is seen: white in front, red behind."""
        pair = [rectangle(0.04, low, 0.22, high), rectangle(0.78, low, 0.96, high)]
        self.end(pair, LIGHTS["head" if self.nose_seen else "tail"], lit=False)

    def wheels(self, places: list[float], radius: float, tyre: RGB) -> None:
        """Wheels at these places along the side, and the two that are seen under the end."""
        self.end([rectangle(0.03, 0.0, 0.17, radius), rectangle(0.83, 0.0, 0.97, radius)], tyre, labelled=True)
        self.side([disc(place, radius, radius) for place in places], tyre, labelled=True)
        self.side([disc(place, radius, radius * 0.5, 8) for place in places], (150.0, 150.0, 152.0))


def _footprint(
    length: float, width: float, x: float, z: float, way: str
) -> tuple[tuple[float, float], tuple[float, float]]:
    wide, deep = (length, width) if way == "across" else (width, length)
    return (x - wide / 2, x + wide / 2), (z, z + deep)


def car(stage: Stage, x: float, z: float, way: str) -> Item:
    """A passenger car: low, rounded by a cabin in the middle."""
    tall = stage.rng.uniform(0.95, 1.2)
    length, waist, roof = stage.rng.uniform(3.9, 4.6), 0.92 * tall, 1.5 * tall
    hull = Hull(stage, Raw.CAR, *_footprint(length, 1.85, x, z, way), way)
    stage.shade((hull.x[0], hull.x[1]), hull.z, 1.5)
    paint, glass, tyre = stage.paint("car"), stage.paint(GLASS), stage.paint("tyre")
    back = stage.rng.uniform(0.1, 0.7)
    outline = [
        (0.0, 0.28),
        (0.02, waist),
        (back, waist),
        (back + 0.45, roof),
        (2.4, roof),
        (3.2, waist),
        (length, waist - 0.12),
    ]
    hull.skin([*outline, (length, 0.28)], [paint, paint, glass, paint, glass, paint, paint])
    low, high = waist + 0.03, roof - 0.08
    hull.side([np.array([(back + 0.15, low), (back + 0.5, high), (1.6, high), (1.6, low)])], glass)
    hull.side([np.array([(1.7, low), (1.7, high), (2.36, high), (3.05, low)])], glass)
    hull.end([rectangle(0.0, 0.28, 1.0, 0.46)], (58.0, 58.0, 62.0))
    hull.end([rectangle(0.36, 0.5, 0.64, 0.64)], (226.0, 224.0, 214.0))
    hull.lamps(0.62, 0.84)
    hull.wheels([0.8, length - 0.85], 0.36, tyre)
    return hull.item


def bus(stage: Stage, x: float, z: float, way: str) -> Item:
    """A bus: one block in one colour with a band of windows all along."""
    length, roof = stage.rng.uniform(8.5, 11.0), stage.rng.uniform(2.9, 3.3)
    hull = Hull(stage, Raw.BUS, *_footprint(length, 2.5, x, z, way), way)
    stage.shade(hull.x, hull.z, 3.0)
    paint, glass = stage.paint("bus"), stage.paint(GLASS)
    hull.skin([(0, 0.3), (0, roof), (length, roof), (length, 0.3)], [paint] * 3)
    hull.side(list(grid(7, 1, (0.88, 1.0), (0.2, 1.35, length - 0.2, roof - 0.45))), glass)
    hull.side([rectangle(length - 1.5, 0.4, length - 0.5, roof - 0.5)], glass)
    if hull.nose_seen:
        hull.end([rectangle(0.06, 1.15, 0.94, roof - 0.5)], glass)
        hull.end([rectangle(0.2, roof - 0.4, 0.8, roof - 0.12)], (250.0, 170.0, 40.0), lit=False)
    else:
        hull.end([rectangle(0.14, 1.7, 0.86, roof - 0.4)], glass)
    hull.end([rectangle(0.0, 0.3, 1.0, 0.5)], (50.0, 50.0, 54.0))
    hull.lamps(0.65, 0.95)
    hull.wheels([1.9, length - 2.4], 0.48, stage.paint("tyre"))
    return hull.item


def truck(stage: Stage, x: float, z: float, way: str) -> Item:
    """A truck: a closed, plain cargo box behind a lower cab of another colour."""
    length, roof, cab_roof = (
        stage.rng.uniform(6.0, 8.0),
        stage.rng.uniform(3.0, 3.5),
        stage.rng.uniform(2.2, 2.6),
    )
    hull = Hull(stage, Raw.TRUCK, *_footprint(length, 2.4, x, z, way), way)
    stage.shade(hull.x, hull.z, 3.0)
    cargo, cab, glass = stage.paint("cargo"), stage.paint("cab"), stage.paint(GLASS)
    nose = length - 1.9
    body = [(0.0, 0.75), (0.0, roof), (nose - 0.2, roof), (nose - 0.2, 0.75)]
    front = [(nose, 0.4), (nose, cab_roof), (length - 0.35, cab_roof), (length, 1.35), (length, 0.4)]
    below = (46.0, 46.0, 48.0)

    def draw_body() -> None:
        hull.skin([(0.2, 0.45), (0.2, 0.75), (nose, 0.75), (nose, 0.45)], [below] * 3)
        hull.skin(body, [cargo] * 3)

    def draw_cab() -> None:
        hull.skin(front, [cab, cab, glass, cab])
        hull.side(
            [
                np.array(
                    [
                        (nose + 0.5, 1.35),
                        (nose + 0.5, cab_roof - 0.2),
                        (length - 0.5, cab_roof - 0.2),
                        (length - 0.2, 1.35),
                    ]
                )
            ],
            glass,
        )

    for draw in (draw_body, draw_cab) if hull.mirror else (draw_cab, draw_body):
        draw()
    if not hull.nose_seen:
        hull.end(
            [rectangle(0.48, 0.8, 0.52, roof - 0.05), rectangle(0.0, roof - 0.08, 1.0, roof)],
            (90.0, 90.0, 92.0),
        )
        hull.end([rectangle(0.05, 0.45, 0.95, 0.75)], below, labelled=True)
        hull.lamps(0.5, 0.7)
    else:
        hull.lamps(0.6, 0.9)
    hull.wheels([1.3, 2.3, length - 1.0], 0.48, stage.paint("tyre"))
    return hull.item


def train(stage: Stage, x: float, z: float, way: str) -> Item:
    """A tram: long, two-coloured, raked nose, no wheels to be seen, a pantograph above."""
    length, roof = (11.0 if way == "across" else stage.rng.uniform(14.0, 22.0)), stage.rng.uniform(3.3, 3.6)
    hull = Hull(stage, Raw.TRAIN, *_footprint(length, 2.5, x, z, way), way)
    stage.shade(hull.x, hull.z, 3.0)
    upper, skirt, glass = stage.paint("train"), stage.paint("skirt"), stage.paint(GLASS)
    outline = [(0.0, 0.15), (0.0, 1.2), (0.5, roof), (length - 0.5, roof), (length, 1.2), (length, 0.15)]
    hull.skin(outline, [upper, glass, upper, glass, upper])
    hull.side([rectangle(0.0, 0.15, length, 1.15)], skirt)
    hull.side(list(grid(max(int(length / 1.6), 4), 1, (0.8, 1.0), (0.6, 1.5, length - 0.6, roof - 0.6))), glass)
    hull.end([rectangle(0.0, 0.15, 1.0, 1.15)], skirt)
    hull.end([rectangle(0.42, 0.5, 0.58, 0.9)], (250.0, 246.0, 220.0), lit=False)
    centre = (hull.x[0] + hull.x[1]) / 2
    mast = Figure(stage, centre, z + (0.0 if way == "across" else 1.5))
    mast.add(
        [stroke((-0.6, roof), (0.1, roof + 0.6), 0.1), stroke((0.1, roof + 0.6), (-0.3, roof + 1.1), 0.1)],
        (60.0, 60.0, 64.0),
        Raw.TRAIN,
    )
    mast.add([stroke((-0.9, roof + 1.1), (0.4, roof + 1.1), 0.1)], (60.0, 60.0, 64.0), Raw.TRAIN)
    hull.item.parts[:0] = mast.item.parts
    return hull.item


VEHICLES = {"car": car, "bus": bus, "truck": truck, "train": train}
LENGTHS = {"car": 4.6, "bus": 11.0, "truck": 8.0, "train": 22.0}


def person(stage: Stage, x: float, z: float) -> Item:
    """Someone on foot, standing or in stride."""
    rng = stage.rng
    figure = Figure(
        stage, x, z, stretch=rng.choice([-1.0, 1.0]) * rng.uniform(1.25, 1.6), scale=rng.uniform(1.55, 1.95)
    )
    top, trousers, skin = stage.paint("top"), stage.paint("trousers"), stage.paint("skin")
    stage.shade((x - 0.25, x + 0.25), (z - 0.15, z + 0.25), 1.7)
    stride, swing = rng.uniform(0.02, 0.15), rng.uniform(0.0, 0.12)
    figure.add(
        [stroke((0.04, 0.5), (stride, 0.02), 0.1, 0.7), stroke((-0.04, 0.5), (-stride, 0.02), 0.1, 0.7)],
        trousers,
        Raw.PERSON,
    )
    figure.add(
        [stroke((0.11, 0.8), (0.14 + swing, 0.46), 0.06), stroke((-0.11, 0.8), (-0.14 - swing, 0.46), 0.06)],
        top,
        Raw.PERSON,
    )
    figure.add(
        [np.array([(-0.1, 0.84), (0.1, 0.84), (0.14, 0.79), (0.1, 0.47), (-0.1, 0.47), (-0.14, 0.79)])],
        top,
        Raw.PERSON,
    )
    figure.add([disc(0.0, 0.92, 0.065, 10)], skin, Raw.PERSON)
    figure.add([disc(0.0, 0.95, 0.06, 10)], (60.0, 44.0, 34.0), Raw.PERSON)
    if stage.chance(0.25):
        figure.add([rectangle(0.12, 0.25, 0.22, 0.45)], stage.paint("bin"), Raw.PERSON)
    return figure.item


def _cyclist(figure: Figure, seat: tuple[float, float], grip: tuple[float, float], foot: tuple[float, float]) -> None:
    """A rider between saddle, handlebar and pedal, bent forward and in a helmet."""
    stage = figure.stage
    top, trousers = stage.paint("top"), stage.paint("trousers")
    neck = (seat[0] + 0.62 * (grip[0] - seat[0]), seat[1] + 0.62)
    knee = (seat[0] + 0.38, (seat[1] + foot[1]) / 2 + 0.14)
    figure.add([stroke(seat, knee, 0.24, 0.8), stroke(knee, foot, 0.17, 0.8)], trousers, Raw.RIDER)
    figure.add([stroke((seat[0], seat[1] - 0.08), neck, 0.34, 1.1), stroke(neck, grip, 0.14)], top, Raw.RIDER)
    figure.add([disc(neck[0] + 0.08, neck[1] + 0.2, 0.17, 10)], stage.paint("skin"), Raw.RIDER)
    figure.add([disc(neck[0] + 0.06, neck[1] + 0.27, 0.17, 10)], stage.paint("helmet"), Raw.RIDER)


def _side_view(stage: Stage, x: float, z: float) -> Figure:
    """A figure for a cycle, seen from anywhere between its side and a quarter turn towards it."""
    return Figure(
        stage,
        x,
        z,
        stretch=stage.rng.choice([-1.0, 1.0]) * stage.rng.uniform(0.5, 1.05),
        scale=stage.rng.uniform(1.05, 1.2),
    )


def bicycle(stage: Stage, x: float, z: float, ridden: bool) -> Item:
    """A bicycle, alone or ridden; labelled by its filled outline, as annotators do."""
    figure = _side_view(stage, x, z)
    stage.shade((x - 0.7, x + 0.7), (z - 0.1, z + 0.2), 1.0)
    frame, tyre = stage.paint("cycle"), stage.paint("tyre")
    hubs = [(-0.55, 0.36), (0.55, 0.36)]
    body = np.array([(-0.55, 0.36), (-0.2, 0.9), (0.4, 1.0), (0.55, 0.36), (-0.05, 0.25)])
    figure.add([*(disc(*hub, 0.37) for hub in hubs), body], None, Raw.BICYCLE)
    figure.add([ring(*hub, 0.38, 0.27) for hub in hubs], tyre, None)
    pedals, saddle, head = (-0.05, 0.3), (-0.2, 0.9), (0.38, 0.85)
    bars = [
        (hubs[0], pedals),
        (pedals, saddle),
        (saddle, hubs[0]),
        (saddle, head),
        (pedals, head),
        (head, hubs[1]),
    ]
    figure.add([stroke(start, end, 0.09) for start, end in bars], frame, Raw.BICYCLE)
    figure.add(
        [
            stroke((-0.34, 0.95), (-0.06, 0.95), 0.1),
            stroke((0.38, 0.85), (0.36, 1.08), 0.08),
            stroke((0.22, 1.08), (0.46, 1.08), 0.08),
        ],
        tyre,
        Raw.BICYCLE,
    )
    if ridden:
        _cyclist(figure, (-0.2, 1.0), (0.36, 1.1), (0.0, 0.2))
    return figure.item


def motorcycle(stage: Stage, x: float, z: float, ridden: bool) -> Item:
    """A motorcycle, alone or ridden: thick wheels, a filled body, a tank in colour."""
    figure = _side_view(stage, x, z)
    stage.shade((x - 0.9, x + 0.9), (z - 0.2, z + 0.3), 1.0)
    paint, tyre = stage.paint("car"), stage.paint("tyre")
    figure.add([disc(-0.68, 0.34, 0.36), disc(0.68, 0.34, 0.36)], tyre, Raw.MOTORCYCLE)
    figure.add([disc(-0.68, 0.34, 0.15, 8), disc(0.68, 0.34, 0.15, 8)], (170.0, 170.0, 172.0), None)
    figure.add(
        [np.array([(-0.6, 0.4), (-0.45, 0.7), (0.4, 0.72), (0.42, 0.3), (-0.3, 0.22)])],
        (74.0, 74.0, 78.0),
        Raw.MOTORCYCLE,
    )
    figure.add([stroke((0.68, 0.34), (0.42, 1.0), 0.13)], (150.0, 150.0, 152.0), Raw.MOTORCYCLE)
    figure.add(
        [
            np.array([(-0.1, 0.68), (0.0, 0.95), (0.42, 0.98), (0.5, 0.7)]),
            np.array([(-0.85, 0.8), (-0.6, 0.66), (-0.3, 0.7), (-0.8, 0.92)]),
        ],
        paint,
        Raw.MOTORCYCLE,
    )
    figure.add([np.array([(-0.72, 0.86), (-0.1, 0.82), (-0.1, 0.7), (-0.5, 0.68)])], tyre, Raw.MOTORCYCLE)
    figure.add([disc(0.56, 0.9, 0.13, 8)], LIGHTS["head"], Raw.MOTORCYCLE, lit=False)
    figure.add([stroke((0.26, 1.1), (0.5, 1.02), 0.09)], tyre, Raw.MOTORCYCLE)
    if ridden:
        _cyclist(figure, (-0.3, 0.92), (0.36, 1.1), (0.1, 0.35))
    return figure.item


def _post(figure: Figure, height: float, width: float) -> None:
    figure.add([rectangle(-width / 2, 0.0, width / 2, height)], figure.stage.paint("pole"), Raw.POLE)


def sign(stage: Stage, x: float, z: float) -> Item:
    """One or two traffic signs on a post."""
    figure = Figure(stage, x, z)
    height, size = stage.rng.uniform(2.3, 3.1), stage.rng.uniform(0.45, 0.6)
    _post(figure, height, 0.2)
    for level in (height, height - 2.1 * size)[: 1 + stage.chance(0.35)]:
        shape = stage.choose({"disc": 3.0, "triangle": 2.0, "square": 2.0, "board": 1.0})
        colour, white = stage.paint("sign"), (240.0, 240.0, 236.0)
        if shape == "disc":
            outline = disc(0.0, level, size)
        elif shape == "triangle":
            outline = np.array([(-size, level - 0.8 * size), (size, level - 0.8 * size), (0.0, level + size)])
        else:
            outline = rectangle(
                -size * (1.7 if shape == "board" else 0.9), level - 0.8 * size, size * 0.9, level + 0.8 * size
            )
        centre = outline.mean(0)
        figure.add([outline], colour, Raw.TRAFFIC_SIGN, lit=stage.chance(0.5))
        figure.add([centre + 0.62 * (outline - centre)], white, None)
        figure.add([rectangle(-0.3 * size, level - 0.2 * size, 0.3 * size, level + 0.12 * size)], colour, None)
    return figure.item


def traffic_light(stage: Stage, x: float, z: float) -> Item:
    """A traffic light on a post, or hung from an arm over the road."""
    figure = Figure(stage, x, z)
    height, arm = stage.rng.uniform(2.9, 3.5), stage.rng.uniform(1.2, 2.6) * (-1 if x > 0 else 1)
    _post(figure, height + 0.3, 0.22)
    places = [(0.0, height)]
    if stage.chance(0.4):
        figure.add(
            [
                stroke((0.0, height + 1.3), (arm, height + 1.3), 0.13),
                rectangle(-0.08, height, 0.08, height + 1.35),
            ],
            stage.paint("pole"),
            Raw.POLE,
        )
        places.append((arm, height + 0.8))
    lamps = ((226.0, 40.0, 34.0), (240.0, 180.0, 40.0), (50.0, 210.0, 110.0))
    burning = int(stage.rng.integers(3))
    for column, row in places:
        figure.add(
            [rectangle(column - 0.3, row - 0.75, column + 0.3, row + 0.75)],
            stage.paint("lamp"),
            Raw.TRAFFIC_LIGHT,
        )
        for number, colour in enumerate(lamps):
            dim = 1.0 if number == burning else 0.3
            figure.add(
                [disc(column, row + 0.47 * (1 - number), 0.2, 10)],
                (colour[0] * dim, colour[1] * dim, colour[2] * dim),
                None,
                lit=False,
            )
    return figure.item


def street_lamp(stage: Stage, x: float, z: float) -> Item:
    """A lamp post: a tall pole with an arm over the road."""
    figure = Figure(stage, x, z, stretch=-1.0 if x > 0 else 1.0)
    height, arm = stage.rng.uniform(5.0, 8.0), stage.rng.uniform(1.0, 2.0)
    bars = [stroke((0.0, 0.0), (0.0, height), 0.3, 0.7), stroke((0.0, height), (arm, height + 0.3), 0.18)]
    figure.add(bars, stage.paint("pole"), Raw.POLE)
    return figure.item


def bollard(stage: Stage, x: float, z: float) -> Item:
    """A waste bin or a switch box: something static that is not evaluated."""
    figure = Figure(stage, x, z)
    wide, tall = stage.rng.uniform(0.25, 0.45), stage.rng.uniform(0.8, 1.3)
    paint = stage.paint("bin")
    figure.add([rectangle(-wide, 0.0, wide, tall)], paint, Raw.STATIC)
    figure.add([rectangle(-wide, tall - 0.15, wide, tall)], (paint[0] * 0.7, paint[1] * 0.7, paint[2] * 0.7), None)
    return figure.item


def tree(stage: Stage, x: float, z: float, size: float = 1.0) -> Item:
    """A tree with a trunk and a crown of clusters; all of it is vegetation."""
    rng = stage.rng
    figure = Figure(stage, x, z, scale=size)
    trunk, crown, leaf = rng.uniform(1.8, 2.6), rng.uniform(1.3, 2.1), stage.paint("leaf")
    stage.shade((x - crown * size, x + crown * size), (z - 0.8, z + 0.8), 4.0)
    figure.add([stroke((0.0, 0.0), (0.0, trunk + 0.8), 0.34, 0.6)], stage.paint("trunk"), Raw.VEGETATION)
    for number in range(7):
        angle = number * 0.9 + rng.uniform(0, 0.6)
        offset = (np.cos(angle) * crown * 0.62, trunk + crown * (0.9 + 0.55 * np.sin(angle)))
        figure.add([blob(rng, *offset, (crown * 0.62, crown * 0.55))], _tint(stage, leaf), Raw.VEGETATION)
    return figure.item


def _tint(stage: Stage, colour: RGB) -> RGB:
    """The same leaves in more or less light."""
    gain = stage.rng.uniform(0.7, 1.2)
    return colour[0] * gain, colour[1] * gain, colour[2] * gain
