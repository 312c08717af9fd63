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
    focal=(0.78, 0.92),
    height=(1.7, 2.1),
    yaw=(-3.0, 3.0),
    pitch=(-4.0, -1.0),
    roll=(0.0, 0.0),
    bend=0.0004,
    half_road=(5.2, 7.6),
    pavement=(3.2, 6.0),
    verge=0.3,
    openings={"house": 4.4, "wall": 1.1, "fence": 2.2, "park": 1.8},
    open_share=0.5,
    block_length=(10.0, 22.0),
    storey_height=(6.0, 16.0),
    house_spread=4.0,
    roofs=0.25,
    shops=0.35,
    crossing=0.35,
    parked=(0.0, 0.55),
    cars=2.2,
    bus=0.09,
    truck=0.12,
    tram=0.055,
    persons=7.5,
    cyclists=0.2,
    motorcyclists=0.12,
    bicycles=0.75,
    motorcycles=0.14,
    signs=2.6,
    signals=1.4,
    lamps=(18.0, 26.0),
    trees=0.45,
    hedges=0.2,
    railing=0.12,
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
    focal=(0.92, 1.15),
    height=(1.3, 1.65),
    yaw=(-5.0, 5.0),
    pitch=(-4.0, 1.0),
    roll=(-1.5, 1.5),
    bend=0.001,
    half_road=(3.8, 6.6),
    pavement=(3.0, 6.5),
    verge=0.3,
    openings={"house": 3.8, "wall": 1.3, "fence": 2.6, "park": 2.2},
    open_share=0.45,
    block_length=(8.0, 26.0),
    storey_height=(8.0, 24.0),
    house_spread=5.0,
    roofs=0.4,
    shops=0.5,
    crossing=0.4,
    parked=(0.0, 0.65),
    cars=1.6,
    bus=0.10,
    truck=0.10,
    tram=0.06,
    persons=7.0,
    cyclists=0.22,
    motorcyclists=0.12,
    bicycles=0.8,
    motorcycles=0.16,
    signs=2.8,
    signals=1.2,
    lamps=(20.0, 34.0),
    trees=0.55,
    hedges=0.25,
    railing=0.12,
    tint=16.0,
    palette={
        "road": ((82, 82, 82), (90, 88, 86), (72, 74, 78), (98, 95, 92)),
        "pavement": ((146, 142, 136), (160, 150, 140), (134, 132, 130)),
        "kerb": ((160, 158, 154), (140, 140, 138)),
        "marking": ((215, 215, 210), (190, 190, 186)),
        "grass": ((100, 129, 33), (126, 132, 46), (87, 116, 46), (145, 129, 59)),
        "facade": (
            (153, 131, 105),
            (173, 157, 132),
            (128, 102, 83),
            (192, 179, 157),
            (154, 90, 64),
            (142, 142, 145),
            (187, 155, 103),
            (107, 97, 94),
        ),
        "roof": ((129, 59, 40), (78, 71, 74), (97, 78, 69)),
        "shop": ((58, 60, 66), (84, 60, 54), (66, 76, 70), (110, 106, 98)),
        "board": ((188, 44, 35), (48, 80, 160), (193, 161, 49), (190, 190, 190)),
        "glass": ((54, 62, 72), (84, 96, 108), (40, 44, 50), (112, 122, 130)),
        "wall": ((125, 115, 103), (148, 100, 74), (147, 144, 134)),
        "fence": ((122, 90, 61), (171, 168, 155), (56, 72, 63), (90, 90, 93)),
        "gap": ((74, 72, 58), (84, 92, 66), (60, 64, 58)),
        "pole": ((104, 106, 106), (84, 86, 88), (124, 126, 124), (70, 80, 74)),
        "case": ((30, 32, 32), (40, 42, 40), (70, 72, 60)),
        "leaves": ((67, 99, 22), (88, 108, 24), (50, 82, 31), (131, 112, 19)),
        "bark": ((80, 68, 56), (64, 58, 52)),
        "car": (
            (33, 35, 40),
            (87, 90, 96),
            (167, 170, 173),
            (216, 216, 213),
            (37, 56, 113),
            (154, 17, 17),
            (59, 72, 65),
            (145, 129, 101),
        ),
        "car_glass": ((40, 46, 52), (64, 74, 82), (92, 102, 108)),
        "bus": ((202, 196, 180), (225, 40, 24), (236, 181, 5), (51, 115, 179)),
        "truck": ((200, 200, 197), (59, 91, 155), (178, 34, 25), (109, 113, 106)),
        "tram": ((201, 191, 143), (221, 29, 22), (65, 129, 97), (216, 184, 0)),
        "top": ((43, 46, 59), (98, 92, 85), (147, 44, 44), (55, 81, 129), (180,) * 3),
        "legs": ((39, 46, 68), (56, 56, 59), (101, 85, 66)),
        "skin": ((206, 170, 148), (168, 126, 100), (104, 76, 60)),
        "bicycle": ((50, 50, 56), (150, 38, 31), (60, 92, 140), (149, 152, 155)),
        "motorcycle": ((44, 44, 50), (154, 26, 19), (54, 70, 118), (150, 150, 150)),
    },
    weather=ROAD_WEATHER,
    sensor=True,
)

STYLES = {"rendered": RENDERED, "camera": CAMERA}
