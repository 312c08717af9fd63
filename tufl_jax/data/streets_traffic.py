"""What grows, stands at the kerb and moves on a rendered street."""

import math
from functools import partial

from tufl_jax.data import streets_furniture as furniture
from tufl_jax.data import streets_people, streets_vehicles
from tufl_jax.data.streets_scene import ROAD, Scene, Shape
from tufl_jax.data.streets_view import Place


def plant(scene: Scene, place: Place, order: float | None = None) -> None:
    height = scene.dice.between(4.5, 9.5)
    paint = partial(
        furniture.tree,
        leaves=scene.colour("leaves"),
        bark=scene.colours["bark"],
        height=height,
    )
    shape = Shape(0.4, height * 0.55, height, ball=True)
    scene.add(place, paint, margin=height / 2, order=order, shape=shape)


def plant_hedge(scene: Scene, place: Place, length: float) -> None:
    height = scene.dice.between(0.7, 1.6)
    paint = partial(
        furniture.hedge, leaves=scene.colour("leaves"), length=length, height=height
    )
    shape = Shape(length, 1.0, height)
    order = place.z + length / 2
    scene.add(place, paint, margin=length, order=order, shape=shape)


def kerbside(scene: Scene, side: int) -> None:
    """What stands in a row at the kerb: lamps, trees, railings, signs, parked cars."""
    dice, style = scene.dice, scene.style
    kerb = side * (scene.half + 0.55)
    z, step = dice.between(4, 18), dice.between(*style.lamps)
    while z < 90:
        paint = partial(furniture.lamp_post, colour=scene.colours["pole"], inward=-side)
        scene.add(Place(kerb, z), paint, margin=4.0, shape=Shape(0.2, 0.2, 7.0))
        z += step
    if dice.chance(style.trees):
        z, step = dice.between(5, 12), dice.between(7, 13)
        while z < 80:
            if scene.open(z):
                plant(scene, Place(side * (scene.half + 1.1), z))
            z += step
    if dice.chance(style.hedges):
        place = Place(scene.line(side) - side * 0.6, dice.between(8, 30))
        if scene.open(place.z):
            plant_hedge(scene, place, dice.between(6, 12))
    if dice.chance(style.railing):
        length = dice.between(7, 14)
        place = Place(side * (scene.half + 0.3), dice.between(9, 26))
        paint = partial(
            furniture.fence,
            colour=scene.colour("fence"),
            gap=scene.colour("gap"),
            length=length,
            height=1.05,
        )
        order = place.z + length / 2
        scene.add(place, paint, margin=length, order=order)
    for _ in range(dice.poisson(style.signs / 2)):
        place = Place(kerb + side * dice.between(0, 0.6), 6 + 30 * dice.unit() ** 1.8)
        paint = partial(furniture.traffic_sign, colour=scene.colours["pole"])
        scene.add(place, paint, shape=Shape(0.1, 0.6, 2.6))
    _signals(scene, side, kerb)
    _parked(scene, side)


def _signals(scene: Scene, side: int, kerb: float) -> None:
    dice, places = scene.dice, []
    if scene.crossing is not None and dice.chance(0.7):
        places = [scene.crossing - 6.5]
        if dice.chance(0.5):
            places.append(scene.crossing + 6.5)
    elif dice.chance(scene.style.signals / 4):
        places = [dice.between(8, 24)]
    for z in places:
        paint = partial(
            furniture.traffic_light,
            colour=scene.colours["pole"],
            inward=-side,
            case=scene.colours["case"],
        )
        scene.add(Place(kerb, z), paint, margin=4.5, shape=Shape(0.2, 0.3, 3.5))


def _parked(scene: Scene, side: int) -> None:
    dice, taken = scene.dice, scene.dice.between(*scene.style.parked)
    z = dice.between(3.5, 9)
    while z < 65:
        if dice.chance(taken) and scene.open(z):
            heading = (0.0 if side > 0 else math.pi) + dice.between(-0.03, 0.03)
            _car(scene, Place(side * (scene.half - 1.1), z, heading))
        z += dice.between(5.6, 7.5)


def _car(scene: Scene, place: Place) -> None:
    paint = partial(
        streets_vehicles.car,
        colour=scene.colour("car"),
        glass=scene.colour("car_glass"),
    )
    scene.add(place, paint, margin=3.0, shape=Shape(4.4, 1.8, 1.3))


_RIDDEN = {
    "bicycle": streets_people.bicycle,
    "motorcycle": streets_people.motorcycle,
}
_VEHICLES = {
    "bus": (streets_vehicles.bus, "bus", Shape(11.5, 2.5, 3.0)),
    "truck": (streets_vehicles.truck, "truck", Shape(8.5, 2.5, 3.2)),
    "tram": (streets_vehicles.tram, "tram", Shape(24.0, 2.4, 3.3)),
}


