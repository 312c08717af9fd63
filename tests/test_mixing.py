"""Mixing against plain loops and recorded values."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tufl_jax import mixing

GOLDEN = pathlib.Path(__file__).parent / "golden"

choose = jax.jit(mixing.choose_half, static_argnums=2)
draw = jax.jit(mixing.draw_long_tail, static_argnums=3)
weights = jax.jit(mixing.boundary_weights, static_argnames="size")


def test_long_tail_probabilities_match_recorded_values():
    data = np.load(GOLDEN / "longtail_probabilities.npz")
    names = [name[len("alpha_") :] for name in data if name.startswith("alpha_")]
    assert names
    for name in names:
        alpha = data[f"alpha_{name}"].astype(np.float32)
        expected = data[f"prob_{name}"]
        result = jax.jit(mixing.long_tail_probabilities)(alpha)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-12)
        eager = mixing.long_tail_probabilities(jnp.asarray(alpha))
        np.testing.assert_allclose(eager, result, rtol=1e-5)


def test_long_tail_probabilities_of_a_zero_threshold_are_finite():
    result = mixing.long_tail_probabilities(jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(result, [1.0, 0.0])


def test_draw_long_tail_follows_probabilities_of_available_classes():
    alpha = jnp.array([0.4, 0.9, 0.5, 0.3])
    available = jnp.array([True, True, True, False])
    classes = np.asarray(draw(jax.random.key(0), alpha, available, 20000))
    assert classes.dtype == np.int32
    expected = np.exp(1 / np.array([0.4, 0.9, 0.5]))
    expected /= expected.sum()
    shares = np.bincount(classes, minlength=4) / len(classes)
    np.testing.assert_allclose(shares[:3], expected, atol=0.015)
    assert shares[3] == 0


def test_draw_long_tail_without_a_donor_pastes_nothing():
    drawn = draw(jax.random.key(0), jnp.full(3, 0.5), jnp.zeros(3, bool), 2)
    np.testing.assert_array_equal(drawn, [-1, -1])
    image, label = jnp.ones((2, 2, 3)), jnp.zeros((2, 2), jnp.uint8)
    donor_label = jnp.full((2, 2), 255, jnp.uint8)
    pasted = mixing.paste(image, label, image * 5, donor_label, drawn[0])
    np.testing.assert_array_equal(pasted[0], image)
    np.testing.assert_array_equal(pasted[1], label)


def test_paste_copies_only_the_class():
    rng = np.random.default_rng(0)
    image, donor = rng.normal(size=(2, 5, 6, 3)).astype(np.float32)
    label, donor_label = rng.integers(0, 3, size=(2, 5, 6)).astype(np.uint8)
    out_image, out_label = jax.jit(mixing.paste)(image, label, donor, donor_label, 2)
    assert out_label.dtype == jnp.uint8
    for i in range(5):
        for j in range(6):
            here = donor_label[i, j] == 2
            np.testing.assert_array_equal(
                out_image[i, j], donor[i, j] if here else image[i, j]
            )
            assert out_label[i, j] == (2 if here else label[i, j])


@pytest.mark.parametrize("present", [(), (4,), (0, 3), (0, 1, 5), (0, 1, 2, 3, 4, 5)])
def test_choose_half_takes_half_of_the_present_classes(present):
    labels = np.array([*present, 255, 255], np.uint8)[None]
    keys = jax.random.split(jax.random.key(1), 200)
    chosen = np.asarray(
        jax.vmap(lambda key: mixing.choose_half(key, jnp.asarray(labels), 6))(keys)
    )
    n = len(present)
    assert (chosen.sum(axis=1) == (n + n % 2) // 2).all()
    absent = [c for c in range(6) if c not in present]
    assert not chosen[:, absent].any()
    if n > 1:
        share = chosen[:, list(present)].mean(axis=0)
        np.testing.assert_allclose(share, ((n + 1) // 2) / n, atol=0.13)


def test_choose_half_eager_equals_jit():
    labels = jnp.asarray(np.random.default_rng(2).integers(0, 19, (4, 5)))
    key = jax.random.key(3)
    np.testing.assert_array_equal(
        mixing.choose_half(key, labels, 19), choose(key, labels, 19)
    )


def test_class_mask_matches_recorded_values_where_not_ignored():
    data = np.load(GOLDEN / "mix_class_mask.npz")
    labels = data["labels"]
    for classes, expected in zip(data["classes_padded"], data["mask"], strict=True):
        chosen = np.zeros(19, bool)
        chosen[classes[(classes >= 0) & (classes < 19)]] = True
        result = np.asarray(jax.jit(mixing.class_mask)(labels, chosen))
        # The recorded masks may choose 255; ours never do.
        np.testing.assert_array_equal(result, (expected == 1) & (labels != 255))
        eager = mixing.class_mask(jnp.asarray(labels, jnp.uint8), jnp.asarray(chosen))
        np.testing.assert_array_equal(eager, result)


def test_class_mask_never_chooses_ignored_or_negative_labels():
    labels = jnp.array([[255, -1, 2, 3]])
    result = mixing.class_mask(labels, jnp.ones(3, bool))
    np.testing.assert_array_equal(result, [[False, False, True, False]])


def test_cross_domain_mix_matches_recorded_values():
    data = np.load(GOLDEN / "mix_one_mix.npz")
    image, label = jnp.asarray(data["images"]), jnp.asarray(data["labels"])
    mix = jax.jit(mixing.cross_domain_mix)
    for mask in (data["mask"], data["mask"].astype(bool)):
        out = mix(mask, image[:1], image[1:])
        np.testing.assert_array_equal(out, data["mixed_image"])
        labels = mix(mask, label[:1], label[1:])
        assert labels.dtype == label.dtype
        np.testing.assert_array_equal(labels, data["mixed_labels"])
        wide = mix(mask[..., None], image[:1], image[1:])
        np.testing.assert_array_equal(wide, out)
    soft = mix(data["soft_mask"], image[:1], image[1:])
    np.testing.assert_allclose(soft, data["mixed_image_soft"], atol=1e-5)
    unbatched = mix(data["mask"][0], image[0], image[1])
    np.testing.assert_array_equal(unbatched, data["mixed_image"][0])


@pytest.mark.parametrize("size", [3, 5, 7])
def test_boundary_weights_match_recorded_values(size):
    data = np.load(GOLDEN / "mix_boundary.npz")
    result = weights(data["masks"], size=size)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, data[f"weight_paper_k{size}"])
    eager = mixing.boundary_weights(jnp.asarray(data["masks"]) > 0, size=size)
    np.testing.assert_array_equal(eager, result)


def test_boundary_weights_match_loop():
    mask = np.random.default_rng(4).random((9, 11)) > 0.97
    expected = np.ones((9, 11))
    for i in range(9):
        for j in range(11):
            window = mask[max(i - 3, 0) : i + 4, max(j - 3, 0) : j + 4]
            if window.any() and not window.all():
                expected[i, j] = 3.5
    result = mixing.boundary_weights(jnp.asarray(mask), weight=3.5)
    np.testing.assert_array_equal(result, expected)


def test_boundary_weights_edge_cases():
    ones = jnp.ones((2, 4, 5), bool)
    np.testing.assert_array_equal(mixing.boundary_weights(ones), 1.0)
    np.testing.assert_array_equal(mixing.boundary_weights(~ones), 1.0)
    np.testing.assert_array_equal(mixing.boundary_weights(jnp.ones((1, 1))), 1.0)
    mixed = jnp.eye(4, dtype=bool)
    np.testing.assert_array_equal(mixing.boundary_weights(mixed, size=0), 1.0)
    with pytest.raises(ValueError, match="odd"):
        mixing.boundary_weights(mixed, size=4)
    grad = jax.grad(lambda m: mixing.boundary_weights(m).sum())(jnp.eye(4))
    np.testing.assert_array_equal(grad, 0.0)


@pytest.mark.parametrize("size", [0, 3, 7])
def test_released_pixel_weights_match_recorded_values(size):
    data = np.load(GOLDEN / f"mix_pixel_weight_released_k{size}.npz")
    confidence = jax.nn.softmax(data["target_logits"]).max(-1)
    result = jax.jit(mixing.pixel_weights_released, static_argnames="size")(
        data["mask"][None], confidence, size=size
    )
    np.testing.assert_allclose(result, data["pixel_weight"], rtol=1e-5)


def test_released_mixing_matches_recorded_labels():
    data = np.load(GOLDEN / "mix_pixel_weight_released_k7.npz")
    chosen = np.zeros(13, bool)
    chosen[data["chosen_classes"]] = True
    labels = jnp.asarray(data["source_labels"])
    mask = mixing.class_mask(labels, jnp.asarray(chosen))
    np.testing.assert_array_equal(mask[0], data["mask"])
    pseudo = jnp.argmax(data["target_logits"], -1).astype(labels.dtype)
    mixed = mixing.cross_domain_mix(mask, labels, pseudo)
    np.testing.assert_array_equal(mixed, data["mixed_labels"])
