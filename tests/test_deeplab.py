"""DeepLabV2 against numbers of published implementations, and on several devices."""

import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_bisenet import close, recipe_value
from tests.test_steps import make_batches
from tests.tiny import tiny_config
from tufl_jax import models, startup, steps
from tufl_jax import state as state_lib
from tufl_jax.errors import UserError
from tufl_jax.models import deeplab, layers, pretrained, torch_names
from tufl_jax.models.deeplab import Bottleneck, DeepLabV2, ProDAHead, SumHead
from tufl_jax.steps import common
from tufl_jax.steps import step as step_lib

GOLDEN = pathlib.Path(__file__).parent / "golden"
VARIANTS = {
    "proda": {},
    "proda_bnclr": {"bn_pretrain": True},
    "advent_single": {"head": "sum4"},
    "adaptsegnet_multi": {"head": "sum2", "aux_heads": True},
}
WIDE = (1, 193, 393, 3)


def golden(name):
    return np.load(GOLDEN / f"deeplabv2_{name}.npz")


@pytest.fixture(scope="module")
def arrays():
    """Every array of the four networks; equal names are equal arrays."""
    found = {}
    for variant in VARIANTS:
        table = golden(variant)
        seed = int(table["param_seed"])
        for name, shape in zip(table["names"], table["shapes"], strict=True):
            if str(name) not in found:
                size = tuple(map(int, str(shape).split(",")))
                found[str(name)] = recipe_value(str(name), size, seed)
    return found


@pytest.fixture(scope="module")
def load(arrays):
    """Module and variables of a variant, loaded strictly."""

    def load(variant):
        model = models.build("deeplabv2", num_classes=19, **VARIANTS[variant])
        names = map(str, golden(variant)["names"])
        return model, pretrained.from_torch({n: arrays[n] for n in names}, model)

    return load


@pytest.fixture(scope="module")
def forward(load):
    """Logits, stage outputs and head features of the proda network for an image."""
    model, variables = load("proda")
    watched = (Bottleneck, ProDAHead, deeplab.nn.GroupNorm)

    @jax.jit
    def run(variables, image):
        logits, state = model.apply(
            variables,
            image,
            capture_intermediates=lambda module, _: isinstance(module, watched),
            mutable=["intermediates"],
        )
        seen = state["intermediates"]
        stages = [seen[f"layer{i}_others"]["__call__"][0][-1] for i in range(1, 5)]
        feature = seen["layer5"]["bottleneck_2"]["__call__"][0]
        return logits, stages, feature, seen["layer5"]["__call__"][0]

    return lambda image: run(variables, image)


@pytest.fixture(scope="module")
def small(forward):
    return forward(golden("proda")["image"])


@pytest.fixture(scope="module")
def wide(forward):
    want = golden("proda_wide")
    rng = np.random.default_rng([int(want["param_seed"]), zlib.crc32(b"image")])
    image = rng.standard_normal(WIDE).astype(np.float32)
    np.testing.assert_allclose(image.sum(dtype=np.float64), want["image_sum"], 1e-6)
    return forward(image)


def test_proda_matches_reference(small, wide):
    want = golden("proda")
    (logits,), stages, feature, low = small
    for i, x in enumerate(stages, start=1):
        assert x.shape[1:3] == tuple(want[f"feat_layer{i}_hw"])
        close(x.mean((1, 2)), want[f"feat_layer{i}_chanmean"], 2e-5, f"layer{i}")
    close(feature, want["feat"], 2e-5, "feature")
    close(low, want["out"], 2e-5, "logits")
    rows, columns = want["sample_yx"].T
    assert logits.shape == (1, 65, 97, 19) and logits.dtype == jnp.float32
    close(logits[:, rows, columns], want["out_up_samples"], 2e-5, "resized")
    close(wide[3], golden("proda_wide")["out"], 2e-5, "wide")  # every dilation acts


