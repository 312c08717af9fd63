"""Photometric and geometric perturbations on the device.

Ranges and order follow the released training code; the pixel operations follow Pillow
on floats in 0..255, clipped but not rounded to 8 bits after every step as there.

`strong`, `source` and `random_affine` take one key per image. An image's result
depends on its own key only, so it does not matter how a batch is split over devices.
The functions that change one image take its planes f32[3, H, W], which on a CPU is four
times as fast as pixels of three channels; vmap them over a batch.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from tufl_jax import ops

_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
_IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32) * 255
_CAFFE_MEAN_BGR = np.array([104.00698793, 116.66876762, 122.67891434], np.float32)
_PATTERN_SIZE = 32  # cells along a side of the shadow pattern


def strong(
    keys: jax.Array,
    images: jax.Array,
    *,
    brightness: tuple[float, float] = (0.4, 1.2),
    contrast: tuple[float, float] = (0.4, 2.0),
    saturation: tuple[float, float] = (0.5, 2.0),
    sharpness: tuple[float, float] = (0.4, 2.0),
    shadow: tuple[float, float] = (0.01, 0.3),
    noise: tuple[int, int] = (3, 4),
    blur: tuple[float, float] = (0.0, 1.2),
    equalize: float = 0.3,
) -> jax.Array:
    """The colour chain of the strong target view and of mixed images, in this order.

    Args:
      keys: key[B], one an image.
      images: f32[B, H, W, 3], RGB in 0..255.
      brightness, contrast, saturation, sharpness: ranges of the factors, 1 for none.
      shadow: range of the strength of the shadow, 0 for none.
      noise: the standard deviation is an integer in this range, ends included.
      blur: range of the standard deviation of the Gaussian blur, in pixels.
      equalize: probability of histogram equalisation.

    Returns:
      f32[B, H, W, 3] in 0..255.
    """

    def one(key, image):
        number_key, *pixel_keys = jax.random.split(key, 3)
        draw = _draws(number_key, 8)
        image = adjust_brightness(image, draw(brightness))
        image = adjust_contrast(image, draw(contrast))
        image = adjust_saturation(image, draw(saturation))
        image = adjust_sharpness(image, draw(sharpness))
        image = _shadow_noise_blur(pixel_keys, draw, image, shadow, noise, blur)
        chosen = draw((0.0, 1.0)) < equalize
        return jnp.where(chosen, equalize_histogram(image), image)

    return _on_planes(one, keys, images)


def source(
    keys: jax.Array,
    images: jax.Array,
    *,
    brightness: tuple[float, float] = (0.5, 1.5),
    contrast: tuple[float, float] = (0.5, 1.5),
    saturation: tuple[float, float] = (0.5, 1.5),
    shadow: tuple[float, float] = (0.01, 0.3),
    noise: tuple[int, int] = (0, 5),
    blur: tuple[float, float] = (0.0, 1.2),
) -> jax.Array:
    """The colour chain of labelled source images; arguments as for `strong`."""

    def one(key, image):
        number_key, *pixel_keys = jax.random.split(key, 3)
        draw = _draws(number_key, 6)
        image = adjust_brightness(image, draw(brightness))
        image = adjust_contrast(image, draw(contrast))
        image = adjust_saturation(image, draw(saturation))
        return _shadow_noise_blur(pixel_keys, draw, image, shadow, noise, blur)

    return _on_planes(one, keys, images)


def _on_planes(function, keys, images):
    """Maps a function of key and planes over a batch f32[B, H, W, 3]."""
    planes = jnp.moveaxis(images.astype(jnp.float32), -1, 1)
    return jnp.moveaxis(jax.vmap(function)(keys, planes), 1, -1)


def _draws(key, count):
    """A function (low, high) -> f32[] between them, at random, for `count` calls.

    One draw for all: each draw of another shape is some kernels more to compile.
    """
    numbers = iter(jax.random.uniform(key, (count,)))
    return lambda bounds: bounds[0] + (bounds[1] - bounds[0]) * next(numbers)


def _shadow_noise_blur(keys, draw, image, shadow, noise, blur):
    pattern = shadow_pattern(keys[0], image.shape[1:])
    image = apply_shadow(image, pattern, draw(shadow))
    # An integer; rounding must not reach the one behind the last.
    deviation = jnp.minimum(jnp.floor(draw((noise[0], noise[1] + 1))), noise[1])
    grain = jax.random.normal(keys[1], image.shape)
    image = jnp.clip(image + deviation * grain, 0, 255)
    radius = max(1, math.ceil(3 * blur[1]))
    return ops.gaussian_blur(image, draw(blur), radius=radius)


def adjust_brightness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with black: factor 0 is black, 1 the image."""
    return jnp.clip(image * factor, 0, 255)


