"""Everything that stands or moves on a rendered street, one function per thing.

Each paints itself on a `View` in a `Frame`; sizes are metres, colours 0..255, and the
training id of every part is that of Cityscapes' definition (a rider is not part of the
bicycle, the trunk is part of the tree, the lamp's post is a pole).
"""

import math

from tufl_jax.data.streets_dice import Dice
from tufl_jax.data.streets_view import Frame, View, ring

POLE, LIGHT, SIGN, VEGETATION = 5, 6, 7, 8
PERSON, RIDER, CAR, TRUCK = 11, 12, 13, 14
BUS, TRAIN, MOTORCYCLE, BICYCLE = 15, 16, 17, 18

# Picture widths per metre below which small parts are left out.
_CLOSE, _FAR = 0.045, 0.02

RUBBER = (28, 28, 30)
RED_LAMP = (214, 30, 26)
WHITE_LAMP = (250, 248, 230)


def _wheels(view: View, frame: Frame, faces, along, v: float, radius: float, label):
    """Wheels on the visible side; v is half the vehicle's width."""
    rims = ((1.0, RUBBER), (0.55, (150, 150, 155)))
    if frame.scale < _CLOSE:
        rims = rims[:1]
    for name, side in (("right", v), ("left", -v)):
        if name in faces:
            for u in along:
                for scale, colour in rims:
                    outline = ring((u, radius), radius * scale, radius * scale, 8)
                    points = [frame.at(a, side, y) for a, y in outline]
                    view.polygon(points, colour, label)


def _near_end(frame: Frame, u: float) -> float:
    """u or -u, whichever is closer to the camera."""
    return u if frame.u[2] < 0 else -u


def _tyres(view: View, frame: Frame, u: float, v: float, height: float, label):
    """The tyres under a vehicle's end, for views along the street."""
    for inner, outer in ((-v, -v + 0.28), (v - 0.28, v)):
        corners = ((inner, 0), (outer, 0), (outer, height), (inner, height))
        points = [frame.at(u, w, y) for w, y in corners]
        view.polygon(points, RUBBER, label)


def _lamps(view: View, faces, label, low: float, high: float, width: float):
    for name, colour in (("rear", RED_LAMP), ("front", WHITE_LAMP)):
        if name in faces:
            for s in (0.02, 0.98 - width):
                view.decal(faces[name], s, low, s + width, high, colour, label, 1.0)


# Length, width, height of the body, of the roof; start and end of the cabin at the
# body and at the roof, as fractions of the length from the rear.
_CARS = {
    "hatchback": (3.9, 1.75, 0.86, 1.48, (0.01, 0.74), (0.12, 0.52)),
    "saloon": (4.6, 1.82, 0.84, 1.42, (0.14, 0.74), (0.28, 0.56)),
    "estate": (4.7, 1.85, 0.95, 1.62, (0.01, 0.74), (0.06, 0.56)),
    "van": (4.9, 1.95, 1.05, 1.95, (0.0, 0.86), (0.02, 0.70)),
}


def car(view: View, dice: Dice, frame: Frame, colour, glass) -> None:
    kind = dice.weighted({"hatchback": 3, "saloon": 3, "estate": 2, "van": 1})
    length, width, body, roof, base, top = _CARS[kind]
    u, v = length / 2, width / 2
    far = frame.scale < _FAR
    if not far:
        _tyres(view, frame, _near_end(frame, u - 0.5), v, 0.5, CAR)
    lower = (-u, u, -v, v, 0.27)
    faces = view.frustum(frame, lower, (-u + 0.06, u - 0.12, -v, v, body), colour, CAR)
    for name in ("rear", "front"):
        if name in faces and not far:
            view.decal(faces[name], 0, 0, 1, 0.22, (45, 45, 48), CAR)
            view.decal(faces[name], 0.36, 0.3, 0.64, 0.5, (225, 225, 215), CAR)
    _lamps(view, faces, CAR, 0.55, 0.88, 0.2)
    u0, u1 = -u + base[0] * length, -u + base[1] * length
    w0, w1 = -u + top[0] * length, -u + top[1] * length
    cabin = view.frustum(
        frame, (u0, u1, -v, v, body), (w0, w1, -v + 0.2, v - 0.2, roof), colour, CAR
    )
    for name, face in cabin.items():
        if name in ("rear", "front"):
            view.decal(face, 0.07, 0.12, 0.93, 0.88, glass, CAR)
        elif name != "top" and far:
            view.decal(face, 0.1, 0.12, 0.9, 0.88, glass, CAR)
        elif name != "top":
            view.decal(face, 0.1, 0.12, 0.48, 0.88, glass, CAR)
            view.decal(face, 0.53, 0.12, 0.9, 0.88, glass, CAR)
    if not far:
        _wheels(view, frame, faces, (-0.31 * length, 0.31 * length), v, 0.32, CAR)


