"""Losses and thresholds against recorded reference numbers.

`loss_*` and `adapt_released_*` come from the authors' released code, `paper_*` from a
float64 transcription of the paper, `peer_*` from the code of the original publications.
`step_*` has a file of its own, test_golden_steps.py. Tolerances: values 2e-5,
thresholds 5e-6, gradients 1e-3 with a floor of 1e-5 of the largest (2e-3 for maximum
squares with OHEM, where the reference itself is noisy).
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tufl_jax import losses, thresholds

GOLDEN = pathlib.Path(__file__).parent / "golden"
RELEASED_EPSILON = 1e-30
LOST_PIXEL = (0, 0, 0)  # see the test that has it in its name


def load(name):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


def names(pattern):
    found = sorted(path.stem for path in GOLDEN.glob(f"{pattern}.npz"))
    assert found, f"no {pattern}.npz in {GOLDEN}"
    return found


def assert_gradient(got, want, rtol=1e-3, message=""):
    # 1e-20: what epsilon leaves of a gradient that underflows to 0 in the release.
    floor = max(1e-5 * np.abs(want).max(), 1e-20)
    np.testing.assert_allclose(got, want, rtol=rtol, atol=floor, err_msg=message)


def fixed_mask(logits, threshold):
    """Confidence above one threshold; -1 keeps every pixel."""
    return thresholds.select(logits, jnp.full(logits.shape[-1], threshold, jnp.float32))


def released_mean(values, mask, ratio=None):
    """Floor of 1e-8, then all masked values or, for a ratio > 0, the hardest."""
    values = losses.released_floor(values)
    mean = losses.masked_mean(values, mask)
    if ratio is None:
        return mean
    hardest = losses.hardest_mean(values, mask, fraction=ratio)
    return jnp.where(ratio > 0, hardest, mean)


def two_views(name):
    """The released loss `neutral` or `focal_type{1,2}_gamma{n}` of two views."""
    if name == "neutral":
        return functools.partial(losses.neutral_cross_entropy, epsilon=RELEASED_EPSILON)
    modulation = {"type1": "argmax", "type2": "difference"}[name.split("_")[1]]
    return functools.partial(
        losses.unsupervised_focal,
        gamma=int(name[-1]),
        modulation=modulation,
        epsilon=RELEASED_EPSILON,
    )


ONE_VIEW = {
    "shannon": losses.shannon_entropy,
    "confidence": losses.confidence_entropy,
    # The release lacks the minus sign of maximum squares.
    "maxsquare": lambda logits, **options: -losses.maximum_squares(logits, **options),
}
TWO_VIEWS = [
    name.removeprefix("loss_")
    for name in ["loss_neutral", *names("loss_focal_type*_gamma*")]
]


def pixel_loss(name):
    """`name` as a function of (weak, strong), whether or not it reads the strong."""
    if name in ONE_VIEW:
        return lambda weak, strong, **options: ONE_VIEW[name](weak, **options)
    return two_views(name)


@pytest.mark.parametrize("name", [*ONE_VIEW, *TWO_VIEWS])
def test_released_losses(name):
    d = load(f"loss_{name}")
    weak = d["logits"] if name in ONE_VIEW else d["logits_before"]
    strong = weak if name in ONE_VIEW else d["logits_after"]
    function = pixel_loss(name)

    def reduced(weak, strong, threshold, class_weights, ratio):
        values = function(weak, strong, class_weights=class_weights)
        mask = fixed_mask(weak, threshold)
        return released_mean(values, mask, ratio), mask.sum()

    step = jax.jit(jax.value_and_grad(reduced, argnums=(0, 1), has_aux=True))
    for i, threshold in enumerate(d["cfg_thresh"]):
        weighted, ratio = d["cfg_weighted"][i], d["cfg_ohem_ratio"][i]
        weights = np.where(weighted, d["class_weight"], np.float32(1))
        (value, count), (to_weak, to_strong) = step(
            weak, strong, threshold, weights, ratio
        )
        np.testing.assert_allclose(value, d["value"][i], rtol=2e-5, err_msg=f"{i}")
        kept = losses.floor_share(ratio, count) if ratio else count
        assert kept == d["n_averaged"][i]
        if name in ONE_VIEW:
            rtol = 2e-3 if name == "maxsquare" and ratio else 1e-3
            assert_gradient(to_weak, d["grad"][i], rtol, f"{i}")
        else:
            assert_gradient(to_weak, d["grad_before"][i], message=f"{i}")
            assert_gradient(to_strong, d["grad_after"][i], message=f"{i}")


def test_softmax_temperature_divides_the_weak_logits():
    d = load("loss_softmax_temperature")

    def reduced(weak, strong, temperature, threshold, name):
        weak = weak / temperature
        values = two_views(name)(weak, strong, class_weights=d["class_weight"])
        return released_mean(values, fixed_mask(weak, threshold))

    step = jax.jit(jax.value_and_grad(reduced, argnums=(0, 1)), static_argnums=4)
    for i, name in enumerate(d["cfg_loss"]):
        value, (to_weak, to_strong) = step(
            d["logits_before"],
            d["logits_after"],
            d["cfg_temp"][i],
            d["cfg_thresh"][i],
            str(name),
        )
        np.testing.assert_allclose(value, d["value"][i], rtol=2e-5)
        assert_gradient(to_weak, d["grad_before"][i])
        assert_gradient(to_strong, d["grad_after"][i])


@pytest.mark.parametrize("edge", ["empty_mask", "saturated", "uniform_pixels"])
def test_released_edges(edge):
    d = load(f"loss_edge_{edge}")
    loss_names = sorted(k.removesuffix("_value") for k in d if k.endswith("_value"))
    weights = d.get("class_weight", np.ones(d["logits_before"].shape[-1], np.float32))

    def reduced(weak, strong, name):
        values = pixel_loss(name)(weak, strong, class_weights=weights)
        return released_mean(values, fixed_mask(weak, d["thresh"]))

    @jax.jit
    def steps(weak, strong):
        step = jax.value_and_grad(reduced, argnums=(0, 1))
        return {name: step(weak, strong, name) for name in loss_names}

    results = jax.device_get(steps(d["logits_before"], d["logits_after"]))
    for name, (value, gradients) in results.items():
        wanted = [d[k] for k in d if k.startswith(f"{name}_grad")]
        if edge == "empty_mask":
            # The release averages nothing to NaN and skips the step; here it is 0.
            assert np.isnan(d[f"{name}_value"]) and value == 0
            assert not any(g.any() for g in gradients)
        elif np.isnan(d[f"{name}_value"]):
            # A class without mass divides 0 by 0 in the release.
            assert (edge, name) == ("saturated", "confidence")
            assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)
        else:
            np.testing.assert_allclose(value, d[f"{name}_value"], rtol=2e-5)
            for got, want in zip(gradients, wanted, strict=False):
                if (edge, name) == ("uniform_pixels", "focal_type2_gamma2"):
                    got, want = got.copy(), want.copy()
                    assert not want[LOST_PIXEL].any()
                    got[LOST_PIXEL] = 0
                assert_gradient(got, want, message=name)


def test_pixel_that_the_release_loses_to_rounding():
    """4e-7 of loss between entropies of 25: float32 leaves 0, so the floor takes it."""
    d = load("loss_edge_uniform_pixels")
    p, q = (
        np.asarray(jax.nn.softmax(d[k][LOST_PIXEL])).astype(np.float64)
        for k in ("logits_before", "logits_after")
    )
    want = -((p[0] - q[0]) ** 2) * (d["class_weight"] * p * np.log(q)).sum()
    got = two_views("focal_type2_gamma2")(
        d["logits_before"][LOST_PIXEL],
        d["logits_after"][LOST_PIXEL],
        class_weights=d["class_weight"],
    )
    assert 4e-7 < want < 5e-7
    np.testing.assert_allclose(got, want, rtol=1e-2)


def test_supervised_cross_entropy():
    """Averaged over all pixels, ignored ones included, and not over the weights."""
    plain, mixed = load("loss_sup_regular_ce"), load("loss_mix_pixelweighted_ce")

    @jax.jit
    @jax.value_and_grad
    def step(logits, labels, class_weights, pixel_weights):
        values = losses.cross_entropy(logits, labels, class_weights=class_weights)
        return losses.masked_mean(pixel_weights * values, jnp.ones(labels.shape, bool))

    for d in (plain, mixed):
        pixels = d.get("pixel_weight", np.ones(d["labels"].shape, np.float32))
        for i, weighted in enumerate(d["cfg_weighted"]):
            weights = np.where(weighted, d["class_weight"], np.float32(1))
            value, gradient = step(d["logits"], d["labels"], weights, pixels)
            np.testing.assert_allclose(value, d["value"][i], rtol=2e-5)
            assert_gradient(gradient, d["grad"][i])


def test_supervised_ohem():
    d = load("loss_sup_ohem_ce")

    @jax.jit
    @jax.value_and_grad
    def step(logits, class_weights, min_kept):
        values = losses.cross_entropy(logits, d["labels"], class_weights=class_weights)
        return losses.ohem_mean(
            values, min_kept=min_kept, probability=float(d["prob_thresh"])
        )

    for i, weighted in enumerate(d["cfg_weighted"]):
        weights = np.where(weighted, d["class_weight"], np.float32(1))
        value, gradient = step(d["logits"], weights, d["cfg_n_min"][i])
        np.testing.assert_allclose(value, d["value"][i], rtol=2e-5)
        assert_gradient(gradient, d["grad"][i])


def test_entropies_of_their_own_publications():
    d = load("peer_entropy_losses")
    num_classes = d["logits"].shape[-1]

    def maxsquare(z):
        return jnp.mean(losses.maximum_squares(z)) / num_classes

    def image_wise(z):
        values = 2 * losses.maximum_squares(z) * losses.image_wise_weights(z, ratio=0.2)
        return jnp.sum(values) / (len(z) * num_classes)

    def entropy(z):
        return jnp.mean(losses.shannon_entropy(z)) / np.log(num_classes)

    for name, function, logits in (
        ("maxsquare", maxsquare, d["logits"]),
        ("iw_maxsquare", image_wise, d["logits"][:1]),
        ("advent_entropy", entropy, d["logits"]),
    ):
        value, gradient = jax.jit(jax.value_and_grad(function))(logits)
        np.testing.assert_allclose(value, d[f"{name}_value"], rtol=2e-5)
        assert_gradient(gradient, d[f"{name}_grad"])


def test_paper_focal_with_a_fixed_threshold():
    d = load("paper_focal_fixed_threshold")

    @functools.partial(jax.jit, static_argnames="gamma")
    def step(weak, strong, threshold, gamma):
        def reduced(weak, strong):
            values = losses.unsupervised_focal(weak, strong, gamma=gamma)
            return losses.masked_mean(values, fixed_mask(weak, threshold))

        return jax.value_and_grad(reduced, argnums=(0, 1))(weak, strong)

    for i, gamma in enumerate(d["cfg_gamma"]):
        value, (to_weak, to_strong) = step(
            d["logits_before"], d["logits_after"], d["cfg_thresh"][i], float(gamma)
        )
        np.testing.assert_allclose(value, d["value"][i], rtol=2e-5)
        assert_gradient(to_weak, d["grad_before"][i])
        assert_gradient(to_strong, d["grad_after"][i])


@functools.partial(jax.jit, static_argnames=("variant", "modulation"))
def adaptive_calls(weak, strong, alpha, options, *, variant, modulation):
    """All calls of a sequence; numbers are traced so that files share a compilation."""

    def reduced(weak, strong, mask):
        released = variant == "released"
        values = losses.unsupervised_focal(
            weak,
            strong,
            gamma=options["gamma"],
            modulation=modulation,
            class_weights=options["class_weights"],
            epsilon=RELEASED_EPSILON if released else 0.0,
        )
        if released:
            return released_mean(values, mask, options["ohem_ratio"])
        return losses.masked_mean(values, mask)

    def call(alpha, inputs):
        weak, strong, momentum = inputs
        update = functools.partial(
            thresholds.update,
            alpha,
            weak,
            proportion=options["proportion"],
            power=options["power"],
            variant=variant,
        )
        new = update(momentum=momentum)
        mask = thresholds.select(weak, new)
        old_mask = thresholds.select(weak, alpha)
        loss, gradients = jax.value_and_grad(reduced, argnums=(0, 1))(
            weak, strong, mask
        )
        results = {
            "cls_thresh": new,
            "cur_thresh": update(momentum=0.0),
            "loss": loss,
            "loss_mask_before_update": reduced(weak, strong, old_mask),
            "n_selected": mask.sum(),
            "n_selected_before_update": old_mask.sum(),
            "n_solid": fixed_mask(weak, options["init_thresh"]).sum(),
            "gradients": gradients,
        }
        return new, results

    return jax.lax.scan(call, alpha, (weak, strong, options["momentum"]))[1]


def run_adaptive(d, variant):
    calls, num_classes = len(d["logits_before"]), d["cls_thresh"].shape[1]
    momentum = np.full(calls, d["adapt_a"], np.float32)
    if d.get("a_decay", 0) > 0:
        momentum = thresholds.released_momentum(
            d["iteration"], momentum=float(d["adapt_a"]), decay=float(d["a_decay"])
        )
    ohem_ratio = np.float32(d.get("ohem_ratio", 0))
    options = {
        "momentum": momentum,
        "proportion": np.float32(d["adapt_b"]),
        "power": np.float32(d["adapt_d"]),
        "gamma": np.float32(d["gamma"]),
        "init_thresh": np.float32(d["init_thresh"]),
        "ohem_ratio": ohem_ratio or None,
        "class_weights": d.get("class_weight", np.ones(num_classes, np.float32)),
    }
    modulation = "per_class"
    if variant == "released":
        modulation = {1: "argmax", 2: "difference"}[int(d["focal_type"])]
    alpha = thresholds.init(num_classes, float(d["init_thresh"]))
    got = adaptive_calls(
        d["logits_before"],
        d["logits_after"],
        alpha,
        options,
        variant=variant,
        modulation=modulation,
    )
    got = jax.device_get(got)
    np.testing.assert_allclose(got["cls_thresh"], d["cls_thresh"][1:], rtol=5e-6)
    np.testing.assert_allclose(got["loss"], d["loss"], rtol=2e-5)
    for i, k in enumerate(d["grad_calls"]):
        assert_gradient(got["gradients"][0][k], d["grad_before"][i])
        assert_gradient(got["gradients"][1][k], d["grad_after"][i])
    return got, np.prod(d["logits_before"].shape[1:-1])


@pytest.mark.parametrize("name", names("paper_adapt_*"))
def test_paper_adaptive_thresholds(name):
    d = load(name)
    got, pixels = run_adaptive(d, "paper")
    np.testing.assert_allclose(got["cur_thresh"], d["cur_thresh"], rtol=5e-6)
    np.testing.assert_allclose(
        got["loss_mask_before_update"], d["loss_mask_before_update"], rtol=2e-5
    )
    np.testing.assert_allclose(got["n_selected"] / pixels, d["ratio"], rtol=1e-12)
    np.testing.assert_allclose(
        got["n_selected_before_update"] / pixels,
        d["ratio_mask_before_update"],
        rtol=1e-12,
    )


@pytest.mark.parametrize("name", names("adapt_released_*"))
def test_released_adaptive_thresholds(name):
    d = load(name)
    got, pixels = run_adaptive(d, "released")
    current = np.where(d["cur_thresh"] >= 1, 0.999, d["cur_thresh"])
    np.testing.assert_allclose(got["cur_thresh"], current, rtol=5e-6)
    np.testing.assert_array_equal(got["n_selected"], d["n_selected"])
    np.testing.assert_allclose(got["n_selected"] / pixels, d["adapt_ratio"])
    np.testing.assert_allclose(got["n_solid"] / pixels, d["solid_ratio"], rtol=1e-6)
