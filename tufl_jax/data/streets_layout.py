"""Decides what stands where on one rendered street."""

import math
from functools import partial

from tufl_jax.data import streets_furniture as furniture
from tufl_jax.data import streets_objects as things
from tufl_jax.data.streets_scene import ROAD, SIDEWALK, TERRAIN, Scene, Shape
from tufl_jax.data.streets_view import Place

_END = 115.0  # metres of street that are laid out
_FAR = 400.0  # metres to where the ground ends
_BEHIND = 1000.0  # painting order of what stands behind the rows of houses


def lay_out(scene: Scene) -> None:
    """Fills the scene, the ground first."""
    _ground(scene)
    _horizon(scene)
    for side in (-1, 1):
        _background(scene, side)
        _blocks(scene, side)
        _kerbside(scene, side)
    _traffic(scene)
    _people(scene)


def _ground(scene: Scene) -> None:
    dice, half, near = scene.dice, scene.half, 0.6
    base = ("grass", TERRAIN) if dice.chance(0.5) else ("pavement", SIDEWALK)
    patch = scene.ground.append
    patch((-90, 90, near, _FAR, scene.colours[base[0]], base[1]))
    for side in (-1, 1):
        i, line = side > 0, scene.line(side)
        edge = side * half
        strip = side * (half + scene.strip[i])
        patch((edge, line, near, _FAR, scene.colours["pavement"], SIDEWALK))
        if scene.strip[i]:
            patch((edge, strip, near, _FAR, scene.colours["grass"], TERRAIN))
        patch((edge, edge + side * 0.25, near, _FAR, scene.colours["kerb"], SIDEWALK))
    road, z = scene.colours["road"], scene.crossing
    patch((-half, half, near, _FAR, road, ROAD))
    if z is not None:
        patch((-90, 90, z - 4.5, z + 4.5, road, ROAD))
    _markings(scene)


def _markings(scene: Scene) -> None:
    dice, half = scene.dice, scene.half
    white = scene.colours["marking"]
    patch = scene.ground.append
    lines = [0.0]
    if half > 6.4:
        lines += [-half / 2, half / 2]
    start = dice.between(0, 4)
    for x in lines:
        solid = x == 0.0 and dice.chance(0.3)
        for i in range(1 if solid else 12):
            z0 = 1.0 if solid else start + 1.0 + i * 7.0
            z1 = 90.0 if solid else z0 + 3.2
            middle = (z0 + z1) / 2
            if solid or scene.open(middle):
                patch((x - 0.09, x + 0.09, z0, z1, white, ROAD))
    if dice.chance(0.6):
        for x in (-half + 0.25, half - 0.25):
            patch((x - 0.07, x + 0.07, 1.0, 90.0, white, ROAD))
    if scene.crossing is not None:
        bars = int(half / 0.55)
        for i in range(-bars, bars):
            x = (i + 0.25) * half / bars
            z = scene.crossing - 8.5
            patch((x, x + 0.5 * half / bars, z, z + 2.8, white, ROAD))
        z = scene.crossing - 10.0
        patch((0.1, half - 0.1, z, z + 0.45, white, ROAD))


def _horizon(scene: Scene) -> None:
    """What closes the view far down the street."""
    dice, x, order = scene.dice, -110.0, 2 * _BEHIND
    while x < 110:
        width = dice.between(10, 22)
        place = Place(x + width / 2, dice.between(170, 230))
        if dice.chance(0.6):
            paint = partial(
                furniture.tree,
                leaves=scene.colour("leaves"),
                bark=scene.colours["bark"],
                height=width * 0.8,
            )
        else:
            height = dice.between(*scene.style.storey_height)
            paint = partial(_far_house, scene=scene, width=width, height=height)
        scene.add(place, paint, margin=width, order=order)
        x += width * 0.75


def _far_house(view, dice, place, *, scene, width, height):
    w = width / 2
    lower, upper = (0, 10, -w, w, 0), (0, 10, -w, w, height)
    facade = scene.colour("facade")
    view.frustum(place, lower, upper, facade, furniture.BUILDING)


