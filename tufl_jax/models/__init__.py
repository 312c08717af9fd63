"""The networks: `build` makes one from its name, `init` its first variables."""

import functools
import inspect
import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from tufl_jax.errors import UserError
from tufl_jax.models.bisenet import BiSeNet
from tufl_jax.models.deeplab import DeepLabV2

MODELS = {"bisenet": BiSeNet, "deeplabv2": DeepLabV2}


def build(name: str, *, num_classes: int, **options) -> nn.Module:
    """Makes a network.

    Both networks take `width` (channels of the stem; 64 is the published network,
    others scale every channel count), `aux_heads` (more outputs), `axis_name` (mesh
    axis of synchronised batch statistics or None) and `dtype` (of activations;
    parameters and logits are float32).

    'bisenet': `aux_heads` (True) adds two outputs; `activation` ('leaky_relu' |
    'relu').

    'deeplabv2': `head` ('proda' | 'sum4' | 'sum2'); `aux_heads` (False) adds one
    output to the sum heads; `stride_place` ('caffe': a bottleneck strides in its first
    1x1 | 'torch': in its 3x3); `bn_pretrain` (a batch norm before the head, as with
    ProDA's self-supervised weights); `dropout` (rate of the 'proda' head); `blocks`
    (bottlenecks of the four stages); `remat` (what of a bottleneck the backward pass
    computes again: 'none' | 'norms' | 'blocks').

    Returns:
      A module; `module(images f32[B, H, W, 3], train=False, keys=None)` gives a tuple
      of f32[B, H, W, num_classes] logits, main head first. `keys` key[B] switch dropout
      on, one key an image.

    Raises:
      UserError: for a name or an option that does not exist.
    """
    if name not in MODELS:
        raise UserError(f"unknown model '{name}'; there are: {', '.join(MODELS)}")
    known = set(inspect.signature(MODELS[name]).parameters) - {"parent", "name"}
    if unknown := sorted(set(options) - known):
        raise UserError(
            f"model '{name}' has no option '{unknown[0]}'; "
            f"there are: {', '.join(sorted(known - {'num_classes'}))}"
        )
    return MODELS[name](num_classes=num_classes, **options)


@functools.cache
def shapes(model: nn.Module, image_size: tuple[int, int] = (64, 64)) -> dict:
    """The variables of a network as a tree of `jax.ShapeDtypeStruct`.

    Traced once a process and shared: not to be changed.
    """
    images = jax.ShapeDtypeStruct((1, *image_size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def init(
    model: nn.Module, key: jax.Array, image_size: tuple[int, int] = (64, 64)
) -> dict:
    """First variables {'params', 'batch_stats'}, float32, as NumPy arrays.

    The distributions of `model.init`, which are those of `model.initial` (scale and
    variance 1, other constants 0), without compiling it: that takes 20 s for large
    networks. Each array has its own NumPy stream of (key, crc32 of its path): the
    values do not depend on the other parameters or on the backend.

    Args:
      model: from `build`.
      key: a typed key from `jax.random.key`.
      image_size: (H, W) to trace the network with; changes no value.
    """
    seed = [int(word) for word in jax.random.key_data(key).ravel()]
    flat = traverse_util.flatten_dict(shapes(model, image_size))

    def draw(path, leaf):
        kernel = flat.get((*path[:-1], "kernel"))
        fan_in = 0 if kernel is None else math.prod(kernel.shape[-4:-1])
        drawn = model.initial(path, leaf.shape, fan_in)
        if drawn is None:
            fill = 1.0 if path[-1] in ("scale", "var") else 0.0
            return np.full(leaf.shape, fill, np.float32)
        rng = np.random.default_rng([*seed, zlib.crc32("/".join(path).encode())])
        kind, size = drawn
        if kind == "normal":
            return rng.standard_normal(leaf.shape, np.float32) / np.float32(1 / size)
        return rng.uniform(-size, size, leaf.shape).astype(np.float32)

    return traverse_util.unflatten_dict({p: draw(p, x) for p, x in flat.items()})
