import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tufl_jax import losses

C = 7
ONE_VIEW = {
    "shannon": losses.shannon_entropy,
    "maximum_squares": losses.maximum_squares,
    "confidence": losses.confidence_entropy,
}
TWO_VIEWS = {
    "neutral": losses.neutral_cross_entropy,
    "per_class": losses.unsupervised_focal,
    "argmax": partial(losses.unsupervised_focal, modulation="argmax", gamma=1.0),
    "difference": partial(losses.unsupervised_focal, modulation="difference"),
    "per_class_1.5": partial(losses.unsupervised_focal, gamma=1.5),
}
WEIGHTS = np.linspace(0.5, 4, C).astype(np.float32)


def draw(seed, shape=(2, 3, 5, C), scale=3.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def softmax(z):
    z = np.asarray(z, np.float64)
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def numpy_loss(name, weak, strong, w):
    """The value of every loss, pixel by pixel and class by class, in float64."""
    p, q = softmax(weak), softmax(strong)
    mass = p.reshape(-1, C).sum(0)
    out = np.zeros(p.shape[:-1])
    for i in np.ndindex(out.shape):
        k = p[i].argmax()
        refined = p[i] ** 2 / mass
        refined /= refined.sum()
        for c in range(C):
            ce = -p[i][c] * math.log(q[i][c])
            out[i] += (
                w[c]
                * {
                    "shannon": -p[i][c] * math.log(p[i][c]),
                    "maximum_squares": -(p[i][c] ** 2) / 2,
                    "confidence": -refined[c] * math.log(p[i][c]) / math.log(C),
                    "neutral": ce,
                    "per_class": (1 - q[i][c]) ** 2 * ce,
                    "argmax": (1 - q[i][k]) * ce,
                    "difference": (p[i][k] - q[i][k]) ** 2 * ce,
                    "per_class_1.5": (1 - q[i][c]) ** 1.5 * ce,
                }[name]
            )
    return out


def views(name):
    """The loss as a function of two views, for all names alike."""
    if name in TWO_VIEWS:
        return TWO_VIEWS[name]
    return lambda weak, strong, **options: ONE_VIEW[name](weak, **options)


@pytest.mark.parametrize("name", [*ONE_VIEW, *TWO_VIEWS])
def test_values_equal_numpy_and_eager_equals_jit(name):
    weak, strong, function = draw(0), draw(1), views(name)
    got = jax.jit(function)(weak, strong, class_weights=WEIGHTS)
    assert got.dtype == jnp.float32 and got.shape == weak.shape[:-1]
    np.testing.assert_allclose(
        got, numpy_loss(name, weak, strong, WEIGHTS), rtol=2e-5, atol=1e-6
    )
    eager = function(weak, strong, class_weights=WEIGHTS)
    np.testing.assert_allclose(got, eager, rtol=1e-5, atol=1e-6)
    plain = function(weak, strong)
    ones = function(weak, strong, class_weights=jnp.ones(C))
    np.testing.assert_array_equal(plain, ones)


def test_half_precision_logits_are_computed_in_float32():
    weak, strong = (jnp.asarray(draw(s), jnp.bfloat16) for s in (0, 1))
    got = losses.unsupervised_focal(weak, strong)
    want = numpy_loss("per_class", weak, strong, np.ones(C))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)


def test_cross_entropy_and_its_ignored_pixels():
    logits = draw(2)
    labels = np.random.default_rng(0).integers(0, C, logits.shape[:-1])
    labels[0, 0] = 255
    want = np.zeros(labels.shape)
    for i in np.ndindex(labels.shape):
        if labels[i] != 255:
            c = labels[i]
            want[i] = -WEIGHTS[c] * math.log(softmax(logits[i])[c])

    def total(z, y):
        values = losses.cross_entropy(z, y, class_weights=WEIGHTS)
        return values.sum(), values

    step = jax.jit(jax.value_and_grad(total, has_aux=True))
    for kind in (np.uint8, np.int32):
        (_, values), gradient = step(logits, labels.astype(kind))
        np.testing.assert_allclose(values, want, rtol=1e-5, atol=1e-6)
        one_hot = np.eye(C)[np.where(labels == 255, 0, labels)]
        slope = WEIGHTS[np.where(labels == 255, 0, labels)][..., None] * (
            softmax(logits) - one_hot
        )
        slope[0, 0] = 0
        np.testing.assert_allclose(gradient, slope, atol=1e-5)
    other = losses.cross_entropy(logits, labels, ignore_label=3)
    assert not other[labels == 3].any()


