"""Losses on logits, one value per pixel, and the reductions over pixels.

Every loss computes in float32 with natural logarithms, multiplies its class terms by
`class_weights` f32[C] (None for ones) and returns f32[...] for logits [..., C]. All of
them come from log_softmax: p log p is 0 at p = 0, and gradients are finite for logits
of any finite size.

The reductions take `axis_name`, the mesh axis that the pixels are split over. Their
results are those of the whole batch, whatever the number of devices.
"""

import math

import jax
import jax.numpy as jnp

from tufl_jax.thresholds import floor_share, kth_largest

IGNORE_LABEL = 255
MODULATIONS = ("per_class", "argmax", "difference")


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    class_weights: jax.Array | None = None,
    ignore_label: int = IGNORE_LABEL,
) -> jax.Array:
    """-w_y log p_y per pixel, 0 at ignored pixels.

    Args:
      logits: [..., C].
      labels: integer [...], 0..C-1 or `ignore_label`. Any other value gives NaN,
        which a training notices; it is never treated as ignored.
      class_weights: f32[C] or None.
      ignore_label: the label of pixels without a class.

    Returns:
      f32[...].
    """
    labels = labels.astype(jnp.int32)
    num_classes = logits.shape[-1]
    terms = _weighted(-_log_softmax(logits), class_weights)
    picked = labels[..., None] == jnp.arange(num_classes)
    values = jnp.sum(jnp.where(picked, terms, 0.0), axis=-1)
    known = (labels >= 0) & (labels < num_classes)
    values = jnp.where(known, values, jnp.nan)
    return jnp.where(labels == ignore_label, 0.0, values)


def shannon_entropy(
    logits: jax.Array, *, class_weights: jax.Array | None = None
) -> jax.Array:
    """-sum_c w_c p_c log p_c per pixel, f32[...], in nats."""
    log_p = _log_softmax(logits)
    return _class_sum(-jnp.exp(log_p) * log_p, class_weights)


def maximum_squares(
    logits: jax.Array, *, class_weights: jax.Array | None = None
) -> jax.Array:
    """-sum_c w_c p_c^2 / 2 per pixel, f32[...].

    Minimised, it sharpens predictions, as in the publication of the loss, whose code
    divides by C as well. TUFL's release has the other sign, which flattens them.
    """
    squares = jnp.exp(2.0 * _log_softmax(logits))
    return _class_sum(-0.5 * squares, class_weights)


def image_wise_weights(
    logits: jax.Array, *, ratio: float = 0.2, valid: jax.Array | None = None
) -> jax.Array:
    """Pixel weights of the image-wise weighted maximum squares loss.

    A pixel predicted as class c weighs 1 / (n_c^ratio n^(1 - ratio)) with n_c of the n
    pixels of its image predicted as c (at most 1). No gradient. The published loss is
    the sum over pixels of -weight sum_c p_c^2, divided by B C.

    Args:
      logits: [B, H, W, C].
      ratio: 0 weighs all classes alike, 1 inversely to their number of pixels.
      valid: bool[B, H, W], pixels that count; None for all.

    Returns:
      f32[B, H, W].
    """
    one_hot = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
    counted = one_hot if valid is None else one_hot * valid[..., None]
    count = jnp.sum(counted, axis=(1, 2), keepdims=True)
    own = jnp.sum(one_hot * count, axis=-1)
    size = jnp.sum(count, axis=-1)
    return 1.0 / jnp.maximum(own**ratio * size ** (1.0 - ratio), 1.0)


