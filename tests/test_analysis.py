"""Fig. 1's minima, per-class shares against a loop, and figures that are drawn."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import tiny_config
from tufl_jax import analysis
from tufl_jax import config as config_lib
from tufl_jax.errors import UserError


def test_minima_of_figure_1():
    curves = analysis.binary_curves()
    for name, place in (
        ("neutral", 0.824),
        ("focal 1", 0.666),
        ("focal 2", 0.605),
        ("focal 3", 0.603),
        ("difference 1", 0.919),
        ("difference 2", 0.979),
    ):
        assert abs(analysis.minimum(curves, name) - place) < 1e-3, name
    for name in ("argmax 1", "argmax 2"):  # nothing is neutralised
        assert analysis.minimum(curves, name) > 0.999
    p = curves["p"][0]
    shannon, slope = curves["Shannon"]
    np.testing.assert_allclose(shannon, -p * np.log(p) - (1 - p) * np.log1p(-p), 1e-4)
    np.testing.assert_allclose(slope, np.log1p(-p) - np.log(p), atol=1e-4)


def test_confidence_statistics_equal_a_loop():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (3, 4, 5, 3), dtype=np.uint8)
    table = rng.normal(size=(3, 4)).astype(np.float32)
    model = types.SimpleNamespace(apply=lambda v, x, train: (x @ jnp.asarray(table),))
    config = config_lib.base()
    config.model.normalization = "unit"
    config.thresholds.init = 0.4
    alpha = np.array([0.3, 0.5, 0.9, 0.2], np.float32)
    got = analysis.confidence_statistics(config, model, {}, alpha, images)
    p = np.asarray(jax.nn.softmax(images / np.float32(255) @ table))
    top, label = p.max(-1), p.argmax(-1)
    for c in range(4):
        own = top[label == c]
        assert got["pixels"][c] == len(own)
        if not len(own):
            assert np.isnan(got["confidence"][c])
            continue
        np.testing.assert_allclose(got["confidence"][c], own.mean(), rtol=1e-5)
        np.testing.assert_allclose(got["fixed"][c], (own > 0.4).mean(), rtol=1e-5)
        np.testing.assert_allclose(got["adaptive"][c], (own > alpha[c]).mean())


def test_thresholds_are_read_and_drawn(tmp_path):
    config = tiny_config("stage1")
    run = tmp_path / "run"
    run.mkdir()
    content = config_lib.as_json(config)
    (run / "config.json").write_text(json.dumps(content))
    assert config_lib.as_json(analysis.saved_config(run)) == content
    with pytest.raises(UserError, match="only stages 1 and 2"):
        analysis.trajectories(run)
    rows = [{"step": n, "threshold/road": 0.7, "threshold/sky": 0.9} for n in (1, 2)]
    lines = "".join(json.dumps(row) + "\n" for row in [{"step": 1, "loss": 1}, *rows])
    (run / "metrics.jsonl").write_text(lines)
    steps, values = analysis.trajectories(run)
    assert list(steps) == [1, 2] and list(values["sky"]) == [0.9, 0.9]
    arguments = ["--figure=thresholds", f"--workdir={run}"]
    assert analysis.main(arguments) == 0
    assert (run / "figures/thresholds.png").stat().st_size > 10_000


def test_a_figure_without_its_run_is_refused(capsys):
    assert analysis.main(["--figure=entropy"]) == 1
    assert "needs --workdir" in capsys.readouterr().err
    assert analysis.main(["--figure=confidence", "--workdir=nowhere"]) == 1
    assert "no config.json in nowhere" in capsys.readouterr().err
