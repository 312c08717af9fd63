"""Convolutions and their gradients, against XLA's own and between devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tufl_jax.models import convolution
from tufl_jax.steps import step as step_lib

LAYOUT = ("NHWC", "HWIO", "NHWC")
# size, channels, kernel, stride, padding, dilation
CASES = {
    "stem": ((12, 18), (3, 8), 7, 2, 3, 1),
    "stem of a tiny picture": ((2, 3), (3, 8), 7, 2, 3, 1),
    "1x1": ((5, 7), (70, 9), 1, 1, 0, 1),
    "1x1 to many": ((5, 7), (9, 70), 1, 1, 0, 1),
    "1x1, strided": ((5, 8), (20, 24), 1, 2, 0, 1),
    "3x3, few channels": ((6, 9), (20, 16), 3, 1, 1, 1),
    "3x3, many channels": ((6, 9), (64, 16), 3, 1, 1, 1),
    "3x3, strided": ((7, 8), (20, 16), 3, 2, 1, 1),
    "dilated": ((9, 11), (64, 16), 3, 1, 4, 4),
    "dilated, few channels": ((9, 11), (20, 16), 3, 1, 2, 2),
    "few channels, rows of padding only": ((5, 11), (20, 16), 3, 1, 6, 6),
    "rows of padding only": ((5, 11), (64, 16), 3, 1, 6, 6),
    "padding all around": ((5, 7), (64, 16), 3, 1, 12, 12),
    "one pixel": ((1, 1), (64, 5), 3, 1, 1, 1),
    "a middle tap without a pixel": ((1, 5), (20, 5), 3, 2, 2, 1),
    "a tap too far": ((6, 6), (64, 5), 3, 1, 2, 4),
    "a strided tap too far": ((10, 12), (20, 5), 3, 2, 2, 6),
    "no padding": ((6, 9), (64, 5), 3, 1, 0, 1),
}


def setting(name):
    size, channels, taps, stride, padding, dilation = CASES[name]
    rng = np.random.default_rng(len(name))
    x = jnp.asarray(rng.normal(size=(2, *size, channels[0])), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(taps, taps, *channels)), jnp.float32)
    how = ((stride, stride), ((padding, padding),) * 2)
    return x, kernel, how, (dilation, dilation)


def reference(x, kernel, how, dilation):
    return jax.lax.conv_general_dilated(
        x, kernel, *how, rhs_dilation=dilation, dimension_numbers=LAYOUT
    )


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_xla(name):
    x, kernel, how, dilation = setting(name)

    def ours(x, kernel):
        return convolution.convolve(x, kernel, *how, rhs_dilation=dilation)

    want, want_back = jax.vjp(lambda x, k: reference(x, k, how, dilation), x, kernel)
    got, back = jax.vjp(ours, x, kernel)
    close = dict(rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got, want, **close)
    np.testing.assert_allclose(jax.jit(ours)(x, kernel), want, **close)
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=want.shape), x.dtype)
    for a, b, c in zip(
        back(cotangent), jax.jit(back)(cotangent), want_back(cotangent), strict=True
    ):
        np.testing.assert_allclose(a, c, **close)
        np.testing.assert_allclose(b, c, **close)


def test_taps_in_the_padding_are_left_out():
    x, kernel, how, dilation = setting("padding all around")
    jaxpr = jax.make_jaxpr(
        lambda x: convolution.convolve(x, kernel, *how, rhs_dilation=dilation)
    )(x)
    assert "conv_general_dilated" not in str(jaxpr)  # a 1x1 kernel is left


@pytest.mark.parametrize("name", ["1x1", "3x3, few channels", "3x3, many channels"])
def test_gradients_are_summed_over_devices(name):
    x, kernel, how, dilation = setting(name)
    mesh = step_lib.make_mesh(jax.devices()[:2])

    def loss(kernel, x):
        y = convolution.convolve(x, kernel, *how, rhs_dilation=dilation)
        return jax.lax.pmean(jnp.mean(y**2), step_lib.AXIS)

    split = jax.shard_map(
        jax.grad(loss), mesh=mesh, in_specs=(P(), P(step_lib.AXIS)), out_specs=P()
    )
    want = jax.grad(lambda k: jnp.mean(reference(x, k, how, dilation) ** 2))(kernel)
    np.testing.assert_allclose(split(kernel, x), want, rtol=1e-4, atol=1e-5)


def test_bfloat16_stays_bfloat16():
    x, kernel, how, dilation = setting("3x3, strided")
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    y, back = jax.vjp(lambda x, k: convolution.convolve(x, k, *how), x, kernel)
    assert {a.dtype for a in (y, *back(y))} == {jnp.dtype(jnp.bfloat16)}


def test_what_it_cannot_do_is_refused():
    x, kernel, how, _ = setting("3x3, few channels")
    for other in ({"feature_group_count": 2}, {"lhs_dilation": (2, 2)}):
        with pytest.raises(ValueError, match="feature groups"):
            convolution.convolve(x, kernel, *how, **other)
