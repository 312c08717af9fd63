"""What is fixed to a rendered street: buildings, walls, fences, trees, poles, signs."""

from functools import lru_cache

import numpy as np

from tufl_jax.data.streets_dice import Dice
from tufl_jax.data.streets_view import NEAR, Face, Frame, View, ring

BUILDING, WALL, FENCE, POLE = 2, 3, 4, 5
LIGHT, SIGN, VEGETATION = 6, 7, 8
_PLAIN = 0.0075  # picture widths per metre: houses farther away have no details
_SMALLEST_BAY = 0.016  # of the picture's width: narrower windows become bands


def _post(view: View, frame: Frame, height: float, width: float, colour, label=POLE):
    w = width / 2
    outline = [(-w, 0), (w, 0), (w * 0.8, height), (-w * 0.8, height)]
    view.upright(frame, outline, colour, label, view.light.on(-0.4, 0.2, -0.8))


def lamp_post(view: View, dice: Dice, frame: Frame, colour, inward: float) -> None:
    """`inward` is the sideways direction of the street: -1 or 1."""
    height, reach = dice.between(5.5, 8.5), inward * dice.between(1.2, 2.2)
    _post(view, frame, height, 0.2, colour)
    arm = [(0, height), (reach, height + 0.3), (reach, height + 0.15)]
    view.upright(frame, [*arm, (0, height - 0.15)], colour, POLE)
    head = [(reach, height + 0.34), (reach + inward * 0.7, height + 0.3)]
    bottom = [(reach + inward * 0.7, height + 0.14), (reach, height + 0.12)]
    view.upright(frame, head + bottom, (200, 200, 190), POLE)


def _signal(view: View, frame: Frame, x: float, y: float, state: int, case) -> None:
    w, h = 0.22, 0.55
    box = [(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)]
    view.upright(frame, box, case, LIGHT)
    lamps = ((240, 40, 30), (250, 190, 40), (60, 230, 110))
    for i, colour in enumerate(lamps):
        value = colour if i == state else tuple(c * 0.25 for c in colour)
        outline = ring((x, y + (1 - i) * 0.34), 0.14, 0.14, 8)
        view.upright(frame, outline, value, LIGHT)


def traffic_light(view: View, dice: Dice, frame: Frame, colour, inward, case) -> None:
    state = dice.pick((0, 0, 1, 2, 2))
    if dice.chance(0.35):  # on an arm over the road
        height, reach = 5.6, inward * dice.between(2.5, 4.0)
        _post(view, frame, height + 0.3, 0.22, colour)
        arm = [(0, height), (reach, height), (reach, height + 0.18)]
        view.upright(frame, [*arm, (0, height + 0.18)], colour, POLE)
        _signal(view, frame, reach, height - 0.1, state, case)
    else:
        _post(view, frame, 2.6, 0.17, colour)
        _signal(view, frame, 0.0, 3.0, state, case)
    if dice.chance(0.4):
        _signal(view, frame, -inward * 0.25, 2.7, state, case)


_SIGNS = {
    "limit": ("disc", (205, 30, 34), (240, 240, 240)),
    "order": ("disc", (30, 80, 180), (60, 110, 210)),
    "warning": ("triangle", (205, 30, 34), (240, 240, 240)),
    "yield": ("wedge", (205, 30, 34), (240, 240, 240)),
    "stop": ("disc", (200, 24, 30), (215, 60, 60)),
    "parking": ("square", (30, 80, 180), (235, 235, 240)),
    "priority": ("diamond", (240, 240, 240), (245, 200, 30)),
    "direction": ("board", (240, 210, 40), (60, 60, 50)),
}


def traffic_sign(view: View, dice: Dice, frame: Frame, colour) -> None:
    shape, rim, inside = _SIGNS[dice.pick(tuple(_SIGNS))]
    size, y = dice.between(0.36, 0.5), dice.between(2.1, 2.8)
    _post(view, frame, y + 0.2, 0.12, colour)
    light = view.light.on(0.0, 0.0, -1.0)
    for scale, value in ((size, rim), (size * 0.62, inside)):
        if shape == "disc":
            outline = ring((0, y), scale, scale, 10)
        elif shape in ("triangle", "wedge"):
            flip = 1 if shape == "triangle" else -1
            corners = ((-1.1, -0.8), (1.1, -0.8), (0, 1.1))
            outline = [(v * scale, y + flip * h * scale) for v, h in corners]
        elif shape == "diamond":
            outline = ring((0, y), scale * 1.15, scale * 1.15, 4)
        else:
            w = 0.85 if shape == "square" else 1.9
            corners = ((-w, -0.85), (w, -0.85), (w, 0.85), (-w, 0.85))
            outline = [(v * scale, y + h * scale) for v, h in corners]
        view.upright(frame, outline, value, SIGN, light)


