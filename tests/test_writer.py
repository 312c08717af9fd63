"""Run logs: exact rows, rewinding after a kill, and event files read back."""

import io
import json
import logging as python_logging
import os
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

from tufl_jax import writer
from tufl_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_steps(log, steps):
    """What a training writes: numbers that are a function of the step."""
    for step in steps:
        loss = jnp.float32(1.0) / jnp.float32(step + 3)
        log.write_scalars(step, {"loss": loss, "lr": 1e-4 / (step + 1)}, {"img/s": 9.5})


def events_of(workdir):
    accumulator = EventAccumulator(
        str(workdir / "tensorboard"), size_guidance={"tensors": 0}
    )
    accumulator.Reload()
    return accumulator


def scalar_series(accumulator, tag):
    return {
        event.step: float(tensor_util.make_ndarray(event.tensor_proto))
        for event in accumulator.Tensors(tag)
    }


def test_rows_have_sorted_keys_and_read_back_exactly(tmp_path):
    values = {
        "z": 0.1,
        "third": np.float32(1 / 3),
        "a": jnp.float32(1e-30),
        "count": np.int64(2**60 + 1),
        "half": jnp.bfloat16(0.5),
        "flag": True,
        "one": np.array([2.5]),
    }
    with writer.Writer(tmp_path) as log:
        log.write_scalars(np.int64(7), values)
    text = (tmp_path / "metrics.jsonl").read_text()
    row = json.loads(text)
    assert text.count("\n") == 1 and list(row) == sorted(row)
    assert row["step"] == 7 and row["z"] == 0.1 and row["count"] == 2**60 + 1
    assert np.float32(row["third"]) == np.float32(1 / 3)
    assert np.float32(row["a"]) == np.float32(1e-30)
    assert row["half"] == 0.5 and row["flag"] is True and row["one"] == 2.5
    assert not (tmp_path / "performance.jsonl").exists()


def test_what_json_cannot_hold_becomes_null(tmp_path):
    with writer.Writer(tmp_path) as log:
        log.write_scalars(1, {"a": np.nan, "b": jnp.inf, "c": None, "d": 1.0})
    assert rows(tmp_path / "metrics.jsonl") == [
        {"a": None, "b": None, "c": None, "d": 1.0, "step": 1}
    ]


@pytest.mark.parametrize("value", [np.zeros(2), "text", np.zeros(0), 1j])
def test_a_scalar_that_is_not_one_number_is_named(tmp_path, value):
    with writer.Writer(tmp_path) as log:
        with pytest.raises(ValueError, match="'loss' must be one number"):
            log.write_scalars(1, {"loss": value})


def test_a_scalar_called_step_is_refused(tmp_path):
    with writer.Writer(tmp_path) as log:
        with pytest.raises(ValueError, match="'step'"):
            log.write_scalars(1, {"step": 3})


def test_device_values_pass_a_transfer_guard(tmp_path):
    loss = jax.jit(lambda: jnp.float32(2.0))()
    with writer.Writer(tmp_path) as log, jax.transfer_guard("disallow"):
        log.write_scalars(1, {"loss": loss})
    assert rows(tmp_path / "metrics.jsonl")[0]["loss"] == 2.0


def test_performance_is_kept_apart(tmp_path):
    with writer.Writer(tmp_path) as log:
        log.write_scalars(5, {"loss": 1.0}, {"images_per_second": 12.5})
    assert rows(tmp_path / "metrics.jsonl") == [{"loss": 1.0, "step": 5}]
    (row,) = rows(tmp_path / "performance.jsonl")
    assert row["images_per_second"] == 12.5 and row["step"] == 5
    assert abs(row["wall_time"] - time.time()) < 60


def test_rows_are_in_the_file_before_any_flush(tmp_path):
    log = writer.Writer(tmp_path)
    write_steps(log, [1, 2])
    assert len(rows(tmp_path / "metrics.jsonl")) == 2
    log.close()


@pytest.mark.parametrize("torn", [b"", b'{"loss": 0.12', b"\0\0\0", b'{"loss": 1}\n'])
def test_killed_and_resumed_run_has_the_same_bytes(tmp_path, torn):
    with writer.Writer(tmp_path / "whole") as log:
        write_steps(log, range(0, 60, 10))
    with writer.Writer(tmp_path / "killed") as log:
        write_steps(log, range(0, 50, 10))
    path = tmp_path / "killed" / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + torn)
    with writer.Writer(tmp_path / "killed") as log:
        log.rewind(20)
        write_steps(log, range(30, 60, 10))
    assert path.read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    performance = rows(tmp_path / "killed" / "performance.jsonl")
    assert [row["step"] for row in performance] == list(range(0, 60, 10))
    leftovers = {p.name for p in (tmp_path / "killed").iterdir()}
    assert leftovers == {"metrics.jsonl", "performance.jsonl", "tensorboard"}


def test_half_a_line_does_not_spoil_the_next_row_without_rewinding(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"loss": 2.0, "step": 1}\n{"los')
    with writer.Writer(tmp_path) as log:
        log.write_scalars(2, {"loss": 1.0})
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == [1, 2]


def test_last_row_that_only_lacks_its_newline_is_kept(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"loss": 2.0, "step": 1}')
    with writer.Writer(tmp_path) as log:
        log.rewind(1)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"loss": 2.0, "step": 1}\n'


def test_rewinding_to_before_the_start_empties_the_files(tmp_path):
    with writer.Writer(tmp_path) as log:
        write_steps(log, [0, 1])
    with writer.Writer(tmp_path) as log:
        log.rewind(-1)
        write_steps(log, [0])
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == [0]