def bus(view: View, dice: Dice, frame: Frame, colour, glass) -> None:
    u, v, height = dice.between(5.0, 6.2), 1.27, dice.between(2.9, 3.2)
    if dice.chance(0.15):
        height = 4.2  # a double-decker
    _tyres(view, frame, _near_end(frame, u - 1.0), v, 0.6, BUS)
    faces = view.frustum(
        frame, (-u, u, -v, v, 0.35), (-u, u, -v, v, height), colour, BUS
    )
    stripe = dice.tint((235, 235, 230), 20)
    decks = ((0.36, 0.82),) if height < 4 else ((0.24, 0.5), (0.62, 0.88))
    for name, face in faces.items():
        if name == "top":
            continue
        view.decal(face, 0, 0.02, 1, 0.12, stripe, BUS)
        if name in ("left", "right"):
            bays = 7
            for low, high in decks:
                for i in range(bays):
                    s = 0.03 + i * 0.95 / bays
                    view.decal(face, s, low, s + 0.115, high, glass, BUS)
            for s in (0.06, 0.5):
                view.decal(face, s, 0.05, s + 0.09, 0.78 * decks[0][1], glass, BUS)
        else:
            for low, high in decks:
                view.decal(face, 0.06, low, 0.94, high, glass, BUS)
            view.decal(face, 0.2, 0.87, 0.8, 0.96, (240, 170, 40), BUS, 1.0)
    _lamps(view, faces, BUS, 0.14, 0.22, 0.14)
    _wheels(view, frame, faces, (-0.6 * u, 0.62 * u), v, 0.48, BUS)


def truck(view: View, dice: Dice, frame: Frame, colour, glass) -> None:
    length, v = dice.between(6.5, 10.0), 1.25
    u, cab, load = length / 2, dice.between(2.4, 2.8), dice.between(3.0, 3.7)
    box = dice.pick(((236, 236, 232), (205, 208, 212), (60, 110, 170), (190, 120, 60)))
    _tyres(view, frame, _near_end(frame, u - 0.7), v, 0.9, TRUCK)

    def draw_load():
        rear = (-u, u - 2.4, -v, v)
        view.frustum(frame, (*rear, 0.55), (*rear, 0.95), (50, 50, 54), TRUCK)
        faces = view.frustum(frame, (*rear, 0.95), (*rear, load), box, TRUCK)
        if "rear" in faces:
            view.decal(faces["rear"], 0.49, 0, 0.51, 1, (90, 90, 92), TRUCK)
            view.decal(faces["rear"], 0, 0, 1, 0.05, RED_LAMP, TRUCK, 1.0)
        for name in ("left", "right"):
            if name in faces:
                view.decal(faces[name], 0.12, 0.3, 0.88, 0.6, colour, TRUCK)
        return faces

    def draw_cab():
        lower = (u - 2.1, u, -v, v, 0.45)
        upper = (u - 2.1, u - 0.2, -v + 0.08, v - 0.08, cab)
        faces = view.frustum(frame, lower, upper, colour, TRUCK)
        for name, face in faces.items():
            if name == "front":
                view.decal(face, 0.06, 0.5, 0.94, 0.88, glass, TRUCK)
                view.decal(face, 0.2, 0.12, 0.8, 0.36, (40, 40, 42), TRUCK)
            elif name in ("left", "right"):
                view.decal(face, 0.25, 0.5, 0.9, 0.86, glass, TRUCK)
        _lamps(view, faces, TRUCK, 0.1, 0.24, 0.16)
        return faces

    away = frame.u[2] > 0
    for draw in (draw_cab, draw_load) if away else (draw_load, draw_cab):
        faces = draw()
    wheels = (-u + 0.9, -u + 2.0, u - 1.2)
    _wheels(view, frame, faces, wheels, v, 0.5, TRUCK)


