"""Fourier domain adaptation against its published steps in NumPy, and in the step."""

import jax
import numpy as np
import pytest

from tests.tiny import tiny_config
from tufl_jax import config as config_lib
from tufl_jax import fourier, startup, validation
from tufl_jax.errors import UserError
from tufl_jax.steps.common import Context, adapt_source


def images(count, size=(24, 37), seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 4, 4, 3))
    rows, columns = (np.arange(side) * 4 // side for side in size)
    fine = rng.normal(0, 10, (count, *size, 3))
    return np.clip(coarse[:, rows][:, :, columns] + fine, 0, 255).astype(np.float32)


def published(source, target, beta):
    """One image [H, W, C]: shifted spectra, a square around the centre, no clipping."""
    result = np.zeros(source.shape)
    height, width, channels = source.shape
    reach = int(np.floor(min(height, width) * beta))
    for c in range(channels):
        ours, theirs = (
            np.fft.fftshift(np.fft.fft2(x[..., c].astype(np.float64)))
            for x in (source, target)
        )
        amplitude, phase = np.abs(ours), np.angle(ours)
        y, x = height // 2, width // 2
        square = np.s_[y - reach : y + reach + 1, x - reach : x + reach + 1]
        amplitude[square] = np.abs(theirs)[square]
        mixed = np.fft.ifftshift(amplitude * np.exp(1j * phase))
        result[..., c] = np.real(np.fft.ifft2(mixed))
    return result


@pytest.mark.parametrize("size", [(24, 37), (25, 36), (16, 16)])
@pytest.mark.parametrize("beta", [1e-6, 0.05, 0.09, 0.2])
def test_published_steps(size, beta):
    source, target = images(1, size)[0], images(1, size, seed=1)[0]
    expected = published(source, target, beta)
    found = fourier.adapt(source, target, beta=beta)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    jitted = jax.jit(fourier.adapt, static_argnames="beta")(source, target, beta=beta)
    np.testing.assert_allclose(jitted, found, atol=2e-3)


def test_edges():
    source, target = images(2), images(2, seed=1)
    batch = fourier.adapt(source, target, beta=0.1)
    for i in range(2):
        one = fourier.adapt(source[i], target[i], beta=0.1)
        np.testing.assert_allclose(batch[i], one, atol=1e-3)
    same = fourier.adapt(source, source, beta=0.3)
    np.testing.assert_allclose(same, source, atol=1e-3)
    mean = fourier.adapt(source, target, beta=0.001).mean((1, 2))
    np.testing.assert_allclose(mean, target.mean((1, 2)), rtol=1e-5)
    black = np.zeros_like(source)
    assert np.isfinite(fourier.adapt(black, target, beta=0.1)).all()
    assert np.isfinite(fourier.adapt(source, black, beta=0.1)).all()


def test_a_step_adapts_source_images_and_any_split_pairs_them_alike():
    config = tiny_config("source", augment__fourier=0.1)
    ctx = Context(config, None)
    batch = {
        "source_image": np.uint8(images(4)),
        "source_label": np.zeros((4, 24, 37), np.uint8),
        "target_image": np.uint8(images(2, seed=1)),
    }
    whole = adapt_source(ctx, batch)
    for i in range(4):
        pair = batch["source_image"][i], batch["target_image"][i // 2]
        expected = published(*pair, 0.1)
        np.testing.assert_allclose(whole["source_image"][i], expected, atol=2e-3)
    for part in range(2):
        mine = {
            "source_image": batch["source_image"][2 * part : 2 * part + 2],
            "target_image": batch["target_image"][part : part + 1],
        }
        found = adapt_source(ctx, mine)["source_image"]
        np.testing.assert_allclose(
            found, whole["source_image"][2 * part : 2 * part + 2], atol=1e-3
        )
    config.augment.fourier = 0.0
    assert adapt_source(ctx, batch) is batch


def test_a_source_training_reads_target_images_for_it_only():
    config = tiny_config("source")
    assert config_lib.domains(config) == ("source",)
    config.augment.fourier = 0.01
    assert config_lib.domains(config) == ("source", "target")
    data = startup.open_data(config)
    assert set(data) == {"source", "target", "eval"}
    batches = startup.open_batches(config, data, None, 0)
    assert set(next(batches)) == {"source_image", "source_label", "target_image"}
    batches.close()
    config.data.target.crop = (32, 64)
    with pytest.raises(UserError, match="config.data.target.crop"):
        validation.validate(config)
    config.augment.fourier = 0.6
    with pytest.raises(UserError, match="config.augment.fourier: 0.6 not in"):
        validation.validate(config)
