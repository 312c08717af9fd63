"""Every loss with every option, as the stages call it, on a few logits."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import tiny_config
from tufl_jax import losses, validation
from tufl_jax.errors import UserError
from tufl_jax.steps import common

C, SHAPE = 19, (2, 6, 8)
IDENTITY = np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1))
SHIFTED = IDENTITY + np.float32([[0, 0, 0.8], [0, 0, 0]])  # a part is out of the frame


def draw(seed, scale=4.0):
    logits = np.random.default_rng(seed).normal(size=(*SHAPE, C))
    return (scale * logits).astype(np.float32)


def prepare(config, *, jit=True):
    """A call (weak, strong, theta, step) -> values and gradients of all views.

    The values are loss, alpha and kept share.
    """
    ctx = common.Context(config, None, axis_name=None)

    def loss(weak, strong, theta, step):
        alpha = jnp.full(C, config.thresholds.init)
        state = types.SimpleNamespace(step=step, thresholds=alpha)
        out = common.unsupervised_loss(ctx, state, weak, strong, theta)
        return out[0], out[1:3]

    function = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    function = jax.jit(function) if jit else function

    def call(weak, strong, theta=IDENTITY, step=0):
        (value, aux), gradients = function(weak, strong, theta, jnp.int32(step))
        return jax.device_get((value, *aux)), jax.device_get(gradients)

    return call


OPTIONS = {
    "paper": {},
    "fixed": {
        "loss__threshold": "fixed",
        "loss__class_weights": (0.5, *[2.0] * 18),
        "loss__hardest": 0.25,
        "loss__temperature": 2.0,
    },
    "released": {
        "thresholds__variant": "released",
        "thresholds__update_per": "head",
        "thresholds__pixels": "all",
        "thresholds__decay": 0.01,
        "thresholds__mask": "main",
    },
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", validation.UNSUPERVISED)
def test_every_loss_with_every_option(name, option):
    config = tiny_config("stage1", loss__unsupervised=name, **OPTIONS[option])
    config.thresholds.init = 0.5
    validation.validate(config)
    run = prepare(config)
    value, gradients = run([draw(0), draw(1)], [draw(2), draw(3)], SHIFTED)
    assert np.isfinite(value[0]) and value[0] != 0 and 0 < value[2] <= 1
    assert (value[1] > 0).all() and (value[1] < 1).all()
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    assert np.abs(gradients[0][0]).max() > 0
    # Saturated, uniform and disagreeing views.
    hard = np.zeros((*SHAPE, C), np.float32)
    hard[:, :3, :, 1] = 150
    for weak, strong in ((hard, -hard), (hard, hard), (0 * hard, hard)):
        value, gradients = run([weak] * 2, [strong] * 2, SHIFTED)
        assert np.isfinite(value[0])
        assert (value[1] > 0).all() and (value[1] < 1).all()
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize("name", validation.UNSUPERVISED)
def test_an_empty_mask_gives_nothing_and_eager_equals_jit(name):
    config = tiny_config("stage1", loss__unsupervised=name, loss__threshold="fixed")
    config.thresholds.init = 0.999
    uniform = [0.1 * draw(0)], [draw(1)]
    value, gradients = prepare(config)(*uniform)
    assert value[0] == 0 and value[2] == 0
    assert not any(g.any() for g in jax.tree.leaves(gradients))
    config.thresholds.init = 0.5
    inputs = [draw(0)], [draw(1)]
    compiled, eager = (prepare(config, jit=jit)(*inputs) for jit in (True, False))
    np.testing.assert_allclose(compiled[0][0], eager[0][0], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(compiled), jax.tree.leaves(eager), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_confidence_counts_only_the_frame():
    logits, rng = draw(0), np.random.default_rng(1)
    valid = rng.random(SHAPE) < 0.5
    alone = losses.confidence_entropy(jnp.asarray(logits[valid]))
    got = losses.confidence_entropy(jnp.asarray(logits), valid=jnp.asarray(valid))
    np.testing.assert_allclose(got[valid], alone, rtol=1e-5)
    # What lies outside reaches neither value nor gradient, and none at all is finite.
    other = np.where(valid[..., None], logits, 90 * draw(3))

    def total(z, valid):
        values = losses.confidence_entropy(z, valid=valid)
        return losses.masked_mean(values, valid)

    for z in (logits, other):
        value, gradient = jax.value_and_grad(total)(jnp.asarray(z), valid)
        np.testing.assert_allclose(value, alone.mean(), rtol=1e-5)
        assert np.isfinite(gradient).all() and not gradient[~valid].any()
    value, gradient = jax.value_and_grad(total)(jnp.asarray(logits), valid & False)
    assert value == 0 and not gradient.any()


def test_image_wise_weighting_and_signs():
    config = tiny_config("stage1", loss__unsupervised="maximum_squares")
    config.loss.threshold = "none"
    inputs = [draw(0)], [draw(1)]
    plain = prepare(config)(*inputs)[0][0]
    config.loss.squares_sign = 1.0
    np.testing.assert_allclose(prepare(config)(*inputs)[0][0], -plain)
    config.loss.update(squares_sign=-1.0, image_wise_ratio=0.2)
    p = np.exp(inputs[0][0].astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    want, labels = 0.0, p.argmax(-1)
    for b, y, x in itertools.product(*map(range, SHAPE)):
        own = (labels[b] == labels[b, y, x]).sum()
        weight = 1 / (own**0.2 * labels[b].size ** 0.8)
        want -= weight * (p[b, y, x] ** 2).sum() / 2 / len(p)
    np.testing.assert_allclose(prepare(config)(*inputs)[0][0], want, rtol=1e-5)


def test_updates_a_step_and_decay():
    weak, strong = [draw(0), draw(1), draw(2)], [draw(3)] * 3
    config = tiny_config("stage1")
    config.thresholds.init = 0.8
    once = prepare(config)(weak, strong)[0][1]
    np.testing.assert_allclose(prepare(config)(weak[:1], strong[:1])[0][1], once)
    config.thresholds.update_per = "head"
    assert not np.array_equal(prepare(config)(weak, strong)[0][1], once)
    config.thresholds.update(update_per="step", decay=0.5)
    late = prepare(config)(weak, strong, step=60)[0][1]  # a is 1 by then
    np.testing.assert_allclose(late, 0.8, rtol=1e-6)


def test_supervised_options():
    labels = np.random.default_rng(0).integers(0, C, SHAPE)
    labels[0, :4] = 255
    logits = draw(5)
    config = tiny_config("source")
    ctx = common.Context(config, None, axis_name=None)
    values = np.asarray(losses.cross_entropy(logits, labels))
    known = labels != 255
    got = common.supervised_loss(ctx, [logits], labels)
    np.testing.assert_allclose(got, values[known].mean(), rtol=1e-5)
    config.loss.mean_over = "all"
    got = common.supervised_loss(ctx, [logits], labels)
    np.testing.assert_allclose(got, values.mean(), rtol=1e-5)
    config.loss.update(supervised="ohem", ohem_share=0.9)
    hardest = np.sort(values.ravel())[::-1][: int(0.9 * values.size)]
    got = common.supervised_loss(ctx, [logits], labels)
    np.testing.assert_allclose(got, hardest.mean(), rtol=1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"loss__threshold": "adaptive"}, "'dynamic', 'fixed', 'none'"),
        ({"loss__supervised": "focal"}, "'cross_entropy', 'ohem'"),
        ({"loss__mean_over": "pixels"}, "'labelled', 'all'"),
        ({"loss__squares_sign": 0.5}, "-1.0, 1.0"),
        ({"loss__hardest": 1.5}, r"not in \[0, 1\]"),
        ({"loss__temperature": 0.0}, "must be > 0"),
        ({"thresholds__update_per": "twice"}, "'step', 'head'"),
        ({"thresholds__pixels": "some"}, "'valid', 'all'"),
        ({"thresholds__mask": "aux"}, "'own', 'main'"),
        ({"mixing__pasted": "never"}, "'half', 'always'"),
        ({"mixing__target_weight": "two"}, "'one', 'confident_share'"),
        ({"mixing__boundary_size": 4}, "not odd"),
        ({"loss__image_wise_ratio": 0.2}, "belongs to the loss 'maximum_squares'"),
        (
            {"loss__unsupervised": "maximum_squares", "loss__released_floor": True},
            "squares_sign to 1.0",
        ),
    ],
)
def test_wrong_options_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        validation.validate(tiny_config("stage1", **changes))
