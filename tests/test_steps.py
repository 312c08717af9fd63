"""Whole steps: any number of devices, and stages that do what they say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import blocks, tiny_config
from tufl_jax import models, startup, steps
from tufl_jax import state as state_lib
from tufl_jax.steps import stage2
from tufl_jax.steps import step as step_lib
from tufl_jax.steps.common import Context, forward

STEPS = 3


@pytest.fixture(scope="module", autouse=True)
def optimised():
    """Devices are compared to 1e-5: sums in the order of the shipped program."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def make_batches(stage):
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        source, labels = blocks(rng, 8)
        batch = {"source_image": source, "source_label": labels}
        if stage != "source":
            batch["target_image"] = blocks(rng, 8)[0]
        if stage == "stage2":
            image, label = blocks(rng, 1)
            batch |= {"donor_image": image, "donor_label": label}
            batch["donor_class"] = np.array([int(label[0, -1, 0])], np.int32)
        yield batch


def make_bank(config):
    rng = np.random.default_rng(1)
    images, labels = blocks(rng, 2 * config.num_classes)
    shape = (config.num_classes, 2)
    available = np.zeros(shape, bool)
    available[3:9] = True
    return {
        "image": images.reshape(*shape, *images.shape[1:]),
        "label": labels.reshape(*shape, *labels.shape[1:]),
        "available": available,
    }


@functools.cache
def run(stage, num_devices):
    """States and metrics of a few steps on `num_devices` devices.

    Steps are small: rounding sends a few of a million activations to the other side of
    a ReLU's kink, which moves a gradient by up to 1 % on so small a network. A gradient
    that was scaled by the number of devices would still show as 2e-4.
    """
    config = tiny_config(stage, optim__learning_rate=5e-5, optim__head_multiplier=1.0)
    model = startup.build_model(config)
    optimizer, _ = startup.build_optimizer(config, model)
    variables = models.init(model, jax.random.key(0))
    mesh = step_lib.make_mesh(jax.devices()[:num_devices])
    state = state_lib.create(
        variables,
        optimizer,
        num_classes=config.num_classes,
        initial_threshold=config.thresholds.init,
        metrics=steps.STAGES[stage].METRICS,
        teacher=models.init(model, jax.random.key(1)) if stage == "stage2" else None,
        donors=make_bank(config) if stage == "stage2" else None,
    )
    state = step_lib.replicate(jax.tree.map(jnp.asarray, state), mesh)
    step = step_lib.make_train_step(
        steps.STAGES[stage].loss_fn, Context(config, model), optimizer, mesh
    )
    history = []
    for batch in make_batches(stage):
        state, images = step(state, step_lib.put_batch(batch, mesh))
        history.append(jax.device_get((state.metrics, state.thresholds)))
    return jax.device_get(state), history, jax.device_get(images)


@pytest.mark.parametrize("stage", ["source", "stage1", "stage2"])
def test_one_device_equals_eight(stage):
    one, history_one, _ = run(stage, 1)
    eight, history_eight, _ = run(stage, 8)
    for (metrics_1, alpha_1), (metrics_8, alpha_8) in zip(
        history_one, history_eight, strict=True
    ):
        for name, value in metrics_1.items():
            # A share counts pixels: rounding may move a few across a threshold.
            near = {"atol": 4 / (8 * 64 * 128)} if name == "kept_ratio" else {"atol": 0}
            np.testing.assert_allclose(
                metrics_8[name], value, rtol=1e-5, err_msg=name, **near
            )
        np.testing.assert_allclose(alpha_8, alpha_1, rtol=1e-5)
    for a, b in zip(
        jax.tree.leaves((one.params, one.batch_stats)),
        jax.tree.leaves((eight.params, eight.batch_stats)),
        strict=True,
    ):
        # Offsets start at 0 and are still of the size of one update.
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, one.donors, eight.donors)


@pytest.mark.parametrize("stage", ["source", "stage1", "stage2"])
def test_a_step_moves_what_it_should(stage):
    state, history, images = run(stage, 1)
    assert state.step == STEPS and state.bad_step == -1
    for values, _ in history:
        assert all(np.isfinite(v) for v in values.values())
    moved = history[-1][1] != np.float32(0.07)
    assert moved.any() == (stage != "source")
    if stage != "source":
        assert 0.0 < history[-1][0]["kept_ratio"] < STEPS
        assert images["target/mask"].shape == (1, 64, 128)
    if stage == "stage2":
        model = startup.build_model(tiny_config(stage))
        frozen = models.init(model, jax.random.key(1))
        jax.tree.map(np.testing.assert_array_equal, state.teacher, frozen)
        assert history[-1][0]["loss_mix"] > 0


