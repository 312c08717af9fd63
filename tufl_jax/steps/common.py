"""What the three loss functions share."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct, traverse_util
from ml_collections import ConfigDict

from tufl_jax import augment, fourier, losses, ops, thresholds


@dataclasses.dataclass(frozen=True)
class Context:
    """What a loss function reads besides the state and the batch; all static.

    Attributes:
      config: the run's config.
      model: the network.
      axis_name: mesh axis that the batch is split over.
      teacher: the network of the state's teacher, where it is not `model`'s twin.
    """

    config: ConfigDict
    model: nn.Module
    axis_name: str = "data"
    teacher: nn.Module | None = None


@struct.dataclass
class Outputs:
    """What a loss function changes and reports.

    Attributes:
      batch_stats, thresholds, donors: new values for the TrainState.
      metrics: f32[] values, equal on all devices.
      images: arrays of the device's first image for the summaries, [1, H, W, 3]
        0..255 or [1, H, W] class ids, masks and entropies.
    """

    batch_stats: Any
    thresholds: jax.Array
    donors: Any
    metrics: dict[str, jax.Array]
    images: dict[str, jax.Array]


def fold(keys: jax.Array, tag: int) -> jax.Array:
    """New per-image keys key[B] for the purpose `tag`."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, tag)


def forward(ctx: Context, params, batch_stats, source=(), target=(), keys=None):
    """Logits of several batches of equal image size.

    One forward pass over all of them, or with batch_norm 'per_domain' one for each
    domain: each is then normalised by its own statistics, and the running averages are
    those of the target (of the source where there is no target).

    Args:
      ctx: see Context.
      params, batch_stats: variables of the network.
      source, target: sequences of f32[B_i, H, W, 3] in 0..255.
      keys: {'source': key[B_i], 'target': key[B_i]} for dropout; None for none.

    Returns:
      One list per batch, source first, with the logits f32[B_i, H, W, C] of every head,
      main head first; and the new batch statistics.
    """
    if not ctx.config.model.batch_norm_affine:
        params = stop_norms(params, batch_stats)
    # Each batch with the keys of its own images.
    source = [(x, keys and fold(keys["source"], 8 + i)) for i, x in enumerate(source)]
    target = [(x, keys and fold(keys["target"], 8 + i)) for i, x in enumerate(target)]
    if ctx.config.model.batch_norm != "per_domain":
        return _forward(ctx, params, batch_stats, source + target)
    results = []
    updated = batch_stats
    for batches in filter(None, (source, target)):
        heads, updated = _forward(ctx, params, batch_stats, batches)
        results += heads
    return results, updated


def stop_norms(params, batch_stats):
    """The parameters, without gradients to the scale and offset of batch norms."""
    norms = {path[:-1] for path in traverse_util.flatten_dict(batch_stats)}
    return traverse_util.path_aware_map(
        lambda path, x: jax.lax.stop_gradient(x) if path[:-1] in norms else x, params
    )


def _forward(ctx: Context, params, batch_stats, batches):
    """Logits of (images, keys) batches in config.train.accumulate parts.

    The loss is of all logits, so the gradient with respect to them comes first; each
    part is then computed again and differentiated. That is exact for any loss, also
    for masked means and thresholds, and keeps the activations of one part only.
    """
    count = ctx.config.train.accumulate
    if count == 1:
        return _apply(ctx, params, batch_stats, batches)
    parts = []
    for i in range(count):
        part = jax.tree.map(lambda x, i=i: jnp.split(x, count)[i], batches)
        if parts:
            # One after the other, in the backward pass too.
            params, parts[-1] = jax.lax.optimization_barrier((params, parts[-1]))
        apply = jax.checkpoint(functools.partial(_apply, ctx))
        heads, batch_stats = apply(params, batch_stats, part)
        parts.append(heads)
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts), batch_stats


def _apply(ctx: Context, params, batch_stats, batches):
    config = ctx.config.model
    images, keys = zip(*batches, strict=True)
    joined = augment.normalize(jnp.concatenate(images), mode=config.normalization)
    keys = None if keys[0] is None else jnp.concatenate(keys)
    variables = {"params": params, "batch_stats": batch_stats}
    if config.batch_norm == "frozen":
        heads = ctx.model.apply(variables, joined, train=False, keys=keys)
    else:
        heads, updated = ctx.model.apply(
            variables, joined, train=True, keys=keys, mutable=["batch_stats"]
        )
        batch_stats = updated["batch_stats"]
    ends = [sum(len(x) for x in images[: i + 1]) for i in range(len(images))]
    split = [jnp.split(logits, ends[:-1]) for logits in heads]
    return [list(batch) for batch in zip(*split, strict=True)], batch_stats


