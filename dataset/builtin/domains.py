"""The two built-in domains: the same kind of street, as a game and as a camera shows it.

All values are our choice. The layout part of a Domain says how often things occur and where the camera stands; the look
part says how materials are coloured and lit, and what the sensor does to the picture. Both domains share the shapes of
all classes, and no class has the colours that another one has in the other domain, so that what is learnt on one can be
used on the other.
"""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[float, float, float]
Span = tuple[float, float]
Paints = tuple[RGB, ...]


@dataclass(frozen=True)
class Layout:
    """How a street is laid out. Spans are drawn uniformly for each image; counts are Poisson means."""

    eye: Span  # metres
    focal: Span  # in image widths
    horizon: Span  # in image heights, from the top
    left: Span  # metres from the camera to the left kerb
    right: Span  # metres from the camera to the right kerb
    pavement: Span  # metres
    floors: tuple[int, int]
    plots: dict[str, float]  # what stands beside the street -> relative frequency
    traffic: dict[str, float]  # what drives or parks -> relative frequency
    lane_gap: Span  # metres between vehicles of one lane
    verge: float  # probability of a strip of grass along the pavement
    people: float
    riders: float
    bicycles: float
    motorcycles: float
    trees: float
    signs: float
    lights: float
    poles: float
    bins: float
    hood: float  # probability that the bonnet of the own car is seen (void)


@dataclass(frozen=True)
class Look:
    """How a street is seen. Colours are sRGB in 0..255; spans are drawn uniformly for each image."""

    paints: dict[str, Paints]  # material -> colours to choose from
    paint_jitter: float  # spread of a chosen colour, in units of 0..255
    sky_top: Paints
    sky_low: Paints
    clouds: Span
    sun: Span  # 0: the same light from everywhere, 1: hard light from one side
    shadow: Span  # how much of the light a cast shadow takes
    haze_colour: RGB
    haze_range: Span  # metres after which 63 % of a colour is haze
    coarse: float  # strength of soft blotches in surfaces, of 1
    fine: float  # strength of grain in surfaces, of 1
    exposure: Span  # gain
    contrast: Span  # slope about mid-grey
    gamma: Span
    saturation: Span
    balance: tuple[Span, Span, Span]  # gains of R, G, B
    bloom: float  # glow around bright parts, of 1
    sharpen: float  # unsharp masking, of 1
    blur: Span  # standard deviation in pixels of an image 256 wide
    vignette: Span  # loss of light in the corners, of 1
    noise: Span  # standard deviation of the sensor noise, of 1


@dataclass(frozen=True)
class Domain:
    """One of the two domains: a name, how its streets are laid out, and how they look."""

    name: str
    layout: Layout
    look: Look


GAME = Domain(
    name="game",
    layout=Layout(
        eye=(1.35, 2.1),
        focal=(0.62, 0.8),
        horizon=(0.42, 0.54),
        left=(4.0, 7.0),
        right=(2.8, 5.0),
        pavement=(2.2, 4.0),
        floors=(2, 8),
        plots={"building": 5.0, "wall": 1.6, "fence": 1.6, "hedge": 0.8, "park": 1.0},
        traffic={"car": 4.0, "truck": 1.5, "bus": 1.1, "train": 1.0},
        lane_gap=(4.0, 16.0),
        verge=0.55,
        people=2.6,
        riders=0.9,
        bicycles=0.7,
        motorcycles=0.8,
        trees=1.2,
        signs=1.5,
        lights=1.5,
        poles=1.5,
        bins=0.5,
        hood=0.0,
    ),
    look=Look(
        paints={
            "road": ((80, 80, 86), (74, 74, 78), (88, 86, 86)),
            "marking": ((238, 222, 150), (240, 240, 236)),
            "pavement": ((176, 166, 152), (166, 160, 154), (186, 176, 160)),
            "kerb": ((200, 192, 180),),
            "terrain": ((168, 158, 88), (150, 154, 80), (178, 164, 102)),
            "wallface": ((204, 176, 140), (190, 150, 120), (170, 165, 165), (214, 200, 176), (150, 120, 108)),
            "roof": ((120, 84, 70), (96, 96, 104)),
            "glass": ((84, 120, 156), (66, 92, 124), (110, 148, 176)),
            "shop": ((60, 66, 80), (110, 60, 52), (46, 80, 90)),
            "wall": ((186, 130, 96), (172, 148, 124), (160, 112, 90)),
            "fence": ((120, 88, 60), (70, 74, 78), (142, 106, 74)),
            "leaf": ((62, 132, 48), (78, 148, 58), (54, 116, 52)),
            "trunk": ((96, 70, 48),),
            "pole": ((118, 122, 128), (94, 98, 104)),
            "lamp": ((36, 38, 42), (58, 54, 34)),
            "sign": ((214, 40, 36), (36, 84, 190), (240, 196, 40), (40, 140, 80)),
            "skin": ((206, 156, 124), (146, 100, 76), (226, 180, 150)),
            "top": (
                (200, 60, 60),
                (60, 80, 160),
                (230, 230, 226),
                (40, 40, 46),
                (226, 170, 60),
                (90, 150, 110),
            ),
            "trousers": ((46, 54, 84), (36, 36, 40), (120, 104, 84)),
            "helmet": ((240, 240, 240), (220, 40, 40), (40, 60, 160), (250, 200, 40)),
            "car": (
                (190, 30, 34),
                (36, 74, 160),
                (228, 228, 230),
                (40, 42, 48),
                (230, 170, 40),
                (150, 156, 166),
            ),
            "bus": ((220, 60, 40), (40, 110, 190), (60, 150, 80)),
            "cargo": ((226, 226, 222), (200, 190, 170), (170, 180, 196)),
            "cab": ((200, 44, 40), (40, 80, 170), (230, 180, 50)),
            "train": ((236, 226, 190),),
            "skirt": ((196, 36, 46), (34, 120, 80), (40, 76, 160)),
            "tyre": ((28, 28, 30),),
            "cycle": ((180, 40, 40), (40, 60, 150), (36, 36, 38), (60, 140, 100)),
            "bin": ((70, 96, 70), (80, 80, 90)),
            "hood": ((40, 42, 48),),
        },
        paint_jitter=12.0,
        sky_top=((74, 136, 222), (92, 150, 226), (110, 130, 200)),
        sky_low=((178, 212, 244), (236, 214, 190), (196, 220, 240)),
        clouds=(0.0, 0.45),
        sun=(0.5, 1.0),
        shadow=(0.35, 0.6),
        haze_colour=(196, 212, 232),
        haze_range=(140.0, 320.0),
        coarse=0.09,
        fine=0.05,
        exposure=(0.85, 1.15),
        contrast=(0.98, 1.2),
        gamma=(0.95, 1.1),
        saturation=(0.95, 1.3),
        balance=((1.0, 1.08), (0.98, 1.02), (0.92, 1.0)),
        bloom=0.18,
        sharpen=0.5,
        blur=(0.0, 0.25),
        vignette=(0.0, 0.1),
        noise=(0.0, 0.008),
    ),
)

