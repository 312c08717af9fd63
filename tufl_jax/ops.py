"""Geometry on the device: resizing, affine warps and blurs of NHWC maps.

Everything here is a pure function of arrays that can be jitted, vmapped and (except
the nearest neighbour index and the frame test) differentiated.
"""

import jax
import jax.numpy as jnp
import numpy as np


def resize_bilinear(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes maps bilinearly with the corner pixels of both grids aligned.

    Output row i reads input position i * (H - 1) / (h - 1); an output of one row reads
    row 0. This is the convention of the segmentation heads of BiSeNet and DeepLabV2.

    Args:
      x: float [B, H, W, C].
      size: output (h, w) in pixels.

    Returns:
      [B, h, w, C] in the dtype of `x`, accumulated in float32.
    """
    height, width = size
    if x.shape[1:3] == (height, width):
        return x
    y = x.astype(jnp.float32)
    if height != x.shape[1]:
        rows = _aligned_weights(x.shape[1], height)
        y = jnp.einsum("oh,bhwc->bowc", rows, y, precision=jax.lax.Precision.HIGHEST)
    if width != x.shape[2]:
        columns = _aligned_weights(x.shape[2], width)
        y = jnp.einsum("pw,bowc->bopc", columns, y, precision=jax.lax.Precision.HIGHEST)
    return y.astype(x.dtype)


def _aligned_weights(size_in: int, size_out: int) -> np.ndarray:
    """Interpolation matrix f32[size_out, size_in]; each row sums to one."""
    step = (size_in - 1) / (size_out - 1) if size_out > 1 else 0.0
    position = np.arange(size_out) * step
    low = np.minimum(np.floor(position).astype(np.int64), size_in - 1)
    high = np.minimum(low + 1, size_in - 1)
    fraction = position - low
    weights = np.zeros((size_out, size_in))
    rows = np.arange(size_out)
    np.add.at(weights, (rows, low), 1.0 - fraction)
    np.add.at(weights, (rows, high), fraction)
    return weights.astype(np.float32)


def resize_nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes maps of any dtype by copying: output index i reads floor(i * in / out).

    Args:
      x: [B, H, W, C].
      size: output (h, w) in pixels.

    Returns:
      [B, h, w, C] in the dtype of `x`.
    """
    for axis, size_out in zip((1, 2), size, strict=True):
        size_in = x.shape[axis]
        if size_out == size_in:
            continue
        if size_out % size_in == 0:
            # A broadcast: its gradient is a sum instead of a scatter.
            x = jnp.repeat(x, size_out // size_in, axis=axis)
        else:
            x = jnp.take(x, np.arange(size_out) * size_in // size_out, axis=axis)
    return x


def affine_warp(x: jax.Array, theta: jax.Array) -> jax.Array:
    """Warps maps by affine matrices: bilinear, zeros outside, corners not aligned.

    `theta` takes output coordinates to input coordinates, both in [-1, 1], x first;
    pixel i of n lies at (2 i + 1) / n - 1. The axes are normalised separately, so a
    rotation matrix on a map that is not square is not rigid in pixels (as released).

    Args:
      x: float [B, H, W, C].
      theta: f32[B, 2, 3].

    Returns:
      [B, H, W, C] in the dtype of `x`; differentiable in `x` and `theta`.
    """
    rows, columns = _source_positions(theta, x.shape[1:3])
    return jax.vmap(_sample_bilinear)(x, rows, columns)


def affine_valid(theta: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Says which output pixels of `affine_warp` are free of padding.

    True where 0 <= row <= H - 1 and 0 <= column <= W - 1 for the sampled position, in
    pixels: every one of the four taps with a weight lies inside the input, so no part
    of the value is padding. The identity and a mirror image are valid everywhere.

    Args:
      theta: f32[B, 2, 3] as in `affine_warp`.
      size: (H, W) in pixels.

    Returns:
      bool[B, H, W].
    """
    height, width = size
    rows, columns = _source_positions(theta, size)
    inside = (rows >= 0) & (rows <= height - 1)
    return inside & (columns >= 0) & (columns <= width - 1)


def _source_positions(theta, size):
    """Rows and columns, f32[B, H, W] in pixels, that each output pixel reads.

    Written around the centre pixel, so that the identity and flips are exact.
    """
    height, width = size
    y = (jnp.arange(height, dtype=jnp.float32) - (height - 1) / 2)[None, :, None]
    x = (jnp.arange(width, dtype=jnp.float32) - (width - 1) / 2)[None, None, :]
    t = theta.astype(jnp.float32)[:, :, :, None, None]
    columns = t[:, 0, 0] * x + t[:, 0, 1] * (width / height) * y
    columns += t[:, 0, 2] * (width / 2) + (width - 1) / 2
    rows = t[:, 1, 0] * (height / width) * x + t[:, 1, 1] * y
    rows += t[:, 1, 2] * (height / 2) + (height - 1) / 2
    return rows, columns


def _sample_bilinear(image, rows, columns):
    """Reads image[H, W, C] at f32[h, w] positions; whatever is outside counts as 0."""
    height, width, channels = image.shape
    flat = image.reshape(-1, channels)
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, right = rows - top, columns - left

    def tap(row, column, weight):
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        row = jnp.clip(row, 0, height - 1).astype(jnp.int32)
        column = jnp.clip(column, 0, width - 1).astype(jnp.int32)
        values = flat[row * width + column]
        return jnp.where(inside, weight, 0.0)[..., None] * values

    out = (
        tap(top, left, (1 - down) * (1 - right))
        + tap(top, left + 1, (1 - down) * right)
        + tap(top + 1, left, down * (1 - right))
        + tap(top + 1, left + 1, down * right)
    )
    return out.astype(image.dtype)


def gaussian_blur(x: jax.Array, sigma: jax.Array, *, radius: int = 4) -> jax.Array:
    """Blurs planes with a Gaussian, reflected at the border.

    Two passes of shifted adds: on a CPU ten times faster than a depthwise convolution,
    and faster with the channels first.

    Args:
      x: float [..., H, W].
      sigma: f32[], the standard deviation in pixels; 0 leaves the planes as they are.
      radius: half width of the kernel in pixels; 3 sigma or more is exact enough.

    Returns:
      [..., H, W] in the dtype of `x`.
    """
    offsets = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    # The floor keeps 0 / 0 out; exp(-1 / (2 * 1e-6)) is already zero.
    kernel = jnp.exp(-0.5 * (offsets / jnp.maximum(sigma, 1e-3)) ** 2)
    kernel /= kernel.sum()
    y = x.astype(jnp.float32)
    for axis in (x.ndim - 2, x.ndim - 1):
        pads = [(radius, radius) if a == axis else (0, 0) for a in range(x.ndim)]
        padded = jnp.pad(y, pads, mode="reflect")
        y = sum(
            kernel[i] * jax.lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis)
            for i in range(2 * radius + 1)
        )
    return y.astype(x.dtype)