def test_labels_without_a_class_are_not_silently_ignored():
    logits = draw(3, (4, C))
    got = losses.cross_entropy(logits, np.array([0, C, -1, 255]))
    np.testing.assert_array_equal(np.isnan(got), [False, True, True, False])


def test_gradients_are_detached_where_the_paper_says():
    """Weak: only the entropy. Strong: the cross entropy and its factor."""
    weak, strong = draw(4, (6, C)), draw(5, (6, C))
    p, q = softmax(weak), softmax(strong)
    both = jax.grad(
        lambda a, b: losses.unsupervised_focal(a, b, gamma=2.0).sum(), argnums=(0, 1)
    )
    to_weak, to_strong = both(weak, strong)
    log_p = np.log(p)
    entropy = -p * (log_p - (p * log_p).sum(-1, keepdims=True))
    np.testing.assert_allclose(to_weak, entropy, atol=1e-6)
    # d/dq_c of -p_c (1 - q_c)^2 log q_c, then the softmax's Jacobian.
    slope = p * (2 * (1 - q) * np.log(q) - (1 - q) ** 2 / q)
    want = q * (slope - (q * slope).sum(-1, keepdims=True))
    np.testing.assert_allclose(to_strong, want, rtol=1e-4, atol=1e-6)


def test_confidence_entropy_differentiates_through_its_weights():
    logits = draw(6, (2, 2, 3, C))
    gradient = jax.grad(lambda z: losses.confidence_entropy(z).sum())(logits)
    rng, step = np.random.default_rng(0), 1e-5
    for _ in range(5):
        direction = rng.normal(size=logits.shape)
        up, down = (
            numpy_loss("confidence", logits + s * direction, logits, np.ones(C)).sum()
            for s in (step, -step)
        )
        slope = (gradient * direction).sum()
        np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=1e-3)


@pytest.mark.parametrize("name", [*ONE_VIEW, *TWO_VIEWS, "focal_0.5"])
def test_finite_for_saturated_and_uniform_logits(name):
    if name == "focal_0.5":
        function = partial(losses.unsupervised_focal, gamma=0.5)
    else:
        function = views(name)
    weak = np.zeros((1, 2, 3, C), np.float32)
    weak[0, 0, :, 0] = 150
    strong = np.zeros_like(weak)
    strong[0, 0, 0, 0] = strong[0, 0, 1, 1] = strong[0, 1, 0, 2] = 150

    @jax.jit
    def step(a, b):
        def mean(a, b):
            return jnp.mean(function(a, b))

        return jax.value_and_grad(mean, argnums=(0, 1))(a, b)

    for pair in ((weak, strong), (strong, weak), (weak, weak), (0 * weak, 0 * weak)):
        value, gradients = step(*pair)
        assert np.isfinite(value)
        assert all(np.isfinite(g).all() for g in gradients)


def test_image_wise_weights():
    logits = draw(7)
    labels = logits.argmax(-1)
    want = np.zeros(labels.shape)
    for b, y, x in np.ndindex(labels.shape):
        n = (labels[b] == labels[b, y, x]).sum()
        want[b, y, x] = 1 / max(n**0.3 * labels[b].size ** 0.7, 1)
    got = losses.image_wise_weights(logits, ratio=0.3)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_masked_mean_and_its_empty_mask():
    values = draw(8, (3, 4))
    mask = np.random.default_rng(0).random((3, 4)) < 0.5
    step = jax.jit(jax.value_and_grad(losses.masked_mean))
    value, gradient = step(values, mask)
    np.testing.assert_allclose(value, values[mask].mean(), rtol=1e-6)
    np.testing.assert_allclose(gradient, mask / mask.sum(), rtol=1e-6)
    poisoned = np.where(mask, values, np.nan)
    np.testing.assert_array_equal(step(poisoned, mask)[0], value)
    value, gradient = step(values * np.nan, np.zeros_like(mask))
    assert value == 0 and not gradient.any()


def numpy_hardest(values, mask, fraction):
    items = sorted(values[mask], reverse=True)
    kept = math.floor(fraction * len(items))
    return sum(items[:kept]) / max(kept, 1)


def test_hardest_mean_with_ties_negative_values_and_nothing_left():
    rng = np.random.default_rng(1)
    step = jax.jit(jax.value_and_grad(losses.hardest_mean))
    for fraction in (0.0, 0.01, 0.25, 0.7, 1.0):
        for ties in (False, True):
            values = rng.normal(size=(5, 11)).astype(np.float32)
            values = np.round(values) if ties else values
            mask = rng.random(values.shape) < 0.8
            value, gradient = jax.device_get(step(values, mask, fraction=fraction))
            want = numpy_hardest(values, mask, fraction)
            np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-7)
            kept = math.floor(fraction * mask.sum())
            np.testing.assert_allclose(gradient.sum(), float(kept > 0), rtol=1e-5)
            assert not gradient[~mask].any()
            if kept:
                cut = sorted(values[mask])[-kept]
                assert not gradient[values < cut].any()
                np.testing.assert_allclose(
                    gradient[mask & (values > cut)], 1 / kept, rtol=1e-6
                )
    value, gradient = step(values, np.zeros_like(mask), fraction=0.5)
    assert value == 0 and not gradient.any()


