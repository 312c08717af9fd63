import math
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tufl_jax import thresholds as T

C = 5
VARIANTS = ("paper", "released")


def numpy_update(alpha, logits, a, b, d, variant, valid=None):
    """Equations 8 and 9 with a loop over classes, in float64."""
    z = logits.astype(np.float64)
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    confidence, labels = p.max(-1), p.argmax(-1)
    inside = np.ones(labels.shape, bool) if valid is None else valid
    new = alpha.astype(np.float64)
    for c in range(len(alpha)):
        items = sorted(confidence[inside & (labels == c)], reverse=True)
        if not items:
            continue
        if variant == "released":
            items = sorted([*items, alpha[c]], reverse=True)
            share = b * float(alpha[c]) ** d
        else:
            share = b * math.exp((float(alpha[c]) - 1) * d)
        index = min(math.floor(share * len(items)), len(items) - 1)
        new[c] = a * alpha[c] + (1 - a) * items[index]
    return np.where(new >= 1, 0.999, new) if variant == "released" else new


def ties_and_rare_classes(seed):
    """Logits with many equal confidences, class 3 absent and class 4 in one pixel."""
    rng = np.random.default_rng(seed)
    logits = np.round(2 * rng.normal(size=(2, 9, 11, C))) / 2
    logits += np.array([0.03, 0.02, 0.01, -90, -90])
    logits[1, 4, 7] = [0, 0, 0, 0, 2]
    return logits.astype(np.float32)


