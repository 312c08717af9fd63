"""The one train step: any stage's loss on any number of devices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tufl_jax.state import TrainState
from tufl_jax.steps.common import Context, adapt_source

AXIS = "data"


def make_mesh(devices=None) -> Mesh:
    """All devices (or the given ones) on one axis, along which batches are split."""
    return Mesh(np.array(devices or jax.devices()), (AXIS,))


def batch_spec(name: str) -> P:
    """How the batch entry `name` is laid out: donors on every device, others split."""
    return P() if name.startswith("donor_") else P(AXIS)


def make_train_step(
    loss_fn: Callable,
    ctx: Context,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> Callable:
    """A jitted (state, batch) -> (state, pictures) that donates the state.

    The loss reduces itself over the mesh axis, so its gradient with respect to the
    replicated parameters is already the global one: nothing is averaged here. The
    replication check of shard_map stays on; it rejects a reduction that was
    forgotten when the step is traced.

    Args:
      loss_fn: a stage's.
      ctx: what it reads.
      optimizer: made by optim.sgd.
      mesh: from make_mesh.

    Returns:
      The step. Its pictures hold the first image of every device.
    """
    log_every = ctx.config.train.log_every

    def on_device(state: TrainState, batch: dict, keys: dict):
        batch = adapt_source(ctx, batch)
        grads, out = jax.grad(
            lambda params: loss_fn(params, state, batch, keys, ctx), has_aux=True
        )(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        # Neither an infinity nor a NaN is lost in a sum.
        finite = jnp.isfinite(out.metrics["loss"] + optax.tree.sum(grads))
        first_of_window = state.step % log_every == 0
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=out.batch_stats,
            opt_state=opt_state,
            thresholds=out.thresholds,
            donors=out.donors,
            metrics={
                name: jnp.where(first_of_window, 0.0, total) + out.metrics[name]
                for name, total in state.metrics.items()
            },
            bad_step=jnp.where(
                (state.bad_step < 0) & ~finite, state.step + 1, state.bad_step
            ),
        )
        return state, jax.tree.map(jax.lax.stop_gradient, out.images)

    def step(state: TrainState, batch: dict):
        key = jax.random.fold_in(jax.random.key(ctx.config.seed), state.step)
        keys = {"step": jax.random.fold_in(key, 0)}
        specs = {"step": P()}
        for tag, domain in enumerate(("source", "target"), start=1):
            if f"{domain}_image" in batch:
                size = len(batch[f"{domain}_image"])
                keys[domain] = jax.random.split(jax.random.fold_in(key, tag), size)
                specs[domain] = P(AXIS)
        return jax.shard_map(
            on_device,
            mesh=mesh,
            in_specs=(P(), {name: batch_spec(name) for name in batch}, specs),
            out_specs=(P(), P(AXIS)),
        )(state, batch, keys)

    return jax.jit(step, donate_argnums=0)


def put_batch(batch: dict, mesh: Mesh) -> dict:
    """This process's rows of a host batch as global arrays."""
    return {
        name: jax.make_array_from_process_local_data(
            NamedSharding(mesh, batch_spec(name)), array
        )
        for name, array in batch.items()
    }


def replicate(tree, mesh: Mesh):
    """The tree on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, P()))
