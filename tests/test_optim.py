"""The schedule against recorded numbers, the optimiser against a NumPy loop."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tufl_jax import optim

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    "name",
    [
        "lr_released_defaults_20000",
        "lr_pretrain_20000_warm100",
        "lr_released_command_2000",
    ],
)
def test_schedule_matches_the_release(name):
    golden = np.load(GOLDEN / f"{name}.npz")
    schedule = optim.learning_rate_schedule(
        float(golden["lr0"]),
        int(golden["max_iter"]),
        warmup_steps=int(golden["warmup_steps"]),
        warmup_start=float(golden["warmup_start_lr"]),
        power=float(golden["power"]),
    )
    rates = jax.jit(jax.vmap(schedule))(jnp.asarray(golden["iteration"]))
    # float32 against float64: 2e-5 relative, and near the end 1 - t/T has few bits
    np.testing.assert_allclose(
        rates, golden["lr"], rtol=2e-5, atol=1e-7 * golden["lr0"]
    )
    np.testing.assert_allclose(schedule(0), rates[0], rtol=1e-6)


def test_linear_warmup_reaches_the_base_rate():
    schedule = optim.learning_rate_schedule(0.1, 100, warmup_steps=10)
    np.testing.assert_allclose(schedule(0), 0.0)
    np.testing.assert_allclose(schedule(5), 0.05, rtol=1e-6)
    np.testing.assert_allclose(schedule(10), 0.1, rtol=1e-6)
    np.testing.assert_allclose(schedule(100), 0.0)


def test_warmup_longer_than_the_training_is_refused():
    with pytest.raises(ValueError, match="warm-up"):
        optim.learning_rate_schedule(0.1, 10, warmup_steps=10)


def test_sgd_matches_a_loop():
    rng = np.random.default_rng(0)
    shapes = {
        "body": {"kernel": (2, 3), "bias": (3,)},
        # Two layers in one array: its bias has two axes and no decay.
        "loop": {"kernel": (2, 2, 3), "bias": (2, 3)},
        "head": {"kernel": (3, 2)},
    }
    params = jax.tree.map(
        lambda s: rng.standard_normal(s).astype(np.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    schedule = optim.learning_rate_schedule(0.1, 10, power=1.0)
    optimizer = optim.sgd(
        schedule,
        momentum=0.9,
        weight_decay=0.01,
        head_modules=("head", "absent"),
        head_multiplier=10.0,
        backbone_multiplier=3.0,
    )
    state = optimizer.init(params)
    expected = jax.tree.map(np.float64, params)
    velocity = jax.tree.map(np.zeros_like, expected)
    for step in range(3):
        grads = jax.tree.map(
            lambda p: rng.standard_normal(p.shape).astype(np.float32), params
        )
        updates, state = optimizer.update(grads, state, params)
        params = jax.tree.map(np.add, params, updates)
        for module, leaves in expected.items():
            for name, value in leaves.items():
                decay = 0.01 if name == "kernel" else 0.0
                gradient = grads[module][name] + decay * value
                velocity[module][name] = 0.9 * velocity[module][name] + gradient
                rate = 0.1 * (1 - step / 10) * (10.0 if module == "head" else 3.0)
                leaves[name] = value - rate * velocity[module][name]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, expected
    )


def test_adamw_matches_a_loop():
    rng = np.random.default_rng(1)
    params = {"head": {"kernel": rng.standard_normal((2, 2)).astype(np.float32)}}
    optimizer = optim.adamw(
        lambda step: 0.01,
        momentum=0.8,
        weight_decay=0.1,
        head_modules=("head",),
        head_multiplier=3.0,
    )
    state = optimizer.init(params)
    value = np.float64(params["head"]["kernel"])
    first, second = np.zeros_like(value), np.zeros_like(value)
    for step in range(1, 4):
        gradient = rng.standard_normal(value.shape).astype(np.float32)
        updates, state = optimizer.update({"head": {"kernel": gradient}}, state, params)
        params = jax.tree.map(np.add, params, updates)
        first = 0.8 * first + 0.2 * gradient
        second = 0.999 * second + 0.001 * np.float64(gradient) ** 2
        move = first / (1 - 0.8**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        value = value - 3.0 * 0.01 * (move + 0.1 * value)
    np.testing.assert_allclose(params["head"]["kernel"], value, rtol=1e-4)
