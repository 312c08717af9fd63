"""What tells the two domains of rendered streets apart: layout, colours, weather.

Ranges are (low, high), drawn per picture or per thing; counts are expected numbers
per picture. Nothing here knows about any method of adaptation: 'rendered' imitates a
simple game engine, 'camera' a cheap camera behind a windscreen in European weather.
"""

import dataclasses

from tufl_jax.data.streets_weather import (
    GAME_WEATHER,
    ROAD_WEATHER,
    Colours,
    Range,
    Weather,
)


@dataclasses.dataclass(frozen=True)
class Style:
    """One domain."""

    number: int  # of the domain's random stream
    focal: Range  # over the picture's width
    height: Range  # of the camera, metres
    yaw: Range  # degrees, as pitch and roll
    pitch: Range
    roll: Range
    bend: float  # largest
    half_road: Range
    pavement: Range
    verge: float  # probability of grass between road and pavement
    openings: dict[str, float]  # weights of what interrupts one side's houses
    open_share: float  # of a side that has such openings
    block_length: Range
    storey_height: Range  # of a house, metres in all
    house_spread: float  # how much houses of one street differ in height
    roofs: float  # probability of a pitched roof
    shops: float
    crossing: float
    parked: Range  # share of the kerb that is taken, left and right
    cars: float
    bus: float
    truck: float
    tram: float
    persons: float
    cyclists: float
    motorcyclists: float
    bicycles: float
    motorcycles: float
    signs: float
    signals: float
    lamps: Range  # metres between them
    trees: float  # probability of a row of trees along one side
    hedges: float
    railing: float  # probability of a railing at the kerb
    tint: float  # spread of a colour from thing to thing
    palette: dict[str, Colours]
    weather: dict[str, Weather]
    sensor: bool  # texture, blur, noise, vignetting and colour of a real camera


RENDERED = Style(
    number=0,
    focal=(0.52, 0.6),
    height=(1.7, 2.1),
    yaw=(-3.0, 3.0),
    pitch=(-4.0, -1.0),
    roll=(0.0, 0.0),
    bend=0.0004,
    half_road=(5.2, 7.6),
    pavement=(2.6, 4.6),
    verge=0.25,
    openings={"house": 5.0, "wall": 0.45, "fence": 1.5, "park": 2.0},
    open_share=0.45,
    block_length=(10.0, 22.0),
    storey_height=(6.0, 16.0),
    house_spread=4.0,
    roofs=0.25,
    shops=0.35,
    crossing=0.35,
    parked=(0.0, 0.55),
    cars=2.2,
    bus=0.10,
    truck=0.11,
    tram=0.045,
    persons=3.2,
    cyclists=0.10,
    motorcyclists=0.05,
    bicycles=0.22,
    motorcycles=0.05,
    signs=1.6,
    signals=0.5,
    lamps=(18.0, 26.0),
    trees=0.45,
    hedges=0.2,
    railing=0.06,
    tint=12.0,
    palette={
        "road": ((92, 92, 100), (108, 106, 108), (78, 79, 86)),
        "pavement": ((172, 160, 150), (186, 178, 170), (158, 150, 152)),
        "kerb": ((205, 202, 196), (190, 190, 188)),
        "marking": ((245, 245, 245), (250, 225, 90)),
        "grass": ((96, 176, 60), (120, 186, 70), (140, 170, 80)),
        "facade": (
            (196, 84, 60),
            (222, 186, 120),
            (236, 214, 176),
            (168, 188, 206),
            (206, 140, 108),
            (150, 96, 78),
            (214, 204, 196),
            (180, 170, 96),
        ),
        "roof": ((156, 62, 44), (92, 80, 82), (120, 70, 60)),
        "shop": ((70, 90, 120), (120, 50, 50), (50, 100, 80), (90, 80, 70)),
        "board": ((220, 60, 50), (50, 90, 200), (240, 200, 60), (240, 240, 240)),
        "glass": ((60, 84, 116), (80, 110, 140), (48, 60, 84)),
        "wall": ((150, 140, 128), (176, 110, 86), (166, 164, 160)),
        "fence": ((150, 104, 62), (224, 222, 214), (70, 96, 76)),
        "gap": ((96, 76, 56), (110, 128, 84), (60, 80, 60)),
        "pole": ((128, 130, 134), (104, 108, 112), (150, 152, 156)),
        "case": ((34, 36, 38), (44, 60, 44)),
        "leaves": ((62, 140, 46), (84, 160, 52), (46, 120, 56), (112, 140, 60)),
        "bark": ((104, 72, 46), (86, 64, 48)),
        "car": (
            (206, 36, 32),
            (40, 80, 190),
            (236, 236, 238),
            (40, 40, 44),
            (236, 196, 40),
            (170, 176, 184),
            (40, 130, 84),
        ),
        "car_glass": ((56, 76, 100), (44, 54, 70)),
        "bus": ((236, 190, 40), (206, 50, 40), (50, 120, 200)),
        "truck": ((220, 120, 40), (50, 90, 180), (230, 230, 230), (180, 40, 40)),
        "tram": ((60, 150, 90), (220, 60, 50), (70, 130, 210)),
        "top": ((210, 50, 60), (50, 80, 190), (240, 220, 80), (60, 150, 90)),
        "legs": ((44, 60, 120), (60, 60, 66), (120, 96, 70)),
        "skin": ((232, 190, 160), (190, 140, 104), (120, 82, 60)),
        "bicycle": ((210, 50, 40), (50, 110, 200), (60, 150, 80)),
        "motorcycle": ((200, 40, 36), (40, 70, 180), (40, 40, 44), (230, 130, 30)),
    },
    weather=GAME_WEATHER,
    sensor=False,
)