@pytest.mark.parametrize("variant", list(VARIANTS)[1:])
def test_other_heads_match_reference(variant, load, small, monkeypatch):
    model, variables = load(variant)
    want = golden(variant)
    # The trunks are equal: take its outputs from the first network.
    monkeypatch.setattr(DeepLabV2, "_stage", lambda self, i, *_: small[1][i])
    logits = jax.jit(model.apply)(variables, golden("proda")["image"])
    rows, columns = want["sample_yx"].T
    close(logits[0][:, rows, columns], want["out_up_samples"], 2e-5, "resized")
    assert len(logits) == (2 if model.aux_heads else 1)
    for name, x in zip(("out", "out_aux"), logits, strict=False):
        # Every pixel of the small map is one of the large map: corners are aligned.
        close(x[:, ::8, ::8], want[name], 2e-5, name)


def test_sum_of_four_matches_reference_on_a_wide_image(arrays, wide):
    head = SumHead(19, 4, layers.Options())
    names = [n for n in arrays if n.startswith("layer6.")]
    flat = {n.removeprefix("layer6."): arrays[n] for n in names}
    params = {
        f"conv2d_list_{i}": {
            "kernel": torch_names.from_layout(flat[f"conv2d_list.{i}.weight"]),
            "bias": flat[f"conv2d_list.{i}.bias"],
        }
        for i in range(4)
    }
    logits = jax.jit(head.apply)({"params": params}, wide[1][3])
    close(logits, golden("advent_single_wide")["out"], 2e-5, "wide")


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameter_counts(variant):
    model = models.build("deeplabv2", num_classes=19, **VARIANTS[variant])
    count = sum(x.size for x in jax.tree.leaves(models.shapes(model)["params"]))
    assert count == golden(variant)["n_params"]


def test_stride_in_the_3x3():
    x = jax.random.normal(jax.random.key(0), (1, 9, 12, 3))
    block = Bottleneck(
        2, layers.Options(), stride=2, project=True, stride_place="torch"
    )
    variables = block.init(jax.random.key(1), x, False)
    got = block.apply(variables, x, False)

    def conv(x, name, stride=1):
        kernel = variables["params"][name]["kernel"]
        pad = kernel.shape[0] // 2
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((pad, pad),) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y / np.sqrt(1 + 1e-5)  # a batch norm with its first statistics

    y = jax.nn.relu(conv(jax.nn.relu(conv(x, "conv1")), "conv2", 2))
    want = jax.nn.relu(conv(y, "conv3") + conv(x, "downsample_0", 2))
    np.testing.assert_allclose(got, want, 1e-5, 1e-7)


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 2)])
def test_ceil_pool_against_reduce_window(size):
    x = np.random.default_rng(0).standard_normal((2, *size, 3)).astype("f4")
    ceil = [n // 2 + 1 for n in size]
    pads = [(1, 2 * c - n) for c, n in zip(ceil, size, strict=True)]
    want = jax.lax.reduce_window(
        x,
        -jnp.inf,
        jax.lax.max,
        (1, 3, 3, 1),
        (1, 2, 2, 1),
        ((0, 0), *pads, (0, 0)),
    )
    assert want.shape[1:3] == tuple(ceil)
    np.testing.assert_array_equal(layers.max_pool(x, ceil=True), want)


def test_dropout_belongs_to_the_image():
    x = jnp.ones((3, 4, 5, 40))
    keys = jax.random.split(jax.random.key(0), 3)
    y = jax.jit(layers.channel_dropout, static_argnames="rate")(keys, x, rate=0.4)
    kept = np.asarray(y[:, 0, 0] > 0)
    np.testing.assert_allclose(y, np.broadcast_to(kept[:, None, None], y.shape) / 0.6)
    assert 0.4 < kept.mean() < 0.8
    assert (kept[0] != kept[1]).any() and (kept[1] != kept[2]).any()
    swapped = layers.channel_dropout(keys[::-1], x, rate=0.4)
    np.testing.assert_array_equal(swapped, y[::-1])


def test_first_values_are_those_of_the_modules():
    model = models.build("deeplabv2", num_classes=40, width=16, blocks=(1, 1, 1, 1))
    ours = models.init(model, jax.random.key(0))["params"]
    head = ProDAHead(40, 16, 0.1, layers.Options("relu"))
    x = jnp.zeros((1, 4, 4, 512))
    theirs = jax.jit(head.init)(jax.random.key(1), x, None)["params"]
    flat = torch_names.flatten({"params": ours["layer5"]})
    other = torch_names.flatten({"params": theirs})
    assert sorted(flat) == sorted(other)
    for name, values in flat.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values.std(), other[name].std(), rtol=0.4)
        if values.size > 2000:
            np.testing.assert_allclose(values.std(), other[name].std(), rtol=0.1)
            ratio = np.abs(values).max() / values.std()
            if values.ndim == 4:
                np.testing.assert_allclose(values.std(), 0.01, rtol=0.1)
                assert ratio > 2.5
            else:
                assert ratio < 1.8  # uniform
    assert not flat["bottleneck.1.bias"].any() and flat["conv2d_list.1.0.bias"].any()
    np.testing.assert_allclose(ours["layer3_0"]["conv2"]["kernel"].std(), 0.01, 0.05)


