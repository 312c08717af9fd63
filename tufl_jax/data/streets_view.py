"""The camera that draws rendered streets: projection, polygons, faces, light.

World axes in metres: x right, y up, z along the street. One picture in mode RGBA
carries the colour in its first three channels and the training id in the fourth, so
each polygon is drawn once and image and label cannot disagree. All lengths are
relative to the picture's width: another size is the same scene at another resolution.
"""

import dataclasses
import math

import numpy as np
from PIL import Image, ImageDraw

NEAR = 0.5  # metres; polygons are cut at this depth
_BEND_END = 120.0  # metres; a bent street goes on straight from here

Point = tuple[float, float, float]
Colour = tuple[float, float, float]


class Dice:
    """Uniform draws from one generator, taken in blocks: a scalar draw is slow."""

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._pool: list[float] = []

    def unit(self) -> float:
        if not self._pool:
            self._pool = self._rng.random(1024).tolist()
        return self._pool.pop()

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def pick(self, options):
        return options[int(self.unit() * len(options))]

    def count(self, low: int, high: int) -> int:
        return low + int(self.unit() * (high - low + 1))

    def weighted(self, weights: dict[str, float]) -> str:
        rest = self.unit() * sum(weights.values())
        for name, weight in weights.items():
            if rest < weight:
                return name
            rest -= weight
        return name

    def poisson(self, mean: float) -> int:
        limit, product, number = math.exp(-mean), self.unit(), 0
        while product > limit:
            product *= self.unit()
            number += 1
        return number

    def tint(self, colour: Colour, spread: float) -> Colour:
        """The colour, lighter or darker and shifted a little in each channel."""
        common = self.between(-spread, spread)
        return tuple(c + common + self.between(-spread, spread) / 2 for c in colour)


@dataclasses.dataclass(frozen=True)
class Light:
    """What falls on the scene: `sun` points to the sun and has length one."""

    ambient: float
    diffuse: float
    sun: Point
    shadow: float  # how much of the light a cast shadow takes, 0..1
    haze: float  # extinction per metre
    haze_colour: Colour

    def on(self, nx: float, ny: float, nz: float) -> float:
        facing = nx * self.sun[0] + ny * self.sun[1] + nz * self.sun[2]
        return self.ambient + self.diffuse * max(facing, 0.0)


@dataclasses.dataclass(frozen=True)
class Pose:
    """Of the camera: focal length over picture width, metres, radians."""

    focal: float
    x: float
    height: float
    yaw: float
    pitch: float
    roll: float
    bend: float  # of the street, sideways metres per square metre


class Face:
    """A flat quad in camera space: bottom left, bottom right, top right, top left."""

    __slots__ = ("corners", "light")

    def __init__(self, corners: tuple[Point, Point, Point, Point], light: float):
        self.corners = corners
        self.light = light

    def at(self, s: float, t: float) -> Point:
        a, b, c, d = self.corners
        p, q, r, w = (1 - s) * (1 - t), s * (1 - t), s * t, (1 - s) * t
        return (
            p * a[0] + q * b[0] + r * c[0] + w * d[0],
            p * a[1] + q * b[1] + r * c[1] + w * d[1],
            p * a[2] + q * b[2] + r * c[2] + w * d[2],
        )

    def visible(self) -> bool:
        (ax, ay, az), (bx, by, bz), _, (dx, dy, dz) = self.corners
        return (
            ax * (by * dz - bz * dy)
            - ay * (bx * dz - bz * dx)
            + az * (bx * dy - by * dx)
        ) > 1e-9


@dataclasses.dataclass(frozen=True)
class Place:
    """A local frame on the ground: u forward, v right; heading 0 looks along z."""

    x: float
    z: float
    heading: float = 0.0

    def world(self, u: float, v: float, y: float) -> Point:
        c, s = math.cos(self.heading), math.sin(self.heading)
        return self.x + v * c + u * s, y, self.z + u * c - v * s


