"""People, riders and two-wheelers of rendered streets, as flat upright figures.

A rider and what is ridden are two things of different classes, as in Cityscapes.
"""

import math

from tufl_jax.data.streets_dice import Dice
from tufl_jax.data.streets_vehicles import FAR, RED_LAMP, RUBBER
from tufl_jax.data.streets_view import Frame, View, ring

PERSON, RIDER, MOTORCYCLE, BICYCLE = 11, 12, 17, 18


def person(view: View, dice: Dice, frame: Frame, clothes, skin) -> None:
    """Seen upright from where the camera is; walking or standing."""
    h = dice.between(1.1, 1.4) if dice.chance(0.1) else dice.between(1.6, 1.9)
    stride, lean = dice.between(-0.13, 0.13), dice.between(-0.02, 0.02)
    top, legs = clothes
    light = view.light.on(0.0, 0.3, -0.9)

    def part(outline, colour):
        view.upright(frame, [(v * h, y * h) for v, y in outline], colour, PERSON, light)

    if frame.scale < FAR:
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
