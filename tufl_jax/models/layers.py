"""Layers that the networks share: batch normalisation as torch does it, pooling.

The stock flax BatchNorm keeps the biased variance in its running average; the
published weights were made with the unbiased one, so this project has its own.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tufl_jax.errors import UserError
from tufl_jax.models.convolution import convolve

ACTIVATIONS = ("leaky_relu", "relu")

# Kaiming normal with a = 1, as in upstream BiSeNet: N(0, 1 / fan_in), not truncated.
KAIMING = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
# Of batch normalisation; torch calls the first one 0.1, the share of the new.
_MOMENTUM = 0.9
_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Options:
    """What every layer of a network has in common.

    Attributes:
      activation: one of ACTIVATIONS; the leaky slope is 0.01 (in-place ABN).
      axis_name: mesh axis over which batch statistics are averaged (inside
        `jax.shard_map`); None for the statistics of the local batch.
      dtype: of activations; parameters and statistics are float32 always.
    """

    activation: str = "leaky_relu"
    axis_name: str | None = None
    dtype: Any = jnp.float32

    def __post_init__(self):
        if self.activation not in ACTIVATIONS:
            names = ", ".join(ACTIVATIONS)
            raise UserError(f"activation '{self.activation}' is not one of {names}")

    def activate(self, x: jax.Array) -> jax.Array:
        """The activation that follows a ConvBNAct."""
        if self.activation == "relu":
            return nn.relu(x)
        return nn.leaky_relu(x, 0.01)


class BatchNorm(nn.Module):
    """Batch normalisation over B, H, W with statistics in float32.

    train=True normalises with the (biased) variance of the batch - of all devices
    when `axis_name` is set - and moves the running averages: new = 0.9 old + 0.1
    batch, with the unbiased variance n / (n - 1) as in torch, n counted over all
    devices. A batch with n = 1 has variance 0 and gives the bias.

    train=False uses the running averages and leaves them; scale and bias still get
    gradients, so this is also "frozen" batch norm.
    """

    options: Options

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """float[B, H, W, C] -> the same shape, in the dtype of the options."""
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        first = self.is_initializing()
        y, *averages = _normalize(
            x,
            scale,
            bias,
            mean.value,
            var.value,
            train=train,
            axis_name=None if first else self.options.axis_name,
        )
        if train and not first:
            mean.value, var.value = averages
        return y.astype(self.options.dtype)


# jit: traced once for all layers of a shape.
@functools.partial(jax.jit, static_argnames=("train", "axis_name"))
def _normalize(x, scale, bias, mean, var, *, train, axis_name):
    """BatchNorm in float32, and the running averages after it."""
    x = x.astype(jnp.float32)
    averages = mean, var
    if train:
        mean, var, count = _statistics(x, axis_name)
        unbiased = var * (count / max(count - 1, 1))
        averages = tuple(
            _MOMENTUM * old + (1 - _MOMENTUM) * jax.lax.stop_gradient(new)
            for old, new in zip(averages, (mean, unbiased), strict=True)
        )
    factor = scale * jax.lax.rsqrt(var + _EPSILON)
    # One product and one sum a value: the backward is two sums over B, H, W.
    return x * factor + (bias - mean * factor), *averages


def _statistics(x, axis_name):
    """Mean and biased variance f32[C] of the global batch, and its count."""
    count = x.size // x.shape[-1]
    mean = x.mean((0, 1, 2))
    if axis_name:
        mean = jax.lax.pmean(mean, axis_name)
        count *= jax.lax.axis_size(axis_name)
    # d var / d mean is 0: leaving that path out saves a pass in the backward.
    centred = x - jax.lax.stop_gradient(mean)
    var = (centred * centred).mean((0, 1, 2))
    return mean, jax.lax.pmean(var, axis_name) if axis_name else var, count


def conv(
    features: int,
    size: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    kernel_init=KAIMING,
    bias_init=None,
    options: Options,
    name: str,
) -> nn.Conv:
    """Convolution padded by dilation * (size // 2) on both sides (also with stride).

    flax's own 'SAME' pads (0, 1) at stride 2 where torch pads (1, 1). Without
    `bias_init` there is no bias.
    """
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=dilation * (size // 2),
        kernel_dilation=dilation,
        use_bias=bias_init is not None,
        kernel_init=kernel_init,
        bias_init=bias_init or nn.initializers.zeros,
        dtype=options.dtype,
        conv_general_dilated=convolve,
        name=name,
    )


def torch_uniform(fan_in: int):
    """torch's default for convolutions and dense layers: U(-b, b), b = fan_in^-1/2."""

    def uniform(key, shape, dtype=jnp.float32):
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return uniform


def channel_dropout(keys: jax.Array, x: jax.Array, *, rate: float) -> jax.Array:
    """Zeroes whole channels with probability `rate` and scales the others up.

    An image's channels depend on its own key only, so it does not matter how a batch
    is split over devices.

    Args:
      keys: key[B].
      x: float[B, H, W, C].
      rate: in [0, 1).

    Returns:
      The same shape and dtype.
    """
    channels = x.shape[-1:]
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, channels))(keys)
    return x * (keep / (1 - rate)).astype(x.dtype)[:, None, None]


class ConvBNAct(nn.Module):
    """Convolution, batch norm, activation; names `conv` and `bn`."""

    features: int
    size: int
    options: Options
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """float[B, H, W, c] -> [B, ceil(H / stride), ceil(W / stride), features]."""
        options = self.options
        x = conv(
            self.features, self.size, stride=self.stride, options=options, name="conv"
        )(x)
        return options.activate(BatchNorm(options, name="bn")(x, train=train))


def global_mean(x: jax.Array) -> jax.Array:
    """Spatial mean, accumulated in float32: [B, H, W, C] -> [B, 1, 1, C]."""
    return x.mean((1, 2), keepdims=True, dtype=jnp.float32).astype(x.dtype)


def max_pool(x: jax.Array, *, ceil: bool = False) -> jax.Array:
    """Max pooling 3x3, stride 2, padding 1: [B, H, W, C] -> [B, (H+1)//2, (W+1)//2, C].

    `ceil` rounds the size up as torch's ceil_mode does, to (H // 2 + 1, W // 2 + 1).

    Two passes of comparisons: on CPU the backward of `reduce_window` is a scatter and
    many times slower. As there, the gradient of a tie goes to the first maximum.
    """
    return _max_pool_axis(_max_pool_axis(x, 2, ceil), 1, ceil)


def _max_pool_axis(x, axis, ceil):
    size = x.shape[axis] // 2 + 1 if ceil else (x.shape[axis] + 1) // 2
    after = 2 * size - x.shape[axis]
    pads = [(1, after) if i == axis else (0, 0) for i in range(x.ndim)]
    x = jnp.pad(x, pads, constant_values=-jnp.inf)
    taps = [
        jax.lax.slice_in_dim(x, i, i + 2 * size - 1, stride=2, axis=axis)
        for i in range(3)
    ]
    best = taps[0]
    for tap in taps[1:]:
        best = jnp.where(tap > best, tap, best)
    return best