class View:
    """One picture being painted, back to front."""

    def __init__(self, size: tuple[int, int], pose: Pose, light: Light):
        self.rows, self.columns = size
        self.pose = pose
        self.light = light
        self.image = Image.new("RGBA", (self.columns, self.rows))
        self._draw = ImageDraw.Draw(self.image)
        self._focal = pose.focal * self.columns
        cy, sy = math.cos(pose.yaw), math.sin(pose.yaw)
        cp, sp = math.cos(pose.pitch), math.sin(pose.pitch)
        cr, sr = math.cos(pose.roll), math.sin(pose.roll)
        yaw = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        roll = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
        self.rotation = roll @ pitch @ yaw  # world to camera
        self._matrix = self.rotation.ravel().tolist()

    def shift(self, z: float) -> float:
        """Sideways metres of a bent street at depth z."""
        return self.pose.bend * z * min(max(z, 0.0), _BEND_END)

    def at(self, x: float, y: float, z: float) -> Point:
        """World to camera space: right, up and forward of the camera."""
        x += self.shift(z) - self.pose.x
        y -= self.pose.height
        a, b, c, d, e, f, g, h, i = self._matrix
        return (
            a * x + b * y + c * z,
            d * x + e * y + f * z,
            g * x + h * y + i * z,
        )

    def pixels(self, points: list[Point]) -> list[float]:
        """Camera space to a flat list of picture coordinates; [] behind the camera."""
        if min(p[2] for p in points) < NEAR:
            points = _cut(points)
        right, down, focal = self.columns / 2, self.rows / 2, self._focal
        flat = []
        for x, y, z in points:
            scale = focal / z
            flat.append(right + x * scale)
            flat.append(down - y * scale)
        return flat

    def shade(self, colour: Colour, light: float, depth: float) -> tuple[int, ...]:
        """8-bit colour after light and haze."""
        r, g, b = colour[0] * light, colour[1] * light, colour[2] * light
        if self.light.haze:
            keep = math.exp(-self.light.haze * max(depth, 0.0))
            hr, hg, hb = self.light.haze_colour
            r, g, b = (
                hr + (r - hr) * keep,
                hg + (g - hg) * keep,
                hb + (b - hb) * keep,
            )
        return (
            min(max(int(r), 0), 255),
            min(max(int(g), 0), 255),
            min(max(int(b), 0), 255),
        )

    def polygon(self, points, colour: Colour, label: int, light: float = 1.0) -> None:
        """Paints a polygon given in camera space."""
        flat = self.pixels(points)
        if len(flat) >= 6:
            depth = (points[0][2] + points[len(points) // 2][2]) / 2
            self.paint(flat, (*self.shade(colour, light, depth), label))

    def paint(self, flat: list[float], value: tuple[int, ...]) -> None:
        """Paints a polygon given in picture coordinates: (r, g, b, label)."""
        self._draw.polygon(flat, value)

    def replace(self, image: Image.Image) -> None:
        """Goes on painting over another picture of the same size."""
        self.image = image
        self._draw = ImageDraw.Draw(image)

    def decal(self, face: Face, s0, t0, s1, t1, colour, label, light=None) -> None:
        """A rectangle on a face, in its coordinates 0..1 from the bottom left."""
        corners = [face.at(s0, t0), face.at(s1, t0), face.at(s1, t1), face.at(s0, t1)]
        self.polygon(corners, colour, label, face.light if light is None else light)

    def upright(self, place: Place, outline, colour, label, light=1.0, side=False):
        """A flat figure on its place: (v, y) outline, or (u, y) seen from the side."""
        points = [
            self.at(*(place.world(w, 0.0, y) if side else place.world(0.0, w, y)))
            for w, y in outline
        ]
        self.polygon(points, colour, label, light)

    def frustum(self, place: Place, lower, upper, colour, label) -> dict[str, Face]:
        """Paints a box whose upper rectangle may be smaller than the lower one.

        Args:
            lower, upper: (u0, u1, v0, v1, y) in the frame of `place`.
        Returns:
            The visible faces by name: rear, front, right, left, top.
        """
        low, high = self._ring(place, lower), self._ring(place, upper)
        c, s = math.cos(place.heading), math.sin(place.heading)
        sides = (
            ("rear", 0, 1, (-s, 0.0, -c)),
            ("right", 1, 2, (c, 0.0, -s)),
            ("front", 2, 3, (s, 0.0, c)),
            ("left", 3, 0, (-c, 0.0, s)),
        )
        faces = {
            name: Face((low[i], low[j], high[j], high[i]), self.light.on(*normal))
            for name, i, j, normal in sides
        }
        faces["top"] = Face(tuple(high), self.light.on(0.0, 1.0, 0.0))
        faces = {name: face for name, face in faces.items() if face.visible()}
        for face in faces.values():
            self.polygon(face.corners, colour, label, face.light)
        return faces

    def _ring(self, place: Place, rectangle) -> list[Point]:
        u0, u1, v0, v1, y = rectangle
        return [
            self.at(*place.world(u, v, y))
            for u, v in ((u0, v0), (u0, v1), (u1, v1), (u1, v0))
        ]


def _cut(points) -> list[Point]:
    """The part of a polygon in front of the near plane (Sutherland-Hodgman)."""
    kept = []
    for p, q in zip(points, [*points[1:], points[0]], strict=True):
        if p[2] >= NEAR:
            kept.append(p)
        if (p[2] >= NEAR) != (q[2] >= NEAR):
            w = (NEAR - p[2]) / (q[2] - p[2])
            kept.append((p[0] + w * (q[0] - p[0]), p[1] + w * (q[1] - p[1]), NEAR))
    return kept


def ring(centre: tuple[float, float], rx: float, ry: float, corners: int = 10):
    """Outline of an ellipse as a list of points."""
    x, y = centre
    step = 2 * math.pi / corners
    return [
        (x + rx * math.cos(i * step), y + ry * math.sin(i * step))
        for i in range(corners)
    ]
