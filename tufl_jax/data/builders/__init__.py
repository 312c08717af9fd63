"""tensorflow-datasets builders: the data sets as ArrayRecord files, without tensorflow.

`python -m tufl_jax.prepare` runs them; data/prepared.py reads what they leave. They are
not registered with tensorflow-datasets, which has another data set called cityscapes.
"""

import contextlib
import fcntl
import io
import pathlib
import shutil
import tempfile
from collections.abc import Sequence

import tensorflow_datasets as tfds
from absl import logging

from tufl_jax.data import layouts, prepared
from tufl_jax.data.builders import shards
from tufl_jax.data.builders.base import PairsBuilder, PairsConfig
from tufl_jax.data.files import Tree
from tufl_jax.data.folders import FolderFiles
from tufl_jax.errors import UserError


class Cityscapes(PairsBuilder, skip_registration=True):
    """Cityscapes: train, val, test with fine or coarse labels, and train_extra.

    The builder of tensorflow-datasets itself does not serve: it needs tensorflow, the
    zip archives, and all their splits at once.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of "
        "cityscapes-dataset.com (train_extra: leftImg8bit_trainextra.zip and "
        "gtCoarse.zip), or these unpacked."
    )


class Gta5(PairsBuilder, skip_registration=True):
    """GTA5, "Playing for Data": 24,966 pairs, labels as palette files."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "01_images.zip to 10_images.zip and 01_labels.zip to 10_labels.zip of "
        "download.visinf.tu-darmstadt.de/data/from_games, or these unpacked."
    )


class Synthia(PairsBuilder, skip_registration=True):
    """SYNTHIA-RAND-CITYSCAPES: 9,400 pairs, labels of three 16-bit channels."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "SYNTHIA-RAND-CITYSCAPES of synthia-dataset.net, unpacked: RAND_CITYSCAPES."
    )


class Crosscity(PairsBuilder, skip_registration=True):
    """NTHU Cross-City: a city's 3,200 unlabelled and 100 labelled images."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folders Rio, Rome, Taipei, Tokyo."


class Folder(PairsBuilder, skip_registration=True):
    """Own images and labels, as a config describes them."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folder that holds the images and labels."


BUILDERS = {
    "cityscapes": Cityscapes,
    "gta5": Gta5,
    "synthia": Synthia,
    "crosscity": Crosscity,
    "folder": Folder,
}


def prepare(
    spec, *, root: str, data_dir: str, beam: Sequence[str] | None = None
) -> pathlib.Path:
    """Writes one split; continues what a killed run has begun.

    Args:
        spec: fields name, split, city, annotation, images, labels of config.data.*.
        root: folder of the official archives, or of what they unpack to.
        data_dir: for all prepared data sets.
        beam: options of an Apache Beam pipeline to write with; None: threads.
    Returns:
        The folder of the complete split.
    Raises:
        UserError: a file is missing or cannot be decoded, another process is writing,
            or the split was prepared from other files.
    """
    Tree(root)  # raises for a missing folder
    target = prepared.folder(data_dir, spec)
    with _locked(target.parent):
        for leftover in target.parent.glob(f"*incomplete*{target.name}*"):
            shutil.rmtree(leftover)  # of a run that was killed while it finished
        if target.exists():
            _check_same(spec, root, data_dir, target)
            logging.info("%s: is there already", target)
        else:
            config = PairsConfig(name=target.parent.name, spec=spec, beam=beam)
            builder = BUILDERS[spec.name](
                data_dir=data_dir, config=config, file_format=shards.FILE_FORMAT
            )
            download = tfds.download.DownloadConfig(
                manual_dir=root, try_download_gcs=False
            )
            with (
                tempfile.TemporaryDirectory() as nothing_to_download,
                contextlib.redirect_stdout(io.StringIO()),  # "Unknown size ..."
            ):
                builder.download_and_prepare(
                    download_dir=nothing_to_download, download_config=download
                )
        shutil.rmtree(prepared.staging(data_dir, spec), ignore_errors=True)
    return target


def _check_same(spec, root: str, data_dir: str, target: pathlib.Path) -> None:
    files = FolderFiles(root, layouts.of_files(spec), split=spec.split, labelled=False)
    then = prepared.PreparedFiles(data_dir, spec, labelled=False).metadata
    if shards.listing(files, with_times=False) != then["source"]:
        raise UserError(
            f"{target}: was prepared from other files than {root} holds now; delete it "
            "to prepare these, or choose another --data_dir"
        )


@contextlib.contextmanager
def _locked(folder: pathlib.Path):
    """Keeps a second process out; the lock goes with this one, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another process is preparing {folder}") from None
        yield