class SecondStage(DeepLabV2):
    @deeplab.nn.compact
    def __call__(self, x):
        return self._stage(1, x, layers.Options("relu"), True)


@pytest.mark.parametrize("remat", deeplab.REMAT)
def test_blocks_of_a_loop_equal_blocks_one_after_the_other(remat):
    model = SecondStage(num_classes=3, width=4, blocks=(0, 3, 0, 0), remat=remat)
    x = jax.random.normal(jax.random.key(0), (2, 6, 8, 4))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda a: rng.uniform(0.5, 1.5, a.shape).astype(np.float32),
        jax.eval_shape(model.init, jax.random.key(0), x),
    )

    def looped(params):
        return model.apply({**variables, "params": params}, x, mutable=["batch_stats"])

    def one_by_one(params):
        y, moved = x, {"layer2_0": None, "layer2_others": []}
        for i in range(3):
            name = "layer2_others" if i else "layer2_0"
            own = {
                "params": params[name],
                "batch_stats": variables["batch_stats"][name],
            }
            if i:
                own = jax.tree.map(lambda a, i=i: a[i - 1], own)
            options = layers.Options("relu")
            block = Bottleneck(8, options, stride=1 if i else 2, project=i == 0)
            y, stats = block.apply(own, y, True, mutable=["batch_stats"])
            if i:
                moved[name].append(stats["batch_stats"])
            else:
                moved[name] = stats["batch_stats"]
        others = jax.tree.map(lambda *x: jnp.stack(x), *moved["layer2_others"])
        return y, {"batch_stats": moved | {"layer2_others": others}}

    def run(function):
        def loss(params):
            y, moved = function(params)
            return (y**2).sum(), (y, moved)

        return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4 * np.abs(b).max()),
        run(looped),
        run(one_by_one),
    )


def test_blocks_of_a_loop_keep_their_torch_names():
    model = models.build("deeplabv2", num_classes=3, width=4, blocks=(1, 3, 2, 1))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda a: rng.random(a.shape).astype(np.float32), models.shapes(model)
    )
    arrays = pretrained.to_torch(variables, model)
    kernel = variables["params"]["layer2_others"]["conv2"]["kernel"]
    assert kernel.shape == (2, 3, 3, 8, 8)
    for i in (1, 2):
        np.testing.assert_array_equal(
            arrays[f"layer2.{i}.conv2.weight"], kernel[i - 1].transpose(3, 2, 0, 1)
        )
    var = variables["batch_stats"]["layer3_others"]["bn1"]["var"]
    np.testing.assert_array_equal(arrays["layer3.1.bn1.running_var"], var[0])
    assert "layer2.3.conv2.weight" not in arrays
    again = pretrained.from_torch(arrays, model)
    jax.tree.map(np.testing.assert_array_equal, again, variables)

    name = "layer2.2.conv2.weight"
    lacking = {k: v for k, v in arrays.items() if k != name}
    with pytest.raises(UserError, match=rf"missing 1 \({name}\)"):
        pretrained.from_torch(lacking, model)
    first = jax.tree.map(np.zeros_like, variables)
    partly = pretrained.from_torch(
        lacking, model, variables=first, allow_missing=(name,)
    )
    found = partly["params"]["layer2_others"]["conv2"]["kernel"]
    np.testing.assert_array_equal(found, kernel * [[[[[1]]]], [[[[0]]]]])


