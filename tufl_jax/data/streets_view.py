"""The camera that draws rendered streets: projection, polygons, faces, light.

World axes in metres: x right, y up, z along the street. One picture in mode RGBA
carries the colour in its first three channels and the training id in the fourth, so
each polygon is drawn once and image and label cannot disagree. All lengths are
relative to the picture's width: another size is the same scene at another resolution.
"""

import dataclasses
import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from tufl_jax.data.streets_dice import Colour

NEAR = 0.5  # metres; polygons are cut at this depth
_BEND_END = 120.0  # metres; a bent street goes on straight from here

Point = tuple[float, float, float]


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

    def world(self, u: float, v: float) -> tuple[float, float]:
        """x and z of a point of the frame."""
        c, s = math.cos(self.heading), math.sin(self.heading)
        return self.x + v * c + u * s, self.z + u * c - v * s

    def moved(self, u: float) -> "Place":
        return Place(*self.world(u, 0.0), self.heading)


class Frame:
    """A place as the camera sees it.

    `origin` and the directions `u`, `v`, `y` of one metre each are in camera space;
    `scale` is how much of the picture's width one metre covers there.
    """

    __slots__ = ("place", "origin", "u", "v", "y", "scale")

    def __init__(self, view: "View", place: Place):
        self.place = place
        self.origin = view.at(place.x, 0.0, place.z)
        c, s = math.cos(place.heading), math.sin(place.heading)
        slope = view.slope(place.z)
        self.u = view.turn(s + slope * c, 0.0, c)
        self.v = view.turn(c - slope * s, 0.0, -s)
        self.y = view.turn(0.0, 1.0, 0.0)
        self.scale = view.pose.focal / max(self.origin[2], NEAR)

    def at(self, u: float, v: float, y: float) -> Point:
        o, a, b, c = self.origin, self.u, self.v, self.y
        return (
            o[0] + u * a[0] + v * b[0] + y * c[0],
            o[1] + u * a[1] + v * b[1] + y * c[1],
            o[2] + u * a[2] + v * b[2] + y * c[2],
        )