def tree(view: View, dice: Dice, frame: Frame, leaves, bark, height: float) -> None:
    trunk = height * dice.between(0.25, 0.4)
    radius = (height - trunk) * dice.between(0.38, 0.55)
    _post(view, frame, trunk + radius * 0.6, 0.1 + 0.03 * height, bark, VEGETATION)
    if dice.chance(0.15):  # a conifer
        for i in range(3):
            y, w = trunk * 0.6 + i * height * 0.22, radius * (0.9 - 0.25 * i)
            cone = [(-w, y), (w, y), (0, y + height * 0.42)]
            view.upright(frame, cone, leaves, VEGETATION, 0.85 + 0.12 * i)
        return
    middle = trunk + radius * 0.9
    size = radius * frame.scale
    _crown(view, dice, frame, (0, middle), radius, leaves, 0.82)
    for _ in range(4 if size > 0.1 else 2 if size > 0.035 else 0):
        v, y = dice.between(-0.55, 0.55) * radius, dice.between(-0.5, 0.6) * radius
        light = 0.95 + 0.25 * y / radius
        _crown(view, dice, frame, (v, middle + y), radius * 0.5, leaves, light)


def _crown(view, dice, frame, centre, radius, colour, light):
    corners = 12 if radius * frame.scale > 0.03 else 8
    outline = [
        (
            centre[0] + (v - centre[0]) * (scale := dice.between(0.8, 1.1)),
            centre[1] + (y - centre[1]) * scale,
        )
        for v, y in ring(centre, radius, radius, corners)
    ]
    view.upright(frame, outline, colour, VEGETATION, light)


def hedge(view: View, dice: Dice, frame: Frame, leaves, length, height) -> None:
    """A clipped hedge or a row of shrubs along the street, `length` metres."""
    pieces = max(int(length / 2.5), 1)
    step = length / pieces
    for i in reversed(range(pieces)):
        here = view.frame(frame.place.moved((i + 0.5 - pieces / 2) * step))
        h, u = height * dice.between(0.85, 1.15), step / 2
        lower, upper = (-u, u, -0.5, 0.5, 0.0), (-u, u, -0.4, 0.4, h)
        view.frustum(here, lower, upper, dice.tint(leaves, 8), VEGETATION)


def wall(view: View, dice: Dice, frame: Frame, colour, length, height) -> None:
    u = length / 2
    lower, upper = (-u, u, -0.2, 0.2, 0.0), (-u, u, -0.2, 0.2, height)
    for face in view.frustum(frame, lower, upper, colour, WALL).values():
        dark = tuple(c * 0.78 for c in colour)
        view.decal(face, 0, 0.92, 1, 1.0, tuple(c * 1.12 for c in colour), WALL)
        view.decal(face, 0, 0.0, 1, 0.06, dark, WALL)
        joints = max(int(length / 3), 1)
        for i in range(1, joints):
            view.decal(face, i / joints, 0, i / joints + 0.012, 0.92, dark, WALL)


def fence(view: View, dice: Dice, frame: Frame, colour, gap, length, height) -> None:
    """Pickets or bars along the street; `gap` is the colour between them."""
    u = length / 2
    corners = [frame.at(w, 0, y) for w, y in _box(u, height)]
    face = Face(tuple(corners), view.light.on(-0.8, 0.2, -0.4))
    view.polygon(corners, gap, FENCE, face.light)
    bars = max(int(length * 1.6), 3)
    if frame.scale < 0.02:
        bars //= 3
    for i in range(bars):
        s = i / bars
        view.decal(face, s, 0, s + 0.45 / bars, 1.0, colour, FENCE)
    for t in (0.15, 0.8):
        view.decal(face, 0, t, 1, t + 0.12, colour, FENCE)


