"""Rendered streets: the built-in data set, drawn on demand with exact labels.

Two domains with the 19 Cityscapes classes and a long tail: 'rendered', clean and
colourful like a simple game, for labelled sources; 'camera', with another pose, other
layouts, weather, texture and a sensor, for unlabelled targets. Image and label are
painted by the same polygons, so they agree to the pixel.
"""

import operator

import numpy as np

from tufl_jax.data.streets_camera import develop, ground
from tufl_jax.data.streets_dice import Dice
from tufl_jax.data.streets_layout import lay_out
from tufl_jax.data.streets_scene import (
    Scene,
    light,
    paint_ground,
    paint_sky,
    paint_things,
    pose,
    shadow_mask,
)
from tufl_jax.data.streets_style import STYLES, Style
from tufl_jax.data.streets_view import View, ring
from tufl_jax.errors import UserError
from tufl_jax.labels import IGNORE

_SPLITS = ("train", "val")
_SMALLEST = (32, 64)


class Streets:
    """Random access to `length` street scenes; item i depends on nothing but i.

    Args:
        domain: 'rendered' or 'camera'.
        length: number of pictures.
        size: (H, W), at least (32, 64); it changes the resolution, not the scene.
        seed: of the whole set, >= 0.
        split: 'train' or 'val': two random streams that share no picture.
        labelled: whether items hold a 'label'.
    Raises:
        UserError: one of these is not possible; the message says what is.
    """

    def __init__(
        self,
        domain: str,
        *,
        length: int,
        size: tuple[int, int] = (128, 256),
        seed: int = 0,
        split: str = "train",
        labelled: bool = True,
    ):
        if domain not in STYLES:
            raise UserError(
                f"streets domain {domain!r}: choose one of {', '.join(STYLES)}"
            )
        if split not in _SPLITS:
            raise UserError(
                f"streets split {split!r}: choose one of {', '.join(_SPLITS)}"
            )
        size = tuple(size)
        if len(size) != 2 or size[0] < _SMALLEST[0] or size[1] < _SMALLEST[1]:
            raise UserError(
                f"streets size {size}: give (height, width) of at least {_SMALLEST}"
            )
        if length < 1 or seed < 0:
            raise UserError(
                f"streets length {length}, seed {seed}: give a length of at least 1 "
                "and a seed of at least 0"
            )
        self.domain, self.split, self.labelled = domain, split, labelled
        self.size, self.seed, self._length = size, seed, length

    def __len__(self) -> int:
        return self._length

    def fingerprint(self) -> str:
        """Changes when the labels do."""
        return f"{self.domain} {self.split} {self.size} {self.seed} {len(self)} v3"

    def name(self, index: int) -> str:
        """What tells the item apart from the others of this domain, split and seed."""
        return f"streets_{self.domain}_{self.split}_{index:06d}"

    def __getitem__(self, index: int) -> dict:
        """{'image': u8[H, W, 3], 'label': u8[H, W] of 0..18 or 255, 'name': str}."""
        i = operator.index(index)
        if not 0 <= i < self._length:
            raise IndexError(f"streets picture {i} of {self._length}")
        style = STYLES[self.domain]
        stream = [self.seed, style.number, _SPLITS.index(self.split), i]
        image, label = _draw(style, self.size, Dice(np.random.default_rng(stream)))
        item = {"image": image, "name": self.name(i)}
        if self.labelled:
            item["label"] = label
        return item


def _draw(style: Style, size: tuple[int, int], dice: Dice):
    """Image u8[H, W, 3] and training ids u8[H, W] of one scene."""
    names = {name: kind.weight for name, kind in style.weather.items()}
    weather = style.weather[dice.weighted(names)]
    top = dice.tint(dice.pick(weather.sky_top), 8)
    low = dice.tint(dice.pick(weather.sky_low), 6)
    scene = Scene(style, dice)
    view = View(size, pose(style, dice, scene.half), light(weather, dice, low))
    lay_out(scene)
    paint_sky(view, dice, weather, top, low)
    paint_ground(view, scene)
    mask = shadow_mask(view, scene, cast=style.sensor and view.light.shadow > 0.1)
    ground(view, mask, dice, sensor=style.sensor)
    paint_things(view, scene)
    if style.sensor and dice.chance(0.5):
        _paint_bonnet(view, dice)
    pixels = np.array(view.image)
    label = pixels[..., 3].copy()
    if style.sensor:
        return develop(pixels, weather, dice), label
    return pixels[..., :3].copy(), label


def _paint_bonnet(view: View, dice: Dice) -> None:
    """The carrying car's own bonnet, which is not evaluated."""
    rise = dice.between(0.02, 0.06)
    colour = [int(c) for c in dice.tint((52, 54, 58), 24)]
    centre = (0.5 * view.columns, view.rows + view.columns * (0.2 - rise))
    outline = ring(centre, 0.62 * view.columns, 0.2 * view.columns, 40)
    flat = [w for point in outline for w in point]
    view.paint(flat, (*(max(c, 0) for c in colour), IGNORE))
