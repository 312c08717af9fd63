"""Torch names and layouts of our parameters, by one rule for every network.

`cp.resnet.layer1.0.conv1.weight` <-> params cp/resnet/layer1_0/conv1/kernel;
`bn1.weight`, `bn1.bias` <-> scale, bias; `bn1.running_mean`, `bn1.running_var` <->
batch_stats mean, var; `layer3.1` to `layer3.22` <-> the first axis of the arrays of
layer3_others. Convolutions are OIHW there and HWIO here, dense layers
(out, in) there and (in, out) here.
"""

import re
from collections.abc import Iterable
from typing import Any

import jax
from flax import traverse_util

PREFIXES = ("module.", "model.", "backbone.", "net.", "Scale.")
STACKED = "_others"  # ends the name of a module that is all blocks but a stage's first
_LEAVES = {
    "params": {"kernel": "weight", "scale": "weight", "bias": "bias"},
    "batch_stats": {"mean": "running_mean", "var": "running_var"},
}


def flatten(variables: dict) -> dict:
    """{torch name: leaf in torch layout}; leaves are arrays or ShapeDtypeStructs."""
    return {
        name: _to_layout(part)
        for collection in _LEAVES
        for path, leaf in traverse_util.flatten_dict(
            variables.get(collection, {})
        ).items()
        for name, part in parts(collection, path, leaf)
    }


def parts(collection: str, path: tuple[str, ...], leaf) -> list[tuple[str, Any]]:
    """The torch names of a leaf of `params` or `batch_stats`, each with what it names.

    That is the leaf itself, in our layout, or a slice of its first axis for each of the
    blocks 1, 2, ... that are stacked in it.
    """
    at = [i for i, module in enumerate(path) if module.endswith(STACKED)]
    if not at:
        return [(_name(collection, path), leaf)]
    before, after = path[: at[0]], path[at[0] + 1 :]
    stage = path[at[0]].removesuffix(STACKED)
    return [
        (_name(collection, (*before, f"{stage}_{i + 1}", *after)), _at(leaf, i))
        for i in range(leaf.shape[0])
    ]


def _name(collection, path):
    # layer1_0 -> layer1.0: a module name cannot contain a dot.
    modules = [re.sub(r"_(\d+)(?=_|$)", r".\1", part) for part in path[:-1]]
    return ".".join([*modules, _LEAVES[collection][path[-1]]])


def _at(leaf, i):
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
    return leaf[i]


def from_layout(array):
    """Torch layout -> ours; vectors stay."""
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim)
    return array if axes is None else array.transpose(axes)


def _to_layout(leaf):
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(len(leaf.shape))
    if axes is None:
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct([leaf.shape[a] for a in axes], leaf.dtype)
    return leaf.transpose(axes)


def released(name: str) -> str:
    """The name that TUFL's BiSeNet has for an array of a torchvision ResNet."""
    name = name.replace(".downsample.0.", ".downsample_conv.")
    return name.replace(".downsample.1.", ".downsample_bn.")


def strip_prefix(arrays: dict, wanted: Iterable[str]) -> tuple[dict, str]:
    """Removes what wrappers put before every name, unless a name is already `wanted`.

    Returns (arrays, prefix); wrappers nest, so 'module.model.' is found as well.
    """
    wanted, prefix = set(wanted), ""
    while arrays and not wanted & set(arrays):
        part = next((p for p in PREFIXES if all(k.startswith(p) for k in arrays)), "")
        if not part:
            break
        arrays = {k.removeprefix(part): v for k, v in arrays.items()}
        prefix += part
    return arrays, prefix
