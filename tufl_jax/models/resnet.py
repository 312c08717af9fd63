"""ResNet-18 trunk (He et al. 2016) as BiSeNet uses it: features at 1/8, 1/16, 1/32."""

import jax
from flax import linen as nn

from tufl_jax.models.layers import BatchNorm, Options, conv, max_pool


class BasicBlock(nn.Module):
    """conv-norm-activation-conv-norm, plus the shortcut, then a plain ReLU.

    The shortcut is a 1x1 convolution and a norm where the shape changes.
    """

    features: int
    options: Options
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """float[B, H, W, c] -> [B, ceil(H / stride), ceil(W / stride), features]."""
        options = self.options
        y = conv(self.features, 3, stride=self.stride, options=options, name="conv1")(x)
        y = options.activate(BatchNorm(options, name="bn1")(y, train=train))
        y = conv(self.features, 3, options=options, name="conv2")(y)
        y = BatchNorm(options, name="bn2")(y, train=train)
        if x.shape != y.shape:
            x = conv(
                self.features,
                1,
                stride=self.stride,
                options=options,
                name="downsample_conv",
            )(x)
            x = BatchNorm(options, name="downsample_bn")(x, train=train)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """Stem 7x7/2 and max pool, then four stages of two blocks."""

    width: int
    options: Options

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        """float[B, H, W, 3] -> (1/8, 1/16, 1/32) maps of 2, 4, 8 times `width`."""
        options = self.options
        x = conv(self.width, 7, stride=2, options=options, name="conv1")(images)
        x = options.activate(BatchNorm(options, name="bn1")(x, train=train))
        x = max_pool(x)
        features = []
        for stage in range(4):
            for block in range(2):
                x = BasicBlock(
                    self.width * 2**stage,
                    options,
                    stride=2 if stage > 0 and block == 0 else 1,
                    name=f"layer{stage + 1}_{block}",
                )(x, train=train)
            features.append(x)
        return tuple(features[1:])
