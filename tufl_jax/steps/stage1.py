"""Stage 1: unsupervised focal loss with adaptive thresholds on the target."""

import jax.numpy as jnp

from tufl_jax.steps.common import (
    Context,
    Outputs,
    entropy,
    forward,
    source_view,
    supervised_loss,
    target_views,
    unsupervised_loss,
)

METRICS = ("loss", "loss_source", "loss_unsupervised", "kept_ratio")


def loss_fn(params, state, batch, keys, ctx: Context):
    """L_s + lambda_u L_u (section III-B, eq. 3-5, 8-9).

    Args:
      params: the network's, to differentiate.
      state: TrainState; its thresholds are those before the step.
      batch: 'source_image' u8[B, H, W, 3], 'source_label' u8[B, H, W] and
        'target_image' u8[Bt, H, W, 3] of the same size.
      keys: {'source': key[B], 'target': key[Bt]}.
      ctx: see Context.

    Returns:
      loss f32[], Outputs.
    """
    source = source_view(ctx, batch["source_image"], keys["source"])
    weak, strong, theta = target_views(ctx, batch["target_image"], keys["target"])
    (source_heads, weak_heads, strong_heads), batch_stats = forward(
        ctx, params, state.batch_stats, [source], [weak, strong], keys
    )
    loss_source = supervised_loss(ctx, source_heads, batch["source_label"])
    loss_u, alpha, kept, aligned, mask = unsupervised_loss(
        ctx, state, weak_heads, strong_heads, theta
    )
    loss = loss_source + ctx.config.loss.lambda_u * loss_u
    metrics = {
        "loss": loss,
        "loss_source": loss_source,
        "loss_unsupervised": loss_u,
        "kept_ratio": kept,
    }
    pictures = {
        "source/image": source[:1],
        "source/label": batch["source_label"][:1],
        "source/prediction": jnp.argmax(source_heads[0][:1], -1),
        "target/weak": weak[:1],
        "target/prediction": jnp.argmax(weak_heads[0][:1], -1),
        "target/entropy": entropy(weak_heads[0][:1]),
        "target/strong": strong[:1],
        "target/aligned_prediction": jnp.argmax(aligned[:1], -1),
        "target/mask": mask[:1],
    }
    return loss, Outputs(batch_stats, alpha, state.donors, metrics, pictures)
