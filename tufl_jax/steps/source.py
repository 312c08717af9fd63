"""Source training: cross entropy on labelled source images."""

import jax.numpy as jnp

from tufl_jax.steps.common import (
    Context,
    Outputs,
    entropy,
    forward,
    source_view,
    supervised_loss,
)

METRICS = ("loss", "loss_source")


def loss_fn(params, state, batch, keys, ctx: Context):
    """Mean cross entropy of the three heads (section III-A).

    Args:
      params: the network's, to differentiate.
      state: TrainState.
      batch: 'source_image' u8[B, H, W, 3] and 'source_label' u8[B, H, W].
      keys: {'source': key[B]}.
      ctx: see Context.

    Returns:
      loss f32[], Outputs.
    """
    images = source_view(ctx, batch["source_image"], keys["source"])
    (heads,), batch_stats = forward(ctx, params, state.batch_stats, [images], keys=keys)
    loss = supervised_loss(ctx, heads, batch["source_label"])
    pictures = {
        "source/image": images[:1],
        "source/label": batch["source_label"][:1],
        "source/prediction": jnp.argmax(heads[0][:1], -1),
        "source/entropy": entropy(heads[0][:1]),
    }
    metrics = {"loss": loss, "loss_source": loss}
    return loss, Outputs(batch_stats, state.thresholds, state.donors, metrics, pictures)
