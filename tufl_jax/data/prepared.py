"""Data sets that `python -m tufl_jax.prepare` has written as ArrayRecord files."""

import pathlib
import threading

from tufl_jax.errors import UserError

VERSION = "1.1.0"


def folder(data_dir, spec) -> pathlib.Path:
    """Where a split is once it is complete: data_dir/name/part/version.

    Args:
        data_dir: for any number of data sets.
        spec: the fields of config.data.*.
    """
    part = [spec.city, spec.annotation if spec.name == "cityscapes" else "", spec.split]
    return pathlib.Path(data_dir, spec.name, "-".join(filter(None, part)), VERSION)


def staging(data_dir, spec) -> pathlib.Path:
    """Where its shards are collected before."""
    return folder(data_dir, spec).with_name("partial")


def split_name(spec) -> str:
    """Its split in tensorflow-datasets, which reserves 'all' for itself."""
    return "full" if spec.split == "all" else spec.split


class PreparedFiles:
    """The files of one split in its ArrayRecords; see `pairs.Pairs` for the interface.

    Args:
        data_dir: what prepare was given.
        spec: the fields of config.data.*.
        labelled: whether the items must have labels.
    Attributes:
        metadata: what prepare has noted of the files: builders/shards.py.
    Raises:
        UserError: it was not prepared, is damaged, or has no labels.
    """

    def __init__(self, data_dir: str, spec, *, labelled: bool):
        if not data_dir:
            raise UserError(
                "format='prepared' needs the data set's root (--config.data.*.root): "
                "the --data_dir that prepare was given"
            )
        self._folder = folder(data_dir, spec)
        self._split = split_name(spec)
        if not self._folder.is_dir():
            raise UserError(
                f"{self._folder}: not prepared; run python -m tufl_jax.prepare "
                f"--dataset {spec.name} --split {spec.split} --root FOLDER "
                f"--data_dir {data_dir}"
            )
        self._open()
        if labelled and not self.metadata["labelled"]:
            raise UserError(
                f"{self._folder}: its images had no label files when it was prepared; "
                "prepare it again with them in another --data_dir"
            )

    def image(self, index: int) -> tuple[bytes, str]:
        """Content of an image file, and where it is now."""
        return self._record(index)["image"], self._where(index, "image")

    def label(self, index: int) -> tuple[bytes, str]:
        """Content of a label file, and where it is now."""
        return self._record(index)["label"], self._where(index, "label")

    def stamp(self, index: int) -> str:
        """Changes when the label file was another; the same for all items."""
        del index
        return self.metadata["digest"]

    def has_label(self, index: int) -> bool:
        """Whether the items have labels."""
        del index
        return self.metadata["labelled"]

    def label_path(self, index: int) -> str:
        """Where the label is or should be."""
        return self._where(index, "label")

    def __getstate__(self):
        return self._folder, self._split

    def __setstate__(self, state):
        self._folder, self._split = state
        self._open()

    def _open(self) -> None:
        import tensorflow_datasets as tfds

        try:
            builder = tfds.builder_from_directory(str(self._folder))
            self.metadata = dict(builder.info.metadata)
            self._records = builder.as_data_source(
                self._split, decoders={"image": tfds.decode.SkipDecoding()}
            )
            self.names = self.metadata["names"]
            self.skipped = self.metadata["skipped"]
        # Half a file can make the libraries below raise anything.
        except Exception as error:
            raise self._damaged(error) from error
        if len(self.names) != len(self._records):
            raise self._damaged(f"{len(self._records)} of {len(self.names)} items")
        self._last = threading.local()  # image and label come from one record

    def _record(self, index: int) -> dict:
        if getattr(self._last, "index", None) != index:
            try:
                self._last.record = self._records[index]
            except (RuntimeError, OSError, ValueError) as error:
                raise self._damaged(error) from error
            self._last.index = index
        return self._last.record

    def _where(self, index: int, kind: str) -> str:
        return f"{self._folder}: {kind} of {self.names[index]}"

    def _damaged(self, reason) -> UserError:
        line = (str(reason).splitlines() or [type(reason).__name__])[0]
        return UserError(
            f"{self._folder}: is damaged ({line[:200]}); delete it and prepare it again"
        )
