"""What a network and a train step cost, found without running them."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from ml_collections import ConfigDict

from tufl_jax import config as config_lib
from tufl_jax import models, startup, steps
from tufl_jax.steps import common
from tufl_jax.steps import step as step_lib

GIB = 2**30


def multiplications(model, image_size: tuple[int, int]) -> int:
    """Multiply-accumulates of the convolutions for one image, as Table VII counts.

    Dense layers, resizing and element-wise work are not counted.

    Args:
      model: the network.
      image_size: (H, W).
    """
    shapes = models.shapes(model)
    images = jax.ShapeDtypeStruct((1, *image_size, 3), jnp.float32)

    def outputs(variables, images):
        return model.apply(
            variables,
            images,
            capture_intermediates=lambda module, _: isinstance(module, nn.Conv),
            mutable=["intermediates"],
        )[1]["intermediates"]

    total = 0
    kernels = traverse_util.flatten_dict(shapes["params"])
    found = traverse_util.flatten_dict(jax.eval_shape(outputs, shapes, images))
    for path, outs in found.items():
        # One output for each call of the module, those of a loop in one array.
        rows, columns, inputs, _ = kernels[*path[:-1], "kernel"].shape[-4:]
        total += sum(out.size for out in outs) * rows * columns * inputs
    return total


def size_of(tree) -> int:
    """Bytes of the arrays (or shapes) of a tree."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def program_memory(compiled) -> int:
    """Bytes that a compiled program holds at once: arguments, results, temporaries."""
    stats = compiled.memory_analysis()
    return (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes
    )


def abstract_batch(config: ConfigDict) -> dict:
    """The shapes of one batch of config.stage."""
    batch = {}
    counts = {name: config.data[name].batch_size for name in config_lib.domains(config)}
    if config.stage == "stage2":
        counts["donor"] = config.mixing.donors_per_step
        batch["donor_class"] = jax.ShapeDtypeStruct((counts["donor"],), np.int32)
    for name, count in counts.items():
        crop = tuple(config.data["source" if name == "donor" else name].crop)
        batch[f"{name}_image"] = jax.ShapeDtypeStruct((count, *crop, 3), np.uint8)
        if name != "target":
            batch[f"{name}_label"] = jax.ShapeDtypeStruct((count, *crop), np.uint8)
    return batch


def compile_step(config: ConfigDict):
    """The compiled train step of a config on one device, from shapes alone."""
    return trace_step(config).lower().compile()


def trace_step(config: ConfigDict):
    """The same, traced only."""
    model = startup.build_model(config)
    optimizer, _ = startup.build_optimizer(config, model)
    step = step_lib.make_train_step(
        steps.STAGES[config.stage].loss_fn,
        common.Context(config, model),
        optimizer,
        step_lib.make_mesh(jax.devices()[:1]),
    )
    state = startup.abstract_state(config, model, optimizer)
    return step.trace(state, abstract_batch(config))


def kept_for_backward(config: ConfigDict, model) -> int:
    """Bytes of activations that `model` keeps between forward and backward pass.

    Of one microbatch, with its parameters: what autodiff saves, on any kind of device
    and before a compiler makes it less. Needs no compiling.
    """
    config = ConfigDict(config.to_dict())
    parts, config.train.accumulate = config.train.accumulate, 1
    model = model.clone(axis_name=None)
    ctx = common.Context(config, model)
    variables = models.shapes(model)

    def images(name):
        domain = config.data[name]
        shape = (domain.batch_size // parts, *domain.crop, 3)
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    views = {"source": 0, "stage1": 2, "stage2": 3}[config.stage]

    def backward(params, batch_stats, source, target):
        def forward(params):
            keys = {
                "source": jax.random.split(jax.random.key(0), len(source)),
                "target": jax.random.split(jax.random.key(1), len(target)),
            }
            views_of_target = [target] * views
            return common.forward(
                ctx, params, batch_stats, [source], views_of_target, keys
            )

        return jax.vjp(forward, params, has_aux=True)[1]

    kept = jax.eval_shape(
        backward,
        variables["params"],
        variables["batch_stats"],
        images("source"),
        images("target"),
    )
    arrays = [x for x in jax.tree.leaves(kept) if x.dtype != jax.dtypes.float0]
    return size_of(arrays)