def tram(view: View, dice: Dice, frame: Frame, colour, glass) -> None:
    """A tram of two or three cars; Cityscapes calls it a train."""
    cars, length, v, height = dice.count(2, 3), 9.0, 1.2, 3.3
    stripe = dice.pick(((240, 240, 235), (230, 200, 60), (60, 60, 66)))
    centres = [(i - (cars - 1) / 2) * (length + 0.5) for i in range(cars)]
    centres.sort(key=lambda u: -frame.at(u, 0, 1)[2])
    for centre in centres:
        here = view.frame(frame.place.moved(centre))
        u = length / 2
        lower, upper = (-u, u, -v, v, 0.2), (-u + 0.3, u - 0.3, -v, v, height)
        faces = view.frustum(here, lower, upper, colour, TRAIN)
        for name, face in faces.items():
            if name == "top":
                view.decal(face, 0.2, 0.1, 0.8, 0.9, (120, 122, 126), TRAIN)
                continue
            view.decal(face, 0, 0, 1, 0.12, (50, 50, 54), TRAIN)
            view.decal(face, 0, 0.9, 1, 1.0, stripe, TRAIN)
            view.decal(face, 0, 0.3, 1, 0.38, stripe, TRAIN)
            if name in ("left", "right"):
                for i in range(5):
                    s = 0.05 + i * 0.185
                    view.decal(face, s, 0.45, s + 0.15, 0.82, glass, TRAIN)
                view.decal(face, 0.42, 0.1, 0.52, 0.84, glass, TRAIN)
            else:
                view.decal(face, 0.08, 0.42, 0.92, 0.86, glass, TRAIN)
        _lamps(view, faces, TRAIN, 0.18, 0.28, 0.14)


def person(view: View, dice: Dice, frame: Frame, clothes, skin) -> None:
    """Seen upright from where the camera is; walking or standing."""
    h = dice.between(1.1, 1.4) if dice.chance(0.1) else dice.between(1.6, 1.9)
    stride, lean = dice.between(-0.13, 0.13), dice.between(-0.02, 0.02)
    top, legs = clothes
    light = view.light.on(0.0, 0.3, -0.9)

    def part(outline, colour):
        view.upright(frame, [(v * h, y * h) for v, y in outline], colour, PERSON, light)

    if frame.scale < _FAR:
        part([(-0.08, 0.5), (0.08, 0.5), (0.07, 0), (-0.07, 0)], legs)
        part([(-0.13, 0.82), (0.13, 0.82), (0.11, 0.45), (-0.11, 0.45)], top)
        part(ring((lean, 0.91), 0.06, 0.08, 6), skin)
        return
    part([(-0.08, 0.5), (0.02, 0.5), (0.04 + stride, 0), (-0.05 + stride, 0)], legs)
    part([(-0.02, 0.5), (0.08, 0.5), (0.05 - stride, 0), (-0.04 - stride, 0)], legs)
    part([(-0.1, 0.8), (-0.15, 0.47), (-0.11, 0.46), (-0.06, 0.74)], top)
    part([(0.1, 0.8), (0.15, 0.47), (0.11, 0.46), (0.06, 0.74)], top)
    part([(-0.11, 0.82), (0.11, 0.82), (0.095, 0.45), (-0.095, 0.45)], top)
    if dice.chance(0.2):
        bag = dice.pick(((150, 40, 40), (40, 40, 44), (60, 80, 60)))
        part([(0.1, 0.5), (0.2, 0.5), (0.2, 0.36), (0.1, 0.36)], bag)
    part(ring((lean, 0.91), 0.055, 0.075, 8), skin)
    hair = dice.pick(((40, 28, 22), (90, 64, 40), (160, 150, 140), (20, 20, 22)))
    part([(-0.055, 0.92), (0.055, 0.92), (0.04, 0.99), (-0.04, 0.99)], hair)


def _side_on(view: View, frame: Frame) -> bool:
    """Whether a two-wheeler shows its side rather than its end."""
    place = frame.place
    bearing = math.atan2(place.x - view.pose.x, max(place.z, 1.0))
    return abs(math.sin(place.heading - bearing)) > 0.45


def rider(view: View, dice: Dice, frame: Frame, clothes, skin, *, seat=0.95) -> None:
    top, legs = clothes
    side = _side_on(view, frame)
    light = view.light.on(0.0, 0.3, -0.9)
    helmet = dice.pick(((230, 230, 230), (40, 40, 44), (190, 40, 40), (60, 40, 30)))

    def part(outline, colour):
        lifted = [(w, y + seat - 0.95) for w, y in outline]
        view.upright(frame, lifted, colour, RIDER, light, side)

    if side:
        part([(-0.25, 1.0), (-0.05, 0.92), (0.28, 0.62), (0.2, 0.52)], legs)
        part([(0.18, 0.68), (0.3, 0.6), (0.12, 0.28), (0.0, 0.3)], legs)
        part([(-0.3, 0.95), (-0.02, 0.9), (0.3, 1.42), (0.05, 1.55)], top)
        part([(0.14, 1.42), (0.28, 1.4), (0.55, 1.05), (0.48, 1.0)], top)
        part(ring((0.26, 1.62), 0.12, 0.15, 8), skin)
        part([(0.12, 1.64), (0.4, 1.66), (0.32, 1.8), (0.18, 1.8)], helmet)
    else:
        part([(-0.2, 1.0), (-0.04, 1.0), (-0.1, 0.32), (-0.2, 0.32)], legs)
        part([(0.04, 1.0), (0.2, 1.0), (0.2, 0.45), (0.1, 0.45)], legs)
        part([(-0.22, 1.48), (-0.34, 1.1), (-0.26, 1.02), (-0.14, 1.4)], top)
        part([(0.22, 1.48), (0.34, 1.1), (0.26, 1.02), (0.14, 1.4)], top)
        part([(-0.23, 1.5), (0.23, 1.5), (0.18, 0.9), (-0.18, 0.9)], top)
        part(ring((0.0, 1.64), 0.11, 0.15, 8), skin)
        part([(-0.12, 1.66), (0.12, 1.66), (0.08, 1.82), (-0.08, 1.82)], helmet)


