"""Donors for long-tail pasting (section III-C): which images hold which class."""

import collections
import dataclasses
import functools
import hashlib
import os
import pathlib
import tempfile
import zipfile
import zlib

import numpy as np
from absl import logging

from tufl_jax.data import reading
from tufl_jax.data.transforms import Augment
from tufl_jax.errors import UserError
from tufl_jax.labels import IGNORE

_TRIES = 10


@dataclasses.dataclass(frozen=True)
class Donors:
    """Where donor crops come from.

    Attributes:
        source: labelled source.
        database: M_c for each class c: indices of the images that hold it
            (`class_database`).
        augment: how a crop is cut; the window always shows the class.
        per_step: D, donors in each batch.
    """

    source: object
    database: list[np.ndarray]
    augment: Augment
    per_step: int = 1

    def classes(self) -> list[int]:
        """Class indices that some image holds; UserError if there is none."""
        classes = [c for c, images in enumerate(self.database) if len(images)]
        if not classes:
            raise UserError("no image holds any class: there are no long-tail donors")
        return classes


def class_database(
    source,
    num_classes: int,
    *,
    min_pixels: int = 64,
    cache_dir: str | None = None,
    num_threads: int = 2,
) -> list[np.ndarray]:
    """M_c: for each class the sorted indices of the images that hold it.

    Args:
        source: labelled source with `fingerprint()`.
        num_classes: C.
        min_pixels: fewer pixels of a class do not count; of its original size.
        cache_dir: folder for the pixel counts, so that labels are read only once for
            each fingerprint of the source; None: no cache.
        num_threads: readers.
    Returns:
        C arrays i64[N_c]; empty for a class that no image holds.
    """
    path = None
    if cache_dir is not None:
        key = f"{num_classes} {len(source)} {source.fingerprint()}"
        digest = hashlib.sha256(key.encode()).hexdigest()[:24]
        path = pathlib.Path(cache_dir) / f"class_pixels_{digest}.npz"
    counts = _load(path, (len(source), num_classes)) if path else None
    if counts is None:
        logging.info("Counting the classes of %d labels", len(source))
        read = functools.partial(_class_pixels, source, num_classes)
        counts = np.stack(
            list(reading.ordered_map(read, range(len(source)), num_threads=num_threads))
        )
        if path:
            _save(path, counts)
    return [np.flatnonzero(counts[:, c] >= min_pixels) for c in range(num_classes)]


def draw(donors: Donors, class_id: int, rng: np.random.Generator) -> dict:
    """One donor of a class: a random image of M_c, cut so that it shows the class.

    Returns:
        {'image': u8[h, w, 3], 'label': u8[h, w]}.
    Raises:
        UserError: the class is lost in the resizing, many times in a row.
    """
    # A thin class may vanish at a small scale: the last tries shrink the least.
    for augment in [donors.augment] * _TRIES + [donors.augment.largest()] * _TRIES:
        index = int(rng.choice(donors.database[class_id]))
        view = augment(donors.source[index], rng, contains=class_id)
        if view is not None:
            return view
    raise UserError(
        f"class {class_id} vanishes from its {len(donors.database[class_id])} images "
        "when they are shrunk; count only images with more pixels of it (min_pixels)"
    )


def donor_bank(
    donors: Donors, *, per_class: int, seed: int, num_threads: int = 2
) -> dict:
    """The bank a training starts with, a pure function of the donors and the seed.

    Returns:
        {'image': u8[C, K, h, w, 3], 'label': u8[C, K, h, w], 'available': bool[C, K]}
        with K = per_class. A class without images has black, ignored slots that are
        not available.
    """
    shape = (len(donors.database), per_class)
    bank = {
        "image": np.zeros((*shape, *donors.augment.crop, 3), np.uint8),
        "label": np.full((*shape, *donors.augment.crop), IGNORE, np.uint8),
        "available": np.zeros(shape, bool),
    }

    def fill(slot):
        view = draw(donors, slot[0], np.random.default_rng((seed, *slot)))
        bank["image"][slot], bank["label"][slot] = view["image"], view["label"]
        bank["available"][slot] = True

    slots = ((c, k) for c in donors.classes() for k in range(per_class))
    collections.deque(reading.ordered_map(fill, slots, num_threads=num_threads), 0)
    return bank


def _class_pixels(source, num_classes: int, index: int) -> np.ndarray:
    """i64[C], pixels of each class in one label."""
    label = source.label(index) if hasattr(source, "label") else source[index]["label"]
    return np.bincount(label.ravel(), minlength=256)[:num_classes]


def _load(path: pathlib.Path, shape: tuple[int, int]) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            counts = arrays["counts"]
        if counts.shape != shape:
            raise ValueError(f"counts of shape {counts.shape}, expected {shape}")
        return counts
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile):
        logging.warning("%s is damaged; counting the classes again", path)
        return None


def _save(path: pathlib.Path, counts: np.ndarray) -> None:
    """Appears complete or not at all, also when two processes write it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            np.savez_compressed(file, counts=counts)
        os.replace(file.name, path)
    except OSError as error:  # only costs the time of counting again
        logging.warning("%s cannot be written (%s)", path, error)
