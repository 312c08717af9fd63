"""The real stages, with the released options, against recorded steps of the release.

The network is replaced by stored logits, which are its parameters here, and the random
warp and mixture by the stored ones; everything else is what a training runs.
"""

import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import tiny_config
from tufl_jax import ops, presets, steps
from tufl_jax.steps import common, stage1, stage2

GOLDEN = pathlib.Path(__file__).parent / "golden"
FILES = sorted(path.stem for path in GOLDEN.glob("step_*.npz"))
HEIGHT, WIDTH = 9, 14


class Recorded:
    """A network whose parameters are its logits [head, stream, H, W, C]."""

    @staticmethod
    def apply(variables, images, *, train, keys=None):
        """The stored streams, or those of the teacher, which are one image."""
        del train, keys
        return tuple(variables["params"][:, : len(images)])


def released_config(name, d):
    """The released preset with the settings of one file."""
    config = tiny_config("stage2" if "stage2" in name else "stage1")
    config.num_classes = d["logits"].shape[-1]
    presets.released(config)
    config.loss.class_weights = tuple(map(float, d["class_weight"]))
    config.loss.lambda_u = float(d["lambda_u"])
    config.loss.lambda_m = float(d["lambda_m"])
    config.thresholds.init = 0.8
    config.augment.source = False
    if "adapt" not in name:
        config.loss.threshold = "fixed"
    if "neutral" in name:
        config.loss.unsupervised = "neutral"
    elif "fixed" in name:
        config.loss.modulation = "difference"
    return config


def fake_inputs(config, d, k, monkeypatch):
    """The context, state and batch of one step; the draws are the recorded ones."""
    images = jnp.zeros((1, HEIGHT, WIDTH, 3))
    views = images, images, d["theta"][k]
    for stage in (stage1, stage2):
        monkeypatch.setattr(stage, "target_views", lambda *_: views)
    monkeypatch.setattr(stage2, "refresh_donors", lambda key, donors, batch: donors)
    if config.stage == "stage2":
        mixed = images, d["mix_labels"][k], jnp.zeros(images.shape[:3], bool)
        monkeypatch.setattr(stage2, "mix", lambda *_: mixed)
        monkeypatch.setattr(stage2, "pixel_weights", lambda *_: d["mix_weight"][k])
    ctx = common.Context(config, Recorded(), axis_name=None)
    batch = {"source_image": images, "source_label": d["labels"][k]}
    batch["target_image"] = images
    return ctx, batch


@pytest.mark.parametrize("name", FILES)
def test_recorded_steps(name, monkeypatch):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        d = dict(arrays)
    config = released_config(name, d)
    alpha = np.full(config.num_classes, 0.8, np.float32)
    keys = dict.fromkeys(("source", "target"), jax.random.split(jax.random.key(0), 1))
    keys["step"] = jax.random.key(0)
    for k, logits in enumerate(d["logits"]):
        ctx, batch = fake_inputs(config, d, k, monkeypatch)
        state = types.SimpleNamespace(
            step=jnp.int32(k),
            thresholds=alpha,
            batch_stats={},
            teacher={"params": logits[:, 1:2]},
            donors=None,
        )
        loss_fn = steps.STAGES[config.stage].loss_fn
        step = jax.jit(
            jax.value_and_grad(
                lambda z, s=state, b=batch, c=ctx, f=loss_fn: f(z, s, b, keys, c),
                has_aux=True,
            )
        )
        (loss, out), gradient = jax.device_get(step(logits))
        want = {
            "loss": d["loss"][k],
            "loss_source": d["loss_sup"][k],
            "loss_unsupervised": d["loss_unsup"][k],
        }
        if "loss_mix" in d:
            want["loss_mix"] = d["loss_mix"][k]
        for key, value in want.items():
            np.testing.assert_allclose(out.metrics[key], value, rtol=2e-5, err_msg=key)
        np.testing.assert_allclose(loss, d["loss"][k], rtol=2e-5)
        floor = 1e-5 * np.abs(d["grad"][k]).max()
        np.testing.assert_allclose(gradient, d["grad"][k], rtol=1e-3, atol=floor)
        if "adapt" in name:
            aligned = [ops.affine_warp(head[1:2], d["theta"][k]) for head in logits]
            everything = jnp.ones((1, HEIGHT, WIDTH), bool)
            again, masks = common.class_masks(ctx, state, aligned, everything)
            kept = [np.mean(mask) for mask in masks]
            np.testing.assert_allclose(kept, d["adapt_ratio"][k], rtol=1e-6)
            np.testing.assert_allclose(again, out.thresholds, rtol=1e-6)
            alpha = out.thresholds
            np.testing.assert_allclose(alpha, d["cls_thresh_after"][k], rtol=5e-6)