def _box(u: float, height: float):
    return ((-u, 0), (u, 0), (u, height), (-u, height))


def building(
    view: View, dice: Dice, frame: Frame, *, paint, length, height, side, ends
) -> None:
    """A house along the street.

    Args:
        frame: middle of its front on the pavement line.
        paint: dict of the colours 'facade', 'glass', 'roof', 'shop'.
        side: -1 on the left of the street, 1 on the right.
        ends: whether its end walls have windows.
    """
    u, deep = length / 2, 11.0 * side
    v0, v1 = min(0.0, deep), max(0.0, deep)
    lower, upper = (-u, u, v0, v1, 0.0), (-u, u, v0, v1, height)
    faces = view.frustum(frame, lower, upper, paint["facade"], BUILDING)
    front = "left" if side > 0 else "right"
    if paint["roof"] is not None:
        inset = min(3.0, height * 0.3) * side
        top = (-u, u, min(inset, deep - inset), max(inset, deep - inset))
        rise = height + abs(inset)
        view.frustum(frame, upper, (*top, rise), paint["roof"], BUILDING)
    floors = max(int(height / 3.1), 1)
    if frame.scale < _PLAIN:
        return
    for name, face in faces.items():
        if name == "top":
            continue
        if name != front and not ends:
            continue
        bays = max(int((length if name == front else 11.0) / 2.9), 1)
        shop = 1 if name == front and paint["shop"] else 0
        windows(view, dice, face, floors, bays, paint["glass"], first=shop)
        if shop:
            _shop(view, dice, face, floors, bays, paint)
        view.decal(face, 0, 0.965, 1, 1, tuple(c * 0.8 for c in paint["facade"]), 2)


def _shop(view: View, dice: Dice, face: Face, floors: int, bays: int, paint):
    top = 1 / floors
    view.decal(face, 0, 0, 1, top * 0.92, paint["shop"], BUILDING)
    for i in range(bays):
        s, low = (i + 0.1) / bays, 0.02 if i % 3 == 1 else top * 0.2
        view.decal(face, s, low, s + 0.8 / bays, top * 0.72, paint["glass"], BUILDING)
    view.decal(face, 0, top * 0.78, 1, top * 0.95, paint["sign"], BUILDING)


def windows(view: View, dice: Dice, face: Face, floors, bays, glass, *, first=0):
    """Rows of windows on a facade; bands instead where they would be too narrow."""
    a, b, _, d = face.corners
    behind = min(a[2], b[2]) < NEAR
    if not behind:
        wide = abs(a[0] / a[2] - b[0] / b[2]) * view.pose.focal / bays
        if wide < _SMALLEST_BAY / 3:
            return
        if wide < _SMALLEST_BAY:
            for floor in range(first, min(floors, first + 4)):
                t = (floor + 0.35) / floors
                view.decal(face, 0.04, t, 0.96, t + 0.4 / floors, glass, BUILDING)
            return
    depth = (a[2] + b[2]) / 2
    shades = [
        view.shade(glass, face.light * gain, depth, BUILDING)
        for gain in (0.8, 0.95, 1.0, 1.15)
    ]
    corner, right, up = np.array((a, b, d))
    s, t = _panes(bays, first, floors)
    points = corner + s * (right - corner) + t * (up - corner)
    if behind:
        points = points[points[..., 2].min(1) > NEAR]
    flat = view.grid(points)
    inside = (flat.max(1) > 0).all(1) & (flat.min(1) < (view.columns, view.rows)).all(1)
    turn = dice.count(0, 3)
    for i, quad in zip(
        inside.nonzero()[0].tolist(), flat[inside].reshape(-1, 8).tolist(), strict=True
    ):
        view.paint(quad, shades[(turn + i * i // 3) % 4])


@lru_cache(maxsize=256)
def _panes(bays: int, first: int, floors: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners of all windows on a facade as s and t, each f64[N, 4, 1]."""
    columns = (np.arange(bays)[:, None] + (0.26, 0.74)) / bays
    rows = (np.arange(first, floors)[:, None] + (0.3, 0.8)) / floors
    s = np.tile(columns[:, [0, 1, 1, 0]], (floors - first, 1))
    t = np.repeat(rows[:, [0, 0, 1, 1]], bays, 0)
    return s[..., None], t[..., None]