def _background(scene: Scene, side: int) -> None:
    """A second row of houses and trees, seen through gaps and over walls."""
    dice, z = scene.dice, 2.0
    while z < 190:
        length = dice.between(12, 26)
        place = Place(scene.line(side) + side * dice.between(16, 26), z + length / 2)
        order = _BEHIND + place.z
        if dice.chance(0.5):
            height = dice.between(6, 12)
            paint = partial(
                furniture.tree,
                leaves=scene.colour("leaves"),
                bark=scene.colours["bark"],
                height=height,
            )
            length = height * 0.7
        else:
            paint = _house(scene, side, length - 1, dice.between(5, 11), shops=False)
        scene.add(place, paint, margin=length, order=order)
        z += length


def _house(scene: Scene, side: int, length: float, height: float, *, shops: bool):
    dice, style = scene.dice, scene.style
    paint = {
        "facade": scene.colour("facade"),
        "glass": scene.colour("glass"),
        "roof": scene.colour("roof") if dice.chance(style.roofs) else None,
        "shop": scene.colour("shop") if shops and dice.chance(style.shops) else None,
        "sign": scene.colour("board"),
    }
    return partial(
        furniture.building, paint=paint, length=length, height=height, side=side
    )


def _blocks(scene: Scene, side: int) -> None:
    """The row of houses, walls, fences and parks along one side."""
    dice, style, z = scene.dice, scene.style, -8.0
    usual = dice.between(*style.storey_height)
    while z < _END:
        length = dice.between(*style.block_length)
        cross = scene.crossing
        if cross is not None and z < cross + 6 and z + length > cross - 6:
            length = cross - 6 - z
            if length < 4:
                z = cross + 6
                continue
        place = Place(scene.line(side), z + length / 2)
        kind = dice.weighted(style.blocks)
        if kind == "house":
            height = usual + dice.between(-1, 1) * style.house_spread
            height = max(height, 4.5)
            scene.add(
                place,
                _house(scene, side, length, height, shops=True),
                margin=length,
                order=z + length,
            )
            middle = Place(place.x + side * 5.5, place.z)
            scene.shapes.append((middle, Shape(length, 11.0, height)))
        else:
            _open_block(scene, side, kind, place, length)
        z += length


def _open_block(scene: Scene, side: int, kind: str, place: Place, length: float):
    dice, z0, z1 = scene.dice, place.z - length / 2, place.z + length / 2
    grass = scene.colour("grass")
    edges = (place.x, place.x + side * 14)
    scene.ground.append((*edges, max(z0, 0.6), max(z1, 0.7), grass, TERRAIN))
    for i in range(dice.count(1, 3) if kind != "park" else dice.count(2, 5)):
        deep = side * dice.between(2.5, 9.0)
        here = Place(place.x + deep, z0 + (i + dice.unit()) * length / 5)
        _tree(scene, here, order=z1 + 0.5 + here.z * 1e-3)
    if kind == "wall":
        height = dice.between(1.6, 3.4)
        paint = partial(furniture.wall, colour=scene.colour("wall"))
    elif kind == "fence":
        height = dice.between(1.1, 2.0)
        paint = partial(
            furniture.fence, colour=scene.colour("fence"), gap=scene.colour("gap")
        )
    else:
        if dice.chance(scene.style.hedges):
            _hedge(scene, place, length)
        return
    shape = Shape(length, 0.3, height)
    paint = partial(paint, length=length, height=height)
    scene.add(place, paint, margin=length, order=z1, shape=shape)


def _tree(scene: Scene, place: Place, order: float | None = None) -> None:
    height = scene.dice.between(4.5, 9.5)
    paint = partial(
        furniture.tree,
        leaves=scene.colour("leaves"),
        bark=scene.colours["bark"],
        height=height,
    )
    shape = Shape(0.4, height * 0.55, height, ball=True)
    scene.add(place, paint, margin=height / 2, order=order, shape=shape)