def test_a_failed_replacement_leaves_the_old_file(tmp_path, monkeypatch):
    with writer.Writer(tmp_path) as log:
        write_steps(log, [1, 2])
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def fail(*_):
        raise OSError("disk full")

    with writer.Writer(tmp_path) as log:
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(OSError, match="disk full"):
                log.rewind(1)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_just_logging_writes_no_file_but_logs(tmp_path, caplog):
    caplog.set_level(python_logging.INFO, logger="absl")
    with writer.Writer(tmp_path / "run", just_logging=True) as log:
        log.rewind(3)
        log.write_scalars(4, {"loss": 0.25}, {"images_per_second": 2.0})
        log.write_images(4, {"x": np.zeros((1, 2, 2, 3), np.uint8)})
        log.write_hparams({"a": 1})
        log.write_texts(4, {"t": "text"})
        log.flush()
    assert not (tmp_path / "run").exists()
    assert (
        "loss=0.25" in caplog.text and "performance/images_per_second=2" in caplog.text
    )


def test_event_files_read_back(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3)).astype(np.uint8)
    with writer.Writer(tmp_path) as log:
        log.write_hparams({"lr": 1e-4, "name": "x", "size": (1, 2), "on": True})
        write_steps(log, [10, 20])
        log.write_images(20, {"pictures": image, "one": image[0, ..., :1] / 255})
        log.write_texts(20, {"table": "| a |"})
    accumulator = events_of(tmp_path)
    loss = scalar_series(accumulator, "loss")
    assert loss == {s: float(np.float32(1) / np.float32(s + 3)) for s in (10, 20)}
    assert scalar_series(accumulator, "performance/img/s") == {10: 9.5, 20: 9.5}

    def read(tag):
        (event,) = accumulator.Tensors(tag)
        return tensor_util.make_ndarray(event.tensor_proto)

    assert read("table")[0] == b"| a |"
    width, height, *encoded = read("pictures")
    assert (width, height, len(encoded)) == (b"6", b"4", 2)
    for array, png in zip(image, encoded, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), array)
    grey = np.asarray(Image.open(io.BytesIO(read("one")[2])))
    np.testing.assert_array_equal(grey, image[0, ..., 0])
    content = accumulator.SummaryMetadata(
        "_hparams_/session_start_info"
    ).plugin_data.content
    hparams = plugin_data_pb2.HParamsPluginData.FromString(content)
    hparams = hparams.session_start_info.hparams
    assert hparams["lr"].number_value == 1e-4 and hparams["on"].bool_value
    assert hparams["name"].string_value == "x"
    assert hparams["size"].string_value == "(1, 2)"


def test_histograms_count_the_finite_values(tmp_path):
    events = writer.SummaryWriter(tmp_path / "tensorboard")
    events.write_histograms(
        1, {"a": np.array([0.0, 1, 1, np.nan]), "none": []}, num_buckets={"a": 2}
    )
    events.close()
    accumulator = events_of(tmp_path)
    table = tensor_util.make_ndarray(accumulator.Tensors("a")[0].tensor_proto)
    np.testing.assert_array_equal(table, [[0, 0.5, 1], [0.5, 1, 2]])
    assert len(accumulator.Tensors("none")) == 1


def test_tensorboard_forgets_what_was_rewound(tmp_path):
    with writer.Writer(tmp_path) as log:
        log.write_hparams({"lr": 1.0})
        write_steps(log, [10, 20, 30])
    time.sleep(1.1)  # event files are ordered by the second in their names
    with writer.Writer(tmp_path) as log:
        log.rewind(10)
        log.write_scalars(20, {"loss": 9.0})
    # The accumulator of TensorBoard's server: it honours restarts.
    accumulator = plugin_event_accumulator.EventAccumulator(
        str(tmp_path / "tensorboard"), tensor_size_guidance={"scalars": 0}
    )
    accumulator.Reload()
    assert [event.step for event in accumulator.Tensors("loss")] == [10, 20]
    assert scalar_series(accumulator, "loss")[20] == 9.0


def test_images_of_another_shape_are_refused(tmp_path):
    with writer.Writer(tmp_path) as log:
        with pytest.raises(ValueError, match="expected"):
            log.write_images(1, {"x": np.zeros((4, 4, 2), np.uint8)})


def test_clu_writers_work_with_our_summary_writer(tmp_path):
    writer.install()
    from clu import metric_writers, periodic_actions

    assert metric_writers.SummaryWriter is writer.SummaryWriter
    log = metric_writers.create_default_writer(str(tmp_path / "tensorboard"))
    report = periodic_actions.ReportProgress(
        num_train_steps=4, every_steps=2, every_secs=None, writer=log
    )
    for step in range(1, 5):
        report(step)
        log.write_scalars(step, {"loss": float(step)})
    log.flush()
    log.close()
    assert scalar_series(events_of(tmp_path), "loss") == {1: 1, 2: 2, 3: 3, 4: 4}


QUIET = """
import sys
from tufl_jax import writer
log = writer.Writer(sys.argv[1])
log.write_scalars(1, {"a": 1.0})
log.write_hparams({"a": 1})
log.close()
assert "tensorflow" not in sys.modules
"""


def test_an_installed_tensorflow_stays_untouched_and_nothing_is_printed(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('imported tensorflow')")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-c", QUIET, str(tmp_path / "run")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""
    assert rows(tmp_path / "run" / "metrics.jsonl") == [{"a": 1.0, "step": 1}]


@pytest.mark.parametrize(
    "missing, package",
    [
        ("tensorboard.summary.writer.event_file_writer", "tensorboard"),
        ("clu.metric_writers", "clu"),
    ],
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, missing, package):
    writer.install()
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=f"pip install {package}"):
        writer.Writer(tmp_path)