CAMERA = Domain(
    name="camera",
    layout=Layout(
        eye=(1.2, 1.45),
        focal=(0.74, 0.86),
        horizon=(0.43, 0.5),
        left=(3.4, 5.6),
        right=(2.2, 4.0),
        pavement=(2.6, 4.6),
        floors=(3, 5),
        plots={"building": 4.0, "wall": 1.4, "fence": 1.5, "hedge": 1.4, "park": 1.4},
        traffic={"car": 5.0, "truck": 1.1, "bus": 1.2, "train": 1.2},
        lane_gap=(5.0, 20.0),
        verge=0.55,
        people=3.4,
        riders=1.5,
        bicycles=1.5,
        motorcycles=0.7,
        trees=1.8,
        signs=1.9,
        lights=1.4,
        poles=1.8,
        bins=0.5,
        hood=0.85,
    ),
    look=Look(
        paints={
            "road": ((104, 106, 108), (94, 96, 98), (112, 110, 108)),
            "marking": ((216, 216, 212),),
            "pavement": ((164, 148, 138), (156, 146, 140), (172, 146, 132)),
            "kerb": ((186, 184, 180),),
            "terrain": ((136, 146, 84), (124, 138, 80), (146, 146, 96)),
            "wallface": ((206, 190, 150), (190, 156, 134), (182, 178, 170), (196, 166, 124), (220, 214, 200)),
            "roof": ((130, 76, 62), (84, 82, 84)),
            "glass": ((72, 90, 108), (94, 110, 124), (56, 68, 82)),
            "shop": ((70, 66, 62), (96, 76, 62), (60, 74, 72)),
            "wall": ((164, 112, 90), (152, 112, 92), (174, 132, 108)),
            "fence": ((100, 88, 74), (74, 80, 78), (112, 98, 84)),
            "leaf": ((66, 106, 46), (80, 116, 56), (58, 92, 46)),
            "trunk": ((84, 74, 64),),
            "pole": ((128, 130, 130), (104, 108, 106)),
            "lamp": ((40, 46, 44), (52, 58, 54)),
            "sign": ((196, 48, 46), (46, 80, 168), (226, 190, 60)),
            "skin": ((210, 166, 140), (220, 178, 154), (150, 110, 88)),
            "top": (
                (60, 62, 72),
                (120, 60, 60),
                (70, 84, 116),
                (40, 42, 44),
                (180, 176, 170),
                (110, 104, 84),
            ),
            "trousers": ((50, 58, 80), (42, 42, 46), (96, 90, 80)),
            "helmet": ((224, 224, 220), (190, 60, 56), (50, 60, 130), (230, 190, 60)),
            "car": (
                (150, 156, 160),
                (60, 62, 66),
                (206, 206, 204),
                (40, 52, 84),
                (130, 40, 40),
                (100, 112, 104),
            ),
            "bus": ((190, 80, 60), (70, 110, 150), (214, 190, 90)),
            "cargo": ((212, 212, 206), (176, 172, 160), (150, 160, 170)),
            "cab": ((170, 60, 52), (60, 84, 140), (206, 200, 190)),
            "train": ((222, 214, 186),),
            "skirt": ((172, 52, 54), (56, 110, 84), (60, 84, 140)),
            "tyre": ((34, 34, 34),),
            "cycle": ((120, 50, 48), (48, 56, 100), (40, 40, 42), (140, 140, 140)),
            "bin": ((80, 92, 80), (84, 84, 86)),
            "hood": ((52, 56, 58),),
        },
        paint_jitter=13.0,
        sky_top=((206, 212, 216), (190, 204, 220), (214, 214, 210)),
        sky_low=((232, 234, 234), (224, 230, 236)),
        clouds=(0.1, 0.5),
        sun=(0.0, 0.4),
        shadow=(0.1, 0.3),
        haze_colour=(206, 210, 210),
        haze_range=(100.0, 200.0),
        coarse=0.1,
        fine=0.07,
        exposure=(0.84, 1.04),
        contrast=(0.83, 1.0),
        gamma=(0.95, 1.2),
        saturation=(0.62, 0.88),
        balance=((0.92, 1.0), (1.0, 1.05), (0.92, 1.02)),
        bloom=0.05,
        sharpen=0.0,
        blur=(0.35, 0.65),
        vignette=(0.12, 0.3),
        noise=(0.01, 0.022),
    ),
)
