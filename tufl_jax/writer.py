"""Run logs: JSON lines for programs, TensorBoard event files for people.

A run leaves in its workdir
    metrics.jsonl       one JSON object per `write_scalars`, deterministic values only
    performance.jsonl   images/s, memory, wall time: different in every run
    tensorboard/        both of these, pictures, texts and the configuration
Numbers are written so that they read back exactly: two runs that computed the same
have the same metrics.jsonl byte for byte. That holds for a run that was killed and
resumed too, if the trainer writes and flushes the row of step k before its checkpoint
of step k, and calls `Writer.rewind(k)` when it resumes from that checkpoint.
"""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping

import jax
import numpy as np
from absl import logging

from tufl_jax.events import SummaryWriter, install


class _JsonLines:
    """A file of JSON objects with a "step" each, one per line, append only."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        self._file = None

    def append(self, row):
        if self._file is None:
            self.rewind(math.inf)  # an earlier process may have left half a line
            self._file = open(self._path, "ab")
        finite = {k: v if _is_finite(v) else None for k, v in row.items()}
        line = json.dumps(finite, sort_keys=True, allow_nan=False) + "\n"
        self._file.write(line.encode())
        self._file.flush()  # to the system: no row is lost when the process is killed

    def rewind(self, step):
        """Drops rows of later steps and unreadable lines; others keep their bytes.

        The file is replaced in one go: a kill in here leaves the old or the new one.
        """
        self.close()
        if not self._path.exists():
            return
        before = self._path.read_bytes()
        kept = []
        for number, line in enumerate(before.splitlines(), start=1):
            row_step = _step_of(line)
            if row_step is None:
                logging.warning("%s: dropped unreadable line %d", self._path, number)
            elif row_step <= step:
                kept.append(line + b"\n")
        after = b"".join(kept)
        if after == before:
            return
        temporary = self._path.with_name(self._path.name + ".tmp")
        with open(temporary, "wb") as file:
            file.write(after)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)

    def flush(self):
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self):
        if self._file is not None:
            self.flush()
            self._file.close()
            self._file = None


def _step_of(line: bytes) -> int | None:
    """The step of a complete row, None for anything else."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


def _is_finite(value) -> bool:
    return value is not None and math.isfinite(value)


def _plain(key, value):
    """One number as int, float or bool, exactly; None stays."""
    if value is None:
        return None
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind in "OUSc":
        raise ValueError(
            f"scalar {key!r} must be one number, got {array.dtype}{list(array.shape)}"
        )
    if array.dtype.kind in "biu":
        return array.item()
    return array.astype(np.float64).item()


def _plain_row(scalars):
    if "step" in scalars:
        raise ValueError("a scalar cannot be called 'step'")
    return {name: _plain(name, value) for name, value in scalars.items()}


class Writer:
    """All logs of a run. Use it in one process; `just_logging` makes it harmless.

    Args:
        workdir: directory of the run, created if it is not there.
        just_logging: write no file, only the program's log: for all processes but
            the first of a run, `just_logging=jax.process_index() > 0`.
    Raises:
        UserError: clu or tensorboard is not installed.
    """

    def __init__(self, workdir: str | os.PathLike, *, just_logging: bool = False):
        install()
        from clu import metric_writers

        writers = [metric_writers.LoggingWriter()]
        self._metrics = self._performance = self._summaries = None
        self._closed = False
        if not just_logging:
            workdir = pathlib.Path(workdir)
            workdir.mkdir(parents=True, exist_ok=True)
            self._metrics = _JsonLines(workdir / "metrics.jsonl")
            self._performance = _JsonLines(workdir / "performance.jsonl")
            self._summaries = SummaryWriter(workdir / "tensorboard")
            writers.append(self._summaries)
        self._writers = metric_writers.MultiWriter(writers)

    def write_scalars(
        self, step: int, scalars: Mapping, performance: Mapping | None = None
    ) -> None:
        """Writes one row of numbers.

        Args:
            step: training step the numbers belong to.
            scalars: {name: one number}, values that the same run gives again. NaN and
                infinities, which JSON lacks, and None become null.
            performance: {name: one number}, values that differ from run to run; written
                with "wall_time" (seconds since 1970) to performance.jsonl, and shown
                as "performance/name".
        Raises:
            ValueError: a value is not one number, or a name is "step".
        """
        step = int(step)
        # One explicit transfer for all values: a transfer guard lets it pass.
        scalars, performance = jax.device_get((dict(scalars), performance))
        self._write_row(self._metrics, step, _plain_row(scalars), prefix="")
        if performance is not None:
            row = _plain_row(performance) | {"wall_time": time.time()}
            self._write_row(self._performance, step, row, prefix="performance/")

    def _write_row(self, file, step, row, *, prefix):
        if file is not None:
            file.append({"step": step, **row})
        numbers = {prefix + k: v for k, v in row.items() if v is not None}
        self._writers.write_scalars(step, numbers)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes pictures {name: u8[N, H, W, 3] or u8[H, W, 3]}."""
        images = {name: np.asarray(image) for name, image in images.items()}
        self._writers.write_images(int(step), images)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Writes texts {name: Markdown}."""
        self._writers.write_texts(int(step), texts)

    def write_hparams(self, hparams: Mapping) -> None:
        """Writes the configuration as a flat dictionary, once per start of a run."""
        self._writers.write_hparams(dict(hparams))

    def rewind(self, step: int) -> None:
        """Forgets everything later than `step`; call it before the first write.

        Rows of later steps leave both files, and so does a line that a killed process
        wrote half. TensorBoard is told to skip what it has of later steps. A run that
        starts afresh in a used workdir calls rewind(-1).
        """
        if self._summaries is not None:
            self._metrics.rewind(step)
            self._performance.rewind(step)
            self._summaries.restart(step + 1)

    def flush(self) -> None:
        """Returns once everything written so far is in the files."""
        if self._summaries is not None:
            self._metrics.flush()
            self._performance.flush()
        self._writers.flush()

    def close(self) -> None:
        """Flushes and closes the files; closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self.flush()
        if self._summaries is not None:
            self._metrics.close()
            self._performance.close()
        self._writers.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exception) -> None:
        self.close()
