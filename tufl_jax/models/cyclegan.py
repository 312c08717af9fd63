"""CycleGAN (Zhu et al. 2017): ResNet generators and 70x70 PatchGAN discriminators.

Images are in -1..1. With the default sizes and three channels a generator has 11.378 M
parameters, a discriminator 2.765 M, as published.

A convolution before an instance norm has a bias as published, which is not added: the
norm takes it out again. Added, it would get gradients of rounding errors, which Adam
blows up to whole steps that depend on the number of devices.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from tufl_jax.models.convolution import convolve

_FEW = 8  # channels; convolutions from or to fewer are rearranged, see `_convolve`
_DEVIATION = 0.02  # of new kernels, around 0


def instance_norm(x: jax.Array, *, epsilon: float = 1e-5) -> jax.Array:
    """Each channel of each image with mean 0 and (biased) variance 1, in float32.

    Args:
      x: float[B, H, W, C].

    Returns:
      The same shape and dtype.
    """
    y = x.astype(jnp.float32)
    # d var / d mean is 0: leaving that path out saves a pass in the backward.
    mean = y.mean((1, 2), keepdims=True)
    centred = y - jax.lax.stop_gradient(mean)
    var = (centred * centred).mean((1, 2), keepdims=True)
    return ((y - mean) * jax.lax.rsqrt(var + epsilon)).astype(x.dtype)


def reflect_pad(x: jax.Array, pixels: int) -> jax.Array:
    """float[B, H, W, C] mirrored at the centres of its border pixels."""
    sides = (pixels, pixels)
    return jnp.pad(x, ((0, 0), sides, sides, (0, 0)), mode="reflect")


def transposed_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """torch's ConvTranspose2d of size 3, stride 2, padding 1 and output padding 1.

    Written as the four convolutions that make the even and odd rows and columns, each
    with the taps that meet a pixel: on a CPU ten times as fast as a convolution of the
    map with zeros in between.

    Args:
      x: float[B, H, W, c].
      kernel: float[3, 3, c, C], not flipped: torch's [c, C, 3, 3] with its axes moved.

    Returns:
      float[B, 2 H, 2 W, C].
    """
    batch, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    # An even pixel sees tap 1 of its own input, an odd one taps 2 and 0 of it and the
    # next.
    even, odd = slice(1, 2), slice(2, None, -2)
    rows = []
    for of_row in (even, odd):
        phases = []
        for of_column in (even, odd):
            part = kernel[of_row, of_column]
            seen = padded[:, : height + len(part) - 1, : width + part.shape[1] - 1]
            phases.append(_convolve(seen, part))
        rows.append(jnp.stack(phases, axis=3))
    y = jnp.stack(rows, axis=2)  # [B, H, 2, W, 2, C]
    return y.reshape(batch, 2 * height, 2 * width, kernel.shape[-1])


def _convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolution without padding, float[B, H, W, c] and float[k, l, c, C].

    From or to a picture's three channels, CPUs are several times faster when the rows
    of the kernel become channels.
    """
    rows, columns, inputs, outputs = kernel.shape
    height = x.shape[1] - rows + 1
    if stride == 1 and rows > 1 and outputs < _FEW:
        apart = kernel.transpose(1, 2, 0, 3).reshape(1, columns, inputs, rows * outputs)
        y = _convolve(x, apart)
        return sum(
            y[:, i : i + height, :, i * outputs : (i + 1) * outputs]
            for i in range(rows)
        )
    if stride == 1 and rows > 1 and inputs < _FEW:
        x = jnp.concatenate([x[:, i : i + height] for i in range(rows)], axis=-1)
        kernel = kernel.transpose(1, 0, 2, 3)
        kernel = kernel.reshape(1, columns, rows * inputs, outputs)
    return convolve(x, kernel, (stride, stride))


