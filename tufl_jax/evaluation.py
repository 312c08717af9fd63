"""The one evaluator: confusion counts over a labelled set at full label size."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from tufl_jax import checkpoint, labels, metrics, pictures
from tufl_jax import config as config_lib
from tufl_jax.data import pipeline
from tufl_jax.errors import UserError
from tufl_jax.inference import Predictor
from tufl_jax.journal import Journal


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Counts over a whole set.

    Attributes:
      confusion: i64[T, T] over the classes of the ground truth, rows = ground truth.
      class_names: of the network.
      label_size: (height, width) of the labels, None when they differ.
    """

    confusion: np.ndarray
    class_names: tuple[str, ...]
    label_size: tuple[int, int] | None

    def as_json(self, *, step: int, checkpoint: str) -> dict:
        """The content of evaluation.json."""
        return {
            "step": step,
            **self._summary(),
            "checkpoint": checkpoint,
            "label_size": self.label_size and list(self.label_size),
        }

    def headline(self) -> str:
        """The result in a few words."""
        return f"mIoU {100 * self._summary()['miou']:.1f}"

    def scalars(self) -> dict[str, float]:
        """What the logs show."""
        summary = self._summary()
        keys = ("miou_16", "miou_13", *metrics.MEANS)
        means = {key: summary[key] for key in keys if key in summary}
        known = {k: v for k, v in summary["iou"].items() if v is not None}
        return means | {f"iou/{name}": value for name, value in known.items()}

    def best(self, log: pathlib.Path, step: int) -> dict:
        """{'best': `best_step`} of the run with this metrics.jsonl and last step."""
        last = {"step": step, "miou": self._summary()["miou"]}
        return {"best": best_step(log, last)}

    def _summary(self) -> dict:
        return metrics.summary(self.confusion, self.class_names)


