"""Class-wise adaptive confidence thresholds (eq. 8 and 9).

The k-th largest confidence of every class is found by a radix select: one histogram
per class over 8 bits of the float32 pattern at a time, from the top. Histograms add
up over devices, so the answer is exact, ties included, and does not depend on how the
batch is split. Nothing here carries a gradient.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

VARIANTS = ("paper", "released")

# Largest float32 below one: a saturated softmax reaches exactly 1.0 in float32, and no
# pixel could ever pass a threshold of one.
_BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))
_RELEASED_CAP = 0.999
_RADIX_BITS = 8


def init(num_classes: int, value: float = 0.8) -> jax.Array:
    """The thresholds alpha_0 before the first update, f32[C]."""
    return jnp.full((num_classes,), value, jnp.float32)


def update(
    thresholds: jax.Array,
    logits: jax.Array,
    *,
    momentum: jax.typing.ArrayLike = 0.9,
    proportion: jax.typing.ArrayLike = 0.8,
    power: jax.typing.ArrayLike = 8.0,
    variant: str = "paper",
    valid: jax.Array | None = None,
    axis_name: str | None = None,
) -> jax.Array:
    """One moving-average step of the thresholds towards a rank of the confidences.

    The confidences of the n pixels predicted as class c, over the whole batch on all
    devices, are sorted descending. 'paper' (eq. 9): alpha' is the item with index
    floor(b e^((alpha - 1) d) n), counted from 0, at most n - 1. 'released' (the
    authors' utils/loss.py): the old alpha joins the list and the index is
    floor((n + 1) b alpha^d). Then alpha <- a alpha + (1 - a) alpha' (eq. 8); a class
    without pixels keeps alpha.

    The share is a float32 (relative error about 2^-22), its product with n is exact:
    a list of more than 10^5 pixels may use an item next to the one of real numbers.

    Args:
      thresholds: f32[C], alpha before the update, in (0, 1).
      logits: [B, H, W, C] of the weak view, after its alignment.
      momentum: a of eq. 8, in [0, 1]; may be traced (see `released_momentum`).
      proportion: b of eq. 9.
      power: d of eq. 9.
      variant: 'paper' or 'released'.
      valid: bool[B, H, W], pixels that count; None for all.
      axis_name: mesh axis that the batch is split over.

    Returns:
      f32[C], the same on all devices. 'paper' stays below 1 (at most 1 - 2^-24);
      'released' turns values of 1 and more into 0.999.

    Raises:
      ValueError: for another variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} is not one of {', '.join(VARIANTS)}")
    old = jax.lax.stop_gradient(thresholds).astype(jnp.float32)
    num_classes = logits.shape[-1]
    confidence, labels = _predictions(logits)
    if valid is not None:
        labels = jnp.where(valid, labels, num_classes)
    confidence, labels = confidence.reshape(-1), labels.reshape(-1)
    count = _class_counts(labels, num_classes, axis_name)
    if variant == "paper":
        share = proportion * jnp.exp((old - 1.0) * power)
        rank = jnp.clip(floor_share(share, count), 0, jnp.maximum(count - 1, 0))
        current = kth_largest(confidence, labels, rank, axis_name=axis_name)
    else:
        share = proportion * old**power
        rank = jnp.clip(floor_share(share, count + 1), 0, count)
        # Rank of the old threshold in the joint list: the items above it.
        above = jnp.where(confidence > _take(old, labels), labels, num_classes)
        own = _class_counts(above, num_classes, axis_name)
        others = jnp.where(rank > own, rank - 1, rank)
        current = kth_largest(confidence, labels, others, axis_name=axis_name)
        current = jnp.where(rank == own, old, current)
    new = jnp.where(count > 0, momentum * old + (1.0 - momentum) * current, old)
    if variant == "paper":
        return jnp.minimum(new, _BELOW_ONE)
    return jnp.where(new >= 1.0, _RELEASED_CAP, new)


def select(
    logits: jax.Array, thresholds: jax.Array, *, valid: jax.Array | None = None
) -> jax.Array:
    """Pixels whose confidence is above the threshold of their class.

    Args:
      logits: [B, H, W, C].
      thresholds: f32[C].
      valid: bool[B, H, W], pixels that may be selected; None for all.

    Returns:
      bool[B, H, W], max_c p_c > thresholds[argmax_c p_c] (strict) and valid.
    """
    confidence, labels = _predictions(logits)
    mask = confidence > _take(jax.lax.stop_gradient(thresholds), labels)
    return mask if valid is None else mask & valid


def released_momentum(
    step: jax.typing.ArrayLike, *, momentum: float = 0.9, decay: float
) -> jax.Array:
    """The release's optional schedule of a: 1 - momentum e^(-step decay), f32[]."""
    return 1.0 - momentum * jnp.exp(-jnp.float32(decay) * step)


