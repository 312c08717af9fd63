"""Perturbations against Pillow, recorded matrices and the promises on keys."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from tufl_jax import augment, ops

GOLDEN = pathlib.Path(__file__).parent / "golden"

SIZE = (17, 23)


def picture(seed=0, size=SIZE):
    """A smooth u8[H, W, 3] picture with a few levels only in its last channel."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(*size, 3)).cumsum(0).cumsum(1)
    image = 255 * (base - base.min()) / (base.max() - base.min())
    image[..., 2] = 20 * (image[..., 2] // 20)
    return image.astype(np.uint8)


def planes(image):
    return np.moveaxis(image.astype(np.float32), -1, 0)


@functools.cache
def jitted(function):
    return jax.jit(function)


@pytest.mark.parametrize("factor", [0.4, 1.0, 1.9])
@pytest.mark.parametrize(
    "ours, theirs",
    [
        (augment.adjust_brightness, ImageEnhance.Brightness),
        (augment.adjust_contrast, ImageEnhance.Contrast),
        (augment.adjust_saturation, ImageEnhance.Color),
        (augment.adjust_sharpness, ImageEnhance.Sharpness),
    ],
)
def test_adjustments_match_pillow(ours, theirs, factor):
    image = picture()
    expected = np.asarray(theirs(Image.fromarray(image)).enhance(factor), np.float32)
    result = np.asarray(jitted(ours)(planes(image), factor))
    # Pillow rounds the degenerate image and truncates the blend.
    np.testing.assert_allclose(result, planes(expected), atol=2.01)
    eager = ours(jnp.asarray(planes(image)), factor)
    np.testing.assert_allclose(eager, result, atol=1e-3)
    if factor == 1.0:
        np.testing.assert_allclose(result, planes(image), atol=1e-3)


def test_sharpness_matches_loop_and_keeps_the_border():
    image = planes(picture(1, (5, 6)))
    expected = image.copy()
    for i in range(1, 4):
        for j in range(1, 5):
            window = image[:, i - 1 : i + 2, j - 1 : j + 2].sum(axis=(1, 2))
            expected[:, i, j] = (window + 4 * image[:, i, j]) / 13
    result = augment.adjust_sharpness(jnp.asarray(image), 0.0)
    np.testing.assert_allclose(result, expected, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (1, 4)])
def test_sharpness_of_images_that_are_all_border(size):
    image = planes(picture(2, (5, 6)))[:, : size[0], : size[1]]
    result = augment.adjust_sharpness(jnp.asarray(image), 0.3)
    np.testing.assert_allclose(result, image, atol=1e-4)


def test_equalize_matches_pillow():
    flat = np.full((*SIZE, 3), 7, np.uint8)
    nearly_flat = flat.copy()
    nearly_flat[0, 0] = 3
    tiny = picture(3, (2, 3))
    large = picture(4, (60, 70))
    for image in (picture(), flat, nearly_flat, tiny, large):
        expected = planes(np.asarray(ImageOps.equalize(Image.fromarray(image))))
        result = jitted(augment.equalize_histogram)(planes(image))
        np.testing.assert_array_equal(result, expected)
    eager = augment.equalize_histogram(jnp.asarray(planes(large)))
    np.testing.assert_array_equal(eager, result)


def test_shadow_is_smooth_in_range_and_darkens():
    patterns = jax.jit(
        jax.vmap(lambda key: augment.shadow_pattern(key, (32, 48))),
    )(jax.random.split(jax.random.key(0), 16))
    patterns = np.asarray(patterns)
    assert patterns.shape == (16, 32, 48)
    assert patterns.min() >= 0 and patterns.max() <= 255.001
    # A window of at most half of 32 cells moves less than a cell per two pixels.
    assert np.abs(np.diff(patterns, axis=1)).max() <= 0.51 * 255
    assert patterns.std(axis=(1, 2)).min() > 1
    image = jnp.full((3, 32, 48), 200.0)
    shaded = np.asarray(augment.apply_shadow(image, jnp.asarray(patterns[0]), 0.3))
    np.testing.assert_allclose(shaded[1], 200 * (1 - 0.3 * patterns[0] / 255), 1e-5)


@functools.cache
def batch():
    return np.stack([picture(seed) for seed in range(4)]).astype(np.float32)


def keys(count=4):
    return jax.random.split(jax.random.key(5), count)


