"""What a real camera adds to a rendered street: texture, haze, optics and noise."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

from tufl_jax.data.streets_dice import Dice
from tufl_jax.data.streets_view import View
from tufl_jax.data.streets_weather import Weather

_TILE = 256  # pixels of a ground texture, a power of two
_METRES = 0.11  # of ground per pixel of it
_REACH = 22.0  # metres over which ground texture fades

# Relative contrast of fine and coarse screen texture of the 19 classes (and 255).
_FINE = np.full(256, 0.03, np.float32)
_COARSE = np.full(256, 0.05, np.float32)
_FINE[[2, 3, 4, 8, 9]] = (0.05, 0.07, 0.08, 0.15, 0.08)
_COARSE[[2, 3, 8, 9, 10]] = (0.06, 0.09, 0.1, 0.08, 0.03)
_FINE[[0, 1, 10]] = (0.015, 0.015, 0.004)

# Where a class's ground texture starts: asphalt, slabs, grass.
_KIND = np.zeros(256, np.int32)
_KIND[1], _KIND[9] = _TILE**2, 2 * _TILE**2


def _octaves(rng, size, first: int, last: int) -> np.ndarray:
    """f32[H, W] noise of unit deviation that wraps round, from coarse to fine."""
    rows, columns = size
    total = np.zeros(size, np.float32)
    for level in range(first, last):
        m, n = 2**level, max(2**level * columns // rows, 1)
        cells = np.pad(rng.standard_normal((m, n), np.float32), 2, mode="wrap")
        zoom = Image.fromarray(cells).resize(
            (columns, rows), Image.Resampling.BICUBIC, (2, 2, n + 2, m + 2)
        )
        total += np.asarray(zoom) * 0.8 ** (level - first)
    return (total - total.mean()) / total.std()


@lru_cache(maxsize=1)
def _ground_tiles() -> np.ndarray:
    """f32[3, T, T] relative brightness of asphalt, paving slabs and grass."""
    rng = np.random.default_rng(1)
    size = (_TILE, _TILE)
    asphalt = 1 + 0.08 * _octaves(rng, size, 2, 6) + 0.05 * _octaves(rng, size, 7, 8)
    slabs = 1 + 0.05 * _octaves(rng, size, 3, 7)
    stones = 1 + 0.07 * rng.standard_normal((32, 32)).astype(np.float32)
    slabs *= np.kron(stones, np.ones((8, 8), np.float32))
    slabs[::8] *= 0.72
    slabs[:, ::8] *= 0.72
    grass = 1 + 0.12 * _octaves(rng, size, 2, 5) + 0.14 * _octaves(rng, size, 6, 8)
    return np.stack([asphalt, slabs, grass]).astype(np.float32)


@lru_cache(maxsize=4)
def _screen(size: tuple[int, int]):
    """Fine and coarse texture and noise, twice the size, and the vignette."""
    rng = np.random.default_rng(2)
    rows, columns = 2 * size[0], 2 * size[1]
    fine = _octaves(rng, (rows, columns), 6, 8)
    coarse = _octaves(rng, (rows, columns), 3, 6)
    noise = rng.standard_normal((rows, columns, 3), np.float32)
    noise = 0.8 * noise + 0.6 * noise.mean(-1, keepdims=True) * 3**0.5
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    radius = np.hypot(x / size[1] - 0.5, (y - size[0] / 2) / size[1]) / 0.56
    return fine, coarse, noise, (radius**2.5)[..., None]


def ground(view: View, mask: Image.Image, dice: Dice, *, sensor: bool) -> None:
    """Darkens the ground where the mask says so; for a sensor adds texture and haze.

    Done before anything stands on the ground, so that things are not touched.
    """
    pixels = np.array(view.image)
    if sensor:
        _texture_ground(view, pixels, np.asarray(mask), dice)
    else:
        box = mask.getbbox()
        if box is None:
            return
        area = np.s_[box[1] : box[3], box[0] : box[2]]
        keep = 1 - view.light.shadow / 255 * np.asarray(mask, np.float32)[area]
        part = pixels[area]
        part[..., :3] = part[..., :3] * keep[..., None]
    view.replace(Image.fromarray(pixels))


def _texture_ground(view: View, pixels, mask, dice: Dice) -> None:
    rows, columns = mask.shape
    pose, light = view.pose, view.light
    x = (np.arange(columns, dtype=np.float32) + 0.5 - columns / 2) / columns
    y = (rows / 2 - np.arange(rows, dtype=np.float32) - 0.5) / columns
    ground_rows = np.flatnonzero((pixels[..., 3] != 10).any(1))
    if not len(ground_rows):
        return
    first = ground_rows[0]
    x, y = x / pose.focal, y[first:, None] / pose.focal
    to_world = view.rotation.T.astype(np.float32)
    wx, wy, wz = (row[0] * x + row[1] * y + row[2] for row in to_world)
    depth = np.minimum(pose.height / np.maximum(-wy, 1e-3), 400.0)
    part, fixed = pixels[first:], _TILE - 1
    label = part[..., 3]
    column = (wx * depth * (1 / _METRES) + dice.between(0, 9999)).astype(np.int32)
    row = (wz * depth * (1 / _METRES) + dice.between(0, 9999)).astype(np.int32)
    where = np.take(_KIND, label) + (row & fixed) * _TILE + (column & fixed)
    # the roll is small: fading and haze are those of the middle of each row
    middle = depth[:, columns // 2, None]
    gain = np.take(_ground_tiles(), where) - 1
    gain *= np.exp(middle * (-1 / _REACH))
    gain += 1
    gain *= 1 - light.shadow / 255 * mask[first:]
    clear = np.exp(-light.haze * middle)
    gain *= clear
    colour = part[..., :3] * gain[..., None]
    colour += (1 - clear)[..., None] * np.array(light.haze_colour, np.float32)
    np.copyto(part[..., :3], _to_bytes(colour), where=(label != 10)[..., None])


def develop(pixels: np.ndarray, weather: Weather, dice: Dice) -> np.ndarray:
    """Turns painted colours into what the sensor reads.

    Args:
        pixels: u8[H, W, 4], colour and training id.
    Returns:
        u8[H, W, 3].
    """
    size = pixels.shape[:2]
    rows, columns = size
    fine, coarse, noise, corners = _screen(size)
    oy, ox = dice.count(0, rows), dice.count(0, columns)
    window = np.s_[oy : oy + rows, ox : ox + columns]
    label = pixels[..., 3]
    gain = np.take(_FINE, label) * fine[window]
    gain += np.take(_COARSE, label) * coarse[window]
    gain += 1
    image = Image.fromarray(_to_bytes(pixels[..., :3] * gain[..., None]))
    image = image.convert("RGB", _response(weather, dice))
    image = image.filter(ImageFilter.BoxBlur(dice.between(0.0008, 0.0026) * columns))

    oy, ox = dice.count(0, rows), dice.count(0, columns)
    # smaller pictures average some of the noise away
    deviation = dice.between(*weather.noise) * min(columns / 512, 1.0) ** 0.25
    read = noise[oy : oy + rows, ox : ox + columns] * np.float32(deviation)
    read += np.asarray(image) * (1 - dice.between(0.1, 0.4) * corners)
    return _to_bytes(read)


def _response(weather: Weather, dice: Dice) -> tuple[float, ...]:
    """Contrast, saturation, colour cast and exposure as a 3 by 4 colour matrix."""
    contrast = dice.between(*weather.contrast)
    saturation = dice.between(*weather.saturation)
    grey = (1 - saturation) * np.array((0.299, 0.587, 0.114))
    mix = saturation * np.eye(3) + grey
    cast = [c * dice.between(0.96, 1.04) for c in weather.cast]
    mix *= np.array(cast)[:, None] * contrast * dice.between(*weather.exposure)
    bias = 110 * (1 - contrast) + dice.between(0, 14)
    return tuple(np.column_stack([mix, [bias] * 3]).ravel().tolist())


def _to_bytes(image: np.ndarray) -> np.ndarray:
    """f32 to u8 in place of its clipped values."""
    return np.clip(image, 0, 255, out=image).astype(np.uint8)
