"""The cars, buses, trucks and trams of rendered streets, one function each.

Each paints itself on a `View` in a `Frame`; sizes are metres, colours 0..255, and the
training ids of the parts are those of Cityscapes' definitions.
"""

from tufl_jax.data.streets_dice import Dice
from tufl_jax.data.streets_view import Frame, View, ring

CAR, TRUCK, BUS, TRAIN = 13, 14, 15, 16

# Picture widths per metre below which small parts are left out.
CLOSE, FAR = 0.045, 0.02

RUBBER = (28, 28, 30)
RED_LAMP = (214, 30, 26)
WHITE_LAMP = (250, 248, 230)


def _wheels(view: View, frame: Frame, faces, along, v: float, radius: float, label):
    """Wheels on the visible side; v is half the vehicle's width."""
    rims = ((1.0, RUBBER), (0.55, (150, 150, 155)))
    if frame.scale < CLOSE:
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
    far = frame.scale < FAR
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
