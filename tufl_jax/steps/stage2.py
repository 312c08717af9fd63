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
    label_mean,
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
    the pasted borders and judged on the main head. The release differs in many places,
    all of them in config.mixing.

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
    pseudo, confidence = pseudo_labels(ctx, state.teacher, weak)
    mixed, labels, mask = mix(
        ctx, fold(keys["source"], 1), batch, donors, state.thresholds, weak, pseudo
    )

    (source_heads, weak_heads, strong_heads, mixed_heads), batch_stats = forward(
        ctx, params, state.batch_stats, [source], [weak, strong, mixed], keys
    )
    loss_source = supervised_loss(ctx, source_heads, batch["source_label"])
    loss_u, alpha, kept, aligned, kept_mask = unsupervised_loss(
        ctx, state, weak_heads, strong_heads, theta
    )
    values = losses.cross_entropy(
        mixed_heads[0], labels, class_weights=class_weights(ctx)
    )
    loss_m = label_mean(ctx, pixel_weights(ctx, mask, confidence) * values, labels)
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


def pseudo_labels(ctx: Context, teacher, weak):
    """Argmax u8[B, H, W] of the frozen stage-1 network and its probability f32."""
    images = augment.normalize(weak, mode=ctx.config.model.normalization)
    logits = ctx.model.apply(teacher, images, train=False)[0]
    confidence = jnp.max(jax.nn.softmax(logits), -1)
    return jnp.argmax(logits, -1).astype(jnp.uint8), confidence


def pixel_weights(ctx: Context, mask, confidence) -> jax.Array:
    """Weights f32[B, H, W] of the mixing loss: eq. 11 or the release's."""
    config = ctx.config.mixing
    size, weight = config.boundary_size, config.boundary_weight
    if config.target_weight == "one":
        return mixing.boundary_weights(mask, size=size, weight=weight)
    return mixing.pixel_weights_released(
        mask, confidence, size=size, confidence=config.confidence, weight=weight
    )


def mix(ctx: Context, keys, batch, donors, alpha, weak, pseudo):
    """Eq. 10 for every pair of source and target images.

    Returns:
      image f32[B, H, W, 3] in 0..255, label u8[B, H, W], mask bool[B, H, W] (True
      where the source is).
    """
    config, classes = ctx.config.mixing, ctx.config.num_classes
    if config.ignored_is_class:
        classes += 1

    def one(key, image, label, target, target_label):
        paste_key, half_key = jax.random.split(key)
        new_image, new_label, pasted = paste_long_tail(
            paste_key, image.astype(jnp.float32), label, donors, alpha, config
        )
        # The ignored label as one more class, where it may be chosen.
        ids = jnp.minimum(
            new_label if config.pasted == "half" else label, ctx.config.num_classes
        )
        fewer = jnp.where(pasted.any(), config.long_tail_fewer, 0)
        chosen = mixing.choose_half(half_key, ids, classes, fewer=fewer)
        mask = mixing.class_mask(ids, chosen)
        if config.pasted == "always":
            mask |= pasted
        mixed = mixing.cross_domain_mix(mask[..., None], new_image, target)
        return mixed, mixing.cross_domain_mix(mask, new_label, target_label), mask

    images, labels, mask = jax.vmap(one)(
        keys, batch["source_image"], batch["source_label"], weak, pseudo
    )
    if config.strong:
        images = augment.strong(fold(keys, 2), images)
    return images, labels, mask


def paste_long_tail(key, image, label, donors, alpha, config):
    """Paste donors of classes drawn with softmax(1 / alpha) into one image.

    Args:
      key: one key.
      image: f32[H, W, 3].
      label: u8[H, W].
      donors: the bank of the state.
      alpha: f32[C].
      config: config.mixing; its long_tail_* say how many.

    Returns:
      image, label, and bool[H, W] where something was pasted.
    """
    class_key, slot_key = jax.random.split(key)
    available = donors["available"]
    most = config.long_tail_draws + config.long_tail_extra
    classes = mixing.draw_long_tail(class_key, alpha, available.any(1), most)
    number = mixing.draw_number(
        jax.random.fold_in(key, 2),
        probability=config.long_tail_probability,
        least=config.long_tail_draws,
        extra=config.long_tail_extra,
    )
    classes = jnp.where(jnp.arange(most) < number, classes, -1)
    pasted = jnp.zeros(label.shape, bool)
    for i in range(most):
        class_id = classes[i]
        slot = jax.random.categorical(
            jax.random.fold_in(slot_key, i),
            jnp.where(available[class_id], 0.0, -jnp.inf),
        )
        donor_label = donors["label"][class_id, slot]
        image, label = mixing.paste(
            image,
            label,
            donors["image"][class_id, slot].astype(jnp.float32),
            donor_label,
            class_id,
        )
        pasted |= donor_label == class_id
    return image, label, pasted
