"""Writing the shards of a data set so that a killed run loses at most those begun.

Each shard appears whole under its name in a staging folder; a later run over the same
files keeps it. The bytes depend on the files alone.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import logging
from tensorflow_datasets.core import file_adapters, writer

from tufl_jax import labels
from tufl_jax.data import reading
from tufl_jax.data.progress import Progress, num_cores
from tufl_jax.errors import UserError

# A shard of GTA5 has about 350 MB, and the whole set a number of open files that every
# system allows.
SHARD_ITEMS = 128
_JPEG = b"\xff\xd8"
FILE_FORMAT = file_adapters.FileFormat.ARRAY_RECORD


@dataclasses.dataclass(frozen=True)
class Staged:
    """Shards that lie complete in the staging folder.

    Attributes:
        parts: for each shard, the indices of its items.
        metadata: what data/prepared.py needs to know without reading the shards.
    """

    parts: list[range]
    metadata: dict


def write_all(
    files,
    *,
    decode: str,
    ids: Mapping[int, str] | None,
    serialize: Callable,
    folder: pathlib.Path,
    beam: Sequence[str] | None = None,
):
    """Decodes every file once, as a check, and writes all items in order.

    Args:
        files: data/folders.py.
        decode: key of reading.READ_LABEL.
        ids: those that labels may hold; None: any.
        serialize: (image bytes, label bytes, name) -> the bytes of a record.
        folder: the staging folder; shards in it of the same files are kept.
        beam: options of an Apache Beam pipeline that writes the shards, on workers that
            see all folders under the same paths; None: threads of this process.
    Returns:
        Staged.
    Raises:
        UserError: a file cannot be decoded, label and image differ in size, a label
            holds another id, or the disk is too small.
    """
    total = len(files.names)
    parts = [
        range(start, min(start + SHARD_ITEMS, total))
        for start in range(0, total, SHARD_ITEMS)
    ]
    _begin(folder, listing(files, with_times=True) + decode)
    paths = [folder / f"shard-{number:05d}" for number in range(len(parts))]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    done = total - sum(len(parts[i]) for i in missing)
    if done:
        logging.info("continuing: %d of %d items are there", done, total)
    _check_space(files, [i for shard in missing for i in parts[shard]], folder)
    read = functools.partial(_label, reading.READ_LABEL[decode], ids and _table(ids))
    recode = decode == "synthia"  # 8 bits and one channel, for 16 and three
    record = functools.partial(_record, files, read, recode, serialize)
    jobs = [(paths[shard], parts[shard]) for shard in missing]
    if beam is None:
        progress = Progress("prepare", total, done=done)
        write = functools.partial(_write_shard, record, progress.add)
        for _ in reading.ordered_map(write, jobs, num_threads=num_cores()):
            pass
    else:
        _write_with_beam(functools.partial(_write_shard, record, None), jobs, beam)
    logging.info("all %d items are written", total)
    metadata = {
        "names": files.names,
        "skipped": files.skipped,
        "labelled": files.has_labels,
        "source": listing(files, with_times=False),
        "digest": _digest(paths),
    }
    return Staged(parts, metadata)


def listing(files, *, with_times: bool) -> str:
    """Digest of the names and sizes of all files, and when they were changed."""
    digest = hashlib.sha256()
    for i, name in enumerate(files.names):
        stamps = _stamps(files, i)
        if not with_times:
            stamps = [stamp.partition(" ")[0] for stamp in stamps]
        digest.update(f"{name} {stamps}\n".encode())
    return digest.hexdigest()


class TakeStaged(writer.ExampleWriter):
    """Gives TFDS the staged shards for the files it wants to write."""

    def __init__(self, folder: pathlib.Path):
        super().__init__(FILE_FORMAT)
        self._folder = folder

    def write(self, path, examples) -> None:
        """Moves the shard that `path` is named for; `examples` are not needed."""
        del examples
        number = re.search(r"-(\d{5,})-of-\d+$", os.fspath(path))[1]
        os.replace(self._folder / f"shard-{number}", path)


def _begin(folder: pathlib.Path, source: str) -> None:
    """Empties the staging folder unless its shards are of the same files."""
    mark = folder / "source"
    if mark.exists() and mark.read_text() == source:
        for path in folder.glob("*.tmp"):
            path.unlink()
        return
    if folder.exists():
        logging.info("%s is of other files: starting anew", folder)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    temporary = folder / "source.tmp"
    temporary.write_text(source)
    os.replace(temporary, mark)


def _stamps(files, index: int) -> list[str]:
    """'size time' of the files of an item."""
    kinds = (
        (files.image_stamp, files.stamp) if files.has_labels else (files.image_stamp,)
    )
    return [stamp(index) for stamp in kinds]


def _check_space(files, indices: list[int], folder: pathlib.Path) -> None:
    needed = sum(
        int(stamp.partition(" ")[0]) for i in indices for stamp in _stamps(files, i)
    )
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: needs {needed / 1e9:.1f} GB more and the disk has "
            f"{free / 1e9:.1f} GB free; make room or choose another --data_dir"
        )


def _table(ids: Mapping[int, str]) -> np.ndarray:
    """For labels.map_ids; which classes there are does not matter."""
    return labels.cityscapes(19).lut(ids)


def _label(decode: Callable, table: np.ndarray | None, data: bytes, where: str):
    """The ids of a label file [H, W], all of them in the table."""
    ids = decode(data, where)
    if table is not None:
        labels.map_ids(ids, table, where=where)
    return ids


def _record(files, read_label, recode_labels, serialize, index: int) -> bytes:
    image, image_path = files.image(index)
    pixels = reading.read_image(image, image_path)
    height, width, _ = pixels.shape
    if not image.startswith(_JPEG):
        image = reading.write_png(pixels)
    label = b""
    if files.has_labels:
        label, label_path = files.label(index)
        ids = read_label(label, label_path)
        if ids.shape != (height, width):
            raise UserError(
                f"{label_path}: label is {ids.shape[1]}x{ids.shape[0]} pixels, its "
                f"image {image_path} is {width}x{height}; use files of one size"
            )
        if recode_labels:
            label = reading.write_png(ids, compressed=True)
    return serialize(image, label, files.names[index])


def _write_with_beam(write: Callable, jobs: list, options: Sequence[str]) -> None:
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError(f"--beam: {error}; pip install 'tufl-jax[beam]'") from error
    with apache_beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        shards = pipeline | apache_beam.Create(jobs) | apache_beam.Reshuffle()
        shards | "writing a shard" >> apache_beam.Map(write)


def _write_shard(record: Callable, added: Callable | None, job: tuple) -> None:
    """Writes the items job[1] to job[0]: complete, also after a power cut, or not."""
    path, items = job

    def records():
        for index in items:
            yield None, record(index)
            if added:
                added()

    temporary = path.with_name(path.name + ".tmp")
    writer.ExampleWriter(FILE_FORMAT).write(os.fspath(temporary), records())
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _digest(paths: list[pathlib.Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