class Evaluator:
    """Runs one network over the images of a source.

    Args:
      config: the run's config.
      model: the network.
      source: a data source with labels of `labels.ground_truth_of_config`, or without.
    """

    def __init__(self, config: ConfigDict, model, source):
        self._config = config
        self._source = source
        self._classes = labels.of_config(config)
        truth = labels.ground_truth_of_config(config)
        self._num_truth = len(truth)
        # Class index of the network -> of the ground truth.
        self._to_truth = np.array([truth.names.index(n) for n in self._classes.names])
        self._predict = Predictor(config, model)
        self._count = jax.jit(functools.partial(_count, num_classes=self._num_truth))

    def __call__(
        self,
        variables: dict,
        *,
        journal: Journal | None = None,
        keep: Callable[[str, np.ndarray], None] | None = None,
    ) -> Evaluation:
        """Count the whole set.

        Args:
          variables: {'params', 'batch_stats'}.
          journal: results of an earlier start, which are not computed again; each new
            one is added when its image is finished.
          keep: called with the name and the class indices u8[H, W] of every image
            that is predicted.

        Raises:
          UserError: the set has no labelled pixel.
        """
        confusion = np.zeros((self._num_truth,) * 2, np.int64)
        sizes = set()
        for entry in self._results(variables, journal, keep):
            confusion += np.array(entry["counts"], np.int64)
            sizes.add(tuple(entry["size"]))
        confusion = _sum_over_processes(confusion)
        if not confusion.any():
            raise UserError(
                "no labelled pixel in the set of config.data.eval: look at its labels "
                "with python -m tufl_jax.check_data, or export without them"
            )
        names = self._classes.names
        return Evaluation(confusion, names, sizes.pop() if len(sizes) == 1 else None)

    def export(self, variables: dict, *, journal: Journal, keep: Callable) -> None:
        """Predict a set without labels; arguments as for calling the evaluator."""
        for _ in self._results(variables, journal, keep):
            pass

    def fingerprint(self, variables: dict) -> str:
        """Changes with whatever the results depend on."""
        settings = config_lib.as_json(self._config)
        parts = (
            checkpoint.digest(variables),
            {key: settings[key] for key in ("eval", "model", "num_classes", "classes")},
            self._source.fingerprint(),
            jax.default_backend(),
            jax.process_count(),
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def predictions(self, variables: dict, indices) -> list[dict]:
        """Host arrays for pictures: the item with 'prediction' and 'entropy'."""
        variables = self._predict.replicate(variables)
        items = []
        for item in pipeline.read_ahead(self._source, indices, num_threads=2):
            batch = np.repeat(item["image"][None], len(jax.local_devices()), axis=0)
            size = item["image"].shape[:2]
            prediction, entropy = np.zeros(size, np.uint8), np.zeros(size, np.float32)
            for tile in self._predict(variables, batch):
                _paste(prediction, tile, jax.device_get(tile.prediction[0]))
                scores = jax.device_get(tile.probabilities[0])
                unsure = pictures.entropy(scores, probabilities=True)
                _paste(entropy, tile, unsure)
            items.append({**item, "prediction": prediction, "entropy": entropy})
        return items

    def _results(self, variables, journal, keep) -> Iterator[dict]:
        """{'size': [H, W], 'counts': [T][T] if labelled} of every image."""
        done = journal.entries if journal else {}
        yield from list(done.values())
        variables = self._predict.replicate(jax.device_get(variables))
        mine = range(jax.process_index(), len(self._source), jax.process_count())
        indices = [i for i in mine if i not in done]
        finished = len(done)
        with concurrent.futures.ThreadPoolExecutor(
            self._config.data.num_threads
        ) as pool:
            for numbers, items in self._batches(indices):
                counts, predictions = self._judge(variables, items, keep is not None)
                if keep:
                    names = [item["name"] for item in items]
                    list(pool.map(keep, names, predictions[: len(items)]))
                for row, (index, item) in enumerate(zip(numbers, items, strict=True)):
                    entry = {"size": list(item["image"].shape[:2])}
                    if counts is not None:
                        entry["counts"] = counts[row].tolist()
                    if journal:
                        journal.add(index, entry)
                    yield entry
                finished += len(items)
                logging.log_every_n_seconds(
                    logging.INFO, "%d of %d images", 10, finished, len(mine)
                )

    def _judge(self, variables, items: list[dict], wanted: bool):
        """Counts i64[B, T, T] if labelled, classes u8[B, H, W] if wanted."""
        images = self._stack([item["image"] for item in items])
        truth = counts = predictions = None
        if "label" in items[0]:
            truth = self._stack([item["label"] for item in items])
            counts = np.zeros((len(images), self._num_truth, self._num_truth), np.int64)
        if wanted:
            predictions = np.zeros(images.shape[:3], np.uint8)
        for tile in self._predict(variables, images):
            if truth is not None:
                part = np.full(tile.prediction.shape, labels.IGNORE, np.uint8)
                inside = truth[:, tile.rows, tile.columns]
                part[:, : inside.shape[1], : inside.shape[2]] = inside
                part = self._predict.put(part)
                counts += jax.device_get(
                    self._count(tile.prediction, part, self._to_truth)
                )
            if wanted:
                _paste(predictions, tile, jax.device_get(tile.prediction))
        return counts, predictions

    def _batches(self, indices) -> Iterator[tuple[list[int], list[dict]]]:
        """Items of equal size with their indices."""
        numbers, batch = [], []
        threads = self._config.data.num_threads
        items = pipeline.read_ahead(self._source, indices, num_threads=threads)
        for index, item in zip(indices, items, strict=True):
            if batch and item["image"].shape != batch[0]["image"].shape:
                yield numbers, batch
                numbers, batch = [], []
            numbers.append(index)
            batch.append(item)
            if len(batch) == self._predict.batch_size:
                yield numbers, batch
                numbers, batch = [], []
        if batch:
            yield numbers, batch

    def _stack(self, arrays: list[np.ndarray]) -> np.ndarray:
        """A full batch; a short one repeats its first array."""
        missing = self._predict.batch_size - len(arrays)
        return np.stack(arrays + arrays[:1] * missing)


def _count(prediction, truth, to_truth, *, num_classes):
    """i32[B, T, T] of u8[B, h, w] each."""
    count = functools.partial(metrics.confusion_matrix, num_classes=num_classes)
    return jax.vmap(count)(jnp.take(to_truth, prediction), truth)


def _paste(whole: np.ndarray, tile, part: np.ndarray) -> None:
    """Put [..., h, w] of a tile into [..., H, W]."""
    target = whole[..., tile.rows, tile.columns]
    target[...] = part[..., : target.shape[-2], : target.shape[-1]]


def _sum_over_processes(confusion: np.ndarray) -> np.ndarray:
    if jax.process_count() == 1:
        return confusion
    from jax.experimental import multihost_utils

    # Halves, because without x64 an int64 would be cut to 32 bits.
    halves = np.stack([confusion >> 24, confusion & 0xFFFFFF]).astype(np.int32)
    high, low = multihost_utils.process_allgather(halves).astype(np.int64).sum(0)
    return (high << 24) + low


def best_step(path: pathlib.Path, result: dict) -> dict:
    """The best of the steps that were evaluated during a training.

    Args:
      path: metrics.jsonl of the run.
      result: evaluation of its last step.

    Returns:
      {'step', 'miou'}; a later step wins a tie.
    """
    found = [(result["miou"], result["step"])]
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # the line a killed trainer was writing
        if row.get("eval/miou") is not None and row["step"] < result["step"]:
            found.append((row["eval/miou"], row["step"]))
    miou, step = max(found)
    return {"step": step, "miou": miou}


def write_json(path: pathlib.Path, content: dict) -> None:
    """Write JSON so that the file is whole or absent."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())  # whole or absent after a power cut, too
    os.replace(temporary, path)
