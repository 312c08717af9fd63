"""Everything a train step changes, and everything it reads besides the batch."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from tufl_jax import thresholds


@struct.dataclass
class TrainState:
    """The state of one training.

    Attributes:
      step: i32[], finished steps.
      params, batch_stats: variables of the network.
      opt_state: of the optimiser.
      thresholds: f32[C], class confidence thresholds (alpha of eq. 8).
      metrics: f32[] sums since the last log step, so that a run resumed between two
        log steps writes the same numbers.
      bad_step: i32[], the first step with a non-finite loss; -1 for none.
      teacher: frozen variables of the stage-1 network in stage 2, or of the network
        that watches over a style translation, else None.
      donors: images that later steps draw from. In stage 2 the bank of long-tail crops
        (image u8[C, K, h, w, 3], label u8[C, K, h, w], available bool[C, K]), in
        cyclegan the pool of each domain ({'source': see pool.create, 'target': ...}),
        else None.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    thresholds: jax.Array
    metrics: dict[str, jax.Array]
    bad_step: jax.Array
    teacher: Any = None
    donors: Any = None


def create(
    variables: dict,
    optimizer: optax.GradientTransformation,
    *,
    num_classes: int,
    initial_threshold: float,
    metrics: tuple[str, ...],
    teacher: dict | None = None,
    donors: dict | None = None,
) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
        thresholds=thresholds.init(num_classes, initial_threshold),
        metrics={name: jnp.zeros((), jnp.float32) for name in metrics},
        bad_step=jnp.full((), -1, jnp.int32),
        teacher=teacher,
        donors=donors,
    )
