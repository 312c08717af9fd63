"""The PyTorch steps of benchmarks/peer do the work of ours: same losses, gradients."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import blocks, tiny_config
from tufl_jax import augment, models, thresholds
from tufl_jax.models import pretrained
from tufl_jax.steps import common, stage2

torch = pytest.importorskip("torch")
networks = pytest.importorskip("benchmarks.peer.networks")
peer_losses = pytest.importorskip("benchmarks.peer.losses")
steps = pytest.importorskip("benchmarks.peer.steps")


def build(name, config, **options):
    """Our network with variables, and theirs with the same weights."""
    model = models.build(name, num_classes=19, width=8, **options)
    variables = models.init(model, jax.random.key(0))
    theirs = networks.NETWORKS[name](
        19, 8, **({"dropout": 0.0, **options} if name == "deeplabv2" else {})
    )
    networks.load(theirs, pretrained.to_torch(variables, model))
    return model, variables, steps.Step(theirs, config)


def nchw(images):
    return torch.from_numpy(np.moveaxis(np.asarray(images, np.float32), -1, 1).copy())


def test_stage_2_of_bisenet_has_our_loss_and_gradients(monkeypatch):
    config = tiny_config("stage2", augment__source=False)
    rng = np.random.default_rng(0)
    (images, labels), (mixed, mixed_labels) = blocks(rng, 2), blocks(rng, 2)
    weak, strong = (np.float32(blocks(rng, 2)[0]) for _ in range(2))
    theta = np.array(augment.random_affine(jax.random.split(jax.random.key(1), 2)))
    mask = mixed_labels % 2 == 0
    monkeypatch.setattr(stage2, "target_views", lambda *_: (weak, strong, theta))
    monkeypatch.setattr(stage2, "mix", lambda *_: (mixed, mixed_labels, mask))
    monkeypatch.setattr(stage2, "refresh_donors", lambda key, donors, batch: donors)
    monkeypatch.setattr(stage2, "pseudo_labels", lambda *_: (None, None))
    model, variables, theirs = build("bisenet", config)
    state = types.SimpleNamespace(
        step=jnp.int32(0),
        thresholds=thresholds.init(19, 0.07),
        batch_stats=variables["batch_stats"],
        teacher=None,
        donors=None,
    )
    keys = dict.fromkeys(("source", "target"), jax.random.split(jax.random.key(0), 2))
    keys["step"] = jax.random.key(0)
    batch = {"source_image": images, "source_label": labels, "target_image": weak}
    ctx = common.Context(config, model, axis_name=None)
    (loss, out), grads = jax.jit(
        jax.value_and_grad(
            lambda p: stage2.loss_fn(p, state, batch, keys, ctx), has_aux=True
        )
    )(variables["params"])
    views = steps.Views(
        *(nchw(images), torch.from_numpy(labels).long()),
        *(nchw(weak), networks.normalize(nchw(strong)), torch.from_numpy(theta)),
        *(nchw(mixed), torch.from_numpy(mixed_labels).long(), torch.from_numpy(mask)),
    )
    other = theirs.loss(views)
    other.backward()
    np.testing.assert_allclose(other.item(), loss, rtol=1e-5)
    np.testing.assert_allclose(theirs.alpha, out.thresholds, rtol=1e-5)
    wanted = pretrained.to_torch(
        {"params": grads, "batch_stats": out.batch_stats}, model
    )
    found = {k: p.grad for k, p in theirs.network.named_parameters()}
    found |= dict(theirs.network.named_buffers())
    for name, value in wanted.items():
        scale = np.abs(value).max()
        # Rounding moves single activations over the kink of a leaky ReLU.
        np.testing.assert_allclose(
            found[name], value, rtol=0, atol=5e-3 * scale + 1e-7, err_msg=name
        )


def test_source_step_of_deeplab_has_our_loss():
    config = tiny_config("source", augment__source=False)
    config.model.name = "deeplabv2"
    images, labels = blocks(np.random.default_rng(1), 2)
    model, variables, theirs = build("deeplabv2", config, blocks=(1, 1, 1, 1))
    ctx = common.Context(config, model, axis_name=None)

    @jax.jit
    def ours(params):
        state = types.SimpleNamespace(batch_stats=variables["batch_stats"])
        (heads,), _ = common.forward(ctx, params, state.batch_stats, [images * 1.0])
        return common.supervised_loss(ctx, heads, labels)

    other = theirs.loss(steps.Views(nchw(images), torch.from_numpy(labels).long()))
    np.testing.assert_allclose(other.item(), ours(variables["params"]), rtol=1e-5)


def test_both_threshold_updates_are_ours():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(2, 30, 40, 19)).astype(np.float32) * 3
    logits[..., 4] = -20  # a class without pixels
    valid = rng.random((2, 30, 40)) < 0.8
    wanted = thresholds.update(thresholds.init(19), logits, valid=valid)
    confidence, labels = peer_losses.predictions(nchw(logits))
    for update in (peer_losses.update_by_loop, peer_losses.update_vectorised):
        found = update(torch.full((19,), 0.8), confidence, labels, torch.tensor(valid))
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("update", ["loop", "vectorised"])
def test_a_whole_step_moves_the_network(update):
    config = tiny_config("stage2")
    theirs = networks.BiSeNet(19, 8)
    rng = np.random.default_rng(3)
    images, labels = blocks(rng, 2)
    bank_images, bank_labels = blocks(rng, 38)
    bank = {
        "image": nchw(bank_images).byte().unflatten(0, (19, 2)),
        "label": torch.from_numpy(bank_labels).unflatten(0, (19, 2)),
        "available": torch.ones(19, 2, dtype=torch.bool),
    }
    step = steps.Step(
        *(theirs, config),
        teacher=networks.BiSeNet(19, 8),
        bank=bank,
        update=update,
    )
    before = theirs.sp.conv1.conv.weight.detach().clone()
    batch = {"source_image": images, "source_label": labels, "target_image": images}
    batch |= {"donor_image": nchw(images[:1]).byte(), "donor_label": labels[:1]}
    batch["donor_class"] = np.array([3])
    assert torch.isfinite(step(step.put(batch)))
    assert not torch.equal(before, theirs.sp.conv1.conv.weight)
