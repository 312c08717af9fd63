"""The networks: `build` makes one from its name, `init` its first variables."""

import inspect
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from tufl_jax.errors import UserError
from tufl_jax.models.bisenet import BiSeNet

MODELS = {"bisenet": BiSeNet}


def build(name: str, *, num_classes: int, **options) -> nn.Module:
    """Makes a network.

    'bisenet' takes `width` (channels of the stem; 64 is the published network, others
    scale every channel count), `aux_heads` (two more outputs), `activation`
    ('leaky_relu' | 'relu'), `axis_name` (mesh axis of synchronised batch statistics
    or None) and `dtype` (of activations; parameters and logits are float32).

    Returns:
      A module; `module(images f32[B, H, W, 3], train=False)` gives a tuple of
      f32[B, H, W, num_classes] logits, main head first.

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


def shapes(model: nn.Module, image_size: tuple[int, int] = (64, 64)) -> dict:
    """The variables of a network as a tree of `jax.ShapeDtypeStruct`."""
    images = jax.ShapeDtypeStruct((1, *image_size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def init(
    model: nn.Module, key: jax.Array, image_size: tuple[int, int] = (64, 64)
) -> dict:
    """First variables {'params', 'batch_stats'}, float32, as NumPy arrays.

    The distributions of `model.init` (kernels N(0, 1 / fan_in); scale and variance
    1, bias and mean 0) without compiling it, which takes 20 s for large networks.
    Each kernel has its own NumPy stream of (key, crc32 of its path): the values do
    not depend on the other parameters or on the backend.

    Args:
      model: from `build`.
      key: a typed key from `jax.random.key`.
      image_size: (H, W) to trace the network with; changes no value.
    """
    seed = [int(word) for word in jax.random.key_data(key).ravel()]

    def draw(path, leaf):
        name = "/".join(entry.key for entry in path)
        if name.endswith("/kernel"):
            rng = np.random.default_rng([*seed, zlib.crc32(name.encode())])
            values = rng.standard_normal(leaf.shape, np.float32)
            return values / np.float32(np.sqrt(np.prod(leaf.shape[:-1])))
        fill = 1.0 if name.endswith(("/scale", "/var")) else 0.0
        return np.full(leaf.shape, fill, np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(model, image_size))
