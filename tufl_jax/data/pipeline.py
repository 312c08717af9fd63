"""Batches for training and read-ahead for evaluation.

Batch k is a pure function of (seed, k): a resumed training slices the stream of
batches at its step, whatever the number of threads, workers or processes.
"""

import ctypes
import dataclasses
import functools
import os
import signal
import sys
import weakref
from collections.abc import Iterable, Iterator

import numpy as np
from absl import flags

from tufl_jax.data import longtail, reading, transforms
from tufl_jax.data.longtail import Donors
from tufl_jax.data.transforms import Augment
from tufl_jax.errors import UserError

# Streams are endless; zipping wants equal lengths, so all are cut here.
_MAX_STEPS = 2**40


@dataclasses.dataclass(frozen=True)
class Domain:
    """One image set of a training: the source, its augmentation and global batch."""

    source: object
    augment: Augment
    batch_size: int


class Batches:
    """Endless iterator over batches; close() ends its threads and processes."""

    def __init__(self, iterator):
        self._open = [iterator]
        # Also closed when forgotten, at the latest when the program ends: grain's own
        # clean-up comes too late in the shutdown and prints tracebacks.
        self._finalizer = weakref.finalize(self, _close, self._open)

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        if not self._open:
            raise ValueError("these batches are closed")
        return next(self._open[0])

    def close(self) -> None:
        self._finalizer()


def _close(iterators: list) -> None:
    iterators.pop().close()


def train_batches(
    source: Domain,
    *,
    target: Domain | None = None,
    donors: Donors | None = None,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
    num_workers: int = 0,
) -> Batches:
    """Augmented training batches from step `start_step` on.

    Each epoch of a domain is shuffled anew; the domains wrap independently.

    Args:
        source: labelled domain; a style translation needs no labels.
        target: domain of which only images are used.
        donors: long-tail donors, taken in turn from the classes that exist.
        seed: of all shuffling and augmentation.
        start_step: number of the first batch.
        process_index, process_count: process p gets the p-th of `count` equal blocks
            of rows of each global batch; donors are the same on every process.
        num_threads: readers (in each worker), each making one batch.
        num_workers: decoding processes that end with this one; 0 uses threads only.
    Returns:
        Iterator of {'source_image': u8[B, h, w, 3], 'source_label': u8[B, h, w],
        'target_image': u8[Bt, h, w, 3], 'donor_image': u8[D, h, w, 3],
        'donor_label': u8[D, h, w], 'donor_class': i32[D]}, target_*, donor_* and
        labels only when given; B and Bt are the rows of this process. At most
        2 * num_threads batches wait in memory. An error in an item is raised by next(),
        unchanged.
    Raises:
        UserError: a batch does not split evenly over the processes.
    """
    import grain  # slow to import (it brings jax), and evaluation does not need it

    seeds = np.random.SeedSequence(seed).generate_state(3).tolist()
    streams = [_stream(source, "source", seeds[0], process_index, process_count)]
    if target is not None:
        streams.append(
            _stream(target, "target", seeds[1], process_index, process_count)
        )
    if donors is not None:
        streams.append(_donor_stream(donors, seeds[2]))
    steps = slice(start_step, _MAX_STEPS)
    dataset = grain.experimental.ZipMapDataset([stream[steps] for stream in streams])
    dataset = dataset.map(_merge).to_iter_dataset(
        grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    )
    if num_workers:
        if not flags.FLAGS.is_parsed():  # workers are sent the values of all flags
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=num_workers, per_worker_buffer_size=2
            ),
            worker_init_fn=functools.partial(_die_with_trainer, os.getpid()),
        )
    return Batches(iter(dataset))


def read_ahead(
    source, indices: Iterable[int], *, num_threads: int = 2
) -> Iterator[dict]:
    """Yields source[i] for each index, in order, read by threads a little ahead."""
    return reading.ordered_map(source.__getitem__, indices, num_threads=num_threads)


@dataclasses.dataclass(frozen=True)
class _Undecoded:
    """A source for grain whose images are decoded when they are cut."""

    source: object

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict:
        return transforms.undecoded(self.source, index)


def _stream(domain: Domain, name: str, seed: int, index: int, count: int):
    """Map-style stream of one domain's batches for process `index` of `count`."""
    import grain

    if domain.batch_size < 1 or domain.batch_size % count:
        raise UserError(
            f"{name} batch_size={domain.batch_size} does not split evenly over "
            f"{count} process(es); use a multiple of {count}"
        )
    view = functools.partial(_view, domain.augment, name, name == "source")
    # Sharded after the augmentation, so that an item's random numbers depend on its
    # place in the global batch only.
    items = grain.MapDataset.source(_Undecoded(domain.source))
    items = items.seed(seed).shuffle().repeat()
    items = items.random_map(view)
    rows = domain.batch_size // count
    first = index * rows
    # Row r of all batches is one strided stream. The longest stream is the first.
    streams = [items[r :: domain.batch_size] for r in range(first, first + rows)]
    steps = slice(len(streams[-1]))
    zipped = grain.experimental.ZipMapDataset([stream[steps] for stream in streams])
    return zipped.map(_stack)


def _donor_stream(donors: Donors, seed: int):
    import grain

    classes = donors.classes()
    items = grain.MapDataset.source(classes).seed(seed).repeat()
    items = items.random_map(functools.partial(_donor, donors))
    return items.batch(donors.per_step, drop_remainder=True)


def _view(augment: Augment, name: str, labelled: bool, example: dict, rng) -> dict:
    if not labelled:
        return {f"{name}_image": augment({"image": example["image"]}, rng)["image"]}
    view = augment(example, rng)
    return {f"{name}_{key}": view[key] for key in ("image", "label") if key in view}


def _donor(donors: Donors, class_id: int, rng) -> dict:
    view = longtail.draw(donors, class_id, rng)
    return {
        "donor_image": view["image"],
        "donor_label": view["label"],
        "donor_class": np.int32(class_id),
    }


def _stack(rows: tuple[dict, ...]) -> dict:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _merge(parts: tuple[dict, ...]) -> dict:
    return {name: array for part in parts for name, array in part.items()}


def _die_with_trainer(trainer: int, worker_index: int, worker_count: int) -> None:
    """Makes the kernel end this worker when the trainer ends, even by kill -9."""
    if sys.platform != "linux":
        return
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != trainer:  # it ended before the signal was armed
        os._exit(1)
