"""Decides what stands where on one rendered street."""

from functools import partial

from tufl_jax.data import streets_furniture as furniture
from tufl_jax.data.streets_scene import ROAD, SIDEWALK, TERRAIN, Scene, Shape
from tufl_jax.data.streets_traffic import (
    kerbside,
    people,
    plant,
    plant_hedge,
    traffic,
)
from tufl_jax.data.streets_view import Place

_END = 100.0  # metres of street that are laid out
_FAR = 400.0  # metres to where the ground ends
_SEEN_THROUGH = 45.0  # metres to the last opening that shows what is behind it
_BEHIND = 1000.0  # painting order of what stands behind the rows of houses


def lay_out(scene: Scene) -> None:
    """Fills the scene, the ground first."""
    _ground(scene)
    _horizon(scene)
    for side in (-1, 1):
        _blocks(scene, side)
        kerbside(scene, side)
    traffic(scene)
    people(scene)


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


def _background(scene: Scene, side: int, z0: float, z1: float) -> None:
    """A second row of houses and trees, seen through an opening from z0 to z1."""
    dice, line = scene.dice, scene.line(side)
    x = line + side * dice.between(16, 24)
    # the opening shows a longer piece of what stands farther from the camera
    far = (abs(x) + scene.half) / (abs(line) + scene.half)
    z, end = 1.2 * max(z0, 0.0), min(z1 * far, 140.0)
    while z < end:
        length = dice.between(12, 26)
        place = Place(x, z + length / 2)
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
            paint = house(scene, side, length - 1, dice.between(5, 11), shops=False)
        scene.add(place, paint, margin=length, order=_BEHIND + place.z)
        z += length


def house(scene: Scene, side: int, length, height, *, shops: bool, ends=False):
    dice, style = scene.dice, scene.style
    paint = {
        "facade": scene.colour("facade"),
        "glass": scene.colour("glass"),
        "roof": scene.colour("roof") if dice.chance(style.roofs) else None,
        "shop": scene.colour("shop") if shops and dice.chance(style.shops) else None,
        "sign": scene.colour("board"),
    }
    return partial(
        furniture.building,
        paint=paint,
        length=length,
        height=height,
        side=side,
        ends=ends,
    )


def _blocks(scene: Scene, side: int) -> None:
    """The row of houses, walls, fences and parks along one side."""
    dice, style, z = scene.dice, scene.style, -8.0
    usual, exposed = dice.between(*style.storey_height), False
    opening = dice.weighted(style.openings)
    while z < _END:
        length = dice.between(*style.block_length)
        cross = scene.crossing
        if cross is not None and z < cross + 6 and z + length > cross - 6:
            length = cross - 6 - z
            if length < 4:
                _background(scene, side, cross - 6, cross + 6)
                z, exposed = cross + 6, True
                continue
        place = Place(scene.line(side), z + length / 2)
        kind = opening if dice.chance(style.open_share) else "house"
        if kind == "house":
            height = usual + dice.between(-1, 1) * style.house_spread
            height = max(height, 4.5)
            scene.add(
                place,
                house(scene, side, length, height, shops=True, ends=exposed),
                margin=length,
                order=z + length,
            )
            middle = Place(place.x + side * 5.5, place.z)
            scene.shapes.append((middle, Shape(length, 11.0, height)))
        else:
            _open_block(scene, side, kind, place, length)
        exposed = kind != "house"
        z += length


def _open_block(scene: Scene, side: int, kind: str, place: Place, length: float):
    dice, z0, z1 = scene.dice, place.z - length / 2, place.z + length / 2
    grass = scene.colour("grass")
    if z0 < _SEEN_THROUGH:
        _background(scene, side, z0, z1)
    edges = (place.x, place.x + side * 14)
    scene.ground.append((*edges, max(z0, 0.6), max(z1, 0.7), grass, TERRAIN))
    for i in range(dice.count(1, 3) if kind != "park" else dice.count(2, 5)):
        deep = side * dice.between(2.5, 9.0)
        here = Place(place.x + deep, z0 + (i + dice.unit()) * length / 5)
        plant(scene, here, order=z1 + 0.5 + here.z * 1e-3)
    if kind == "wall":
        height = dice.between(2.0, 3.8)
        paint = partial(furniture.wall, colour=scene.colour("wall"))
    elif kind == "fence":
        height = dice.between(1.1, 2.0)
        paint = partial(
            furniture.fence, colour=scene.colour("fence"), gap=scene.colour("gap")
        )
    else:
        if dice.chance(scene.style.hedges):
            plant_hedge(scene, place, length)
        return
    shape = Shape(length, 0.3, height)
    paint = partial(paint, length=length, height=height)
    scene.add(place, paint, margin=length, order=z1, shape=shape)
