"""Confusion matrices and intersection over union, counted as the benchmark does.

The conventions are those of the Cityscapes scripts: pixels with an ignored label are
not evaluated whatever was predicted there; a class that is predicted but not labelled
(or labelled and never found) has IoU 0; a class in neither map has no IoU, and means
skip it. The released TUFL code takes a plain mean instead, which is NaN as soon as one
class is absent.

Numbers under "16 classes" come from two protocols that must not be compared:
  A  ground truth of terrain, truck and train is ignored (a 16-way head, or `restrict`);
  B  a 19-way head is evaluated on 19 classes and the mean is taken over 16 of the rows.
B counts terrain, truck and train pixels as false positives of other classes, so A reads
higher. The 13-class mean ("mIoU*") is always the mean of 13 of the 16 IoUs.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from tufl_jax import labels as label_tables
from tufl_jax.errors import UserError


def confusion_matrix(
    predictions: np.ndarray | jax.Array,
    labels: np.ndarray | jax.Array,
    num_classes: int,
    *,
    ignore_label: int = 255,
) -> np.ndarray | jax.Array:
    """Counts pixels per (true class, predicted class).

    Args:
        predictions: integer class indices of any shape, e.g. [B, H, W].
        labels: integer class indices, same shape; `ignore_label` is not counted.
        num_classes: C.
    Returns:
        i[C, C], rows = ground truth, columns = prediction. NumPy arrays give int64. If
        either argument is a JAX array (also inside jit) the result is int32 and holds
        2^31 - 1 pixels per entry, about 1000 images of 2048 x 1024: add the matrices of
        the batches up in int64 on the host.
    Raises:
        ValueError: the shapes differ, or (NumPy only) an index is outside 0..C-1.
            Under jit nothing can be raised and such pixels are not counted.
    """
    if np.shape(predictions) != np.shape(labels):
        raise ValueError(
            f"predictions {np.shape(predictions)} and labels {np.shape(labels)} must "
            "have the same shape"
        )
    if isinstance(predictions, jax.Array) or isinstance(labels, jax.Array):
        return _device_confusion(predictions, labels, num_classes, ignore_label)
    counted = np.asarray(labels) != ignore_label
    truth = np.asarray(labels)[counted].astype(np.int64)
    guess = np.asarray(predictions)[counted].astype(np.int64)
    for what, ids in (("label", truth), ("prediction", guess)):
        bad = ids[(ids < 0) | (ids >= num_classes)]
        if bad.size:
            raise ValueError(
                f"{what} {bad[0]} is outside the {num_classes} classes and is not "
                f"the ignored label {ignore_label}"
            )
    flat = np.bincount(truth * num_classes + guess, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def _device_confusion(predictions, labels, num_classes, ignore_label):
    truth = jnp.ravel(labels).astype(jnp.int32)
    guess = jnp.ravel(predictions).astype(jnp.int32)
    counted = (truth != ignore_label) & (truth >= 0) & (truth < num_classes)
    counted &= (guess >= 0) & (guess < num_classes)
    cells = num_classes * num_classes
    # Pixels that do not count point past the end, where the scatter drops them.
    index = jnp.where(counted, truth * num_classes + guess, cells)
    flat = jnp.zeros(cells, jnp.int32).at[index].add(1, mode="drop")
    return flat.reshape(num_classes, num_classes)


def iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union per class.

    Args:
        confusion: i[C, C], rows = ground truth.
    Returns:
        f64[C]: diagonal / (row + column - diagonal). NaN only where a class is in
        neither map; predicted but absent is 0.
    """
    counts = np.asarray(confusion).astype(np.float64)
    hits = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - hits
    return np.where(union > 0, hits / np.maximum(union, 1.0), np.nan)


def mean_iou(confusion: np.ndarray, keep: Sequence[int] | None = None) -> float:
    """Mean of the IoUs that exist, over all classes or the rows in `keep`.

    NaN if none of these classes is in either map.
    """
    values = iou(confusion)
    values = values if keep is None else values[list(keep)]
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")


def restrict(confusion: np.ndarray, keep: Sequence[int]) -> np.ndarray:
    """Ignores the ground truth of all classes but `keep` (protocol A).

    The rows of the other classes become zero: their pixels are no longer evaluated and
    are nobody's false positives. The columns stay: predicting a dropped class on a kept
    one is still a miss of the kept one, as a head that has the class must be judged.

    Args:
        confusion: i[C, C], rows = ground truth.
        keep: indices of the classes that stay.
    Returns:
        i[C, C]. `mean_iou(restrict(confusion, keep), keep)` is the mean by protocol A,
        `mean_iou(confusion, keep)` the one by protocol B.
    """
    kept = np.zeros_like(np.asarray(confusion))
    kept[list(keep)] = np.asarray(confusion)[list(keep)]
    return kept


def summary(confusion: np.ndarray, class_names: Sequence[str] | int) -> dict:
    """The numbers of an evaluation, ready for JSON.

    Args:
        confusion: i[C, C], rows = ground truth.
        class_names: the C names, or C for the names of `labels.class_names`.
    Returns:
        {"miou": float, "iou": {name: float, or None for a class in neither map}} as
        fractions, and where they apply "miou_16", "miou_13" (float, or None if none of
        the classes occurs): for 19 classes both by protocol B, for 16 only the latter.
    Raises:
        UserError: no labelled pixel was counted.
        ValueError: the number of names does not fit the matrix.
    """
    confusion = np.asarray(confusion)
    if isinstance(class_names, int):
        class_names = label_tables.class_names(class_names)
    num_classes = len(class_names)
    if confusion.shape != (num_classes, num_classes):
        raise ValueError(f"confusion {confusion.shape} for {num_classes} class names")
    if not confusion.any():
        raise UserError(
            "evaluation counted no labelled pixel: all labels are 255 (ignored) or "
            "there are no images; check data.root and the label files"
        )
    values = [None if np.isnan(v) else float(v) for v in iou(confusion)]
    result = {
        "miou": mean_iou(confusion),
        "iou": dict(zip(class_names, values, strict=True)),
    }
    for size in _smaller_subsets(tuple(class_names)):
        mean = mean_iou(confusion, _rows_of_subset(size, num_classes))
        result[f"miou_{size}"] = None if np.isnan(mean) else mean
    return result


def _smaller_subsets(class_names: tuple[str, ...]) -> tuple[int, ...]:
    """Sizes of the Cityscapes subsets within these classes, () if they are others."""
    for size, smaller in ((19, (16, 13)), (16, (13,))):
        if class_names == label_tables.class_names(size):
            return smaller
    return ()


def _rows_of_subset(size: int, num_classes: int) -> list[int]:
    """Indices of a smaller class set within a larger one."""
    order = label_tables.subset(num_classes)
    return [order.index(train_id) for train_id in label_tables.subset(size)]
