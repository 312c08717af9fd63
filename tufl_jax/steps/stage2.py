"""Stage 2: stage 1 and cross-domain image mixing with long-tail pasting."""

import jax
import jax.numpy as jnp

from tufl_jax import augment, losses, mixing
from tufl_jax.steps.common import (
    Context,
    Outputs,
    class_weights,
    entropy,
    fold,
    forward,
    source_view,
    supervised_loss,
    target_views,
    unsupervised_loss,
)

METRICS = ("loss", "loss_source", "loss_unsupervised", "loss_mix", "kept_ratio")


def loss_fn(params, state, batch, keys, ctx: Context):
    """L_s + lambda_u L_u + lambda_m L_m (section III-C, eq. 10-12).

    The mixed image holds half of the classes of a source image, into which a crop of
    a long-tail class was pasted before, on a target image; its labels are the
    source's and the argmax of the frozen stage-1 network. It is weighted by 2 near
    the pasted borders and judged on the main head.

    Args:
      params: the network's, to differentiate.
      state: TrainState with teacher and donors.
      batch: as in stage 1 with as many target as source images, and 'donor_image'
        u8[D, H, W, 3], 'donor_label' u8[D, H, W], 'donor_class' i32[D], the same on
        every device.
      keys: {'source': key[B], 'target': key[B], 'step': key[]}.
      ctx: see Context.

    Returns:
      loss f32[], Outputs.
    """
    config = ctx.config
    donors = refresh_donors(keys["step"], state.donors, batch)
    source = source_view(ctx, batch["source_image"], keys["source"])
    weak, strong, theta = target_views(ctx, batch["target_image"], keys["target"])
    pseudo = pseudo_labels(ctx, state.teacher, weak)
    mixed, labels, mask = mix(
        ctx, fold(keys["source"], 1), batch, donors, state.thresholds, weak, pseudo
    )

    (source_heads, weak_heads, strong_heads, mixed_heads), batch_stats = forward(
        ctx, params, state.batch_stats, [source], [weak, strong, mixed], keys
    )
    loss_source = supervised_loss(ctx, source_heads, batch["source_label"])
    loss_u, alpha, kept, aligned, kept_mask = unsupervised_loss(
        ctx, state.thresholds, weak_heads, strong_heads, theta
    )
    weights = mixing.boundary_weights(
        mask, size=config.mixing.boundary_size, weight=config.mixing.boundary_weight
    )
    loss_m = losses.masked_mean(
        weights
        * losses.cross_entropy(
            mixed_heads[0], labels, class_weights=class_weights(ctx)
        ),
        labels != losses.IGNORE_LABEL,
        axis_name=ctx.axis_name,
    )
    loss = loss_source + config.loss.lambda_u * loss_u + config.loss.lambda_m * loss_m
    metrics = {
        "loss": loss,
        "loss_source": loss_source,
        "loss_unsupervised": loss_u,
        "loss_mix": loss_m,
        "kept_ratio": kept,
    }
    pictures = {
        "source/image": source[:1],
        "source/prediction": jnp.argmax(source_heads[0][:1], -1),
        "target/weak": weak[:1],
        "target/prediction": jnp.argmax(weak_heads[0][:1], -1),
        "target/entropy": entropy(weak_heads[0][:1]),
        "target/strong": strong[:1],
        "target/aligned_prediction": jnp.argmax(aligned[:1], -1),
        "target/mask": kept_mask[:1],
        "mixed/image": mixed[:1],
        "mixed/label": labels[:1],
        "mixed/mask": mask[:1],
        "mixed/prediction": jnp.argmax(mixed_heads[0][:1], -1),
    }
    return loss, Outputs(batch_stats, alpha, donors, metrics, pictures)


def refresh_donors(key, donors, batch):
    """The bank with the step's new donor crops in slots drawn at random."""
    slots = jax.random.randint(
        key, batch["donor_class"].shape, 0, donors["available"].shape[1]
    )
    at = (batch["donor_class"], slots)
    return {
        "image": donors["image"].at[at].set(batch["donor_image"]),
        "label": donors["label"].at[at].set(batch["donor_label"]),
        "available": donors["available"].at[at].set(True),
    }


def pseudo_labels(ctx: Context, teacher, weak) -> jax.Array:
    """Argmax of the frozen stage-1 network, u8[B, H, W]."""
    images = augment.normalize(weak, mode=ctx.config.model.normalization)
    logits = ctx.model.apply(jax.lax.stop_gradient(teacher), images, train=False)[0]
    return jnp.argmax(logits, -1).astype(jnp.uint8)


def mix(ctx: Context, keys, batch, donors, alpha, weak, pseudo):
    """Eq. 10 for every pair of source and target images.

    Returns:
      image f32[B, H, W, 3] in 0..255, label u8[B, H, W], mask bool[B, H, W] (True
      where the source is).
    """
    draw = ctx.config.mixing.long_tail_draws

    def one(key, image, label, target, target_label):
        paste_key, half_key = jax.random.split(key)
        image = image.astype(jnp.float32)
        image, label = paste_long_tail(paste_key, image, label, donors, alpha, draw)
        chosen = mixing.choose_half(half_key, label, ctx.config.num_classes)
        mask = mixing.class_mask(label, chosen)
        mixed = mixing.cross_domain_mix(mask[..., None], image, target)
        return mixed, mixing.cross_domain_mix(mask, label, target_label), mask

    images, labels, mask = jax.vmap(one)(
        keys, batch["source_image"], batch["source_label"], weak, pseudo
    )
    if ctx.config.mixing.strong:
        images = augment.strong(fold(keys, 2), images)
    return images, labels, mask


def paste_long_tail(key, image, label, donors, alpha, draws: int):
    """Paste `draws` donor classes drawn with softmax(1 / alpha) into one image."""
    class_key, slot_key = jax.random.split(key)
    available = donors["available"]
    classes = mixing.draw_long_tail(class_key, alpha, available.any(1), draws)
    for i in range(draws):
        class_id = classes[i]
        slot = jax.random.categorical(
            jax.random.fold_in(slot_key, i),
            jnp.where(available[class_id], 0.0, -jnp.inf),
        )
        image, label = mixing.paste(
            image,
            label,
            donors["image"][class_id, slot].astype(jnp.float32),
            donors["label"][class_id, slot],
            class_id,
        )
    return image, label