def bicycle(view: View, dice: Dice, frame: Frame, colour, gap) -> None:
    """`gap` is the colour seen between the spokes."""

    def part(outline, value, side):
        view.upright(frame, outline, value, BICYCLE, 1.0, side)

    if _side_on(view, frame):
        for u in (-0.52, 0.52):
            part(ring((u, 0.34), 0.35, 0.35), RUBBER, True)
            part(ring((u, 0.34), 0.27, 0.27), gap, True)
        part([(-0.52, 0.37), (-0.52, 0.3), (-0.02, 0.26), (0.0, 0.33)], colour, True)
        part([(-0.22, 0.86), (-0.14, 0.86), (0.03, 0.28), (-0.05, 0.28)], colour, True)
        part([(-0.2, 0.8), (-0.2, 0.71), (0.38, 0.76), (0.38, 0.84)], colour, True)
        part([(0.34, 0.84), (0.42, 0.82), (0.02, 0.26), (-0.06, 0.3)], colour, True)
        part([(0.33, 1.02), (0.41, 1.02), (0.55, 0.34), (0.48, 0.34)], colour, True)
        part([(-0.32, 0.95), (-0.06, 0.95), (-0.08, 0.85), (-0.26, 0.85)], RUBBER, True)
        part([(0.25, 1.08), (0.48, 1.08), (0.48, 1.0), (0.25, 1.0)], RUBBER, True)
    else:
        part([(-0.05, 0.0), (0.05, 0.0), (0.05, 0.7), (-0.05, 0.7)], RUBBER, False)
        part([(-0.04, 0.5), (0.04, 0.5), (0.04, 1.0), (-0.04, 1.0)], colour, False)
        part([(-0.3, 1.06), (0.3, 1.06), (0.3, 0.98), (-0.3, 0.98)], colour, False)
        part([(-0.1, 0.95), (0.1, 0.95), (0.1, 0.85), (-0.1, 0.85)], RUBBER, False)


def motorcycle(view: View, dice: Dice, frame: Frame, colour) -> None:
    steel = (130, 132, 138)

    def part(outline, value, side):
        view.upright(frame, outline, value, MOTORCYCLE, 1.0, side)

    if _side_on(view, frame):
        for u in (-0.66, 0.68):
            part(ring((u, 0.32), 0.33, 0.33), RUBBER, True)
            part(ring((u, 0.32), 0.16, 0.16), steel, True)
        part([(0.4, 1.05), (0.5, 1.05), (0.72, 0.32), (0.62, 0.32)], steel, True)
        part([(-0.35, 0.6), (0.35, 0.65), (0.3, 0.2), (-0.3, 0.2)], (70, 70, 74), True)
        part([(-0.9, 0.34), (-0.1, 0.3), (-0.1, 0.2), (-0.9, 0.24)], steel, True)
        outline = [(-0.95, 0.9), (-0.2, 0.78), (0.45, 0.72), (0.55, 0.95), (0.2, 1.08)]
        part([*outline, (-0.1, 0.9)], colour, True)
        part([(-0.85, 0.96), (-0.05, 0.9), (-0.1, 0.8), (-0.75, 0.84)], RUBBER, True)
        part([(0.3, 1.15), (0.5, 1.18), (0.62, 0.9), (0.45, 0.88)], colour, True)
    else:
        part([(-0.1, 0.0), (0.1, 0.0), (0.1, 0.66), (-0.1, 0.66)], RUBBER, False)
        part([(-0.26, 0.42), (-0.12, 0.42), (-0.12, 0.25), (-0.26, 0.25)], steel, False)
        part([(-0.24, 0.5), (0.24, 0.5), (0.2, 1.0), (-0.2, 1.0)], colour, False)
        part([(-0.42, 1.08), (0.42, 1.08), (0.42, 0.98), (-0.42, 0.98)], RUBBER, False)
        part([(-0.1, 0.8), (0.1, 0.8), (0.1, 0.68), (-0.1, 0.68)], RED_LAMP, False)
        for v in (-0.42, 0.34):
            part([(v, 1.3), (v + 0.1, 1.3), (v + 0.1, 1.16), (v, 1.16)], colour, False)
