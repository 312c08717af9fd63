"""Convolutions whose gradient is fast on a CPU, too.

XLA's CPU compiler turns the gradient of a kernel into one convolution with a window as
large as the map, at a tenth to a half of the rate of a matrix product, and leaves its
fast library out where the layout of a kernel is not the usual one. Here gradients are
products for each tap, or convolutions of the usual layout. Other devices get XLA's own;
values and gradients are the same up to rounding.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

# Input channels below which all taps of a strided kernel make one product, and from
# which products are faster than a convolution at stride 1.
_FEW = 16
_MANY = 64


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int] = (1, 1),
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
    *,
    rhs_dilation: tuple[int, int] = (1, 1),
    lhs_dilation: tuple[int, int] = (1, 1),
    dimension_numbers=None,
    feature_group_count: int = 1,
    precision=None,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` for NHWC maps and HWIO kernels.

    Takes its place in `flax.linen.Conv`, which gives it the other arguments, too. Rows
    and columns of a dilated kernel that meet nothing but padding are left out, and a
    1x1 kernel is a matrix product.

    Args:
      x: float[B, H, W, c].
      kernel: float[k, l, c, C] of the same dtype.
      strides, rhs_dilation: of rows and columns.
      padding: pixels before and after the rows and the columns.

    Returns:
      float[B, h, w, C].

    Raises:
      ValueError: for dilated maps, groups of channels or another precision.
    """
    del dimension_numbers  # those of flax: NHWC, HWIO
    if (tuple(lhs_dilation), feature_group_count, precision) != ((1, 1), 1, None):
        raise ValueError("no lhs_dilation, feature groups or precision in convolve")
    pads = []
    for axis, (before, after) in enumerate(padding):
        size, apart, taps = x.shape[1 + axis], rhs_dilation[axis], kernel.shape[axis]
        out = (size + before + after - (taps - 1) * apart - 1) // strides[axis] + 1
        offsets = [i * apart - before for i in range(taps)]
        met = [i for i in range(taps) if _met(size, out, strides[axis], offsets[i])]
        first, last = met[0], met[-1]
        if last - first + 1 < taps:
            kernel = jax.lax.slice_in_dim(kernel, first, last + 1, axis=axis)
        pads.append((before - first * apart, after - (taps - 1 - last) * apart))
    # Inside shard_map: the gradient of a kernel is summed over the devices here.
    varying = [jax.typeof(a).manual_axis_type.varying for a in (x, kernel)]
    split = tuple(varying[0] - varying[1])
    if split:
        kernel = jax.lax.pcast(kernel, split, to="varying")
    return _convolve(x, kernel, tuple(strides), tuple(pads), tuple(rhs_dilation))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x, kernel, strides, padding, dilation):
    return _direct(x, kernel, strides, padding, dilation)


def _forward(x, kernel, *how):
    return _direct(x, kernel, *how), (x, kernel)


def _backward(strides, padding, dilation, kept, gradient):
    how = (strides, padding, dilation)
    return jax.lax.platform_dependent(
        *kept,
        gradient,
        cpu=functools.partial(_gradients_on_cpu, how),
        default=functools.partial(_gradients, how),
    )


def _gradients(how, x, kernel, gradient):
    (of_kernel,) = jax.linear_transpose(lambda k: _direct(x, k, *how), kernel)(gradient)
    return _gradient_of_input(how, x, kernel, gradient), of_kernel


def _gradient_of_input(how, x, kernel, gradient):
    return jax.linear_transpose(lambda x: _direct(x, kernel, *how), x)(gradient)[0]


def _gradients_on_cpu(how, x, kernel, gradient):
    strides, padding, dilation = how
    if strides != (1, 1) or kernel.shape[:2] == (1, 1):
        of_input = _gradient_of_input(how, x, kernel, gradient)
        return of_input, _products(x, gradient, kernel.shape, *how)
    of_input = _turned_convolution(gradient, kernel, padding, dilation)
    if kernel.shape[2] < _MANY:
        return of_input, _convolution_of_channels(x, gradient, padding, dilation)
    return of_input, _products(x, gradient, kernel.shape, *how)


_convolve.defvjp(_forward, _backward)


def _direct(x, kernel, strides, padding, dilation):
    if kernel.shape[:2] == (1, 1) and not any(map(any, padding)):
        return _every(x, strides) @ kernel.reshape(kernel.shape[2:])
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _every(x, strides):
    """Each stride-th row and column; tracing a slice of all takes its time, too."""
    return x if strides == (1, 1) else x[:, :: strides[0], :: strides[1]]


def _turned_convolution(gradient, kernel, padding, dilation):
    """The gradient of the input of a convolution of stride 1."""
    # Barriers here and below: XLA would fold the transposition into the convolution,
    # which its library for convolutions then does not take if it is in a loop.
    turned = jax.lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
    around = [
        ((taps - 1) * apart - before, (taps - 1) * apart - after)
        for taps, apart, (before, after) in zip(
            kernel.shape[:2], dilation, padding, strict=True
        )
    ]
    return _direct(gradient, turned, (1, 1), around, dilation)


def _convolution_of_channels(x, gradient, padding, dilation):
    """The gradient of a kernel at stride 1: a convolution of channels as images."""
    x, gradient = jax.lax.optimization_barrier(
        (x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3))
    )
    of_kernel = _direct(x, gradient, dilation, padding, (1, 1))
    return jax.lax.optimization_barrier(of_kernel).transpose(1, 2, 0, 3)


def _products(x, gradient, shape, strides, padding, dilation):
    """The gradient of a kernel: of every tap what it met, times the gradient."""
    rows, columns, inputs, outputs = shape
    if any(map(any, padding)):  # less than none where a tap was left out
        pads = [(before, after, 0) for before, after in ((0, 0), *padding, (0, 0))]
        x = jax.lax.pad(x, jnp.zeros((), x.dtype), pads)
    height, width = gradient.shape[1:3]
    gradient = gradient.reshape(-1, outputs)
    taps = [
        (i * dilation[0], j * dilation[1]) for i in range(rows) for j in range(columns)
    ]
    size = (strides[0] * (height - 1) + 1, strides[1] * (width - 1) + 1)

    def pixels(window):
        return _every(window, strides).reshape(-1, inputs)

    if len(taps) == 1 or inputs < _FEW:
        windows = [x[:, i : i + size[0], j : j + size[1]] for i, j in taps]
        seen = jnp.concatenate([pixels(window) for window in windows], axis=1)
        return _product(seen, gradient).reshape(shape)

    def of_tap(tap):
        window = jax.lax.dynamic_slice(x, (0, *tap, 0), (len(x), *size, inputs))
        return _product(pixels(window), gradient)

    # A loop, for else the pixels of all taps of all layers wait in memory at once.
    return jax.lax.map(of_tap, tuple(jnp.array(taps).T)).reshape(shape)


def _met(size, out, stride, offset) -> range:
    """The output pixels, of `out`, that see one of `size` pixels at this offset."""
    return range(
        max(0, -(offset // stride)), min(out, (size - 1 - offset) // stride + 1)
    )


def _product(a, b):
    """a^T b of float[n, c] and float[n, C], the narrower one turned.

    XLA's CPU compiler would turn whichever comes first: twice the time if it is wide.
    """
    if a.shape[1] <= b.shape[1]:
        return jax.lax.dot_general(a, b, (((0,), (0,)), ((), ())))
    return jax.lax.optimization_barrier(_product(b, a)).T