def confidence_entropy(
    logits: jax.Array,
    *,
    class_weights: jax.Array | None = None,
    valid: jax.Array | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """-sum_c w_c Q_c log p_c / log C per pixel, f32[...].

    Q_c is proportional to p_c^2 / sum over the pixels of p_c and sums to 1 over the
    classes; gradients flow through it. The sum is over the valid pixels (bool[...],
    None for all) of the whole batch on all devices. It is taken as a logarithm, so a
    class without mass gives finite values where the release divides 0 by 0.
    """
    log_p = _log_softmax(logits)
    pixels = tuple(range(log_p.ndim - 1))
    # Left out before the exponential, where they could overflow.
    counted = log_p if valid is None else jnp.where(valid[..., None], log_p, -jnp.inf)
    largest = jax.lax.stop_gradient(jnp.max(counted, axis=pixels))
    if axis_name is not None:
        largest = jax.lax.pmax(largest, axis_name)
    largest = jnp.where(jnp.isfinite(largest), largest, 0.0)
    mass = _sum(jnp.sum(jnp.exp(counted - largest), axis=pixels), axis_name)
    log_mass = jnp.log(jnp.where(mass > 0, mass, 1.0)) + largest
    refined = jax.nn.softmax(2.0 * log_p - log_mass, axis=-1)
    return _class_sum(-refined * log_p, class_weights) / math.log(logits.shape[-1])


def neutral_cross_entropy(
    logits_weak: jax.Array,
    logits_strong: jax.Array,
    *,
    class_weights: jax.Array | None = None,
    epsilon: float = 0.0,
) -> jax.Array:
    """Eq. 3: `unsupervised_focal` with the factor 1, f32[...]."""
    return unsupervised_focal(
        logits_weak,
        logits_strong,
        gamma=0,
        class_weights=class_weights,
        epsilon=epsilon,
    )


def unsupervised_focal(
    logits_weak: jax.Array,
    logits_strong: jax.Array,
    *,
    gamma: float = 2.0,
    modulation: str = "per_class",
    class_weights: jax.Array | None = None,
    epsilon: float = 0.0,
) -> jax.Array:
    """Eq. 3-5: entropy of the weak view plus the focal divergence to the strong one.

    With p of the weak and q of the strong view and p' = p without gradient,
    sum_c w_c [p'_c (log p'_c - F_c log q_c) - p_c log p_c]. The entropies cancel in
    the value, -sum_c w_c p_c F_c log q_c, but not in the gradient: the weak view
    receives that of its entropy, the strong view that of the rest, F included.

    F by `modulation`: 'per_class' (1 - q_c)^gamma (eq. 4). The release has one number
    per pixel, at k = argmax_c p_c: 'argmax' (1 - q_k)^gamma (its type 1) and
    'difference' |p'_k - q_k|^gamma (its type 2).

    Args:
      logits_weak: [..., C], aligned with the strong view.
      logits_strong: [..., C].
      gamma: exponent >= 0; 0 gives the neutral cross entropy. May be traced.
      modulation: 'per_class', 'argmax' or 'difference'.
      class_weights: f32[C] or None.
      epsilon: added to q inside the logarithm; 0 in the paper, 1e-30 in the release,
        where it limits a term to 69 and takes the gradient of more distant views away.

    Returns:
      f32[...].

    Raises:
      ValueError: for another modulation.
    """
    log_p, log_q = _log_softmax(logits_weak), _log_softmax(logits_strong)
    p = jnp.exp(log_p)
    target = jax.lax.stop_gradient(p)
    factor = _focal_factor(target, log_q, gamma, modulation)
    if epsilon:
        log_q = jnp.logaddexp(log_q, math.log(epsilon))
    focal = _class_sum(-target * factor * log_q, class_weights)
    entropy = _class_sum(-p * log_p, class_weights)
    return focal + (entropy - jax.lax.stop_gradient(entropy))


def masked_mean(
    values: jax.Array, mask: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
    """Mean of the masked values over all devices.

    Args:
      values: f32[...].
      mask: bool[...] of the same shape.
      axis_name: mesh axis that the pixels are split over.

    Returns:
      f32[]; 0 with a zero gradient for an empty mask.
    """
    mask = mask.astype(bool)
    total = _sum(jnp.sum(jnp.where(mask, values, 0.0)), axis_name)
    return total / jnp.maximum(_count(mask, axis_name), 1)


def hardest_mean(
    values: jax.Array,
    mask: jax.Array,
    *,
    fraction: jax.typing.ArrayLike,
    axis_name: str | None = None,
) -> jax.Array:
    """Mean of the floor(fraction * count) largest masked values (the release's OHEM).

    Args:
      values: f32[...].
      mask: bool[...] of the same shape; `count` is its number of True.
      fraction: share in [0, 1].
      axis_name: mesh axis that the pixels are split over.

    Returns:
      f32[]; 0 with a zero gradient when nothing is left. Values that tie for the last
      places share them, and the gradient, evenly.
    """
    mask = mask.astype(bool)
    kept = floor_share(fraction, _count(mask, axis_name))
    return _largest_mean(values, mask, kept, axis_name)


def ohem_mean(
    values: jax.Array,
    *,
    min_kept: int,
    probability: float = 0.7,
    axis_name: str | None = None,
) -> jax.Array:
    """Mean of all values above -log(probability), at least of the `min_kept` largest.

    The supervised loss of the authors' release, on `cross_entropy` values with the
    zeros of ignored pixels.

    Args:
      values: f32[...], at least `min_kept` over all devices.
      min_kept: number of values, >= 1.
      probability: of the true class, below which a pixel is hard.
      axis_name: mesh axis that the pixels are split over.

    Returns:
      f32[].
    """
    hard = _count(values > -math.log(probability), axis_name)
    everything = jnp.ones(values.shape, bool)
    return _largest_mean(values, everything, jnp.maximum(hard, min_kept), axis_name)


def released_floor(values: jax.Array) -> jax.Array:
    """The release's floor of 1e-8 under pixel values; no gradient below it."""
    return jnp.where(values > 1e-8, values, 1e-8)


def _largest_mean(values, mask, kept, axis_name):
    """Mean of the `kept` i32[] largest masked values; ties share the last places."""
    fixed = jax.lax.stop_gradient(values)
    labels = jnp.where(mask, 0, 1).reshape(-1)
    rank = jnp.maximum(kept - 1, 0)[None]
    cut = kth_largest(fixed.reshape(-1), labels, rank, axis_name=axis_name)[0]
    above, equal = mask & (fixed > cut), mask & (fixed == cut)
    places = kept - _count(above, axis_name)
    share = places / jnp.maximum(_count(equal, axis_name), 1)
    weights = jnp.where(above, 1.0, jnp.where(equal, share, 0.0))
    total = _sum(jnp.sum(jnp.where(mask, weights * values, 0.0)), axis_name)
    return total / jnp.maximum(kept, 1)


def _focal_factor(target, log_q, gamma, modulation):
    """F f32[..., C] or f32[..., 1]."""
    if modulation == "per_class":
        return _power(-jnp.expm1(log_q), gamma)
    if modulation not in MODULATIONS:
        names = ", ".join(MODULATIONS)
        raise ValueError(f"modulation {modulation!r} is not one of {names}")
    # A sum over a one-hot mask: its gradient is a product instead of a scatter.
    best = jnp.argmax(target, axis=-1, keepdims=True)
    best = best == jnp.arange(target.shape[-1])
    log_q_best = jnp.sum(jnp.where(best, log_q, 0.0), axis=-1, keepdims=True)
    if modulation == "argmax":
        return _power(-jnp.expm1(log_q_best), gamma)
    p_best = jnp.max(target, axis=-1, keepdims=True)
    return _power(jnp.abs(p_best - jnp.exp(log_q_best)), gamma)


def _power(base, gamma):
    """base^gamma for base >= 0 with a finite gradient at base = 0."""
    if isinstance(gamma, int | float) and gamma == int(gamma):
        return base ** int(gamma)
    positive = base > 0
    return jnp.where(positive, jnp.where(positive, base, 1.0) ** gamma, 0.0**gamma)


def _log_softmax(logits):
    return jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)


def _weighted(terms, class_weights):
    return terms if class_weights is None else terms * class_weights


def _class_sum(terms, class_weights):
    return jnp.sum(_weighted(terms, class_weights), axis=-1)


def _count(mask, axis_name):
    return _sum(jnp.sum(mask, dtype=jnp.int32), axis_name)


def _sum(x, axis_name):
    return x if axis_name is None else jax.lax.psum(x, axis_name)
