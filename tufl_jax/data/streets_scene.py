"""One street: what it holds, and painting its sky, ground, shadows and things."""

import dataclasses
import math
from collections.abc import Callable

from PIL import Image, ImageDraw

from tufl_jax.data.streets_dice import Dice
from tufl_jax.data.streets_style import Style
from tufl_jax.data.streets_view import Frame, Light, Place, Pose, View, ring
from tufl_jax.data.streets_weather import Weather

ROAD, SIDEWALK, TERRAIN, SKY = 0, 1, 9, 10
_BREAKS = (2, 4, 7, 11, 16, 23, 32, 45, 62, 85, 115, 160, 250)


@dataclasses.dataclass(frozen=True)
class Shape:
    """Footprint of a thing that throws a shadow: metres, `ball` for tree crowns."""

    length: float
    width: float
    height: float
    ball: bool = False


class Scene:
    """Things to paint, with the distance that orders them, and the ground's patches."""

    def __init__(self, style: Style, dice: Dice):
        self.style, self.dice = style, dice
        self.ground: list[tuple] = []  # (x0, x1, z0, z1, colour, label)
        self.items: list[tuple] = []  # (distance, number, place, margin, painter)
        self.shapes: list[tuple[Place, Shape]] = []
        self.half = dice.between(*style.half_road)
        self.strip = [dice.between(1.2, 2.6) * dice.chance(style.verge) for _ in "lr"]
        self.walk = [dice.between(*style.pavement) for _ in "lr"]
        self.colours = {
            name: dice.tint(dice.pick(options), style.tint)
            for name, options in style.palette.items()
        }
        self.crossing = dice.between(13, 36) if dice.chance(style.crossing) else None

    def colour(self, name: str):
        """A fresh colour of that material, for one thing."""
        return self.dice.tint(self.dice.pick(self.style.palette[name]), self.style.tint)

    def line(self, side: int) -> float:
        """Where the pavement ends: x of the house fronts."""
        i = side > 0
        return side * (self.half + self.strip[i] + self.walk[i])

    def add(
        self,
        place: Place,
        paint: Callable[[View, Dice, Frame], None],
        *,
        margin: float = 2.0,
        shape: Shape | None = None,
        order: float | None = None,
    ) -> None:
        """Adds a thing of up to `margin` metres; far things are painted first."""
        distance = place.z if order is None else order
        self.items.append((distance, len(self.items), place, margin, paint))
        if shape is not None:
            self.shapes.append((place, shape))

    def open(self, z: float) -> bool:
        """Whether z is free of the side street."""
        return self.crossing is None or abs(z - self.crossing) > 6.5


def pose(style: Style, dice: Dice, half_road: float) -> Pose:
    return Pose(
        focal=dice.between(*style.focal),
        x=half_road * dice.between(0.25, 0.55),
        height=dice.between(*style.height),
        yaw=math.radians(dice.between(*style.yaw)),
        pitch=math.radians(dice.between(*style.pitch)),
        roll=math.radians(dice.between(*style.roll)),
        bend=dice.between(-1, 1) * abs(dice.between(-1, 1)) * style.bend,
    )


def light(weather: Weather, dice: Dice, haze_colour) -> Light:
    elevation = math.radians(dice.between(*weather.elevation))
    azimuth = dice.between(0, 2 * math.pi)
    flat = math.cos(elevation)
    return Light(
        ambient=dice.between(*weather.ambient),
        diffuse=dice.between(*weather.diffuse),
        sun=(flat * math.sin(azimuth), math.sin(elevation), flat * math.cos(azimuth)),
        shadow=dice.between(*weather.shadow),
        haze=dice.between(*weather.haze),
        haze_colour=haze_colour,
    )


