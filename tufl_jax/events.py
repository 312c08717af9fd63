"""TensorBoard event files without TensorFlow, for clu's writers.

`clu.metric_writers` needs TensorFlow for one class only, `SummaryWriter`. `install`
puts the one of this file, which needs the `tensorboard` package alone, in its place.
"""

import importlib
import io
import os
import sys
import time
import types
from collections.abc import Mapping

import numpy as np
from PIL import Image

from tufl_jax.errors import UserError


def install() -> None:
    """Makes `from clu import metric_writers, periodic_actions` work without TensorFlow.

    Call it before the first of these imports; further calls do nothing. It also keeps
    `tensorboard` from importing an installed TensorFlow, which takes seconds and prints
    warnings, for the sake of opening a file.

    Raises:
        UserError: clu or tensorboard is not installed.
    """
    summary_writer = types.ModuleType("clu.metric_writers.summary_writer")
    summary_writer.SummaryWriter = SummaryWriter
    sys.modules.setdefault(summary_writer.__name__, summary_writer)
    no_tensorflow = types.ModuleType("tensorboard.compat.notf")
    sys.modules.setdefault(no_tensorflow.__name__, no_tensorflow)
    for module in (
        "tensorboard.summary.writer.event_file_writer",
        "clu.metric_writers",
    ):
        try:
            importlib.import_module(module)
        except ImportError as error:
            package = module.partition(".")[0]
            raise UserError(
                f"run logs need the package '{package}', which does not import "
                f"({error}); install it with: pip install {package}"
            ) from error


class SummaryWriter:
    """TensorBoard event files behind the methods of clu's MetricWriter.

    Scalars, images, texts, histograms and hyper-parameters; other kinds of clu's
    interface (audio, point clouds, raw summaries) are not offered.
    """

    def __init__(self, logdir: str | os.PathLike):
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._events = EventFileWriter(os.fspath(logdir))

    def _add(self, step, **content):
        from tensorboard.compat.proto import event_pb2

        event = event_pb2.Event(wall_time=time.time(), step=step, **content)
        self._events.add_event(event)

    def _add_tensors(self, step, plugin, tensors):
        """Writes {tag: array} as values of one of TensorBoard's plugins."""
        from tensorboard.compat.proto import summary_pb2
        from tensorboard.util import tensor_util

        data_class, content = _plugin_metadata(plugin)
        values = []
        for tag, array in tensors.items():
            metadata = summary_pb2.SummaryMetadata(data_class=data_class)
            metadata.plugin_data.plugin_name = plugin
            metadata.plugin_data.content = content
            tensor = tensor_util.make_tensor_proto(array)
            values.append(
                summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
            )
        self._add(step, summary=summary_pb2.Summary(value=values))

    def write_scalars(self, step: int, scalars: Mapping):
        """Writes one number per tag, as float32."""
        arrays = {tag: np.float32(value) for tag, value in scalars.items()}
        self._add_tensors(step, "scalars", arrays)

    def write_images(self, step: int, images: Mapping):
        """Writes [N, H, W, 1 or 3] or [H, W, 1 or 3] images, u8 or floats in 0..1."""
        self._add_tensors(
            step, "images", {tag: _encode(image) for tag, image in images.items()}
        )

    def write_texts(self, step: int, texts: Mapping[str, str]):
        """Writes texts; TensorBoard renders Markdown."""
        arrays = {t: np.array([text.encode()], object) for t, text in texts.items()}
        self._add_tensors(step, "text", arrays)

    def write_histograms(self, step: int, arrays: Mapping, num_buckets=None):
        """Writes histograms of the finite values, {tag: buckets} in `num_buckets`."""
        tensors = {}
        for tag, array in arrays.items():
            values = np.asarray(array, np.float64).ravel()
            counts, edges = np.histogram(
                values[np.isfinite(values)], bins=(num_buckets or {}).get(tag) or 30
            )
            tensors[tag] = np.stack([edges[:-1], edges[1:], counts], axis=1)
        self._add_tensors(step, "histograms", tensors)

    def write_hparams(self, hparams: Mapping):
        """Writes a flat dictionary; values that are not plain are written as text."""
        from tensorboard.plugins.hparams import summary_v2

        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in hparams.items()
        }
        self._add(0, summary=summary_v2.hparams_pb(plain))

    def restart(self, step: int):
        """Tells TensorBoard to forget the events from `step` on of an earlier file."""
        from tensorboard.compat.proto import event_pb2

        # TensorBoard takes the first start mark it meets for the beginning of the run,
        # and only a further one for a restart: two, in case earlier files have none.
        for _ in range(2):
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(step, session_log=start)

    def flush(self):
        self._events.flush()

    def close(self):
        self._events.close()


def _plugin_metadata(plugin):
    """(data class, content) that TensorBoard expects with a plugin's values."""
    from tensorboard.compat.proto import summary_pb2

    package = {"scalars": "scalar", "images": "image", "histograms": "histogram"}
    metadata = importlib.import_module(
        f"tensorboard.plugins.{package.get(plugin, plugin)}.metadata"
    )
    data_class = {
        "scalars": summary_pb2.DATA_CLASS_SCALAR,
        "images": summary_pb2.DATA_CLASS_BLOB_SEQUENCE,
    }.get(plugin, summary_pb2.DATA_CLASS_TENSOR)
    return data_class, metadata.create_summary_metadata("", "").plugin_data.content


def _encode(images):
    """[N, H, W, C] or [H, W, C] -> object array [width, height, png, png, ...]."""
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"images of shape {images.shape}: expected [N, H, W, 1 or 3]")
    if images.dtype != np.uint8:
        images = np.round(np.clip(images, 0.0, 1.0) * 255).astype(np.uint8)
    height, width = images.shape[1:3]
    encoded = [str(width).encode(), str(height).encode()]
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(
            file, "PNG"
        )
        encoded.append(file.getvalue())
    return np.array(encoded, object)
