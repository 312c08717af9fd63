"""SGD and AdamW with decay and learning-rate groups, and the poly schedule."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax
from flax import traverse_util


def learning_rate_schedule(
    base: float,
    num_steps: int,
    *,
    warmup_steps: int = 0,
    warmup_start: float = 0.0,
    power: float = 0.9,
    constant_steps: int = 0,
) -> optax.Schedule:
    """Warm-up, then base * (1 - (t - begin) / (num_steps - begin))^power.

    The decay begins at the end of the warm-up, or at `constant_steps` if that is later.

    The paper fixes the poly part (section IV-C). Its warm-up has no formula; the
    release goes exponentially from `warmup_start` to `base`. A `warmup_start` of 0
    gives a linear warm-up from 0 instead.

    Args:
      base: learning rate after the warm-up.
      num_steps: step at which the rate reaches 0.
      warmup_steps: last step of the warm-up; 0 for none.
      warmup_start: rate at step 0; may exceed `base`, as in the release.
      power: exponent of the decay.
      constant_steps: step until which the rate stays at `base`.

    Returns:
      step i32[] -> f32[].
    """
    if num_steps <= warmup_steps:
        raise ValueError(f"{num_steps} steps are not more than {warmup_steps} warm-up")
    # Steps of decay; without any, the rate is constant to the end.
    decay = max(num_steps - max(warmup_steps, constant_steps), 1)

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        left = (num_steps - step) / decay
        poly = base * jnp.clip(left, 0.0, 1.0) ** power
        if warmup_steps == 0:
            return poly
        ratio = step / warmup_steps
        if warmup_start > 0.0:
            warm = warmup_start * (base / warmup_start) ** ratio
        else:
            warm = base * ratio
        return jnp.where(step <= warmup_steps, warm, poly)

    return schedule


def sgd(
    schedule: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    head_modules: Sequence[str] = (),
    head_multiplier: float = 1.0,
    backbone_multiplier: float = 1.0,
) -> optax.GradientTransformation:
    """SGD as torch does it: decay into the gradient, momentum, then the rate.

    Convolution kernels are decayed; normalisation parameters and biases are not.
    Parameters under one of the top-level `head_modules` move `head_multiplier`
    times as fast, all others `backbone_multiplier` times. The momentum buffer is kept
    before the rate, so a change of rate acts at once.
    """

    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=decayed),
        optax.trace(decay=momentum),
        _scale_modules(head_modules, head_multiplier, backbone_multiplier),
        optax.scale_by_learning_rate(schedule),
    )


def adamw(
    schedule: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    head_modules: Sequence[str] = (),
    head_multiplier: float = 1.0,
    backbone_multiplier: float = 1.0,
) -> optax.GradientTransformation:
    """Adam with decoupled decay (b1 = `momentum`, b2 = 0.999), as later peers use.

    The same groups as `sgd`.
    """
    return optax.chain(
        optax.scale_by_adam(b1=momentum),
        optax.add_decayed_weights(weight_decay, mask=decayed),
        _scale_modules(head_modules, head_multiplier, backbone_multiplier),
        optax.scale_by_learning_rate(schedule),
    )


def _scale_modules(modules: Sequence[str], inside: float, outside: float):
    def update(updates, params=None):
        del params
        return {
            name: optax.tree.scale(inside if name in modules else outside, tree)
            for name, tree in updates.items()
        }

    return optax.stateless(update)


def decayed(params) -> dict:
    """True at the leaves with weight decay: the kernels."""
    return traverse_util.path_aware_map(lambda path, _: path[-1] == "kernel", params)


OPTIMIZERS = {"sgd": sgd, "adamw": adamw}
