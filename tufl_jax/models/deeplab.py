"""DeepLabV2 with ResNet-101 (Chen et al. 2018) as domain adaptation papers use it.

The trunk is dilated to an output stride of 8, with a max pool that rounds up. What is
called DeepLabV2 differs in the head: 'proda' is the network of ProDA and, by its
parameters and multiplications, of the TUFL paper; 'sum4' adds four dilated
convolutions (ADVENT); 'sum2' declares four and adds two, because the loop of the
published AdaptSegNet, MaxSquare and DACS code returns early.
"""

import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from tufl_jax import ops
from tufl_jax.errors import UserError
from tufl_jax.models import layers, torch_names
from tufl_jax.models.layers import BatchNorm, Options

DILATIONS = (6, 12, 18, 24)
STAGES = ((1, 1), (2, 1), (1, 2), (1, 4))  # stride and dilation of each stage
HEADS = ("proda", "sum4", "sum2")
STRIDE_PLACES = ("caffe", "torch")
REMAT = {
    "none": None,
    "norms": jax.checkpoint_policies.save_only_these_names("conv"),
    "blocks": jax.checkpoint_policies.nothing_saveable,
}
NORMAL = nn.initializers.normal(0.01)


class Bottleneck(nn.Module):
    """1x1, dilated 3x3 and 1x1 to four times the channels, plus the shortcut; ReLU.

    `project` makes the shortcut a 1x1 convolution and a norm. The stride is that of
    the first 1x1 ('caffe') or of the 3x3 ('torch').
    """

    features: int
    options: Options
    stride: int = 1
    dilation: int = 1
    project: bool = False
    stride_place: str = "caffe"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """float[B, H, W, c] -> [B, ceil(H / stride), ceil(W / stride), 4 features]."""
        first = self.stride if self.stride_place == "caffe" else 1

        def conv_norm(x, features, size, number, **kwargs):
            x = _conv(features, size, self.options, f"conv{number}", **kwargs)(x)
            x = checkpoint_name(x, "conv")
            return BatchNorm(self.options, name=f"bn{number}")(x, train=train)

        y = nn.relu(conv_norm(x, self.features, 1, 1, stride=first))
        y = conv_norm(
            y,
            self.features,
            3,
            2,
            stride=self.stride // first,
            dilation=self.dilation,
        )
        y = conv_norm(nn.relu(y), 4 * self.features, 1, 3)
        if self.project:
            x = _conv(
                4 * self.features, 1, self.options, "downsample_0", stride=self.stride
            )(x)
            x = checkpoint_name(x, "conv")
            x = BatchNorm(self.options, name="downsample_1")(x, train=train)
        return nn.relu(x + y)


