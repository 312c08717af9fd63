"""BiSeNet against numbers of the authors' implementation, and its batch norm."""

import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from tufl_jax import models
from tufl_jax.errors import UserError
from tufl_jax.models import layers, pretrained, torch_names
from tufl_jax.models.bisenet import ContextPath, FeatureFusion, Head, SpatialPath
from tufl_jax.models.resnet import BasicBlock, ResNet18

GOLDEN = pathlib.Path(__file__).parent / "golden"


def golden(name):
    return np.load(GOLDEN / f"bisenet_{name}.npz")


def recipe_value(name, shape, seed):
    """The value that the reference run gave to a parameter."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    last = name.rsplit(".", 1)[-1]
    if last in ("running_mean", "bias"):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if last == "running_var":
        return (0.5 + rng.random(shape)).astype(np.float32)
    if len(shape) == 1:
        return (0.6 + 0.4 * rng.random(shape)).astype(np.float32)
    gain = 2 if len(shape) == 4 else 1
    std = np.sqrt(gain / np.prod(shape[1:]))
    return (rng.standard_normal(shape) * std).astype(np.float32)


@pytest.fixture(scope="module")
def torch_arrays():
    table = golden("param_table")
    shapes = [tuple(map(int, s.split(","))) for s in table["shapes"]]
    seed = int(table["param_seed"])
    return {
        str(n): recipe_value(str(n), s, seed)
        for n, s in zip(table["names"], shapes, strict=True)
    }


@pytest.fixture(scope="module")
def model():
    return models.build("bisenet", num_classes=19)


@pytest.fixture(scope="module")
def variables(torch_arrays, model):
    return pretrained.from_torch(torch_arrays, model)


@pytest.fixture(scope="module")
def forward(model):
    watched = (ContextPath, FeatureFusion, Head, ResNet18, SpatialPath)

    def run(variables, images, train):
        return model.apply(
            variables,
            images,
            train=train,
            capture_intermediates=lambda module, _: isinstance(module, watched),
            mutable=["batch_stats", "intermediates"],
        )

    return jax.jit(run, static_argnums=2)


def close(actual, expected, tolerance, what):
    error = np.abs(np.asarray(actual) - expected).max()
    assert error <= tolerance * np.abs(expected).max(), f"{what}: {error}"


def test_recipe_matches_table(torch_arrays):
    table = golden("param_table")
    for i, (name, values) in enumerate(torch_arrays.items()):
        np.testing.assert_allclose(values.sum(dtype=np.float64), table["sum"][i], 1e-6)
        assert values.flat[0] == table["first"][i], name


@pytest.mark.parametrize("case", ["even", "odd"])
def test_eval_matches_reference(case, forward, variables):
    want = golden(f"eval_{case}")
    logits, state = forward(variables, want["image"], False)
    seen = state["intermediates"]
    resnet = seen["cp"]["resnet"]["__call__"][0]
    features = dict(zip(("resnet8", "resnet16", "resnet32"), resnet, strict=True))
    features["cp8"], features["cp16"] = seen["cp"]["__call__"][0]
    features["sp"] = seen["sp"]["__call__"][0]
    features["ffm"] = seen["ffm"]["__call__"][0]
    for name, feature in features.items():
        assert feature.shape[1:3] == tuple(want[f"feat_{name}_hw"]), name
        close(feature.mean((1, 2)), want[f"feat_{name}_chanmean"], 2e-5, name)
    rows, columns = want["sample_yx"].T
    for name, full in zip(("out", "out16", "out32"), logits, strict=True):
        low = seen[name.replace("out", "conv_out")]["__call__"][0]
        close(low, want[f"{name}_lowres"], 2e-5, name)
        assert full.dtype == jnp.float32
        assert full.shape == (*want["image"].shape[:3], 19)
        close(full[:, rows, columns], want[f"{name}_samples"], 2e-5, name)
        np.testing.assert_allclose(
            np.abs(full).mean(dtype=np.float64), want[f"{name}_mean_abs"], 2e-5
        )
    jax.tree.map(
        np.testing.assert_array_equal, state["batch_stats"], variables["batch_stats"]
    )


def test_in_place_abn_weights(forward, model, torch_arrays):
    want = golden("eval_even")
    # Signs are lost by |scale|, so flipping some must change nothing.
    arrays = {k: -v if k.endswith("bn1.weight") else v for k, v in torch_arrays.items()}
    variables = pretrained.from_torch(arrays, model, abs_scale=True)
    _, state = forward(variables, want["image"], False)
    for name in ("out", "out16", "out32"):
        head = state["intermediates"][name.replace("out", "conv_out")]
        close(head["__call__"][0], want[f"{name}_lowres_abs_gamma"], 2e-5, name)


def test_train_forward_matches_reference(forward, variables):
    want = golden("train_forward")
    _, state = forward(variables, want["image"], True)
    for name in ("out", "out16", "out32"):
        head = state["intermediates"][name.replace("out", "conv_out")]
        close(head["__call__"][0], want[f"{name}_lowres"], 2e-4, name)
    after = torch_names.flatten({"batch_stats": state["batch_stats"]})
    assert sorted(after) == sorted(want["running_names"])
    checked = [key for key in want if key.startswith("after/")]
    assert len(checked) == 16
    for key in checked:
        close(after[key.removeprefix("after/")], want[key], 2e-4, key)


@pytest.mark.parametrize("num_classes", [13, 16, 19])
@pytest.mark.parametrize("aux_heads", [True, False])
def test_parameter_counts(num_classes, aux_heads):
    model = models.build("bisenet", num_classes=num_classes, aux_heads=aux_heads)
    leaves = jax.tree.leaves(models.shapes(model)["params"])
    key = f"n_params_{num_classes}_{'deep' if aux_heads else 'last'}"
    assert sum(x.size for x in leaves) == golden("param_table")[key]


def test_optimizer_groups(model, variables):
    groups = golden("param_groups")
    named = torch_names.flatten({"params": variables["params"]})
    heads = {k for k in named if k.split(".")[0] in model.HEAD_MODULES}
    kernels = {k for k, v in named.items() if v.ndim > 1}
    assert heads & kernels == set(groups["head_conv_weight_decay"])
    assert heads - kernels == set(groups["head_norm_no_decay"])
    assert kernels - heads == set(groups["conv_weight_decay"])
    assert set(named) - heads - kernels == set(groups["norm_no_decay"])


def test_eager_equals_jit():
    x = jax.random.normal(jax.random.key(1), (2, 3, 5, 8))
    fusion = FeatureFusion(8, layers.Options())
    variables = fusion.init(jax.random.key(0), x, train=False)

    def run(variables, x):
        return fusion.apply(variables, x, train=True, mutable=["batch_stats"])

    eager, jitted = run(variables, x), jax.jit(run)(variables, x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), eager, jitted
    )


def test_options():
    images = jax.random.normal(jax.random.key(1), (1, 33, 40, 3))
    options = dict(num_classes=3, width=4, aux_heads=False)
    model = models.build("bisenet", **options)
    variables = models.init(model, jax.random.key(0))
    (logits,) = jax.jit(model.apply)(variables, images)
    assert logits.shape == (1, 33, 40, 3)
    relu = models.build("bisenet", activation="relu", **options)
    assert np.abs(jax.jit(relu.apply)(variables, images)[0] - logits).max() > 0
    half = models.build("bisenet", dtype=jnp.bfloat16, **options)
    (low,) = jax.jit(half.apply)(variables, images)
    assert low.dtype == jnp.float32
    close(low, np.asarray(logits), 0.05, "bfloat16")


def test_errors_name_the_choices():
    with pytest.raises(UserError, match="unknown model 'unet'.*bisenet"):
        models.build("unet", num_classes=3)
    with pytest.raises(UserError, match="no option 'widht'.*width"):
        models.build("bisenet", num_classes=3, widht=4)
    with pytest.raises(UserError, match="activation 'gelu'.*leaky_relu, relu"):
        models.shapes(models.build("bisenet", num_classes=3, activation="gelu"))


def test_init_is_that_of_the_modules():
    model = models.build("bisenet", num_classes=3, width=8)
    variables = models.init(model, jax.random.key(0))
    module = layers.ConvBNAct(24, 3, layers.Options())
    other = module.init(jax.random.key(0), jnp.zeros((1, 4, 4, 32)), train=False)
    for tree in (variables, other):
        for name, x in torch_names.flatten(tree).items():
            assert x.dtype == np.float32
            if x.ndim == 1:
                assert (x == name.endswith((".weight", "_var"))).all(), name
            elif x.size > 5000:  # N(0, 1 / fan_in), not truncated
                z = np.asarray(x) * np.sqrt(np.prod(x.shape[1:]))
                np.testing.assert_allclose(z.std(), 1, atol=0.04)
                np.testing.assert_allclose((np.abs(z) > 2).mean(), 0.0455, atol=0.01)
    again = models.init(model, jax.random.key(0), (96, 64))
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    second = models.init(model, jax.random.key(1))
    ours, theirs = (torch_names.flatten(v) for v in (variables, second))
    assert (ours["sp.conv1.conv.weight"] != theirs["sp.conv1.conv.weight"]).all()


def numpy_batch_norm(x, scale, bias, epsilon=1e-5):
    x = np.asarray(x, np.float64)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    count = x.size // x.shape[-1]
    y = (x - mean) / np.sqrt(var + epsilon) * scale + bias
    return y, mean, var * count / (count - 1)


def test_batch_norm_against_numpy():
    x = 1000 + np.random.default_rng(0).standard_normal((2, 3, 5, 4)).astype("f4")
    norm = layers.BatchNorm(layers.Options())
    scale, bias = np.arange(1.0, 5.0, dtype="f4"), np.arange(4.0, dtype="f4")
    variables = norm.init(jax.random.key(0), x, train=False)
    variables["params"] = {"scale": scale, "bias": bias}
    y, state = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    want, mean, var = numpy_batch_norm(x, scale, bias)
    np.testing.assert_allclose(y, want, atol=2e-3)  # float32 at 1000
    np.testing.assert_allclose(state["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(state["batch_stats"]["var"], 0.9 + 0.1 * var, rtol=1e-4)
    frozen = norm.apply(variables, x, train=False)
    np.testing.assert_allclose(frozen, x / np.sqrt(1 + 1e-5) * scale + bias, rtol=1e-6)


def test_batch_norm_of_one_value_gives_the_bias():
    norm = layers.BatchNorm(layers.Options())
    x = jnp.full((1, 1, 1, 2), 7.0)
    variables = norm.init(jax.random.key(0), x, train=True)
    y, state = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(y, jnp.zeros_like(x))
    assert np.isfinite(state["batch_stats"]["var"]).all()


def test_batch_norm_gradient():
    norm = layers.BatchNorm(layers.Options())
    x = jax.random.normal(jax.random.key(0), (2, 2, 3, 2))
    weights = jax.random.normal(jax.random.key(1), x.shape)
    variables = norm.init(jax.random.key(0), x, train=True)

    def loss(x):
        y, _ = norm.apply(variables, x, train=True, mutable=["batch_stats"])
        return (y * weights).sum()

    check_grads(loss, (x,), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


def test_synchronised_batch_norm_equals_one_device():
    if len(jax.devices()) < 4:
        pytest.skip("needs 4 devices")
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])
    # A block with a shortcut; the whole network is too ill conditioned when so small.
    x = jax.random.normal(jax.random.key(1), (4, 6, 8, 3))
    x += jnp.arange(4.0)[:, None, None, None]  # every device has another mean
    variables = BasicBlock(4, layers.Options()).init(jax.random.key(0), x, train=False)

    def step(axis_name):
        block = BasicBlock(4, layers.Options(axis_name=axis_name))

        def loss(params, stats, x):
            y, state = block.apply(
                {"params": params, "batch_stats": stats},
                x,
                train=True,
                mutable=["batch_stats"],
            )
            value = (y**2 + jnp.sin(y)).mean()
            if axis_name:
                value = jax.lax.pmean(value, axis_name)
            return value, state["batch_stats"]

        return jax.value_and_grad(loss, has_aux=True)

    arguments = variables["params"], variables["batch_stats"], x
    sharded = jax.shard_map(
        step("data"),
        mesh=mesh,
        in_specs=(P(), P(), P("data")),
        out_specs=((P(), P()), P()),
    )
    want = jax.jit(step(None))(*arguments)
    placed = (
        jax.device_put(value, jax.NamedSharding(mesh, spec))
        for value, spec in zip(arguments, (P(), P(), P("data")), strict=True)
    )
    got = jax.jit(sharded)(*placed)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), got, want)


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 1)])
def test_max_pool_against_reduce_window(size):
    rng = np.random.default_rng(0)
    # Few distinct values, so that most windows have ties.
    x = rng.integers(-2, 2, (2, *size, 3)).astype("f4")

    def reference(x):
        return jax.lax.reduce_window(
            x,
            -jnp.inf,
            jax.lax.max,
            (1, 3, 3, 1),
            (1, 2, 2, 1),
            ((0, 0), (1, 1), (1, 1), (0, 0)),
        )

    want, back = jax.vjp(reference, x)
    got, our_back = jax.vjp(layers.max_pool, x)
    np.testing.assert_array_equal(got, want)
    g = rng.standard_normal(want.shape).astype("f4")
    np.testing.assert_allclose(our_back(g)[0], back(g)[0], rtol=1e-6)
