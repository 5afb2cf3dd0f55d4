"""Streets as a Scene: the ground, what stands beside it, and who is on it. Everything is our choice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import actors
from .domains import RGB, Domain, Span
from .geometry import NEAR, Face, blob, box_faces, grid, rectangle
from .stage import GROUND, Figure, Item, Part, Raw, Scene, Stage

FAR = 70.0  # metres to the end of the street


def _ground(stage: Stage, x: Span, z: Span, colour: RGB, label: Raw | None) -> Part:
    corners = np.array([(x[0], 0.0, z[0]), (x[1], 0.0, z[0]), (x[1], 0.0, z[1]), (x[0], 0.0, z[1])])
    return stage.part([corners], colour, label, GROUND)


def _scaled(colour: RGB, gain: float) -> RGB:
    return colour[0] * gain, colour[1] * gain, colour[2] * gain


def building(stage: Stage, inner: float, outward: float, z: Span) -> list[Part]:
    """A house along the street, from x = inner outwards: walls, rows of windows, shops below, an eave."""
    rng, layout = stage.rng, stage.domain.layout
    floors = int(rng.integers(layout.floors[0], layout.floors[1] + 1))
    storey = rng.uniform(2.7, 3.3)
    height = floors * storey + 0.6
    wall, glass, roof, shop = (stage.paint(name) for name in ("wallface", "glass", "roof", "shop"))
    fill = (rng.uniform(0.35, 0.65), rng.uniform(0.45, 0.65))
    x = (min(inner, inner + 9 * outward), max(inner, inner + 9 * outward))
    parts = []
    for face in box_faces(x, (0.0, height), z):
        parts.append(stage.on(face, [rectangle(0, 0, 1, 1)], wall, Raw.BUILDING))
        columns = max(int(face.width / rng.uniform(2.0, 3.0)), 1)
        low = storey / height
        windows = grid(columns, max(floors - 1, 1), fill, (0.02, low, 0.98, 1 - 0.5 / height))
        lit = rng.random(len(windows)) < 0.15
        if not lit.all():
            parts.append(stage.on(face, windows[~lit], glass, None))
        if lit.any():
            parts.append(stage.on(face, windows[lit], _scaled(glass, 1.6), None))
        parts.append(stage.on(face, grid(max(columns // 2, 1), 1, (0.75, 0.8), (0.02, 0.0, 0.98, low)), shop, None))
        parts.append(stage.on(face, [rectangle(0, 1 - 0.45 / height, 1, 1)], roof, None))
    return parts


def _barrier_face(inner: float, z: Span, height: float) -> Face:
    """An upright strip along the street at x = inner."""
    return Face((inner, 0.0, z[0]), (0.0, 0.0, z[1] - z[0]), (0.0, height, 0.0), "left" if inner > 0 else "right")


def wall(stage: Stage, face: Face) -> list[Part]:
    """A garden wall: solid, with courses of stone and a coping."""
    colour = stage.paint("wall")
    joints = [rectangle(0, level, 1, level + 0.04) for level in (0.22, 0.44, 0.66)]
    return [
        stage.on(face, [rectangle(0, 0, 1, 1)], colour, Raw.WALL),
        stage.on(face, joints, _scaled(colour, 0.72), None),
        stage.on(face, [rectangle(0, 0.9, 1, 1)], _scaled(colour, 1.2), None),
    ]


def fence(stage: Stage, face: Face) -> list[Part]:
    """Uprights between rails; one sees through them, but the label is the whole fence, as annotators do."""
    colour = stage.paint("fence")
    spacing = stage.rng.uniform(0.35, 0.6)
    bars = grid(max(int(face.width / spacing), 3), 1, (stage.rng.uniform(0.45, 0.7), 1.0), (0, 0.02, 1, 0.94))
    return [
        stage.on(face, [rectangle(0, 0, 1, 0.97)], None, Raw.FENCE),
        stage.on(face, bars, colour, None),
        stage.on(face, [rectangle(0, 0.78, 1, 0.9), rectangle(0, 0.14, 1, 0.26)], _scaled(colour, 0.85), Raw.FENCE),
    ]


def _railing(stage: Stage, x: float) -> Item:
    """A fence or a low wall along the kerb."""
    start = stage.rng.uniform(5.0, 12.0)
    z = (start, start + stage.rng.uniform(5.0, 10.0))
    if stage.chance(0.6):
        return Item(sum(z) / 2, fence(stage, _barrier_face(x, z, stage.rng.uniform(0.9, 1.2))))
    return Item(sum(z) / 2, wall(stage, _barrier_face(x, z, stage.rng.uniform(0.8, 1.1))))


def hedge(stage: Stage, inner: float, outward: float, z: Span) -> list[Part]:
    """A clipped hedge with a ragged top."""
    leaf, height = stage.paint("leaf"), stage.rng.uniform(1.4, 2.6)
    x = (min(inner, inner + 1.5 * outward), max(inner, inner + 1.5 * outward))
    parts = []
    for face in box_faces(x, (0.0, height), z):
        parts.append(stage.on(face, [rectangle(0, 0, 1, 1)], leaf, Raw.VEGETATION))
        for s in (np.arange(8) + 0.5) / 8:
            tuft = blob(stage.rng, float(s), stage.rng.uniform(0.2, 0.95), (0.09, 0.22))
            parts.append(stage.on(face, [tuft], _scaled(leaf, stage.rng.uniform(0.75, 1.2)), Raw.VEGETATION))
    return parts


def _garden(stage: Stage, inner: float, outward: float, z: Span) -> tuple[list[Part], list[Part]]:
    """A lawn with trees and, far back, a house: the ground and what stands on it."""
    far = inner + 40 * outward
    lawn = _ground(stage, (min(inner, far), max(inner, far)), z, stage.paint("terrain"), Raw.TERRAIN)
    parts = []
    if stage.chance(0.5):
        parts += building(stage, inner + stage.rng.uniform(6.0, 9.0) * outward, outward, z)
    trees = [
        actors.tree(
            stage,
            inner + stage.rng.uniform(2.2, 6.0) * outward,
            stage.rng.uniform(z[0] + 1.5, z[1]),
            stage.rng.uniform(0.8, 1.3),
        )
        for _ in range(int(stage.rng.integers(1, 4)))
    ]
    for item in sorted(trees, key=lambda item: -item.depth):
        parts += item.parts
    return [lawn], parts


def _plot(stage: Stage, kind: str, inner: float, outward: float, z: Span) -> tuple[list[Part], list[Part]]:
    """One plot beside the street: its ground and what stands on it."""
    if kind == "building":
        return [], building(stage, inner, outward, z)
    ground, parts = _garden(stage, inner, outward, z)
    if kind == "hedge":
        parts += hedge(stage, inner, outward, z)
    elif kind == "wall":
        parts += wall(stage, _barrier_face(inner, z, stage.rng.uniform(1.3, 2.4)))
    elif kind == "fence":
        parts += fence(stage, _barrier_face(inner, z, stage.rng.uniform(1.1, 1.9)))
    return ground, parts


def _roadside(stage: Stage, inner: float, outward: float) -> tuple[list[Part], list[tuple[float, list[Part]]]]:
    """All plots of one side of the street: the ground, and (distance, parts) of each plot."""
    ground: list[Part] = []
    plots = []
    z = stage.rng.uniform(1.5, 5.0) - 6.0
    while z < FAR * 0.8:
        end = z + stage.rng.uniform(7.0, 14.0)
        if end > 4.0:
            lawn, parts = _plot(stage, stage.choose(stage.domain.layout.plots), inner, outward, (max(z, 1.4), end))
            ground += lawn
            plots.append((end, parts))
        z = end
    return ground, plots


def _backdrop(stage: Stage) -> list[Part]:
    """The end of the street: houses and trees that close it against the sky."""
    parts = []
    for _ in range(5):
        x, wide, high = stage.rng.uniform(-40, 40), stage.rng.uniform(8, 20), stage.rng.uniform(5, 16)
        front = Face((x - wide / 2, 0.0, FAR + 10), (wide, 0.0, 0.0), (0.0, high, 0.0), "front")
        parts.append(stage.on(front, [rectangle(0, 0, 1, 1)], stage.paint("wallface"), Raw.BUILDING))
        parts.append(stage.on(front, grid(5, 4, (0.5, 0.5), (0, 0.2, 1, 0.95)), stage.paint("glass"), None))
    for x in stage.rng.uniform(-45, 45, 10):
        figure = Figure(stage, float(x), FAR)
        radius = stage.rng.uniform(2.5, 6.0)
        figure.add([blob(stage.rng, 0.0, radius * 0.7, (radius * 1.3, radius))], stage.paint("leaf"), Raw.VEGETATION)
    return parts


class Street:
    """The cross-section of one street, in metres from the camera: kerbs `left` and `right`, outer edges."""

    def __init__(self, stage: Stage) -> None:
        layout = stage.domain.layout
        self.left, self.right = -stage.span(layout.left), stage.span(layout.right)
        self.edges = {
            -1: self.left - stage.span(layout.pavement),
            1: self.right + stage.span(layout.pavement),
        }
        self.verge = {side: stage.rng.uniform(1.5, 4.0) if stage.chance(layout.verge) else 0.0 for side in (-1, 1)}

    def kerb(self, side: int) -> float:
        """x of the kerb of one side (-1 left, 1 right)."""
        return self.left if side < 0 else self.right

    def walk(self, stage: Stage, side: int) -> float:
        """x of somewhere on the pavement of one side."""
        return float(self.kerb(side) + side * stage.rng.uniform(0.5, abs(self.edges[side] - self.kerb(side)) - 0.4))


def _road(stage: Stage, street: Street) -> list[Part]:
    """Road with its markings, pavements, kerbs and strips of grass."""
    z, everything = (1.0, 400.0), 300.0
    base = stage.paint("pavement")
    parts = [_ground(stage, (-everything, everything), z, base, Raw.SIDEWALK)]
    for side in (-1, 1):
        if street.verge[side]:
            strip = sorted((street.edges[side], street.edges[side] + street.verge[side] * side))
            parts.append(_ground(stage, (strip[0], strip[1]), z, stage.paint("terrain"), Raw.TERRAIN))
    parts.append(_ground(stage, (street.left, street.right), z, stage.paint("road"), Raw.ROAD))
    mark, kerb = stage.paint("marking"), stage.paint("kerb")
    for side in (-1, 1):
        edge = sorted((street.kerb(side), street.kerb(side) + 0.22 * side))
        parts.append(_ground(stage, (edge[0], edge[1]), z, kerb, None))
    centre, phase = (street.left + street.right) / 2 - 0.3, stage.rng.uniform(0, 6)
    for start in (np.arange(1.2, 60, 6.0) + phase).tolist():
        parts.append(_ground(stage, (centre - 0.1, centre + 0.1), (start, start + 3.0), mark, None))
    if stage.chance(0.25):
        near = stage.rng.uniform(6, 12)
        for x in np.arange(street.left + 0.4, street.right - 0.6, 1.1).tolist():
            parts.append(_ground(stage, (x, x + 0.55), (near, near + 2.5), mark, None))
    return parts


def _rails(stage: Stage, x: float) -> list[Part]:
    return [
        _ground(stage, (x + gauge - 0.07, x + gauge + 0.07), (1.0, FAR), (64.0, 62.0, 62.0), None)
        for gauge in (-0.7, 0.7)
    ]


def _traffic(stage: Stage, street: Street) -> tuple[list[Item], list[Part]]:
    """Vehicles in up to four lanes (parked, oncoming, ours, parked) or crossing; the rails under trams."""
    layout, items, rails = stage.domain.layout, [], []
    lanes = [
        (street.left + 1.2, "oncoming", stage.rng.uniform(4.0, 14.0)),
        (street.left + 3.4, "oncoming", stage.rng.uniform(8.0, 30.0)),
        (street.right - 3.6, "along", stage.rng.uniform(10.0, 40.0)),
        (street.right - 1.2, "along", stage.rng.uniform(5.0, 16.0)),
    ]
    if street.right - street.left < 9.0:
        lanes.pop(2 if stage.chance(0.5) else 1)
    for x, way, z in lanes:
        if stage.chance(0.35):
            continue
        while z < 45.0:
            kind = stage.choose(layout.traffic)
            items.append(actors.VEHICLES[kind](stage, x, max(z, 8.0) if kind != "car" else z, way))
            if kind == "train":
                rails += _rails(stage, x)
            z += actors.LENGTHS[kind] + stage.span(layout.lane_gap) + (3.0 if kind != "car" else 0.0)
    if stage.chance(0.3):
        kind = stage.choose({**layout.traffic, "train": 0.4})
        items.append(actors.VEHICLES[kind](stage, stage.rng.uniform(-6, 6), stage.rng.uniform(14, 24), "across"))
    return items, rails


def _crowd(stage: Stage, street: Street) -> list[Item]:
    """Who and what stands on the pavements, and the cycles on the road."""
    layout, rng, items = stage.domain.layout, stage.rng, []

    def scatter(
        mean: float, make: Callable[[float, float], Item], near: float, far: float, kerbside: bool = False
    ) -> None:
        for _ in range(int(rng.poisson(mean))):
            side = -1 if stage.chance(0.5) else 1
            x = street.kerb(side) + 0.35 * side if kerbside else street.walk(stage, side)
            items.append(make(x, float(rng.uniform(near, far))))

    scatter(layout.people, lambda x, z: actors.person(stage, x, z), 5.5, 15)
    scatter(layout.trees, lambda x, z: actors.tree(stage, x, z), 8, 30, kerbside=True)
    scatter(layout.signs, lambda x, z: actors.sign(stage, x, z), 6, 16, kerbside=True)
    scatter(layout.lights, lambda x, z: actors.traffic_light(stage, x, z), 7, 16, kerbside=True)
    scatter(layout.poles, lambda x, z: actors.street_lamp(stage, x, z), 6.5, 22, kerbside=True)
    scatter(layout.bins, lambda x, z: actors.bollard(stage, x, z), 6, 16)
    scatter(layout.bicycles, lambda x, z: actors.bicycle(stage, x, z, ridden=False), 5.5, 13)
    scatter(layout.motorcycles, lambda x, z: actors.motorcycle(stage, x, z, ridden=False), 5.5, 13)
    for side in (-1, 1):
        if stage.chance(0.3):
            items.append(_railing(stage, street.kerb(side) + 0.3 * side))
    for _ in range(int(rng.poisson(layout.riders))):
        cycle = (
            actors.bicycle
            if stage.chance(layout.bicycles / (layout.bicycles + layout.motorcycles))
            else actors.motorcycle
        )
        items.append(cycle(stage, rng.uniform(street.left + 1, street.right - 1), rng.uniform(5.5, 14), ridden=True))
    for _ in range(int(rng.poisson(0.4 * layout.people / 3))):
        items.append(actors.person(stage, rng.uniform(street.left, street.right), rng.uniform(7, 16)))
    return items


def _hood(stage: Stage) -> list[Part]:
    """The bonnet of the own car along the lower border: not evaluated."""
    camera, paint = stage.camera, stage.paint("hood")
    x = np.linspace(0, 1, 17)
    top = 1 - 0.04 - 0.035 * np.sin(np.pi * x)
    outline = np.stack([np.r_[x, 1.0, 0.0] * camera.width, np.r_[top, 1.1, 1.1] * camera.height], -1)
    gleam = np.array([(0.2, 0.965), (0.5, 0.94), (0.8, 0.965), (0.5, 0.952)]) * (camera.width, camera.height)
    return [
        Part([camera.lift(outline, NEAR)], paint, Raw.EGO_VEHICLE),
        Part([camera.lift(gleam, NEAR)], _scaled(paint, 1.7), None),
    ]


def compose(domain: Domain, size: tuple[int, int], rng: np.random.Generator) -> Scene:
    """Draw one street of `domain` from `rng`, for pictures of `size` (width, height) in pixels."""
    stage = Stage(domain, size, rng)
    look, street = domain.look, Street(stage)
    ground = _road(stage, street)
    plots: list[tuple[float, list[Part]]] = []
    for side in (-1, 1):
        lawns, row = _roadside(stage, street.edges[side] + street.verge[side] * side, float(side))
        ground += lawns
        plots += row
    backdrop = _backdrop(stage)
    traffic, rails = _traffic(stage, street)
    items = sorted(traffic + _crowd(stage, street), key=lambda item: -item.depth)
    standing = [parts for _, parts in sorted(plots, key=lambda plot: -plot[0])] + [item.parts for item in items]
    parts = backdrop + [part for group in standing for part in group]
    if stage.chance(domain.layout.hood):
        parts += _hood(stage)
    tops, lows = look.sky_top, look.sky_low
    sky = (tops[int(rng.integers(len(tops)))], lows[int(rng.integers(len(lows)))])
    clouds, shadow = stage.span(look.clouds), stage.span(look.shadow)
    return Scene(stage.camera, ground + rails, stage.shadows, parts, sky, clouds, shadow, stage.haze)
