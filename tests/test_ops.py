"""Resizing, warping and blurring against plain loops and recorded values."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tufl_jax import ops

GOLDEN = pathlib.Path(__file__).parent / "golden"

aligned = jax.jit(ops.resize_bilinear, static_argnums=1)
nearest = jax.jit(ops.resize_nearest, static_argnums=1)
warp = jax.jit(ops.affine_warp)
blur = jax.jit(ops.gaussian_blur, static_argnames="radius")


def loop_bilinear(x, size):
    """Corner aligned resize of [H, W, C], one output pixel at a time."""
    height, width = x.shape[:2]
    out = np.zeros((*size, x.shape[2]))
    for i in range(size[0]):
        for j in range(size[1]):
            row = i * (height - 1) / (size[0] - 1) if size[0] > 1 else 0.0
            column = j * (width - 1) / (size[1] - 1) if size[1] > 1 else 0.0
            top, left = int(row), int(column)
            low, right = min(top + 1, height - 1), min(left + 1, width - 1)
            a, b = row - top, column - left
            out[i, j] = (1 - a) * ((1 - b) * x[top, left] + b * x[top, right]) + a * (
                (1 - b) * x[low, left] + b * x[low, right]
            )
    return out


@pytest.mark.parametrize(
    "before, after",
    [((3, 4), (9, 16)), ((5, 7), (3, 2)), ((1, 3), (4, 5)), ((4, 3), (1, 1))],
)
def test_resize_bilinear_matches_loop(before, after):
    x = np.random.default_rng(0).normal(size=(2, *before, 3)).astype(np.float32)
    expected = np.stack([loop_bilinear(image, after) for image in x])
    np.testing.assert_allclose(aligned(x, after), expected, atol=1e-5)
    np.testing.assert_allclose(
        ops.resize_bilinear(jnp.asarray(x), after), aligned(x, after), atol=1e-6
    )


def test_resize_bilinear_keeps_corners_dtype_and_equal_sizes():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 5, 6, 2)), jnp.bfloat16)
    assert ops.resize_bilinear(x, (5, 6)) is x
    y = aligned(x, (11, 9))
    assert y.dtype == jnp.bfloat16
    corners = np.ix_([0], [0, -1], [0, -1], [0, 1])
    np.testing.assert_array_equal(np.asarray(y)[corners], np.asarray(x)[corners])


def test_resize_bilinear_gradient_is_the_transpose():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(1, 3, 4, 2)).astype(np.float32)
    cotangent = rng.normal(size=(1, 8, 7, 2)).astype(np.float32)
    gradient = jax.grad(lambda v: (aligned(v, (8, 7)) * cotangent).sum())(x)
    for index in [(0, 0, 0, 0), (0, 2, 3, 1), (0, 1, 2, 0)]:
        unit = np.zeros_like(x)
        unit[index] = 1
        expected = (loop_bilinear(unit[0], (8, 7)) * cotangent[0]).sum()
        np.testing.assert_allclose(gradient[index], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("after", [(6, 12), (3, 8), (2, 3), (5, 7), (1, 1)])
def test_resize_nearest_matches_floor_index(after):
    x = np.arange(2 * 3 * 4 * 1, dtype=np.int32).reshape(2, 3, 4, 1)
    rows = [i * 3 // after[0] for i in range(after[0])]
    columns = [j * 4 // after[1] for j in range(after[1])]
    y = nearest(x, after)
    assert y.dtype == jnp.int32
    np.testing.assert_array_equal(y, x[:, rows][:, :, columns])
    np.testing.assert_array_equal(ops.resize_nearest(jnp.asarray(x), after), y)


def test_affine_warp_matches_recorded_values_and_gradients():
    data = np.load(GOLDEN / "affine_warp.npz")
    count = len(data["theta"])
    x = np.repeat(data["input"], count, axis=0)
    out, pullback = jax.vjp(lambda v: warp(v, data["theta"]), x)
    np.testing.assert_allclose(out, data["warped"], atol=2e-5)
    (gradient,) = pullback(jnp.repeat(data["cotangent"], count, axis=0))
    np.testing.assert_allclose(gradient, data["grad_input"], atol=1e-4)


def test_affine_warp_batch_and_eager():
    data = np.load(GOLDEN / "affine_warp_batch.npz")
    out = warp(data["input"], data["theta"])
    np.testing.assert_allclose(out, data["warped"], atol=2e-5)
    x, theta = jnp.asarray(data["input"]), jnp.asarray(data["theta"])
    np.testing.assert_allclose(ops.affine_warp(x, theta), out, atol=2e-5)


def test_identity_and_mirror_are_exact_and_valid_everywhere():
    x = np.random.default_rng(3).normal(size=(2, 13, 18, 2)).astype(np.float32)
    theta = np.array([[[1, 0, 0], [0, 1, 0]], [[-1, 0, 0], [0, 1, 0]]], np.float32)
    out = warp(x, theta)
    np.testing.assert_array_equal(out[0], x[0])
    np.testing.assert_array_equal(out[1], x[1, :, ::-1])
    assert np.asarray(ops.affine_valid(theta, (13, 18))).all()


def test_affine_valid_means_no_padding():
    data = np.load(GOLDEN / "affine_warp.npz")
    theta = data["theta"]
    valid = np.asarray(jax.jit(ops.affine_valid, static_argnums=1)(theta, (13, 18)))
    ones = warp(np.ones((len(theta), 13, 18, 1), np.float32), theta)[..., 0]
    weight = np.asarray(ones)
    # All of the weight of a valid pixel comes from the frame, and of no other pixel.
    np.testing.assert_allclose(weight[valid], 1.0, atol=1e-5)
    assert (weight[~valid] < 1).all()
    assert 0 < valid.mean() < 1


def test_affine_warp_of_one_pixel():
    x = np.full((1, 1, 1, 2), 3.0, np.float32)
    theta = np.array([[[1, 0, 1], [0, 1, 0]]], np.float32)
    np.testing.assert_allclose(warp(x, theta), np.full((1, 1, 1, 2), 1.5))


def test_gaussian_blur_matches_loop():
    x = np.random.default_rng(4).normal(size=(2, 9, 11)).astype(np.float32)
    kernel = np.exp(-0.5 * (np.arange(-3, 4) / 0.9) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(x, ((0, 0), (3, 3), (3, 3)), mode="reflect")
    expected = np.zeros_like(x)
    for i in range(9):
        for j in range(11):
            window = padded[:, i : i + 7, j : j + 7]
            expected[:, i, j] = np.einsum("a,b,cab->c", kernel, kernel, window)
    out = blur(x, 0.9, radius=3)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    eager = ops.gaussian_blur(jnp.asarray(x), jnp.float32(0.9), radius=3)
    np.testing.assert_allclose(eager, out, atol=1e-6)
    np.testing.assert_array_equal(blur(x, 0.0, radius=3), x)


def test_gaussian_blur_of_planes_smaller_than_its_radius():
    x = np.full((1, 1, 3), 5.0, np.float32)
    np.testing.assert_allclose(blur(x, 1.0), x, rtol=1e-6)