def supervised_loss(ctx: Context, heads, labels) -> jax.Array:
    """Mean over heads of the cross entropy of the labels, f32[].

    With config.loss.supervised 'ohem' only of its hardest pixels (losses.ohem_mean).
    """
    return mean_of(_supervised(ctx, logits, labels) for logits in heads)


def _supervised(ctx: Context, logits, labels) -> jax.Array:
    config = ctx.config.loss
    values = losses.cross_entropy(logits, labels, class_weights=class_weights(ctx))
    if config.supervised == "cross_entropy":
        return label_mean(ctx, values, labels)
    devices = jax.lax.psum(1, ctx.axis_name) if ctx.axis_name else 1
    return losses.ohem_mean(
        values,
        min_kept=max(1, int(config.ohem_share * devices * values.size)),
        probability=config.ohem_probability,
        axis_name=ctx.axis_name,
    )


def label_mean(ctx: Context, values, labels) -> jax.Array:
    """Mean of pixel losses f32[B, H, W] over the pixels of config.loss.mean_over."""
    counted = labels != losses.IGNORE_LABEL
    if ctx.config.loss.mean_over == "all":
        counted = jnp.ones_like(counted)
    return losses.masked_mean(values, counted, axis_name=ctx.axis_name)


def unsupervised_loss(ctx: Context, state, weak_heads, strong_heads, theta):
    """Eq. 3-5 and 8-9 on one pair of target views.

    The weak logits are warped onto the strong view. Only pixels inside the frame count,
    or with config.thresholds.pixels 'all' every one. `class_masks` chooses from them;
    config.loss says which loss they have and how it is averaged.

    Args:
      ctx: see Context.
      state: TrainState; its step, and its thresholds f32[C] before the step.
      weak_heads, strong_heads: lists of f32[B, H, W, C].
      theta: f32[B, 2, 3], the warp from the weak to the strong view.

    Returns:
      loss f32[], new thresholds f32[C], share of the counted pixels that pass f32[],
      aligned main logits f32[B, H, W, C], main mask bool[B, H, W].
    """
    config = ctx.config.loss
    valid = ops.affine_valid(theta, weak_heads[0].shape[1:3])
    if ctx.config.thresholds.pixels == "all":
        valid = jnp.ones_like(valid)
    aligned = [
        ops.affine_warp(logits, theta) / config.temperature for logits in weak_heads
    ]
    alpha, masks = class_masks(ctx, state, aligned, valid)
    terms = []
    for weak, strong, mask in zip(aligned, strong_heads, masks, strict=True):
        values = _unsupervised_values(ctx, weak, strong, valid)
        if config.released_floor:
            values = losses.released_floor(values)
        if config.hardest < 1.0:
            terms.append(
                losses.hardest_mean(
                    values, mask, fraction=config.hardest, axis_name=ctx.axis_name
                )
            )
        else:
            terms.append(losses.masked_mean(values, mask, axis_name=ctx.axis_name))
    kept = losses.masked_mean(
        masks[0].astype(jnp.float32), valid, axis_name=ctx.axis_name
    )
    return mean_of(terms), alpha, kept, aligned[0], masks[0]


def class_masks(ctx: Context, state, aligned, valid):
    """New thresholds, and the pixels of each head that are above them.

    The thresholds are updated once, from the main head, or with
    config.thresholds.update_per 'head' by every head in turn; a head's mask uses them
    as they are after its turn.

    Args:
      ctx: see Context.
      state: TrainState; its step, and its thresholds f32[C] before the step.
      aligned: list of f32[B, H, W, C], the weak logits of each head on the strong view.
      valid: bool[B, H, W], pixels that count.

    Returns:
      f32[C], list of bool[B, H, W].
    """
    settings, kind = ctx.config.thresholds, ctx.config.loss.threshold
    alpha, masks = state.thresholds, []
    momentum = settings.momentum
    if settings.decay > 0.0:
        momentum = thresholds.released_momentum(
            state.step, momentum=momentum, decay=settings.decay
        )
    for head, logits in enumerate(aligned):
        if kind == "dynamic" and (head == 0 or settings.update_per == "head"):
            alpha = thresholds.update(
                alpha,
                logits,
                momentum=momentum,
                proportion=settings.proportion,
                power=settings.power,
                variant=settings.variant,
                valid=valid,
                axis_name=ctx.axis_name,
            )
        masks.append(
            valid if kind == "none" else thresholds.select(logits, alpha, valid=valid)
        )
    return alpha, masks if settings.mask == "own" else masks[:1] * len(masks)