def paint_sky(view: View, dice: Dice, weather: Weather, top, low) -> None:
    """A gradient with clouds, all of it the class sky."""
    width, height = view.columns, view.rows
    horizon = height / 2 - math.tan(-view.pose.pitch) * view.pose.focal * width
    band = 0.36 * width / 12
    for i in range(12):
        w = i / 11
        value = tuple(int(t * w + b * (1 - w)) for t, b in zip(top, low, strict=True))
        low_y = horizon - i * band if i else height
        high_y = horizon - (i + 1) * band if i < 11 else 0
        if low_y > 0 and high_y < low_y:
            corners = [0, low_y, width, low_y, width, high_y, 0, high_y]
            view.paint(corners, (*value, SKY))
    for _ in range(dice.count(*weather.clouds)):
        x, y = dice.unit() * width, horizon - dice.between(0.06, 0.4) * width
        size, white = dice.between(0.03, 0.09) * width, dice.between(0.5, 0.95)
        base = [
            t * (1 - white) + c * white for t, c in zip(low, weather.cloud, strict=True)
        ]
        for _ in range(4):
            dx, dy = dice.between(-1.6, 1.6) * size, dice.between(-0.25, 0.1) * size
            rx, ry = size * dice.between(0.6, 1.3), size * dice.between(0.2, 0.4)
            outline = ring((x + dx, y + dy), rx, ry, 14)
            value = tuple(int(c + dice.between(-4, 4)) for c in base)
            flat = [w for point in outline for w in point]
            view.paint(flat, (*(min(v, 255) for v in value), SKY))


def paint_ground(view: View, scene: Scene) -> None:
    glow = view.light.on(0.0, 1.0, 0.0)
    bent = view.pose.bend != 0
    for x0, x1, z0, z1, colour, label in scene.ground:
        zs = [z0, *(b for b in _BREAKS if bent and z0 < b < z1), z1]
        points = [view.at(x0, 0, z) for z in zs]
        points += [view.at(x1, 0, z) for z in reversed(zs)]
        flat = view.pixels(points)
        if flat:
            value = tuple(min(max(int(c * glow), 0), 255) for c in colour)
            view.paint(flat, (*value, label))


def shadow_mask(view: View, scene: Scene, *, cast: bool) -> Image.Image:
    """L picture, 255 where something keeps light from the ground.

    Args:
        cast: whether the sun casts shadows; the dark below vehicles is always there.
    """
    mask = Image.new("L", view.image.size)
    draw = ImageDraw.Draw(mask)
    sx, sy, sz = view.light.sun
    reach = min(1 / max(sy, 0.2), 3.5)
    dx, dz = -sx * reach, -sz * reach

    def fill(points, value=255):
        flat = view.pixels([view.at(x, 0, z) for x, z in points])
        if flat:
            draw.polygon(flat, value)

    for place, shape in scene.shapes:
        u, v, h = shape.length / 2, shape.width / 2, shape.height
        corners = ((-u, -v), (-u, v), (u, v), (u, -v))
        base = [place.world(a, b) for a, b in corners]
        if cast and shape.ball:
            centre = (place.x + dx * h * 0.7, place.z + dz * h * 0.7)
            fill(ring(centre, v, max(v, abs(dz) * v), 8))
        elif cast:
            fill(_swept(base, dx * h, dz * h))
        elif not shape.ball and min(u, v) > 0.5 and h < 5:
            fill(base, 160)
    return mask


def _swept(corners, dx: float, dz: float):
    """Outline of what a convex outline covers when moved by (dx, dz)."""
    following = [*corners[1:], corners[0]]
    leading = [
        (q[1] - p[1]) * dx > (q[0] - p[0]) * dz
        for p, q in zip(corners, following, strict=True)
    ]
    outline = []
    for i, (x, z) in enumerate(corners):
        before, after = leading[i - 1], leading[i]
        here, moved = (x, z), (x + dx, z + dz)
        if before != after:
            outline += [here, moved] if after else [moved, here]
        else:
            outline.append(moved if after else here)
    return outline


def paint_things(view: View, scene: Scene) -> None:
    """Paints back to front; what cannot be in the picture is left out."""
    order = sorted(scene.items, key=lambda item: (-item[0], item[1]))
    for _, _, place, margin, paint in order:
        frame = view.frame(place)
        right, _, forward = frame.origin
        reach = 0.5 / view.pose.focal * max(forward, 0.0) + 1.5 * margin
        if forward > -margin and abs(right) < reach:
            paint(view, scene.dice, frame)
