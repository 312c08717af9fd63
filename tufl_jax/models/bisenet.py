"""BiSeNet with ResNet-18 (Yu et al. 2018) in the form that TUFL was published with.

It differs from newer BiSeNets: leaky ReLU after in-place batch norm, no bias in the
output convolutions, auxiliary heads on the 1/8 and 1/16 context maps, logits resized
with aligned corners. Weights of the two families do not mix.
"""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from tufl_jax import ops
from tufl_jax.models.layers import BatchNorm, ConvBNAct, Options, conv, global_mean
from tufl_jax.models.resnet import ResNet18


class AttentionRefinement(nn.Module):
    """3x3 ConvBNAct times the sigmoid of a norm of a 1x1 of its spatial mean."""

    features: int
    options: Options

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """float[B, H, W, c] -> [B, H, W, features]."""
        options = self.options
        x = ConvBNAct(self.features, 3, options, name="conv")(x, train=train)
        attention = conv(self.features, 1, options=options, name="conv_atten")(
            global_mean(x)
        )
        attention = BatchNorm(options, name="bn_atten")(attention, train=train)
        return x * nn.sigmoid(attention)


class ContextPath(nn.Module):
    """ResNet-18, attention refinement of 1/16 and 1/32, and a global branch."""

    width: int
    options: Options

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        """float[B, H, W, 3] -> maps at 1/8 and 1/16 with 2 * width channels."""
        options, features = self.options, 2 * self.width
        feat8, feat16, feat32 = ResNet18(self.width, options, name="resnet")(
            images, train=train
        )
        context = ConvBNAct(features, 1, options, name="conv_avg")(
            global_mean(feat32), train=train
        )
        refined = AttentionRefinement(features, options, name="arm32")
        x = refined(feat32, train=train) + context
        x = ops.resize_nearest(x, feat16.shape[1:3])
        cp16 = ConvBNAct(features, 3, options, name="conv_head32")(x, train=train)
        refined = AttentionRefinement(features, options, name="arm16")
        x = refined(feat16, train=train) + cp16
        x = ops.resize_nearest(x, feat8.shape[1:3])
        cp8 = ConvBNAct(features, 3, options, name="conv_head16")(x, train=train)
        return cp8, cp16


class SpatialPath(nn.Module):
    """Three strided ConvBNActs and a 1x1."""

    width: int
    options: Options

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """float[B, H, W, 3] -> map at 1/8 with 2 * width channels."""
        width, options = self.width, self.options
        x = ConvBNAct(width, 7, options, stride=2, name="conv1")(x, train=train)
        x = ConvBNAct(width, 3, options, stride=2, name="conv2")(x, train=train)
        x = ConvBNAct(width, 3, options, stride=2, name="conv3")(x, train=train)
        return ConvBNAct(2 * width, 1, options, name="conv_out")(x, train=train)


class FeatureFusion(nn.Module):
    """1x1 ConvBNAct of both paths, plus itself times a squeeze-excite attention."""

    features: int
    options: Options

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """float[B, H, W, c] -> [B, H, W, features]."""
        options = self.options
        x = ConvBNAct(self.features, 1, options, name="convblk")(x, train=train)
        attention = conv(self.features // 4, 1, options=options, name="conv1")(
            global_mean(x)
        )
        attention = conv(self.features, 1, options=options, name="conv2")(
            nn.relu(attention)
        )
        return x * nn.sigmoid(attention) + x


class Head(nn.Module):
    """3x3 ConvBNAct and a 1x1 to the classes, without bias."""

    features: int
    num_classes: int
    options: Options

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """float[B, H, W, c] -> f32[B, H, W, num_classes]."""
        options = self.options
        x = ConvBNAct(self.features, 3, options, name="conv")(x, train=train)
        x = conv(self.num_classes, 1, options=options, name="conv_out")(x)
        return x.astype(jnp.float32)


class BiSeNet(nn.Module):
    """BiSeNet-ResNet18; see `models.build` for the attributes.

    HEAD_MODULES are the top-level modules that upstream trains at ten times the rate;
    BACKBONE is the module that takes classification weights.
    """

    num_classes: int
    width: int = 64
    aux_heads: bool = True
    activation: str = "leaky_relu"
    axis_name: str | None = None
    dtype: Any = jnp.float32

    HEAD_MODULES: ClassVar[tuple[str, ...]] = (
        "ffm",
        "conv_out",
        "conv_out16",
        "conv_out32",
    )
    BACKBONE: ClassVar[tuple[str, ...]] = ("cp", "resnet")

    @staticmethod
    def initial(path: tuple[str, ...], shape, fan_in: int) -> tuple[str, float] | None:
        """How a new parameter is drawn.

        Args:
          path: its path in the tree.
          shape: its shape.
          fan_in: of the kernel beside it (or of itself); 0 where there is none.

        Returns:
          ('normal', standard deviation), ('uniform', bound), or None for the constant
          that `models.init` has for the name.
        """
        return ("normal", 1 / math.sqrt(fan_in)) if path[-1] == "kernel" else None

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """Logits at the size of the images.

        Args:
          images: float[B, H, W, 3], normalised.
          train: batch statistics, running averages move (make `batch_stats`
            mutable); False: running averages as they are.
          keys: not used: this network has no dropout.

        Returns:
          f32[B, H, W, num_classes] of the main head; with `aux_heads` followed by
          those of the heads on the 1/8 and the 1/16 context map.
        """
        options = Options(self.activation, self.axis_name, self.dtype)
        images = images.astype(self.dtype)
        cp8, cp16 = ContextPath(self.width, options, name="cp")(images, train=train)
        sp = SpatialPath(self.width, options, name="sp")(images, train=train)
        fused = FeatureFusion(4 * self.width, options, name="ffm")(
            jnp.concatenate([sp, cp8], axis=-1), train=train
        )
        heads = [("conv_out", 4 * self.width, fused)]
        if self.aux_heads:
            heads.append(("conv_out16", self.width, cp8))
            heads.append(("conv_out32", self.width, cp16))
        return tuple(
            ops.resize_bilinear(
                Head(features, self.num_classes, options, name=name)(x, train=train),
                images.shape[1:3],
            )
            for name, features, x in heads
        )