def test_ohem_mean():
    rng = np.random.default_rng(2)
    bound = -math.log(0.7)
    mean = jax.jit(losses.ohem_mean)
    for hard, min_kept in ((3, 5), (5, 5), (6, 5), (20, 5), (0, 1)):
        values = rng.uniform(0, bound * 0.99, 20).astype(np.float32)
        values[:hard] += np.float32(bound)
        ordered = np.sort(values)[::-1]
        enough = min_kept < 20 and ordered[min_kept] > bound
        want = ordered[ordered > bound] if enough else ordered[:min_kept]
        got = mean(values, min_kept=min_kept)
        np.testing.assert_allclose(got, want.mean(), rtol=1e-6)


def test_released_floor_stops_the_gradient():
    values = jnp.array([1.0, 1e-9, -2.0])
    got, gradient = jax.vjp(losses.released_floor, values)
    np.testing.assert_allclose(got, [1.0, 1e-8, 1e-8])
    np.testing.assert_array_equal(gradient(jnp.ones(3))[0], [1, 0, 0])


def test_unknown_modulation_is_named():
    logits = draw(9, (1, C))
    with pytest.raises(ValueError, match="'focal' is not one of per_class, argmax"):
        losses.unsupervised_focal(logits, logits, modulation="focal")


def test_figure_1_of_the_paper():
    """Two classes, target 0.6: where the loss with its entropy has its minimum.

    The figure says 0.82 without and 0.67 with the factor (gamma 1, per class). The
    one factor per pixel of the release has no minimum inside.
    """
    x = np.linspace(0.001, 0.9999, 9990)
    logits = np.stack([np.log(x), np.log1p(-x)], -1).astype(np.float32)
    target = np.broadcast_to(np.log([0.6, 0.4]).astype(np.float32), logits.shape)

    def minimum(**options):
        values = losses.unsupervised_focal(target, logits, **options)
        return x[np.argmin(values + losses.shannon_entropy(logits))]

    assert abs(minimum(gamma=0) - 0.824) < 1e-3
    for gamma, place in ((1, 0.666), (2, 0.605), (3, 0.603)):
        assert abs(minimum(gamma=gamma) - place) < 1e-3
    for gamma in (1, 2, 3):
        assert minimum(gamma=gamma, modulation="argmax") == x[-1]
    for gamma, place in ((1, 0.919), (2, 0.979)):
        assert abs(minimum(gamma=gamma, modulation="difference") - place) < 1e-3


@pytest.mark.skipif(jax.device_count() < 2, reason="one device")
def test_number_of_devices_does_not_matter():
    """Values and gradients of a replicated parameter, unequal masks per device."""
    batch = jax.device_count()
    rng = np.random.default_rng(5)
    features, strong = draw(10, (batch, 4, 5, C)), draw(11, (batch, 4, 5, C))
    mask = rng.random(strong.shape[:-1]) < np.linspace(0.9, 0, batch)[:, None, None]
    scale = rng.uniform(0.5, 2, C).astype(np.float32)

    def loss(scale, features, strong, mask, axis_name):
        weak = features * scale
        focal = losses.unsupervised_focal(weak, strong * scale)
        certain = losses.confidence_entropy(weak, axis_name=axis_name)
        return (
            losses.masked_mean(focal, mask, axis_name=axis_name)
            + losses.masked_mean(certain, mask, axis_name=axis_name)
            + losses.hardest_mean(focal, mask, fraction=0.25, axis_name=axis_name)
            + losses.ohem_mean(focal, min_kept=20, axis_name=axis_name)
        )

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    shared = jax.shard_map(
        jax.value_and_grad(partial(loss, axis_name="data")),
        mesh=mesh,
        in_specs=(P(), P("data"), P("data"), P("data")),
        out_specs=P(),
    )
    arguments = scale, features, strong, mask
    value, gradient = jax.jit(shared)(*arguments)
    alone = jax.jit(jax.value_and_grad(partial(loss, axis_name=None)))
    want_value, want_gradient = alone(*arguments)
    np.testing.assert_allclose(value, want_value, rtol=1e-5)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-4, atol=1e-6)
