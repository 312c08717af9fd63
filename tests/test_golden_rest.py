"""Recorded numbers that the tests of single functions leave out."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import tiny_config
from tufl_jax import augment, metrics, mixing, models, presets, startup
from tufl_jax.steps import stage2
from tufl_jax.steps.common import Context

GOLDEN = pathlib.Path(__file__).parent / "golden"


def load(name):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def names(pattern):
    return sorted(path.stem for path in GOLDEN.glob(f"{pattern}.npz"))


def test_all_recorded_files_are_here():
    # Those of the style translation are our own recordings of torch.
    assert len(set(names("*")) - set(names("cyclegan_*"))) == 80


@pytest.mark.parametrize("name", names("*adapt_*_a*"))
def test_list_items_stand_where_they_were_recorded(name):
    """`cur_thresh`, which other tests assert of ours, is item `sel_index`."""
    d = load(name)
    for call, logits in enumerate(d["logits_before"]):
        p = np.exp(logits - logits.max(-1, keepdims=True).astype(np.float64))
        p /= p.sum(-1, keepdims=True)
        confidence, labels = p.max(-1), p.argmax(-1)
        for c, index in enumerate(d["sel_index"][call]):
            if not (labels == c).any():
                assert index == -1
                continue
            items = list(confidence[labels == c])
            if name.startswith("adapt_released"):
                items.append(d["cls_thresh"][call][c])
            got = sorted(items, reverse=True)[index]
            np.testing.assert_allclose(got, d["cur_thresh"][call][c], rtol=1e-6)


@pytest.mark.parametrize("size", [0, 3, 7])
def test_released_mixing_through_the_stage(size, monkeypatch):
    d = load(f"mix_pixel_weight_released_k{size}")
    config = tiny_config("stage2")
    config.num_classes = 13
    presets.released(config)
    config.mixing.update(strong=False, long_tail_probability=0.0, boundary_size=size)
    ctx = Context(config, None, axis_name=None)
    present = np.unique(d["source_labels"])
    assert len(present) == d["n_source_classes"]  # 255 is one of them
    assert len(d["chosen_classes"]) == (len(present) + 1) // 2

    seen = []

    def recorded_choice(key, ids, classes, *, fewer):
        chosen = mixing.choose_half(key, ids, classes, fewer=fewer)
        seen.append(classes)
        picked = np.minimum(d["chosen_classes"], 13)
        return jnp.zeros_like(chosen).at[picked].set(True)

    fake = type("mixing", (), dict(vars(mixing)))
    fake.choose_half = staticmethod(recorded_choice)
    monkeypatch.setattr(stage2, "mixing", fake)
    height, width = d["mask"].shape
    bank = {
        "image": jnp.zeros((13, 1, height, width, 3), jnp.uint8),
        "label": jnp.full((13, 1, height, width), 255, jnp.uint8),
        "available": jnp.zeros((13, 1), bool),
    }
    pseudo = jnp.argmax(d["target_logits"], -1).astype(jnp.uint8)
    image, label, mask = stage2.mix(
        ctx,
        jax.random.split(jax.random.key(0), 1),
        {
            "source_image": jnp.asarray(255 * d["source_image"]),
            "source_label": jnp.asarray(d["source_labels"], jnp.uint8),
        },
        bank,
        jnp.full(13, 0.8),
        jnp.asarray(255 * d["target_image"]),
        pseudo,
    )
    assert seen == [14]
    np.testing.assert_array_equal(mask[0], d["mask"] == 1)
    np.testing.assert_array_equal(label, d["mixed_labels"])
    # The release cuts the mixture to 8 bits, here it stays as it is.
    eight_bits = augment.normalize(jnp.floor(image), mode="imagenet")
    np.testing.assert_allclose(eight_bits, d["mixed_image_normalised"], atol=2e-5)
    confidence = jnp.max(jax.nn.softmax(d["target_logits"]), -1)
    share = jnp.mean(confidence >= config.mixing.confidence)
    assert config.mixing.confidence == d["confidence"]
    np.testing.assert_allclose(share, d["target_fraction_confident"], rtol=1e-5)
    weights = stage2.pixel_weights(ctx, mask, confidence)
    np.testing.assert_allclose(weights, d["pixel_weight"], rtol=1e-5)


def test_boundaries():
    d = load("mix_boundary")
    for size in (3, 5, 7):
        weights = mixing.boundary_weights(jnp.asarray(d["masks"]), size=size)
        np.testing.assert_array_equal(weights == 2, d[f"boundary_k{size}"] == 1)


@pytest.mark.parametrize("name", names("lr_*"))
def test_released_rates_of_the_parameter_groups(name):
    """The real optimiser moves every group at the recorded rate."""
    d = load(name)
    config = tiny_config("source")
    presets.released(config)
    config.optim.update(
        learning_rate=float(d["lr0"]),
        warmup_steps=int(d["warmup_steps"]),
        warmup_start=float(d["warmup_start_lr"]),
        momentum=0.0,
        weight_decay=0.0,
    )
    config.train.num_steps = int(d["max_iter"])
    model = startup.build_model(config)
    optimizer, _ = startup.build_optimizer(config, model)
    params = jax.tree.map(
        lambda x: np.zeros(x.shape, np.float32), models.shapes(model)["params"]
    )
    ones = jax.tree.map(np.ones_like, params)
    state = jax.jit(optimizer.init)(params)
    step = jax.jit(functools.partial(optimizer.update, params=params))
    for rates in d["first_steps_group_lr"]:
        updates, state = step(ones, state)
        found = np.unique([np.unique(x) for x in jax.tree.leaves(updates)])
        np.testing.assert_allclose(-found, rates[0], rtol=2e-5)
        np.testing.assert_allclose(rates, rates[0])
    assert (d["group_lr_over_lr"] == 10).all()
    assert (
        set(d["group_weight_decay"]) == {0.0, 5e-4}
        and (d["group_momentum"] == 0.9).all()
    )
    groups = load("bisenet_param_groups")
    assert (groups["released_lr_multiplier"] == 10).all()
    np.testing.assert_array_equal(groups["intended_lr_multiplier"], [1, 1, 10, 10])


@pytest.mark.parametrize("name", names("eval_confusion_*"))
def test_released_mean_does_not_skip_absent_classes(name):
    d = load(name)
    iou = metrics.iou(d["hist_pred_by_gt"].T)
    np.testing.assert_allclose(np.mean(iou), d["miou_released"], rtol=1e-12)
    if "subset13" in d:
        of13 = iou[d["subset13"]]
        np.testing.assert_allclose(np.mean(of13), d["miou13_released"], rtol=1e-12)