@pytest.mark.parametrize("chain", [augment.strong, augment.source])
def test_images_depend_on_their_own_keys_only(chain):
    images = batch()
    whole = np.asarray(jitted(chain)(keys(), images))
    assert whole.shape == images.shape and whole.dtype == np.float32
    assert whole.min() >= 0 and whole.max() <= 255.01
    halves = [jitted(chain)(keys()[i : i + 2], images[i : i + 2]) for i in (0, 2)]
    np.testing.assert_array_equal(np.concatenate(halves), whole)
    same = jitted(chain)(keys(), np.repeat(images[:1], 4, axis=0))
    assert np.abs(np.asarray(same)[0] - np.asarray(same)[1]).max() > 1


def test_chain_eager_equals_jit():
    images = jnp.asarray(batch()[:2])
    compiled = jitted(augment.source)(keys(2), images)
    np.testing.assert_allclose(augment.source(keys(2), images), compiled, atol=2e-2)


def test_chain_with_neutral_ranges_is_the_identity():
    ones = {
        name: (1.0, 1.0)
        for name in ("brightness", "contrast", "saturation", "sharpness")
    }
    off = {"shadow": (0.0, 0.0), "noise": (0, 0), "blur": (0.0, 0.0)}
    images = batch()[:2]
    result = augment.strong(keys(2), images, **ones, **off, equalize=0.0)
    np.testing.assert_allclose(result, images, atol=1e-3)
    ones.pop("sharpness")
    result = augment.source(keys(2), images, **ones, **off)
    np.testing.assert_allclose(result, images, atol=1e-3)


def test_noise_has_the_deviation_asked_for():
    ones = {name: (1.0, 1.0) for name in ("brightness", "contrast", "saturation")}
    chain = functools.partial(augment.source, **ones, shadow=(0, 0), blur=(0, 0))
    images = np.full((8, 40, 50, 3), 128.0, np.float32)
    result = jax.jit(functools.partial(chain, noise=(3, 4)))(keys(8), images)
    deviation = np.asarray(result).std(axis=(1, 2, 3))
    rounded = np.round(deviation)
    assert set(rounded) == {3.0, 4.0}
    np.testing.assert_allclose(deviation, rounded, rtol=0.03)


def test_affine_matrices_match_recorded_ones():
    data = np.load(GOLDEN / "affine_random.npz")
    rotation, shear, scale, flip = data["uniform_draws_as_params"].T
    theta = jax.vmap(augment.affine_matrix)(rotation, shear, scale, flip > 0.5)
    np.testing.assert_allclose(theta, data["theta_1_to_2"], atol=1e-6)
    images = np.repeat(data["image"][None], len(theta), axis=0)
    warped = ops.affine_warp(jnp.asarray(images), theta)
    np.testing.assert_allclose(warped, data["warped"], atol=3e-5)


def test_random_affine_stays_in_its_ranges():
    theta = np.array(jitted(augment.random_affine)(keys(400)))
    assert theta.shape == (400, 2, 3) and theta.dtype == np.float32
    np.testing.assert_array_equal(theta[:, :, 2], 0)
    sign = np.sign(theta[:, 0, 0])
    assert 0.4 < (sign < 0).mean() < 0.6
    theta[:, 0] *= sign[:, None]
    scale = np.hypot(theta[:, 0, 0], theta[:, 1, 0])
    rotation = np.rad2deg(np.arctan2(theta[:, 1, 0], theta[:, 0, 0]))
    shear = np.rad2deg(np.arctan2(-theta[:, 0, 1], theta[:, 1, 1])) - rotation
    for values, low, high in ((scale, 0.8, 1.2), (rotation, -30, 30), (shear, -5, 5)):
        assert values.min() >= low - 1e-3 and values.max() <= high + 1e-3
        span = high - low
        assert values.min() < low + 0.05 * span and values.max() > high - 0.05 * span
    part = jitted(augment.random_affine)(keys(400)[:7])
    np.testing.assert_allclose(part[1:2, 1], theta[1:2, 1], atol=1e-6)
    fixed = augment.random_affine(
        keys(2), max_rotation=0, max_shear=0, scale=(1, 1), flip=0
    )
    np.testing.assert_array_equal(fixed, np.eye(2, 3)[None].repeat(2, 0))


def test_normalize_matches_its_definition_and_inverse():
    image = picture()[None]
    rgb = image.astype(np.float64)
    expected = {
        "imagenet": (rgb / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        "unit": rgb / 255,
        "caffe": rgb[..., ::-1] - [104.00698793, 116.66876762, 122.67891434],
    }
    for mode, value in expected.items():
        result = augment.normalize(jnp.asarray(image), mode)
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result, value, atol=2e-5)
        np.testing.assert_allclose(augment.denormalize(result, mode), rgb, atol=1e-4)
    for function in (augment.normalize, augment.denormalize):
        with pytest.raises(ValueError, match="'imagent'.*imagenet"):
            function(jnp.asarray(image), "imagent")