def kth_largest(
    values: jax.Array,
    labels: jax.Array,
    rank: jax.Array,
    *,
    axis_name: str | None = None,
) -> jax.Array:
    """Exact order statistic of the values of each class.

    Four histograms are the fastest of the exact ways on a CPU. On a GPU, where all
    pixels may add to few bins, one sort of keys packed as (class, value) may win on a
    single device; that is not measured, and sorts do not add up over devices.

    Args:
      values: f32[N], any sign.
      labels: i32[N]; values labelled outside 0..C-1 do not count.
      rank: i32[C], 0 for the largest; below the number of values of the class,
        otherwise the result for that class means nothing.
      axis_name: mesh axis that N is split over; `rank` is the same on all devices.

    Returns:
      f32[C], the same on all devices.
    """
    num_classes, bins = rank.shape[0], 1 << _RADIX_BITS
    keys = _to_key(jax.lax.stop_gradient(values))

    def next_digit(i, carry):
        alive, left, prefix = carry
        shift = jnp.uint32(32 - _RADIX_BITS) - _RADIX_BITS * i.astype(jnp.uint32)
        digit = ((keys >> shift) & (bins - 1)).astype(jnp.int32)
        # What does not count goes to one bin behind the last, which is dropped.
        index = jnp.where(alive, labels * bins + digit, num_classes * bins)
        histogram = jnp.zeros((num_classes * bins,), jnp.int32)
        histogram = _sum(histogram.at[index].add(1, mode="drop"), axis_name)
        histogram = histogram.reshape(num_classes, bins)
        at_least = jax.lax.cumsum(histogram, axis=1, reverse=True)
        # The digit of the answer is the last one that enough values reach.
        answer = jnp.sum(at_least >= left[:, None], axis=1, dtype=jnp.int32) - 1
        answer = jnp.maximum(answer, 0)
        own = jnp.arange(bins) == answer[:, None]
        left = left - jnp.sum(jnp.where(own, at_least - histogram, 0), axis=1)
        prefix = prefix | (answer.astype(jnp.uint32) << shift)
        return alive & (_take(answer, labels) == digit), left, prefix

    # A loop, because XLA computes what it reads once: written out, the confidences
    # would be computed again for every digit.
    alive = (labels >= 0) & (labels < num_classes)
    alive = alive & (keys >= 0)  # always: the carry varies over devices as keys do
    start = (alive, rank + 1, jnp.zeros((num_classes,), jnp.uint32))
    _, _, prefix = jax.lax.fori_loop(0, 32 // _RADIX_BITS, next_digit, start)
    return _from_key(prefix)


def floor_share(share: jax.typing.ArrayLike, count: jax.Array) -> jax.Array:
    """floor(share * count) without the rounding of a float32 product.

    The share is first raised by one unit in its last place, so that decimal shares
    that float32 stores too low (0.9) reach the integers that they are meant to reach.

    Args:
      share: f32[...] >= 0; 1 and more gives `count`. Resolved to 2^-32.
      count: i32[...] >= 0.

    Returns:
      i32[...].
    """
    share = jnp.nextafter(jnp.asarray(share, jnp.float32), jnp.float32(2))
    fixed = (jnp.minimum(share, _BELOW_ONE) * 2.0**32).astype(jnp.uint32)
    # The upper 32 bits of a 32 x 32 bit product, by halves.
    number = count.astype(jnp.uint32)
    fixed_high, fixed_low = fixed >> 16, fixed & 0xFFFF
    high, low = number >> 16, number & 0xFFFF
    middle = fixed_high * low + ((fixed_low * low) >> 16)
    carry = fixed_low * high + (middle & 0xFFFF)
    product = fixed_high * high + (middle >> 16) + (carry >> 16)
    return jnp.where(share >= 1.0, count, product.astype(jnp.int32))


def _predictions(logits):
    """Largest softmax probability f32[...] and its class i32[...].

    The probability is summed class by class, which XLA turns into one pass over the
    pixels; reductions over the last axis take twice as long on a CPU.
    """
    logits = jax.lax.stop_gradient(logits).astype(jnp.float32)
    classes = [logits[..., c] for c in range(logits.shape[-1])]
    largest = functools.reduce(jnp.maximum, classes)
    confidence = 1.0 / sum(jnp.exp(value - largest) for value in classes)
    return confidence, jnp.argmax(logits, axis=-1).astype(jnp.int32)


def _class_counts(labels, num_classes, axis_name):
    """Pixels per class i32[C] over all devices; labels >= C do not count."""
    zeros = jnp.zeros((num_classes,), jnp.int32)
    return _sum(zeros.at[labels].add(1, mode="drop"), axis_name)


def _take(table, labels):
    return jnp.take(table, labels, mode="clip")


def _sum(x, axis_name):
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def _to_key(x):
    """uint32 in the order of the float32 values."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    return jnp.where(bits >> 31 != 0, ~bits, bits | jnp.uint32(0x80000000))


def _from_key(key):
    bits = jnp.where(key >> 31 != 0, key & jnp.uint32(0x7FFFFFFF), ~key)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