class Conv(nn.Module):
    """Convolution of `size` x `size` without padding; `norm`: with instance norm."""

    features: int
    size: int
    stride: int = 1
    norm: bool = True
    transposed: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float[B, H, W, c] -> [B, h, w, features], in the dtype of `x`."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(_DEVIATION), shape)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:])
        kernel = kernel.astype(x.dtype)
        if self.transposed:
            x = transposed_conv(x, kernel)
        else:
            x = _convolve(x, kernel, self.stride)
        return instance_norm(x) if self.norm else x + bias.astype(x.dtype)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with reflected borders and their input added."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float[B, H, W, C] -> the same shape."""
        features = x.shape[-1]
        y = nn.relu(Conv(features, 3, name="conv1")(reflect_pad(x, 1)))
        return x + Conv(features, 3, name="conv2")(reflect_pad(y, 1))


class Generator(nn.Module):
    """Encoder, residual blocks at a quarter of the size, decoder."""

    width: int = 64
    blocks: int = 9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """f32[B, H, W, 3] in -1..1, H and W multiples of 4 -> the same."""
        width = self.width
        x = reflect_pad(images.astype(self.dtype), 3)
        x = nn.relu(Conv(width, 7, name="conv_in")(x))
        for i in (1, 2):
            x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            x = nn.relu(Conv(2**i * width, 3, stride=2, name=f"down{i}")(x))
        for i in range(self.blocks):
            x = ResidualBlock(name=f"block{i + 1}")(x)
        for i in (1, 2):
            x = Conv(2 ** (2 - i) * width, 3, transposed=True, name=f"up{i}")(x)
            x = nn.relu(x)
        x = Conv(3, 7, norm=False, name="conv_out")(reflect_pad(x, 3))
        return jnp.tanh(x.astype(jnp.float32))


class Discriminator(nn.Module):
    """How real each patch of 70x70 pixels looks: 1 real, 0 translated."""

    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """f32[B, H, W, 3] in -1..1, at least 32x32 -> f32[B, H/8 - 2, W/8 - 2, 1]."""
        x = images.astype(self.dtype)
        layers = ((1, 2, False), (2, 2, True), (4, 2, True), (8, 1, True))
        for i, (factor, stride, norm) in enumerate(layers, start=1):
            x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            features = factor * self.width
            x = Conv(features, 4, stride=stride, norm=norm, name=f"conv{i}")(x)
            x = nn.leaky_relu(x, 0.2)
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return Conv(1, 4, norm=False, name="conv5")(x).astype(jnp.float32)


class CycleGAN(nn.Module):
    """A generator to and a discriminator of each domain.

    Attributes:
      width, blocks: of the generators; discriminators have the same width.
      dtype: of activations; parameters, norms' statistics and outputs are float32.
    """

    width: int = 64
    blocks: int = 9
    dtype: Any = jnp.float32

    HEAD_MODULES: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def initial(path: tuple[str, ...], shape, fan_in: int) -> tuple[str, float] | None:
        """How a new parameter is drawn; see `BiSeNet.initial`."""
        return ("normal", _DEVIATION) if path[-1] == "kernel" else None

    def setup(self):
        self.generator_source = Generator(self.width, self.blocks, self.dtype)
        self.generator_target = Generator(self.width, self.blocks, self.dtype)
        self.discriminator_source = Discriminator(self.width, self.dtype)
        self.discriminator_target = Discriminator(self.width, self.dtype)

    def translate(self, images: jax.Array, to: str) -> jax.Array:
        """f32[B, H, W, 3] in -1..1 in the style of `to`, 'source' or 'target'."""
        if to == "source":
            return self.generator_source(images)
        return self.generator_target(images)

    def judge(self, images: jax.Array, domain: str) -> jax.Array:
        """How much patches look like those of `domain`: f32[B, h, w, 1]."""
        if domain == "source":
            return self.discriminator_source(images)
        return self.discriminator_target(images)

    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Source images to the target's style; touches every parameter."""
        del train
        for domain in ("source", "target"):
            self.judge(self.translate(images, domain), domain)
        return self.translate(images, "target")
