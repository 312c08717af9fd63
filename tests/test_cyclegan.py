"""CycleGAN against PyTorch and NumPy, on any number of devices, and continued."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.tiny import tiny_config
from tufl_jax import models, optim, pool, startup, steps, train, validation
from tufl_jax.errors import UserError
from tufl_jax.models import cyclegan as networks
from tufl_jax.steps import cyclegan
from tufl_jax.steps import step as step_lib
from tufl_jax.steps.common import Context

GOLDEN = pathlib.Path(__file__).parent / "golden"
SIZE = (32, 48)


def golden(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def small_config(**changes):
    """A style translation of 32 x 48 crops with a pool that fills at once."""
    config = tiny_config("cyclegan")
    config.style.update(width=4, blocks=0, pool=5, samples=2)
    config.optim.update(name="adamw", momentum=0.5, weight_decay=0.0, warmup_steps=0)
    config.optim.update(learning_rate=2e-4, power=1.0, constant=0.5)
    config.train.update(num_steps=4, log_every=1, summary_every=2)
    for spec in (config.data.source, config.data.target):
        spec.update(crop=SIZE, size=(32, 64), batch_size=4, length=6)
    for key, value in changes.items():
        section, name = key.split("__")
        config[section][name] = value
    return config


def test_layers_are_those_of_torch():
    g = golden("cyclegan_layers")
    y, back = jax.vjp(networks.transposed_conv, g["x"], g["kernel"])
    np.testing.assert_allclose(y, g["transposed"], atol=1e-5)
    for ours, theirs in zip(back(g["gradient"]), (g["dx"], g["dkernel"]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=3e-5)
    np.testing.assert_array_equal(networks.reflect_pad(g["x"], 3), g["reflected"])
    y, back = jax.vjp(networks.instance_norm, g["x"])
    np.testing.assert_allclose(y, g["norm"], atol=1e-5)
    np.testing.assert_allclose(back(g["norm_gradient"])[0], g["norm_dx"], atol=1e-5)


def test_networks_are_those_of_torch():
    g = golden("cyclegan_networks")

    def parameters(name):
        own = {
            tuple(key.split("/")[1:]): jnp.asarray(value)
            for key, value in g.items()
            if key.startswith(name)
        }
        return {"params": traverse_util.unflatten_dict(own)}

    new = networks.Generator(4, 2).apply(parameters("generator"), g["images"])
    np.testing.assert_allclose(new, g["translated"], atol=2e-5)
    scores = networks.Discriminator(4).apply(parameters("discriminator"), g["images"])
    np.testing.assert_allclose(scores, g["judged"], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("stride, shape", [(1, (7, 7, 3, 5)), (1, (4, 4, 9, 1))])
def test_rearranged_convolutions_are_convolutions(stride, shape):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 9, 11, shape[2])).astype(np.float32)
    kernel = rng.standard_normal(shape).astype(np.float32)
    height, width = (s - k + 1 for s, k in zip(x.shape[1:3], shape[:2], strict=True))
    expected = np.zeros((1, height, width, shape[3]))
    for i in range(shape[0]):
        for j in range(shape[1]):
            expected += x[:, i : i + height, j : j + width] @ kernel[i, j]
    np.testing.assert_allclose(networks._convolve(x, kernel), expected, atol=1e-4)


def test_parameter_counts_and_initial_values():
    shapes = models.shapes(networks.CycleGAN())["params"]
    counts = {
        name: sum(x.size for x in jax.tree.leaves(tree))
        for name, tree in shapes.items()
    }
    assert counts == {
        "generator_source": 11_378_179,
        "generator_target": 11_378_179,
        "discriminator_source": 2_764_737,
        "discriminator_target": 2_764_737,
    }
    new = models.init(networks.CycleGAN(16, 2), jax.random.key(0))["params"]
    kernel = new["generator_source"]["block1"]["conv1"]["kernel"]
    assert abs(kernel.std() - 0.02) < 1e-3 and abs(kernel.mean()) < 1e-3
    assert not new["discriminator_target"]["conv5"]["bias"].any()
    assert not np.array_equal(
        kernel, new["generator_target"]["block1"]["conv1"]["kernel"]
    )


def test_the_rate_is_constant_and_then_falls_to_zero():
    rate = optim.learning_rate_schedule(2e-4, 100, power=1.0, constant_steps=50)
    expected = [2e-4 * min(1.0, (100 - t) / 50) for t in (0, 1, 50, 51, 75, 99, 100)]
    found = [rate(t) for t in (0, 1, 50, 51, 75, 99, 100)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def pool_loop(keys, images, memory, size):
    """The pool as a list, one image after the other."""
    shown = []
    for key, image in zip(keys, images, strict=True):
        swap = jax.random.bernoulli(jax.random.fold_in(key, 0))
        slot = int(jax.random.randint(jax.random.fold_in(key, 1), (), 0, size))
        if len(memory) < size:
            memory.append(image)
        elif swap:
            image, memory[slot] = memory[slot], image
        shown.append(image)
    return np.stack(shown)


def test_pool_is_a_list_that_swaps_half_of_the_time():
    rng = np.random.default_rng(0)
    state, memory = pool.create(3, (2, 2)), []
    swapped = 0
    for step in range(6):
        keys = jax.random.split(jax.random.key(step), 4)
        images = rng.standard_normal((4, 2, 2, 3)).astype(np.float32)
        shown, state = pool.exchange(keys, images, state)
        np.testing.assert_array_equal(shown, pool_loop(keys, images, memory, 3))
        np.testing.assert_array_equal(state["images"], np.stack(memory))
        swapped += (np.asarray(shown) != images).any((1, 2, 3)).sum()
    assert 5 < swapped < 17 and state["count"] == 3
    shown, empty = pool.exchange(keys, images, pool.create(0, (2, 2)))
    assert shown is images and len(empty["images"]) == 0


def make_batches(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield {
            f"{domain}_image": rng.integers(0, 256, (4, *SIZE, 3), dtype=np.uint8)
            for domain in ("source", "target")
        }


@functools.cache
def run(num_devices, count=3):
    """State before the last step and after it, and the metrics of each step."""
    config = small_config()
    model = startup.build_model(config)
    optimizer, _ = startup.build_optimizer(config, model)
    mesh = step_lib.make_mesh(jax.devices()[:num_devices])
    variables = models.init(model, jax.random.key(0))
    state = startup.new_state(config, optimizer, variables)
    state = step_lib.replicate(jax.tree.map(jnp.asarray, state), mesh)
    step = step_lib.make_train_step(
        cyclegan.loss_fn, Context(config, model), optimizer, mesh
    )
    history, before = [], None
    for batch in make_batches(count):
        before = jax.device_get(state)
        state, images = step(state, step_lib.put_batch(batch, mesh))
        history.append(jax.device_get(state.metrics))
    return before, jax.device_get(state), history, jax.device_get(images)


def test_one_device_equals_four():
    _, one, metrics_one, _ = run(1)
    _, four, metrics_four, _ = run(4)
    for a, b in zip(metrics_one, metrics_four, strict=True):
        for name in steps.STAGES["cyclegan"].METRICS:
            np.testing.assert_allclose(b[name], a[name], rtol=1e-5, err_msg=name)
    # Adam's first steps have full length however small a gradient is: offsets, which
    # start at 0, carry its rounding.
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=4e-5)
    jax.tree.map(compare, four.params, one.params)
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(compare, four.donors, one.donors)
    assert one.donors["source"]["count"] == 5


def test_losses_are_those_of_numpy():
    """The last step again, term by term, from the state before it."""
    before, after, history, images = run(1)
    batch = list(make_batches(3))[-1]
    real = {
        d: batch[f"{d}_image"].astype(np.float32) / 127.5 - 1 for d in cyclegan.OTHER
    }
    model = startup.build_model(small_config())

    def apply(method, images, domain):
        variables = {"params": before.params}
        return np.asarray(model.apply(variables, images, domain, method=method))

    step_key = jax.random.fold_in(jax.random.key(0), 2)
    expected = dict.fromkeys(steps.STAGES["cyclegan"].METRICS, 0.0)
    for tag, (other, domain) in enumerate(cyclegan.OTHER.items(), start=1):
        new = apply("translate", real[other], domain)
        back = apply("translate", new, other)
        same = apply("translate", real[domain], domain)
        keys = jax.random.split(jax.random.fold_in(step_key, tag), 4)
        memory = [*before.donors[domain]["images"]]
        shown = pool_loop(keys, new, memory, 5)
        judged, seen = (apply("judge", x, domain) for x in (real[domain], shown))
        terms = {
            "adversarial": np.mean((apply("judge", new, domain) - 1) ** 2),
            "cycle": np.abs(back - real[other]).mean(),
            "identity": np.abs(same - real[domain]).mean(),
            "discriminator": np.mean((judged - 1) ** 2) / 2 + np.mean(seen**2) / 2,
        }
        for name, value in terms.items():
            expected[f"loss_{name}"] += value
        np.testing.assert_allclose(
            after.donors[domain]["images"], np.stack(memory), atol=1e-5
        )
        np.testing.assert_allclose(
            images[f"{other}/translated"], (new[:1] + 1) * 127.5, atol=1e-2
        )
    expected["loss"] = (
        expected["loss_adversarial"]
        + 10 * expected["loss_cycle"]
        + 5 * expected["loss_identity"]
        + expected["loss_discriminator"]
    )
    for name, value in expected.items():
        np.testing.assert_allclose(history[-1][name], value, rtol=1e-5, err_msg=name)


class Scales:
    """A CycleGAN whose networks multiply by one number each."""

    def apply(self, variables, images, domain, method):
        name = {"translate": "generator", "judge": "discriminator"}[method]
        return images * variables["params"][f"{name}_{domain}"]


def test_each_player_is_moved_by_its_own_loss_only():
    ctx = Context(small_config(), Scales(), axis_name=None)
    names = models.shapes(networks.CycleGAN())["params"]
    params = {name: jnp.float32(0.3 + 0.1 * i) for i, name in enumerate(names)}
    _, state, _, _ = run(1)
    batch = next(make_batches(1))
    keys = {d: jax.random.split(jax.random.key(5), 4) for d in cyclegan.OTHER}

    def losses(params):
        metrics = cyclegan.loss_fn(params, state, batch, keys, ctx)[1].metrics
        critics = metrics["loss_discriminator"]
        return {"discriminator": critics, "generator": metrics["loss"] - critics}

    for player, gradient in jax.jacrev(losses)(params).items():
        for name, value in gradient.items():
            assert (value != 0) == name.startswith(player), (player, name)


def test_a_teacher_keeps_the_meaning():
    """The semantic term is the cross entropy of what the teacher saw before."""

    class Teacher:
        def apply(self, variables, images, train):
            assert not train
            return (images @ variables,)

    ctx = Context(small_config(), None, axis_name=None, teacher=Teacher())
    rng = np.random.default_rng(0)
    before, after = (rng.uniform(-1, 1, (2, 4, 4, 3)) for _ in range(2))
    weights = rng.standard_normal((3, 5))
    found = cyclegan.meaning(ctx, weights, np.float32(before), np.float32(after))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    logits = [(((x + 1) / 2 - mean) / std) @ weights for x in (before, after)]
    p = np.exp(logits[1]) / np.exp(logits[1]).sum(-1, keepdims=True)
    labels = logits[0].argmax(-1)
    expected = -np.log(np.take_along_axis(p, labels[..., None], -1))[..., 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_resumed_run_is_bit_exact_with_its_pools(tmp_path):
    whole = small_config()
    result = train.train(whole, tmp_path / "whole")
    assert set(result) >= {"cycle_source", "identity_target", "step"}
    assert "best" not in result and "miou" not in result
    assert (tmp_path / "whole/samples.png").stat().st_size > 0

    class Stopped(Exception):
        pass

    def stop(self, state, n, scalars):
        raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        # Stopped after step 3, of which no checkpoint is: step 2 is continued.
        saved = train.Loop.save
        patch.setattr(train.Loop, "evaluate", stop)
        patch.setattr(
            train.Loop, "save", lambda s, x: None if int(x.step) > 2 else saved(s, x)
        )
        with pytest.raises(Stopped):
            train.train(whole, tmp_path / "parts")
    again = train.train(whole, tmp_path / "parts")
    assert again == result
    states = [
        startup.Checkpoints(tmp_path / name, read_only=True).restore(
            startup.abstract_state(whole, *model_and_optimizer(whole))
        )
        for name in ("whole", "parts")
    ]
    assert int(states[0].donors["source"]["count"]) == 5
    jax.tree.map(np.testing.assert_array_equal, *states)
    logs = [
        (tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts")
    ]
    assert logs[0] == logs[1]


def model_and_optimizer(config):
    model = startup.build_model(config)
    return model, startup.build_optimizer(config, model)[0]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"style__lambda_semantic": 1.0}, "needs config.teacher.run"),
        ({"train__accumulate": 2}, "config.train.accumulate belongs to the other"),
        ({"style__tile": (64, 32)}, "config.style.tile"),
        ({"style__lambda_cycle": -1.0}, "config.style.lambda_cycle: -1.0 is less"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        validation.validate(small_config(**changes))
    config = small_config()
    config.data.source.crop = config.data.target.crop = (34, 48)
    with pytest.raises(UserError, match="multiples of 4, at least 32"):
        validation.validate(config)