def test_frozen_norms_get_no_gradient():
    tree = {"bn1": {"scale": 2.0, "bias": 1.0}, "norm": {"scale": 3.0, "bias": 1.0}}
    stats = {"bn1": {"mean": 0.0, "var": 1.0}}

    def loss(params):
        params = common.stop_norms(params, stats)
        return sum(x**2 for x in jax.tree.leaves(params))

    grads = jax.grad(loss)(tree)
    assert grads["bn1"] == {"scale": 0.0, "bias": 0.0}
    assert grads["norm"] == {"scale": 6.0, "bias": 2.0}


def run_steps(num_devices):
    """State and metrics after source steps of a tiny DeepLabV2 with batch statistics.

    Small steps, for the reason given in test_steps.run.
    """
    config = tiny_config(
        "source",
        model__name="deeplabv2",
        model__batch_norm="trained",
        optim__learning_rate=2e-5,
        optim__warmup_steps=0,
    )
    model = startup.build_model(config).clone(blocks=(1, 3, 0, 0))
    optimizer, _ = startup.build_optimizer(config, model)
    stage = steps.STAGES["source"]
    mesh = step_lib.make_mesh(jax.devices()[:num_devices])
    state = state_lib.create(
        models.init(model, jax.random.key(0)),
        optimizer,
        num_classes=config.num_classes,
        initial_threshold=config.thresholds.init,
        metrics=stage.METRICS,
    )
    state = step_lib.replicate(jax.tree.map(jnp.asarray, state), mesh)
    ctx = common.Context(config, model)
    step = step_lib.make_train_step(stage.loss_fn, ctx, optimizer, mesh)
    for batch in list(make_batches("source"))[:2]:
        state, _ = step(state, step_lib.put_batch(batch, mesh))
    return jax.device_get(state)


def test_one_device_equals_eight():
    one, eight = run_steps(1), run_steps(8)
    compared = [
        (s.params, s.batch_stats, s.thresholds, s.metrics) for s in (one, eight)
    ]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6), *compared
    )


def test_bfloat16_is_for_activations_only():
    model = models.build(
        "deeplabv2", num_classes=3, width=4, blocks=(1, 0, 0, 3), dtype=jnp.bfloat16
    )
    images = jax.ShapeDtypeStruct((1, 16, 24, 3), jnp.float32)
    variables = models.shapes(model)

    def run(variables, images):
        return model.apply(
            variables,
            images,
            train=True,
            capture_intermediates=True,
            mutable=["batch_stats", "intermediates"],
        )

    (logits,), state = jax.eval_shape(run, variables, images)
    assert logits.dtype == jnp.float32
    block = state["intermediates"]["layer4_0"]
    assert block["conv2"]["__call__"][0].dtype == jnp.bfloat16
    assert block["__call__"][0].dtype == jnp.bfloat16
    for tree in (variables, state["batch_stats"]):
        assert {x.dtype for x in jax.tree.leaves(tree)} == {jnp.dtype("float32")}


def test_options_are_checked():
    def build(**options):
        return models.build("deeplabv2", num_classes=3, **options)

    with pytest.raises(UserError, match="head 'aspp' is not one of proda, sum4, sum2"):
        build(head="aspp")
    with pytest.raises(UserError, match="stride_place 'c' is not one of caffe, torch"):
        build(stride_place="c")
    with pytest.raises(UserError, match="head 'proda' has no aux_heads"):
        build(aux_heads=True)
    with pytest.raises(UserError, match="no option 'activation'"):
        build(activation="relu")
    config = tiny_config("source", model__head="sum4")
    with pytest.raises(UserError, match="model 'bisenet' has no option 'head'"):
        startup.build_model(config)
    config = tiny_config("source", model__head="sum4", model__name="deeplabv2")
    assert startup.build_model(config).head == "sum4"