class SumHead(nn.Module):
    """Sum of dilated 3x3 convolutions with bias; only the first `active` count.

    The others are declared all the same: published checkpoints contain them.
    """

    num_classes: int
    active: int
    options: Options

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float[B, H, W, c] -> f32[B, H, W, num_classes]."""
        logits = 0.0
        for i, dilation in enumerate(DILATIONS):
            branch = _conv(
                self.num_classes,
                3,
                self.options,
                f"conv2d_list_{i}",
                dilation=dilation,
                bias=layers.torch_uniform(9 * x.shape[-1]),
            )
            if i < self.active or self.is_initializing():
                logits += branch(x).astype(jnp.float32)
        return logits


class SqueezeExcite(nn.Module):
    """x times the sigmoid of a two-layer perceptron of its spatial mean."""

    ratio: int
    options: Options

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float[B, H, W, C] -> the same shape."""
        channels = x.shape[-1]
        y = layers.global_mean(x)
        y = nn.relu(self._dense(y, channels // self.ratio, "se_0"))
        return x * nn.sigmoid(self._dense(y, channels, "se_2"))

    def _dense(self, x, features, name):
        uniform = layers.torch_uniform(x.shape[-1])
        return nn.Dense(
            features,
            kernel_init=uniform,
            bias_init=uniform,
            dtype=self.options.dtype,
            name=name,
        )(x)


class ProDAHead(nn.Module):
    """Five branches, squeeze-excite, bottleneck, channel dropout, classifier."""

    num_classes: int
    width: int
    dropout: float
    options: Options

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None) -> jax.Array:
        """float[B, H, W, c], key[B] or None -> f32[B, H, W, num_classes]."""
        features = 4 * self.width
        branches = []
        for i, dilation in enumerate((1, *DILATIONS)):
            size = 1 if i == 0 else 3
            y = _conv(
                features,
                size,
                self.options,
                f"conv2d_list_{i}_0",
                dilation=dilation,
                bias=layers.torch_uniform(size * size * x.shape[-1]),
            )(x)
            branches.append(nn.relu(self._norm(f"conv2d_list_{i}_1")(y)))
        y = jnp.concatenate(branches, axis=-1)
        y = SqueezeExcite(16, self.options, name="bottleneck_0")(y)
        y = _conv(
            features, 3, self.options, "bottleneck_1", bias=nn.initializers.zeros
        )(y)
        y = self._norm("bottleneck_2")(y)
        if keys is not None:
            y = layers.channel_dropout(keys, y, rate=self.dropout)
        y = _conv(self.num_classes, 1, self.options, "head_1")(y)
        return y.astype(jnp.float32)

    def _norm(self, name):
        return nn.GroupNorm(
            math.gcd(32, 4 * self.width),
            epsilon=1e-5,
            use_fast_variance=False,
            dtype=self.options.dtype,
            name=name,
        )


class DeepLabV2(nn.Module):
    """DeepLabV2-ResNet101; see `models.build` for the attributes.

    HEAD_MODULES are the top-level modules that are published with ten times the rate;
    BACKBONE is the path of the module that takes classification weights: the network
    itself.
    """

    num_classes: int
    width: int = 64
    head: str = "proda"
    aux_heads: bool = False
    stride_place: str = "caffe"
    bn_pretrain: bool = False
    dropout: float = 0.1
    blocks: tuple[int, ...] = (3, 4, 23, 3)
    remat: str = "none"
    axis_name: str | None = None
    dtype: Any = jnp.float32

    HEAD_MODULES: ClassVar[tuple[str, ...]] = ("bn_pretrain", "layer5", "layer6")
    BACKBONE: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        super().__post_init__()
        choices = {"head": HEADS, "stride_place": STRIDE_PLACES, "remat": REMAT}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"deeplabv2: {name} '{getattr(self, name)}' is not one of "
                    f"{', '.join(allowed)}"
                )
        if self.aux_heads and self.head == "proda":
            raise UserError("deeplabv2: head 'proda' has no aux_heads; sum4, sum2 have")

    @staticmethod
    def initial(path: tuple[str, ...], shape, fan_in: int) -> tuple[str, float] | None:
        """As `BiSeNet.initial`. Convolutions N(0, 0.01); what the published loop over
        modules leaves out - dense layers and biases - has torch's default."""
        if path[-1] == "kernel" and len(shape) > 2:
            return "normal", 0.01
        if fan_in and path[-2:] != ("bottleneck_1", "bias"):
            return "uniform", 1 / math.sqrt(fan_in)
        return None

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """Logits at the size of the images.

        Args:
          images: float[B, H, W, 3], normalised.
          train: batch statistics, running averages move (make `batch_stats`
            mutable); False: running averages as they are.
          keys: key[B], one an image, for the channel dropout of the 'proda' head;
            None: no dropout.

        Returns:
          f32[B, H, W, num_classes] of the main head; with `aux_heads` followed by
          those of the head on stage 3.
        """
        options = Options("relu", self.axis_name, self.dtype)
        x = _conv(self.width, 7, options, "conv1", stride=2)(images.astype(self.dtype))
        x = nn.relu(BatchNorm(options, name="bn1")(x, train=train))
        x = layers.max_pool(x, ceil=True)
        features = []
        for stage in range(4):
            x = self._stage(stage, x, options, train)
            features.append(x)
        if self.bn_pretrain:
            x = BatchNorm(options, name="bn_pretrain")(x, train=train)
        size = images.shape[1:3]
        if self.head == "proda":
            head = ProDAHead(
                self.num_classes, self.width, self.dropout, options, name="layer5"
            )
            return (ops.resize_bilinear(head(x, keys), size),)
        inputs = {"layer6": x}
        if self.aux_heads:
            inputs["layer5"] = features[2]
        active = 4 if self.head == "sum4" else 2
        return tuple(
            ops.resize_bilinear(
                SumHead(self.num_classes, active, options, name=name)(x), size
            )
            for name, x in inputs.items()
        )

    def _stage(self, stage: int, x: jax.Array, options: Options, train: bool):
        stride, dilation = STAGES[stage]
        module = Bottleneck
        if REMAT[self.remat]:
            module = nn.remat(Bottleneck, policy=REMAT[self.remat], static_argnums=2)
        block = functools.partial(
            module,
            self.width * 2**stage,
            options,
            dilation=dilation,
            stride_place=self.stride_place,
        )
        first, others = f"layer{stage + 1}_0", f"layer{stage + 1}{torch_names.STACKED}"
        if self.blocks[stage] > 0:
            x = block(stride=stride, project=True, name=first)(x, train)
        if self.blocks[stage] > 1:
            # A loop: compiled once, and no block's work space beside another's.
            x, _ = nn.scan(
                lambda block, x, _: (block(x, train), None),
                variable_axes={"params": 0, "batch_stats": 0, "intermediates": 0},
                split_rngs={"params": True},
                length=self.blocks[stage] - 1,
                check_constancy_invariants=False,  # no variable is shared by blocks
            )(block(name=others), x, None)
        return x


def _conv(features, size, options, name, *, stride=1, dilation=1, bias=None):
    return layers.conv(
        features,
        size,
        stride=stride,
        dilation=dilation,
        kernel_init=NORMAL,
        bias_init=bias,
        options=options,
        name=name,
    )