def adjust_contrast(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with the mean grey of the image: factor 0 is grey, 1 the image."""
    return _blend(_grey(image).mean(), image, factor)


def adjust_saturation(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with the grey image: factor 0 is grey, 1 the image."""
    return _blend(_grey(image), image, factor)


def adjust_sharpness(image: jax.Array, factor: jax.Array) -> jax.Array:
    """Blends with a smoothed image: factor 0 is smooth, 1 the image.

    The smoothing kernel is [1 1 1; 1 5 1; 1 1 1] / 13; the border stays as it is.
    """
    rows = image[:, :-2] + image[:, 1:-1] + image[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = (box + 4 * image[:, 1:-1, 1:-1]) / 13
    smooth = jax.lax.dynamic_update_slice(image, inner, (0, 1, 1))
    return _blend(smooth, image, factor)


def _grey(image):
    return 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]


def _blend(degenerate, image, factor):
    return jnp.clip(degenerate + (image - degenerate) * factor, 0, 255)


def shadow_pattern(key: jax.Array, size: tuple[int, int]) -> jax.Array:
    """A smooth random pattern in place of the release's pattern picture.

    White noise on a coarse grid, of which a window of 2 to 50 % of each side is
    enlarged bilinearly. The release also rotates, flips and inverts its picture;
    under these the distribution of this pattern does not change.

    Args:
      key: one key.
      size: (H, W) in pixels.

    Returns:
      f32[H, W] in 0..255.
    """
    numbers = jax.random.uniform(key, (_PATTERN_SIZE**2 + 4,))
    grid = 255.0 * numbers[4:].reshape(_PATTERN_SIZE, _PATTERN_SIZE)
    rows = _window(numbers[0], numbers[1], size[0])
    columns = _window(numbers[2], numbers[3], size[1])
    return rows @ grid @ columns.T


def _window(side, start, size):
    """Weights f32[size, cells] that enlarge a window of one axis; two of [0, 1)."""
    side = 0.02 + 0.48 * side
    position = start * (1 - side) + side * jnp.linspace(0.0, 1.0, size)
    position = position[:, None] * (_PATTERN_SIZE - 1)
    return jnp.maximum(0, 1 - jnp.abs(position - jnp.arange(_PATTERN_SIZE)))


def apply_shadow(
    image: jax.Array, pattern: jax.Array, strength: jax.Array
) -> jax.Array:
    """image * (1 - strength * pattern / 255) with a pattern f32[H, W] in 0..255."""
    return image * (1 - strength * pattern / 255)


def equalize_histogram(image: jax.Array) -> jax.Array:
    """Equalises the histogram of each channel as Pillow does on the rounded image."""

    def one(plane):
        counts = jnp.zeros(256, jnp.int32).at[plane.reshape(-1)].add(1)
        brightest = jnp.max(jnp.where(counts > 0, jnp.arange(256), 0))
        step = (plane.size - counts[brightest]) // 255
        before = jnp.cumsum(counts) - counts
        table = jnp.minimum((before + step // 2) // jnp.maximum(step, 1), 255)
        # Pillow leaves a channel with too few pixels below its brightest alone.
        return jnp.where(step > 0, table, jnp.arange(256))[plane]

    levels = jnp.round(jnp.clip(image, 0, 255)).astype(jnp.int32)
    return jax.vmap(one)(levels).astype(jnp.float32)


def random_affine(
    keys: jax.Array,
    *,
    max_rotation: float = 30.0,
    max_shear: float = 5.0,
    scale: tuple[float, float] = (0.8, 1.2),
    flip: float = 0.5,
) -> jax.Array:
    """Draws the matrices that take the strong view's coordinates to the weak view's.

    Args:
      keys: key[B], one an image.
      max_rotation, max_shear: degrees, drawn from both signs.
      scale: range of the scale; above 1 the image shrinks.
      flip: probability of a left-right flip.

    Returns:
      theta f32[B, 2, 3] for `ops.affine_warp`.
    """

    def one(key):
        draw = _draws(key, 4)
        return affine_matrix(
            draw((-max_rotation, max_rotation)),
            draw((-max_shear, max_shear)),
            draw(scale),
            draw((0.0, 1.0)) < flip,
        )

    return jax.vmap(one)(keys)


def affine_matrix(rotation, shear, scale, flip) -> jax.Array:
    """theta f32[2, 3] from angles in degrees, a scale and whether to flip.

    It acts in [-1, 1] coordinates without correction of the aspect (as released).
    """
    angle = jnp.deg2rad(rotation)
    tilted = angle + jnp.deg2rad(shear)
    sign = jnp.where(flip, -1.0, 1.0)
    first = jnp.stack([jnp.cos(angle), -jnp.sin(tilted), jnp.zeros_like(angle)])
    second = jnp.stack([jnp.sin(angle), jnp.cos(tilted), jnp.zeros_like(angle)])
    return scale * jnp.stack([sign * first, second])


def normalize(images: jax.Array, mode: str = "imagenet") -> jax.Array:
    """Network input from RGB images.

    Args:
      images: [..., 3] in 0..255, any real dtype.
      mode: 'imagenet' (RGB / 255, ImageNet mean and deviation), 'unit' (RGB / 255) or
        'caffe' (BGR minus the Caffe mean).

    Returns:
      f32[..., 3].

    Raises:
      ValueError: if the mode is unknown.
    """
    images = images.astype(jnp.float32)
    if mode == "imagenet":
        return (images - _IMAGENET_MEAN) / _IMAGENET_STD
    if mode == "unit":
        return images / 255
    if mode == "caffe":
        return images[..., ::-1] - _CAFFE_MEAN_BGR
    raise ValueError(_unknown_mode(mode))


def denormalize(images: jax.Array, mode: str = "imagenet") -> jax.Array:
    """Inverse of `normalize`: RGB f32[..., 3] in 0..255."""
    if mode == "imagenet":
        return images * _IMAGENET_STD + _IMAGENET_MEAN
    if mode == "unit":
        return images * 255
    if mode == "caffe":
        return (images + _CAFFE_MEAN_BGR)[..., ::-1]
    raise ValueError(_unknown_mode(mode))


def _unknown_mode(mode):
    return f"normalization {mode!r}: choose one of 'imagenet', 'unit', 'caffe'"