def test_mixing_takes_half_of_the_classes_from_the_source():
    config = tiny_config("stage2", mixing__strong=False)
    ctx = Context(config, startup.build_model(config))
    rng = np.random.default_rng(2)
    images, labels = blocks(rng, 3)
    target, pseudo = blocks(rng, 3)
    bank = jax.tree.map(jnp.asarray, make_bank(config))
    keys = jax.random.split(jax.random.key(3), 3)
    alpha = jnp.full(19, 0.5).at[5].set(0.02)  # softmax(1 / 0.02) is all on class 5
    batch = {"source_image": images, "source_label": labels}
    mixed, mixed_labels, mask = jax.jit(
        lambda: stage2.mix(
            ctx, keys, batch, bank, alpha, jnp.float32(target), jnp.uint8(pseudo)
        )
    )()
    for i in range(3):
        # Either slot of class 5 was pasted; one of them explains all of the mixture.
        explained = []
        for slot in range(2):
            donor = bank["label"][5, slot] == 5
            pasted = np.where(donor, 5, labels[i])
            image = np.where(donor[..., None], bank["image"][5, slot], images[i])
            present = set(np.unique(pasted)) - {255}
            taken = set(np.unique(pasted[mask[i]]))
            explained.append(
                np.array_equal(np.where(mask[i][..., None], image, target[i]), mixed[i])
                and np.array_equal(
                    np.where(mask[i], pasted, pseudo[i]), mixed_labels[i]
                )
                and 255 not in taken
                and len(taken) == (len(present) + 1) // 2
                and not set(np.unique(pasted[~mask[i]])) & taken
            )
        assert any(explained)


def test_paste_with_an_empty_bank_changes_nothing():
    config = tiny_config("stage2")
    bank = make_bank(config)
    bank["available"] = np.zeros_like(bank["available"])
    images, labels = blocks(np.random.default_rng(4), 1)
    config.mixing.long_tail_draws = 2
    image, label, pasted = stage2.paste_long_tail(
        jax.random.key(0),
        jnp.float32(images[0]),
        labels[0],
        bank,
        jnp.full(19, 0.8),
        config.mixing,
    )
    assert not pasted.any()
    np.testing.assert_array_equal(image, images[0])
    np.testing.assert_array_equal(label, labels[0])


def test_a_donor_replaces_a_slot_of_its_class_only():
    config = tiny_config("stage2")
    bank = make_bank(config)
    image, label = blocks(np.random.default_rng(5), 1)
    batch = {
        "donor_image": image,
        "donor_label": label,
        "donor_class": np.array([12], np.int32),
    }
    new = jax.device_get(
        stage2.refresh_donors(jax.random.key(1), jax.tree.map(jnp.asarray, bank), batch)
    )
    changed = (new["image"] != bank["image"]).any((2, 3, 4))
    assert changed.sum() == 1 and changed[12].any()
    assert new["available"][12].sum() == 1


def test_a_loss_that_is_not_finite_is_marked_with_its_step():
    config = tiny_config("source")
    model = startup.build_model(config)
    optimizer, _ = startup.build_optimizer(config, model)
    variables = models.init(model, jax.random.key(0))
    variables["params"]["conv_out"]["conv_out"]["kernel"][:] = np.nan
    mesh = step_lib.make_mesh(jax.devices()[:1])
    state = state_lib.create(
        variables,
        optimizer,
        num_classes=19,
        initial_threshold=0.8,
        metrics=steps.STAGES["source"].METRICS,
    )
    step = step_lib.make_train_step(
        steps.STAGES["source"].loss_fn, Context(config, model), optimizer, mesh
    )
    state = step_lib.replicate(jax.tree.map(jnp.asarray, state), mesh)
    for batch in make_batches("source"):
        state, _ = step(state, step_lib.put_batch(batch, mesh))
    assert int(state.bad_step) == 1


def test_per_domain_normalises_each_domain_by_its_own_statistics():
    config = tiny_config("stage1", model__batch_norm="per_domain")
    model = startup.build_model(config).clone(axis_name=None)
    ctx = Context(config, model)
    variables = models.init(model, jax.random.key(0))
    rng = np.random.default_rng(6)
    source, weak, strong = (jnp.float32(blocks(rng, 2)[0]) for _ in range(3))

    @jax.jit
    def apply(source, weak, strong):
        return forward(
            ctx,
            variables["params"],
            variables["batch_stats"],
            [source],
            [weak, strong],
        )

    batches, statistics = apply(source, weak, strong)
    others, same = apply(source * 0.5, weak, strong)
    assert [len(heads[0]) for heads in batches] == [2, 2, 2]
    # Another source changes neither the target's logits nor the running averages.
    jax.tree.map(np.testing.assert_array_equal, statistics, same)
    for before, after in zip(batches[1:], others[1:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, before, after)
    assert not np.array_equal(batches[0][0], others[0][0])
    # Another target changes the running averages.
    _, moved = apply(source, weak * 0.5, strong)
    name = statistics["cp"]["resnet"]["bn1"]["mean"]
    assert not np.array_equal(name, moved["cp"]["resnet"]["bn1"]["mean"])