def _hedge(scene: Scene, place: Place, length: float) -> None:
    height = scene.dice.between(0.7, 1.6)
    paint = partial(
        furniture.hedge, leaves=scene.colour("leaves"), length=length, height=height
    )
    shape = Shape(length, 1.0, height)
    order = place.z + length / 2
    scene.add(place, paint, margin=length, order=order, shape=shape)


def _kerbside(scene: Scene, side: int) -> None:
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
                _tree(scene, Place(side * (scene.half + 1.1), z))
            z += step
    if dice.chance(style.hedges):
        place = Place(scene.line(side) - side * 0.6, dice.between(8, 30))
        if scene.open(place.z):
            _hedge(scene, place, dice.between(6, 12))
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
        place = Place(kerb + side * dice.between(0, 0.6), 6 + 34 * dice.unit() ** 1.5)
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
        places = [dice.between(10, 35)]
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
    while z < 85:
        if dice.chance(taken) and scene.open(z):
            heading = (0.0 if side > 0 else math.pi) + dice.between(-0.03, 0.03)
            _car(scene, Place(side * (scene.half - 1.1), z, heading))
        z += dice.between(5.6, 7.5)


def _car(scene: Scene, place: Place) -> None:
    paint = partial(
        things.car, colour=scene.colour("car"), glass=scene.colour("car_glass")
    )
    scene.add(place, paint, margin=3.0, shape=Shape(4.4, 1.8, 1.3))


_VEHICLES = {
    "bus": (things.bus, "bus", Shape(11.5, 2.5, 3.0)),
    "truck": (things.truck, "truck", Shape(8.5, 2.5, 3.2)),
    "tram": (things.tram, "tram", Shape(24.0, 2.4, 3.3)),
}


def _traffic(scene: Scene) -> None:
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

    for name in ("tram", "bus", "truck"):
        draw, colour, shape = _VEHICLES[name]
        if not dice.chance(getattr(style, name)):
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


def _people(scene: Scene) -> None:
    dice, style = scene.dice, scene.style

    def clothes():
        return scene.colour("top"), scene.colour("legs")

    for _ in range(dice.poisson(style.persons)):
        side = dice.pick((-1, 1))
        x = side * dice.between(scene.half + 0.8, abs(scene.line(side)) - 0.4)
        z = 4.5 + 38 * dice.unit() ** 1.4
        if dice.chance(0.12):
            x = dice.between(-scene.half, scene.half)
            z = scene.crossing - 7.0 if scene.crossing else z + 6
        paint = partial(things.person, clothes=clothes(), skin=scene.colour("skin"))
        scene.add(Place(x, z), paint, shape=Shape(0.3, 0.5, 1.7))
    for kind, mean in (
        ("bicycle", style.cyclists),
        ("motorcycle", style.motorcyclists),
    ):
        for _ in range(dice.poisson(mean)):
            _mounted(scene, kind, clothes())
    for kind, mean in (("bicycle", style.bicycles), ("motorcycle", style.motorcycles)):
        for _ in range(dice.poisson(mean)):
            side, z = dice.pick((-1, 1)), 4.5 + 26 * dice.unit() ** 1.3
            turn = dice.pick((-1, 1)) * dice.between(0.6, 1.5)
            for i in range(dice.count(1, 3 if kind == "bicycle" else 2)):
                place = Place(side * (scene.half + 0.9), z + 0.8 * i, turn)
                _two_wheeler(scene, kind, place)


def _two_wheeler(scene: Scene, kind: str, place: Place) -> None:
    paint = partial(getattr(things, kind), colour=scene.colour(kind))
    if kind == "bicycle":
        paint = partial(paint, gap=tuple(c * 0.8 for c in scene.colours["road"]))
    scene.add(place, paint, shape=Shape(1.6, 0.3, 0.9))


def _mounted(scene: Scene, kind: str, clothes) -> None:
    dice = scene.dice
    side, z = dice.pick((-1, 1)), 6 + 30 * dice.unit() ** 1.3
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
    paint = partial(things.rider, clothes=clothes, skin=scene.colour("skin"), seat=seat)
    scene.add(place, paint, order=z - 0.01, shape=Shape(0.5, 0.5, 1.7))