CAMERA = Style(
    number=1,
    focal=(0.68, 0.95),
    height=(1.15, 1.5),
    yaw=(-7.0, 7.0),
    pitch=(-4.0, 3.0),
    roll=(-2.0, 2.0),
    bend=0.0014,
    half_road=(3.8, 6.6),
    pavement=(2.2, 5.5),
    verge=0.2,
    openings={"house": 4.0, "wall": 0.7, "fence": 1.5, "park": 2.6},
    open_share=0.4,
    block_length=(8.0, 26.0),
    storey_height=(8.0, 24.0),
    house_spread=5.0,
    roofs=0.4,
    shops=0.5,
    crossing=0.4,
    parked=(0.0, 0.8),
    cars=2.0,
    bus=0.09,
    truck=0.09,
    tram=0.04,
    persons=5.0,
    cyclists=0.16,
    motorcyclists=0.05,
    bicycles=0.6,
    motorcycles=0.08,
    signs=2.6,
    signals=0.7,
    lamps=(20.0, 34.0),
    trees=0.55,
    hedges=0.25,
    railing=0.1,
    tint=16.0,
    palette={
        "road": ((84, 84, 84), (96, 94, 92), (72, 74, 78), (108, 104, 100)),
        "pavement": ((132, 128, 124), (148, 140, 132), (116, 114, 114)),
        "kerb": ((160, 158, 154), (140, 140, 138)),
        "marking": ((215, 215, 210), (190, 190, 186)),
        "grass": ((104, 122, 62), (124, 128, 74), (92, 110, 66), (138, 128, 84)),
        "facade": (
            (146, 132, 116),
            (168, 158, 142),
            (120, 104, 92),
            (188, 180, 166),
            (136, 96, 80),
            (142, 142, 144),
            (176, 156, 124),
            (104, 98, 96),
        ),
        "roof": ((110, 66, 54), (76, 72, 74), (92, 80, 74)),
        "shop": ((58, 60, 66), (84, 60, 54), (66, 76, 70), (110, 106, 98)),
        "board": ((150, 60, 54), (60, 80, 130), (180, 160, 90), (190, 190, 190)),
        "glass": ((54, 62, 72), (84, 96, 108), (40, 44, 50), (112, 122, 130)),
        "wall": ((122, 116, 108), (134, 104, 88), (146, 144, 138)),
        "fence": ((112, 92, 74), (170, 168, 160), (60, 70, 64), (90, 90, 92)),
        "gap": ((74, 72, 58), (84, 92, 66), (60, 64, 58)),
        "pole": ((104, 106, 106), (84, 86, 88), (124, 126, 124), (70, 80, 74)),
        "case": ((30, 32, 32), (40, 42, 40), (70, 72, 60)),
        "leaves": ((72, 92, 44), (90, 102, 50), (56, 76, 44), (122, 110, 52)),
        "bark": ((80, 68, 56), (64, 58, 52)),
        "car": (
            (34, 35, 38),
            (88, 90, 94),
            (168, 170, 172),
            (216, 216, 214),
            (44, 56, 92),
            (118, 32, 32),
            (62, 70, 66),
            (140, 130, 112),
        ),
        "car_glass": ((40, 46, 52), (64, 74, 82), (92, 102, 108)),
        "bus": ((200, 196, 186), (176, 60, 50), (214, 180, 70), (70, 110, 150)),
        "truck": ((200, 200, 198), (70, 90, 130), (140, 50, 44), (110, 112, 108)),
        "tram": ((196, 190, 160), (170, 50, 46), (80, 120, 100), (200, 180, 60)),
        "top": ((44, 46, 54), (96, 92, 88), (120, 56, 56), (64, 80, 110), (180,) * 3),
        "legs": ((42, 46, 60), (56, 56, 58), (96, 86, 74)),
        "skin": ((206, 170, 148), (168, 126, 100), (104, 76, 60)),
        "bicycle": ((50, 50, 54), (120, 50, 46), (70, 90, 120), (150, 152, 154)),
        "motorcycle": ((44, 44, 48), (120, 40, 36), (60, 70, 100), (150, 150, 150)),
    },
    weather=ROAD_WEATHER,
    sensor=True,
)

STYLES = {"rendered": RENDERED, "camera": CAMERA}