def _unsupervised_values(ctx: Context, weak, strong, valid) -> jax.Array:
    """The per-pixel loss that config.loss.unsupervised names, f32[B, H, W]."""
    config = ctx.config.loss
    weights = class_weights(ctx)
    if config.unsupervised == "focal":
        return losses.unsupervised_focal(
            weak,
            strong,
            gamma=config.gamma,
            modulation=config.modulation,
            class_weights=weights,
            epsilon=config.epsilon,
        )
    if config.unsupervised == "neutral":
        return losses.neutral_cross_entropy(
            weak, strong, class_weights=weights, epsilon=config.epsilon
        )
    if config.unsupervised == "confidence":
        return losses.confidence_entropy(
            weak, class_weights=weights, valid=valid, axis_name=ctx.axis_name
        )
    if config.unsupervised == "shannon":
        return losses.shannon_entropy(weak, class_weights=weights)
    values = losses.maximum_squares(weak, class_weights=weights)
    if config.image_wise_ratio > 0.0:
        # Times the pixels of the image: 1 on average where all classes are as large.
        pixels = jnp.sum(valid, axis=(1, 2), keepdims=True)
        values *= pixels * losses.image_wise_weights(
            weak, ratio=config.image_wise_ratio, valid=valid
        )
    return -config.squares_sign * values


def class_weights(ctx: Context) -> jax.Array | None:
    """config.loss.class_weights as f32[C], None where it is empty."""
    weights = ctx.config.loss.class_weights
    return jnp.asarray(weights, jnp.float32) if weights else None


def target_views(ctx: Context, images, keys):
    """Weak and strong target views and the warp between them.

    Args:
      ctx: see Context.
      images: u8[B, H, W, 3], the weak view from the pipeline.
      keys: key[B], one an image.

    Returns:
      weak f32[B, H, W, 3], strong f32[B, H, W, 3] (0..255), theta f32[B, 2, 3].
    """
    config = ctx.config
    weak = images.astype(jnp.float32)
    theta = augment.random_affine(
        fold(keys, 0),
        max_rotation=config.augment.rotation,
        max_shear=config.augment.shear,
        scale=tuple(config.augment.scale),
        flip=config.augment.flip,
    )
    strong = augment.strong(fold(keys, 1), weak)
    # Warped after normalisation, so that the frame's outside is the mean colour.
    mode = config.model.normalization
    warped = ops.affine_warp(augment.normalize(strong, mode=mode), theta)
    return weak, augment.denormalize(warped, mode=mode), theta


def adapt_source(ctx: Context, batch: dict) -> dict:
    """The batch with source images f32 in the light of its target images.

    Only with config.augment.fourier. Source image i of B has target image i Bt // B,
    which is on the same device however the batch is split.
    """
    beta = ctx.config.augment.fourier
    if not beta:
        return batch
    source, target = (
        batch[f"{domain}_image"].astype(jnp.float32) for domain in ("source", "target")
    )
    partner = jnp.arange(len(source)) * len(target) // len(source)
    adapted = fourier.adapt(source, target[partner], beta=beta)
    return {**batch, "source_image": adapted}


def source_view(ctx: Context, images, keys) -> jax.Array:
    """Perturbed source images f32[B, H, W, 3] in 0..255."""
    images = images.astype(jnp.float32)
    return (
        augment.source(fold(keys, 0), images) if ctx.config.augment.source else images
    )


def entropy(logits) -> jax.Array:
    """Shannon entropy as a share of log C, f32[B, H, W] in [0, 1]."""
    return losses.shannon_entropy(logits) / jnp.log(logits.shape[-1])


def mean_of(values) -> jax.Array:
    """Mean of an iterable of f32[]."""
    values = list(values)
    return sum(values) / len(values)