class View:
    """One picture being painted, back to front."""

    def __init__(self, size: tuple[int, int], pose: Pose, light: Light):
        self.rows, self.columns = size
        self.pose = pose
        self.light = light
        self.image = Image.new("RGBA", (self.columns, self.rows))
        self._draw = ImageDraw.Draw(self.image)
        focal = pose.focal * self.columns
        self._projection = self.columns / 2, self.rows / 2, focal
        self._haze = light.haze
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

    def slope(self, z: float) -> float:
        """Derivative of `shift`."""
        z = max(z, 0.0)
        return self.pose.bend * (2 * z if z < _BEND_END else _BEND_END)

    def turn(self, x: float, y: float, z: float) -> Point:
        """A direction of the world in camera space."""
        a, b, c, d, e, f, g, h, i = self._matrix
        return (
            a * x + b * y + c * z,
            d * x + e * y + f * z,
            g * x + h * y + i * z,
        )

    def at(self, x: float, y: float, z: float) -> Point:
        """World to camera space: right, up and forward of the camera."""
        return self.turn(x + self.shift(z) - self.pose.x, y - self.pose.height, z)

    def frame(self, place: Place) -> Frame:
        return Frame(self, place)

    def pixels(self, points: list[Point]) -> list[float]:
        """Camera space to a flat list of picture coordinates; [] behind the camera."""
        right, down, focal = self._projection
        flat = []
        for x, y, z in points:
            if z < NEAR:
                cut = _cut(points)
                return self.pixels(cut) if cut else []
            scale = focal / z
            flat.append(right + x * scale)
            flat.append(down - y * scale)
        return flat

    def shade(self, colour: Colour, light: float, depth: float, label: int):
        """(r, g, b, label) in 8 bits after light and haze."""
        r, g, b = colour
        if self._haze:
            keep = math.exp(-self._haze * depth) if depth > 0 else 1.0
            light *= keep
            hr, hg, hb = self.light.haze_colour
            rest = 1 - keep
            r = int(r * light + hr * rest)
            g = int(g * light + hg * rest)
            b = int(b * light + hb * rest)
        else:
            r, g, b = int(r * light), int(g * light), int(b * light)
        return (
            0 if r < 0 else 255 if r > 255 else r,
            0 if g < 0 else 255 if g > 255 else g,
            0 if b < 0 else 255 if b > 255 else b,
            label,
        )

    def polygon(self, points, colour: Colour, label: int, light: float = 1.0) -> None:
        """Paints a polygon given in camera space."""
        flat = self.pixels(points)
        if flat:
            depth = (points[0][2] + points[len(points) // 2][2]) / 2
            self.paint(flat, self.shade(colour, light, depth, label))

    def paint(self, flat: list[float], value: tuple[int, ...]) -> None:
        """Paints a polygon given in picture coordinates: (r, g, b, label)."""
        self._draw.polygon(flat, value)

    def grid(self, points: np.ndarray) -> np.ndarray:
        """Camera space f[..., 3], all in front, to picture coordinates f[..., 2]."""
        right, down, focal = self._projection
        flat = points[..., :2] * (focal / points[..., 2:])
        flat[..., 0] += right
        flat[..., 1] = down - flat[..., 1]
        return flat

    def replace(self, image: Image.Image) -> None:
        """Goes on painting over another picture of the same size."""
        self.image = image
        self._draw = ImageDraw.Draw(image)

    def decal(self, face: Face, s0, t0, s1, t1, colour, label, light=None) -> None:
        """A rectangle on a face, in its coordinates 0..1 from the bottom left."""
        (ax, ay, az), (bx, by, bz), (cx, cy, cz), (dx, dy, dz) = face.corners
        corners = []
        for s, t in ((s0, t0), (s1, t0), (s1, t1), (s0, t1)):
            p, q, r, w = (1 - s) * (1 - t), s * (1 - t), s * t, (1 - s) * t
            corners.append(
                (
                    p * ax + q * bx + r * cx + w * dx,
                    p * ay + q * by + r * cy + w * dy,
                    p * az + q * bz + r * cz + w * dz,
                )
            )
        self.polygon(corners, colour, label, face.light if light is None else light)

    def upright(self, frame: Frame, outline, colour, label, light=1.0, side=False):
        """A flat figure on its place: (v, y) outline, or (u, y) seen from the side."""
        ox, oy, oz = frame.origin
        ax, ay, az = frame.u if side else frame.v
        bx, by, bz = frame.y
        points = [
            (ox + w * ax + h * bx, oy + w * ay + h * by, oz + w * az + h * bz)
            for w, h in outline
        ]
        self.polygon(points, colour, label, light)

    def frustum(self, frame: Frame, lower, upper, colour, label) -> dict[str, Face]:
        """Paints a box whose upper rectangle may be smaller than the lower one.

        Args:
            lower, upper: (u0, u1, v0, v1, y) in the frame.
        Returns:
            The visible faces by name: rear, right, front, left, top.
        """
        low, high = _corners(frame, lower), _corners(frame, upper)
        c, s = math.cos(frame.place.heading), math.sin(frame.place.heading)
        faces = {}
        for name, i, j, normal in (
            ("rear", 0, 1, (-s, 0.0, -c)),
            ("right", 1, 2, (c, 0.0, -s)),
            ("front", 2, 3, (s, 0.0, c)),
            ("left", 3, 0, (-c, 0.0, s)),
        ):
            face = Face((low[i], low[j], high[j], high[i]), 1.0)
            if face.visible():
                face.light = self.light.on(*normal)
                faces[name] = face
        top = Face(tuple(high), self.light.on(0.0, 1.0, 0.0))
        if top.visible():
            faces["top"] = top
        for face in faces.values():
            self.polygon(face.corners, colour, label, face.light)
        return faces


def _corners(frame: Frame, rectangle) -> list[Point]:
    u0, u1, v0, v1, y = rectangle
    at = frame.at
    return [at(u0, v0, y), at(u0, v1, y), at(u1, v1, y), at(u1, v0, y)]


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


@lru_cache
def _circle(corners: int) -> tuple[tuple[float, float], ...]:
    step = 2 * math.pi / corners
    return tuple((math.cos(i * step), math.sin(i * step)) for i in range(corners))


def ring(centre: tuple[float, float], rx: float, ry: float, corners: int = 10):
    """Outline of an ellipse as a list of points."""
    x, y = centre
    return [(x + rx * c, y + ry * s) for c, s in _circle(corners)]
