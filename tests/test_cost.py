"""Costs found without running: the paper's counts, shapes of batches, kept arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.test_steps import make_batches
from tests.tiny import command_module, tiny_config
from tufl_jax import cost, models, startup
from tufl_jax.models import layers
from tufl_jax.models.deeplab import Bottleneck
from tufl_jax.steps import common

profile = command_module("profile")


@pytest.mark.parametrize(
    "name, macs", [("bisenet", 121.4), ("deeplabv2", 2172.2)], ids=str
)
def test_multiplications_of_table_7(name, macs):
    model = models.build(name, num_classes=19)
    count = profile.network(model, (1024, 2048))
    np.testing.assert_allclose(count["macs"], macs, atol=0.05)
    table = {line.split()[0]: line.split() for line in profile.lines(count)[1:]}
    paper = {"bisenet": ("121", "13", "54"), "deeplabv2": ("2172", "65", "261")}[name]
    column = {"bisenet": 3, "deeplabv2": 4}[name]
    for key, value in zip(("macs", "params", "disk"), paper, strict=True):
        assert table[key][column] == value
        np.testing.assert_allclose(count[key], float(value), rtol=0.035)


def test_multiplications_of_two_blocks():
    """Inside jit and checkpoint, with stride and dilation, against a formula."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            block = nn.jit(nn.remat(Bottleneck, static_argnums=2), static_argnums=2)
            options = layers.Options()
            x = block(2, options, stride=2, dilation=2, project=True)(x, False)
            return block(2, options)(x, False)

    out = 3 * 4  # of 6 x 8 pixels
    want = out * (3 * 2 + 9 * 2 * 2 + 2 * 8 + 3 * 8)
    want += out * (8 * 2 + 9 * 2 * 2 + 2 * 8)
    assert cost.multiplications(Net(), (6, 8)) == want


@pytest.mark.parametrize("stage", ["source", "stage1", "stage2"])
def test_abstract_batch_is_that_of_the_pipeline(stage):
    config = tiny_config(stage)
    batch = next(make_batches(stage))
    shapes = cost.abstract_batch(config)
    assert {k: (v.shape, v.dtype) for k, v in shapes.items()} == {
        k: (v.shape, v.dtype) for k, v in batch.items()
    }


def tiny_deeplab(**changes):
    config = tiny_config("stage1", model__name="deeplabv2", model__width=4, **changes)
    model = startup.build_model(config).clone(blocks=(1, 0, 0, 3), axis_name=None)
    return common.Context(config, model)


def test_remat_and_parts_keep_less():
    def kept(**changes):
        ctx = tiny_deeplab(**changes)
        return cost.kept_for_backward(ctx.config, ctx.model)

    nothing, norms, blocks = (kept(model__remat=x) for x in ("none", "norms", "blocks"))
    assert nothing > 1.3 * norms > 1.3 * 1.3 * blocks
    assert kept(train__accumulate=2) < 0.6 * nothing


def test_program_of_a_longer_network_holds_its_inputs_only():
    """With remat 'blocks' a block more is its input more, not its work space."""

    def memory(blocks):
        model = models.build(
            "deeplabv2",
            num_classes=3,
            width=8,
            blocks=(1, 1, blocks, 1),
            remat="blocks",
        )

        def loss(params, statistics, images):
            variables = {"params": params, "batch_stats": statistics}
            (logits,), _ = model.apply(
                variables, images, train=True, mutable=["batch_stats"]
            )
            return (logits**2).sum()

        shapes = models.shapes(model)
        images = jax.ShapeDtypeStruct((2, 128, 256, 3), jnp.float32)
        step = jax.jit(jax.grad(loss))
        program = step.lower(shapes["params"], shapes["batch_stats"], images).compile()
        return program.memory_analysis().temp_size_in_bytes

    of_an_input = 2 * 17 * 33 * 128 * 4
    assert memory(10) - memory(4) < 1.5 * 6 * of_an_input


def test_parts_and_remat_have_the_gradient_of_the_whole():
    """With dropout, on logits and with a loss that couples all images."""
    rng = np.random.default_rng(0)
    source, weak, strong = rng.uniform(0, 255, (3, 4, 16, 24, 3)).astype("f4")
    variables = models.init(tiny_deeplab().model, jax.random.key(0))
    # Convolutions of N(0, 0.01) vanish beside the biases on so few channels.
    variables["params"] = jax.tree.map(
        lambda x: 100 * x * np.sqrt(2 / np.prod(x.shape[-4:-1])) if x.ndim > 3 else x,
        variables["params"],
    )
    keys = {
        "source": jax.random.split(jax.random.key(1), 4),
        "target": jax.random.split(jax.random.key(2), 4),
    }

    def run(**changes):
        ctx = tiny_deeplab(model__batch_norm="frozen", **changes)

        def loss(params):
            batches, _ = common.forward(
                ctx, params, variables["batch_stats"], [source], [weak, strong], keys
            )
            (a,), (b,), (c,) = batches
            weights = jax.nn.softmax(jnp.max(b, -1), (0, 1, 2))  # couples the images
            return jnp.sum(weights * jnp.sum((b - c) ** 2, -1)) + jnp.mean(a**2)

        value, grads = jax.jit(jax.value_and_grad(loss))(variables["params"])
        return value, jax.device_get(grads)

    value, grads = run()
    other, other_grads = run(train__accumulate=2, model__remat="norms")
    np.testing.assert_allclose(other, value, rtol=1e-5)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(grads))
    jax.tree.map(
        # A bias before a norm has no gradient but rounding.
        lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-6 * largest),
        grads,
        other_grads,
    )


def test_parts_are_normalised_by_their_own_statistics():
    """Batch norm 'trained': as if each part were a batch, one after the other."""
    rng = np.random.default_rng(1)
    source, target = rng.uniform(0, 255, (2, 4, 16, 24, 3)).astype("f4")
    variables = models.init(tiny_deeplab().model, jax.random.key(0))

    def run(statistics, source, target, **changes):
        ctx = tiny_deeplab(model__batch_norm="trained", **changes)
        forward = jax.jit(lambda *args: common.forward(ctx, variables["params"], *args))
        return forward(statistics, [source], [target])

    heads, moved = run(variables["batch_stats"], source, target, train__accumulate=2)
    parts, statistics = [], variables["batch_stats"]
    for half in (slice(0, 2), slice(2, 4)):
        part, statistics = run(statistics, source[half], target[half])
        parts.append(part)
    wanted = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    for found, want in ((heads, wanted), (moved, statistics)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            *(found, want),
        )
    whole, _ = run(variables["batch_stats"], source, target)
    assert np.abs(whole[0][0] - heads[0][0]).max() > 1e-3 * np.abs(whole[0][0]).max()
