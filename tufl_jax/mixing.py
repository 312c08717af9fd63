"""Cross-domain image mixing with long-tail class pasting (section III-C, eq. 10-12).

Functions of one image take [H, W]; vmap them over a batch with one key per image.
"""

import functools
import operator

import jax
import jax.numpy as jnp


def long_tail_probabilities(thresholds: jax.Array) -> jax.Array:
    """Probability of drawing each class for pasting: softmax(1 / alpha).

    Classes with a low threshold, which the network is unsure of, are drawn most.

    Args:
      thresholds: f32[C], alpha in (0, 1].

    Returns:
      f32[C], sums to one.
    """
    return jax.nn.softmax(_long_tail_scores(thresholds))


def _long_tail_scores(thresholds):
    # The floor keeps a threshold that decayed to zero from becoming NaN.
    return 1.0 / jnp.maximum(thresholds, 1e-6)


def draw_long_tail(
    key: jax.Array, thresholds: jax.Array, available: jax.Array, count: int
) -> jax.Array:
    """Draws classes to paste with softmax(1 / alpha), with replacement as released.

    Args:
      key: one key.
      thresholds: f32[C], alpha.
      available: bool[C], classes that have a donor; no other is drawn.
      count: number of draws.

    Returns:
      i32[count] class ids; -1, which pastes nothing, where no class is available.
    """
    scores = jnp.where(available, _long_tail_scores(thresholds), -jnp.inf)
    classes = jax.random.categorical(key, scores, shape=(count,))
    return jnp.where(available.any(), classes, -1).astype(jnp.int32)


def paste(image, label, donor_image, donor_label, class_id):
    """Pastes the pixels of one class of a donor over an image and its labels.

    Args:
      image, donor_image: [H, W, 3] of one dtype.
      label, donor_label: int [H, W] of one dtype.
      class_id: i32[], -1 for none.

    Returns:
      image [H, W, 3], label [H, W].
    """
    mask = donor_label == class_id
    return (
        jnp.where(mask[..., None], donor_image, image),
        jnp.where(mask, donor_label, label),
    )


def draw_number(key: jax.Array, *, probability: float, least: int, extra: int):
    """How many classes to paste into one image, i32[].

    0 but with the given probability, then least .. least + extra alike.
    """
    chance, number = jax.random.split(key)
    count = jax.random.randint(number, (), least, least + extra + 1)
    return jnp.where(jax.random.bernoulli(chance, probability), count, 0)


def choose_half(
    key: jax.Array,
    labels: jax.Array,
    num_classes: int,
    *,
    fewer: jax.typing.ArrayLike = 0,
) -> jax.Array:
    """Chooses ceil(n / 2) of the n classes in a label map, uniformly at random.

    Args:
      key: one key.
      labels: int [H, W]; ids of num_classes and above are ignored.
      num_classes: C.
      fewer: chooses so many less, but at least one.

    Returns:
      bool[C].
    """
    classes = jnp.arange(num_classes)
    present = (labels[..., None] == classes).any(axis=(0, 1))
    # Distinct priorities, so that ties cannot choose one class too many.
    priority = jax.random.permutation(key, num_classes)
    priority = jnp.where(present, priority, num_classes)
    rank = (priority[None, :] < priority[:, None]).sum(axis=1)
    half = (present.sum() + 1) // 2
    return present & (rank < jnp.maximum(half - fewer, 1))


def class_mask(labels: jax.Array, chosen: jax.Array) -> jax.Array:
    """Says which pixels belong to the chosen classes.

    Args:
      labels: int [H, W].
      chosen: bool[C]; ids outside 0..C-1 (255 is ignored) are never chosen.

    Returns:
      bool[H, W].
    """
    num_classes = chosen.shape[0]
    ids = labels.astype(jnp.int32)
    known = (ids >= 0) & (ids < num_classes)
    return known & chosen[jnp.clip(ids, 0, num_classes - 1)]


def cross_domain_mix(
    mask: jax.Array, source: jax.Array, target: jax.Array
) -> jax.Array:
    """Source pixels where the mask is set, target pixels elsewhere (eq. 10).

    Args:
      mask: bool or float [...]; a float mask blends float arrays as
        mask * source + (1 - mask) * target and chooses from integers where not zero.
      source, target: [...] or [..., channels] of one dtype.

    Returns:
      Array like `source`.
    """
    if mask.ndim < source.ndim and mask.shape == source.shape[: mask.ndim]:
        mask = mask.reshape(mask.shape + (1,) * (source.ndim - mask.ndim))
    soft = jnp.issubdtype(mask.dtype, jnp.floating)
    if soft and jnp.issubdtype(source.dtype, jnp.floating):
        return (mask * source + (1 - mask) * target).astype(source.dtype)
    return jnp.where(mask != 0, source, target)


def boundary_weights(
    mask: jax.Array, *, size: int = 7, weight: float = 2.0
) -> jax.Array:
    """Pixel weights of the mixing loss (eq. 11): more at the borders of the mask.

    Args:
      mask: bool or 0/1 [..., H, W], True where the source was pasted.
      size: odd side of the window in pixels; 0 and 1 have no boundary.
      weight: given to pixels whose window (inside the image) holds both values.

    Returns:
      f32[..., H, W], `weight` at the boundary and 1 elsewhere; without gradient.

    Raises:
      ValueError: if `size` is even.
    """
    return jnp.where(_boundary(mask, size), weight, 1.0).astype(jnp.float32)


def pixel_weights_released(
    mask: jax.Array,
    target_confidence: jax.Array,
    *,
    size: int = 0,
    confidence: float = 0.968,
    weight: float = 2.0,
) -> jax.Array:
    """Pixel weights of the published code in place of eq. 11 (the DACS rule).

    1 where the source was pasted, elsewhere the share of the target image's pixels
    whose confidence is at least `confidence`; both times `weight` at the boundary.

    Args:
      mask: bool or 0/1 [..., H, W], True where the source was pasted.
      target_confidence: f32[..., H, W], largest probability of each target pixel.
      size: as in `boundary_weights`; the published default is 0, no boundary.
      confidence: see above.
      weight: see above.

    Returns:
      f32[..., H, W], without gradient.
    """
    confident = target_confidence >= confidence
    share = confident.astype(jnp.float32).mean(axis=(-2, -1), keepdims=True)
    base = jnp.where(mask != 0, 1.0, share)
    return base * boundary_weights(mask, size=size, weight=weight)


def _boundary(mask, size):
    if size > 0 and size % 2 == 0:
        raise ValueError(f"boundary size is {size}: give an odd number of pixels or 0")
    mask = mask != 0
    return _window_any(mask, size // 2) & _window_any(~mask, size // 2)


def _window_any(mask, radius):
    """Whether any pixel of the (2 radius + 1)^2 window is set; padding is not."""
    for axis in (mask.ndim - 2, mask.ndim - 1):
        pads = [(radius, radius) if a == axis else (0, 0) for a in range(mask.ndim)]
        padded = jnp.pad(mask, pads)
        shifts = (
            jax.lax.slice_in_dim(padded, i, i + mask.shape[axis], axis=axis)
            for i in range(2 * radius + 1)
        )
        mask = functools.reduce(operator.or_, shifts)
    return mask