@partial(jax.jit, static_argnames="variant")
def update(alpha, logits, valid, *, variant, momentum=0.9, power=8.0):
    return T.update(
        alpha, logits, valid=valid, variant=variant, momentum=momentum, power=power
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_update_equals_a_loop_over_classes(variant):
    for seed in range(6):
        rng = np.random.default_rng([seed, 1])
        logits = ties_and_rare_classes(seed)
        alpha = rng.uniform(0.3, 0.999, C).astype(np.float32)
        valid = rng.random(logits.shape[:3]) < (1.0 if seed < 2 else 0.6)
        for momentum, power in ((0.9, 8.0), (0.0, 2.0)):
            got = update(
                alpha, logits, valid, variant=variant, momentum=momentum, power=power
            )
            want = numpy_update(alpha, logits, momentum, 0.8, power, variant, valid)
            np.testing.assert_allclose(got, want, rtol=2e-6, err_msg=f"{seed}")
            assert got[3] == alpha[3]


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_pixel_in_all(variant):
    logits = np.zeros((1, 1, 1, C), np.float32)
    logits[..., 2] = 3
    alpha = np.full(C, 0.8, np.float32)
    got = update(alpha, logits, np.ones((1, 1, 1), bool), variant=variant)
    want = numpy_update(alpha, logits, 0.9, 0.8, 8, variant)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert got[2] != alpha[2]


def test_nothing_valid_keeps_every_threshold():
    logits, alpha = ties_and_rare_classes(0), np.linspace(0.5, 0.9, C, dtype="f4")
    nothing = np.zeros(logits.shape[:3], bool)
    for variant in VARIANTS:
        got = update(alpha, logits, nothing, variant=variant)
        np.testing.assert_array_equal(got, alpha)
    assert not T.select(logits, 0 * alpha, valid=nothing).any()


def test_padding_marked_invalid_never_enters_a_list():
    # Zero logits, as a warp with zero padding leaves them, count as class 0.
    logits = ties_and_rare_classes(1)
    alpha = np.full(C, 0.8, np.float32)
    inside = np.ones(logits.shape[:3], bool)
    inside[:, :5] = False
    padded = np.where(inside[..., None], logits, 0)
    masked = update(alpha, padded, inside, variant="paper")
    cropped = numpy_update(alpha, logits[:, 5:], 0.9, 0.8, 8, "paper")
    np.testing.assert_allclose(masked, cropped, rtol=2e-6)
    everything = update(alpha, padded, np.ones_like(inside), variant="paper")
    assert everything[0] != masked[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_eager_equals_jit_and_no_gradient(variant):
    logits = ties_and_rare_classes(2)
    valid = np.ones(logits.shape[:3], bool)
    alpha = np.linspace(0.6, 0.95, C, dtype="f4")
    eager = T.update(alpha, logits, valid=valid, variant=variant)
    np.testing.assert_allclose(
        update(alpha, logits, valid, variant=variant), eager, rtol=3e-7
    )
    gradient = jax.grad(lambda z: update(alpha, z, valid, variant=variant).sum())(
        logits
    )
    assert not gradient.any()


def test_saturated_confidences_stay_below_one_and_are_selected():
    logits = np.zeros((2, 9, 11, C), np.float32)
    logits[..., 1] = 150
    everything, alpha = np.ones(logits.shape[:3], bool), np.full(C, 0.8, np.float32)
    paper = update(alpha, logits, everything, variant="paper", momentum=0.0)
    assert 0 < paper.min() and paper.max() < 1
    assert T.select(logits, paper).all()
    released = update(alpha, logits, everything, variant="released", momentum=0.0)
    assert released[1] == np.float32(0.999)


def test_select_is_strict_and_by_class():
    logits = np.zeros((1, 1, 3, 4), np.float32)
    logits[0, 0, 1, 2] = logits[0, 0, 2, 3] = 2
    # The first pixel is a tie of all classes at 1/4, decided for class 0.
    alpha = np.array([0.25, 0, 0.7, 0.72], np.float32)
    np.testing.assert_array_equal(T.select(logits, alpha), [[[False, True, False]]])
    alpha[0] = np.nextafter(alpha[0], np.float32(0))
    valid = np.array([[[True, False, True]]])
    got = T.select(logits, alpha, valid=valid)
    np.testing.assert_array_equal(got, [[[True, False, False]]])


def test_kth_largest_equals_a_sort():
    rng = np.random.default_rng(0)
    values = np.round(rng.normal(size=20_000) * 50).astype(np.float32) / 8
    values[:6] = [np.inf, -np.inf, 1e-40, -1e-40, 3e38, -3e38]
    labels = rng.integers(-1, 9, size=values.shape).astype(np.int32)
    select = jax.jit(T.kth_largest)
    for share in (0.0, 0.2, 0.66, 0.999999):
        lists = [np.sort(values[labels == c])[::-1] for c in range(8)]
        rank = np.array([int(share * len(x)) for x in lists], np.int32)
        want = [x[k] for x, k in zip(lists, rank, strict=True)]
        np.testing.assert_array_equal(select(values, labels, rank), want)


def test_floor_share_is_the_integer_floor():
    counts = np.array([0, 1, 7, 10, 1000, 1_048_576, 2**24 + 5, 2**31 - 1], np.int32)
    rng = np.random.default_rng(0)
    shares = rng.uniform(2**-8, 1, 50).astype(np.float32)
    got = jax.jit(T.floor_share)(shares[:, None], counts)
    for row, share in zip(got, shares, strict=True):
        raised = Fraction(float(np.nextafter(share, np.float32(2))))
        want = [math.floor(raised * int(n)) for n in counts]
        np.testing.assert_array_equal(row, want)
    decimals = np.arange(101)
    got = T.floor_share(decimals.astype(np.float32) / np.float32(100), np.int32(1000))
    np.testing.assert_array_equal(got, decimals * 10)


def test_released_momentum():
    got = T.released_momentum(jnp.int32(7), momentum=0.9, decay=0.01)
    np.testing.assert_allclose(got, 1 - 0.9 * math.exp(-0.07), rtol=1e-6)


def test_unknown_variant_is_named():
    with pytest.raises(ValueError, match="'iast' is not one of paper, released"):
        T.update(T.init(C), np.zeros((1, 2, 2, C), np.float32), variant="iast")


@pytest.mark.skipif(jax.device_count() < 2, reason="one device")
@pytest.mark.parametrize("variant", VARIANTS)
def test_any_number_of_devices_gives_the_same_bits(variant):
    rng = np.random.default_rng(3)
    batch = 8 * jax.device_count()
    logits = np.round(3 * rng.normal(size=(batch, 5, 7, C)), 1).astype(np.float32)
    # Every device sees another number of pixels that count, the last one none.
    shares = np.repeat(np.linspace(1, 0, jax.device_count()), 8)
    valid = rng.random(logits.shape[:3]) < shares[:, None, None]
    alpha = np.linspace(0.5, 0.95, C, dtype="f4")
    one = jax.jit(partial(T.update, variant=variant))(alpha, logits, valid=valid)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    shared = jax.shard_map(
        lambda t, z, m: T.update(t, z, valid=m, variant=variant, axis_name="data"),
        mesh=mesh,
        in_specs=(P(), P("data"), P("data")),
        out_specs=P(),
    )
    np.testing.assert_array_equal(jax.jit(shared)(alpha, logits, valid), one)