def traffic(scene: Scene) -> None:
    """Vehicles in the lanes and across the junction; none runs into another."""
    dice, style = scene.dice, scene.style
    taken: list[tuple[int, float, float]] = []  # side, first and last metre

    def lane(length: float, nearest: float, farthest: float, side=None) -> Place | None:
        side = side or dice.pick((-1, 1))
        z = nearest + (farthest - nearest) * dice.unit() ** 1.4 + length / 2
        first, last = z - length / 2 - 2, z + length / 2 + 2
        if any(s == side and first < b and last > a for s, a, b in taken):
            return None
        taken.append((side, first, last))
        x = side * max(scene.half * 0.5 - 0.7, 1.5) + dice.between(-0.3, 0.3)
        return Place(x, z, 0.0 if side > 0 else math.pi)

    expected = {"tram": style.tram, "bus": style.bus, "truck": style.truck}
    for name, probability in expected.items():
        draw, colour, shape = _VEHICLES[name]
        if not dice.chance(probability):
            continue
        place = lane(shape.length, 7.0, 32.0, -1 if name == "tram" else None)
        if place is None:
            continue
        if name == "tram":
            _rails(scene, place.x)
        paint = partial(
            draw, colour=scene.colour(colour), glass=scene.colour("car_glass")
        )
        # ordered by its near end, so that what stands beside it comes first
        order = place.z - shape.length / 4
        scene.add(place, paint, margin=shape.length, shape=shape, order=order)
    for _ in range(dice.poisson(style.cars)):
        place = lane(4.4, 5.0, 70.0)
        if place is not None:
            _car(scene, place)
    if scene.crossing is not None and dice.chance(0.3):
        turn = dice.pick((-1, 1))
        place = Place(
            dice.between(-14, 14), scene.crossing - 1.9 * turn, turn * math.pi / 2
        )
        _car(scene, place)


def _rails(scene: Scene, x: float) -> None:
    dark = tuple(c * 0.6 for c in scene.colours["road"])
    for rail in (x - 0.72, x + 0.72):
        scene.ground.append((rail - 0.06, rail + 0.06, 0.6, 120.0, dark, ROAD))


def people(scene: Scene) -> None:
    dice, style = scene.dice, scene.style

    def clothes():
        return scene.colour("top"), scene.colour("legs")

    for _ in range(dice.poisson(style.persons)):
        side = dice.pick((-1, 1))
        x = side * dice.between(scene.half + 0.8, abs(scene.line(side)) - 0.4)
        z = 4.0 + 28 * dice.unit() ** 2
        if dice.chance(0.12):
            x = dice.between(-scene.half, scene.half)
            z = scene.crossing - 7.0 if scene.crossing else z + 6
        paint = partial(
            streets_people.person, clothes=clothes(), skin=scene.colour("skin")
        )
        scene.add(Place(x, z), paint, shape=Shape(0.3, 0.5, 1.7))
    for kind, mean in (
        ("bicycle", style.cyclists),
        ("motorcycle", style.motorcyclists),
    ):
        for _ in range(dice.poisson(mean)):
            _mounted(scene, kind, clothes())
    for kind, mean in (("bicycle", style.bicycles), ("motorcycle", style.motorcycles)):
        for _ in range(dice.poisson(mean)):
            side, z = dice.pick((-1, 1)), 4.5 + 14 * dice.unit() ** 1.8
            turn = dice.pick((-1, 1)) * dice.between(0.6, 1.5)
            for i in range(dice.count(1, 3 if kind == "bicycle" else 2)):
                place = Place(side * (scene.half + 0.9), z + 0.8 * i, turn)
                _two_wheeler(scene, kind, place)


def _two_wheeler(scene: Scene, kind: str, place: Place) -> None:
    paint = partial(_RIDDEN[kind], colour=scene.colour(kind))
    if kind == "bicycle":
        paint = partial(paint, gap=tuple(c * 0.8 for c in scene.colours["road"]))
    scene.add(place, paint, shape=Shape(1.6, 0.3, 0.9))


def _mounted(scene: Scene, kind: str, clothes) -> None:
    dice = scene.dice
    side, z = dice.pick((-1, 1)), 5.0 + 16 * dice.unit() ** 1.8
    heading = (0.0 if side > 0 else math.pi) + dice.between(-0.15, 0.15)
    x = side * (scene.half - dice.between(2.4, 3.4))
    if scene.crossing is not None and dice.chance(0.4):
        heading, z = dice.pick((-1, 1)) * math.pi / 2, scene.crossing - 3.0
        x = dice.between(-scene.half, scene.half)
    elif dice.chance(0.35):  # turning into or out of a driveway
        heading += dice.pick((-1, 1)) * dice.between(0.6, 1.2)
    place = Place(x, z, heading)
    _two_wheeler(scene, kind, place)
    seat = 0.95 if kind == "bicycle" else 0.85
    paint = partial(
        streets_people.rider, clothes=clothes, skin=scene.colour("skin"), seat=seat
    )
    scene.add(place, paint, order=z - 0.01, shape=Shape(0.5, 0.5, 1.7))
