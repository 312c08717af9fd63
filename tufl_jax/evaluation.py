"""The one evaluator: confusion counts over a labelled set at full label size."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from tufl_jax import augment, labels, metrics, ops
from tufl_jax.data import pipeline
from tufl_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Counts over a whole set.

    Attributes:
      confusion: i64[C, C], rows = ground truth.
      names: of the C classes.
      label_size: (height, width) of the labels, None when they differ.
    """

    confusion: np.ndarray
    names: tuple[str, ...]
    label_size: tuple[int, int] | None

    def as_json(self, *, step: int, checkpoint: str) -> dict:
        """The content of evaluation.json."""
        return {
            "step": step,
            **metrics.summary(self.confusion, self.names),
            "checkpoint": checkpoint,
            "label_size": self.label_size and list(self.label_size),
        }


class Evaluator:
    """Runs one network over labelled images; compiled once per image size.

    Args:
      config: the run's config.
      model: the network.
      source: a data source with labels.
    """

    def __init__(self, config: ConfigDict, model, source):
        self._config = config
        self._source = source
        self._mesh = Mesh(np.array(jax.local_devices()), ("data",))
        devices = len(jax.local_devices())
        self._batch_size = -(-config.eval.batch_size // devices) * devices
        self._predict = jax.jit(
            functools.partial(
                predict,
                model,
                mode=config.model.normalization,
                resize=config.eval.resize,
            ),
            static_argnames="label_size",
        )
        self._count = jax.jit(
            functools.partial(metrics.confusion_matrix, num_classes=config.num_classes)
        )

    def __call__(self, variables: dict) -> Evaluation:
        """Count the whole set.

        Args:
          variables: {'params', 'batch_stats'}.

        Raises:
          UserError: the set has no labelled pixel.
        """
        variables = self._put(variables, P())
        confusion = np.zeros((self._config.num_classes,) * 2, np.int64)
        sizes = set()
        indices = range(jax.process_index(), len(self._source), jax.process_count())
        for images, truth in self._batches(indices):
            sizes.add(truth.shape[1:])
            predictions, _ = self._predict(
                variables, self._put(images, P("data")), label_size=truth.shape[1:]
            )
            counts = self._count(predictions, self._put(truth, P("data")))
            confusion += jax.device_get(counts).astype(np.int64)
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            # Halves, because without x64 an int64 would be cut to 32 bits.
            halves = np.stack([confusion >> 24, confusion & 0xFFFFFF]).astype(np.int32)
            high, low = (
                multihost_utils.process_allgather(halves).astype(np.int64).sum(0)
            )
            confusion = (high << 24) + low
        if not confusion.any():
            raise UserError("no labelled pixel in the set of config.data.eval")
        names = labels.of_config(self._config).names
        return Evaluation(confusion, names, sizes.pop() if len(sizes) == 1 else None)

    def predictions(self, variables: dict, indices) -> list[dict]:
        """Host arrays for pictures: the item with 'prediction' and 'entropy'."""
        variables = self._put(variables, P())
        items = []
        for item in pipeline.read_ahead(self._source, indices, num_threads=2):
            batch = np.repeat(item["image"][None], len(jax.local_devices()), axis=0)
            size = item["label"].shape if "label" in item else item["image"].shape[:2]
            prediction, entropy = jax.device_get(
                self._predict(variables, self._put(batch, P("data")), label_size=size)
            )
            items.append({**item, "prediction": prediction[0], "entropy": entropy[0]})
        return items

    def _put(self, tree, spec: P):
        return jax.device_put(tree, NamedSharding(self._mesh, spec))

    def _batches(self, indices) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of equal image size; short ones are filled with ignored pixels."""
        batch: list[dict] = []
        threads = self._config.data.num_threads
        for item in pipeline.read_ahead(self._source, indices, num_threads=threads):
            if batch and _shapes(item) != _shapes(batch[0]):
                yield self._stack(batch)
                batch = []
            batch.append(item)
            if len(batch) == self._batch_size:
                yield self._stack(batch)
                batch = []
        if batch:
            yield self._stack(batch)

    def _stack(self, batch: list[dict]) -> tuple[np.ndarray, np.ndarray]:
        missing = self._batch_size - len(batch)
        images = [item["image"] for item in batch] + [batch[0]["image"]] * missing
        ignored = np.full_like(batch[0]["label"], labels.IGNORE)
        truth = [item["label"] for item in batch] + [ignored] * missing
        return np.stack(images), np.stack(truth)


def _shapes(item: dict) -> tuple:
    return item["image"].shape, item["label"].shape


def predict(model, variables, images, *, label_size, mode, resize):
    """Class and normalised entropy at label size.

    Args:
      model: the network.
      variables: its variables.
      images: u8[B, H, W, 3].
      label_size: (h, w) of the output.
      mode: input convention, see augment.normalize.
      resize: (height, width) of the network's input, or None for the image's own.

    Returns:
      u8[B, h, w] and f32[B, h, w] in [0, 1].
    """
    images = images.astype(jnp.float32)
    if resize is not None:
        images = ops.resize_bilinear(images, tuple(resize))
    logits = model.apply(variables, augment.normalize(images, mode=mode), train=False)[
        0
    ]
    log_p = jax.nn.log_softmax(ops.resize_bilinear(logits, label_size))
    entropy = -jnp.sum(jnp.exp(log_p) * log_p, -1) / jnp.log(log_p.shape[-1])
    return jnp.argmax(log_p, -1).astype(jnp.uint8), entropy


def write_json(path: pathlib.Path, content: dict) -> None:
    """Write JSON so that the file is whole or absent."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())  # whole or absent after a power cut, too
    os.replace(temporary, path)
