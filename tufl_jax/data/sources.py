"""Labelled and unlabelled image sets with random access.

A source has `len(source)` and `source[i] -> {'image': u8[H, W, 3], 'label': u8[H, W]
class indices with 255 ignored, 'name': str}` (no 'label' when unlabelled), can be
pickled, and has `fingerprint() -> str`, which changes when its labels do. Optional:
`label(i) -> u8[H, W]`, when that is cheaper than source[i]['label'].
"""

import functools
import hashlib
import pathlib

import numpy as np
from absl import logging

from tufl_jax import labels
from tufl_jax.data import reading
from tufl_jax.data.streets import Streets
from tufl_jax.errors import UserError

_IMAGE = "_leftImg8bit.png"
_LABEL = "_gtFine_labelIds.png"
# Damaged in the original upload of train_extra; papers count 19,997 without it.
_SKIP = frozenset({"troisdorf_000000_000073_leftImg8bit.png"})


class CityscapesFolder:
    """Pictures in the Cityscapes layout, of any size and with any split name.

    Reads `root/leftImg8bit/<split>/<city>/*_leftImg8bit.png` and, when labelled,
    `root/gtFine/<split>/<city>/*_gtFine_labelIds.png`.

    Args:
        root: the folder that holds leftImg8bit and gtFine.
        split: name of the folder below them.
        num_classes: 19, 16 or 13; other classes are ignored.
        labelled: False never looks at label files, and gives no 'label'.
        start, stop: use this part of the list sorted by city and name, 0 to 1.
    Raises:
        UserError: at construction if the folder, the split, images or label files are
            missing; at access if a file cannot be read, a label's size differs from
            its image's, or a label id does not exist.
    """

    def __init__(
        self,
        root: str,
        *,
        split: str,
        num_classes: int = 19,
        labelled: bool = True,
        start: float = 0.0,
        stop: float = 1.0,
    ):
        self._to_class = _to_class(num_classes)
        self.num_classes = num_classes
        self.labelled = labelled
        names = _list_images(root, split)
        self._images = pathlib.Path(root) / "leftImg8bit" / split
        self._labels = pathlib.Path(root) / "gtFine" / split
        if labelled:
            self._check_pairs(names)
        self._names = _part(names, start, stop, where=self._images)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> dict:
        name = self._names[index]
        image = reading.read_image(self._images / (name + _IMAGE))
        if not self.labelled:
            return {"image": image, "name": name}
        label = self.label(index)
        if label.shape != image.shape[:2]:
            raise UserError(
                f"{self._labels / (name + _LABEL)}: label is "
                f"{label.shape[1]}x{label.shape[0]} pixels, its image is "
                f"{image.shape[1]}x{image.shape[0]}; use files of one size"
            )
        return {"image": image, "label": label, "name": name}

    def label(self, index: int) -> np.ndarray:
        """Class indices u8[H, W] of one item, without decoding its image."""
        path = self._labels / (self._names[index] + _LABEL)
        return labels.map_ids(reading.read_label(path), self._to_class, where=str(path))

    def fingerprint(self) -> str:
        """Changes with the list of items, the label files and the classes."""
        digest = hashlib.sha256(f"CityscapesFolder {self.num_classes}".encode())
        for name in self._names:
            digest.update(name.encode())
            if self.labelled:
                stat = (self._labels / (name + _LABEL)).stat()
                digest.update(f" {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def _check_pairs(self, names: list[str]) -> None:
        found = {
            p.relative_to(self._labels).as_posix().removesuffix(_LABEL)
            for p in self._labels.glob(f"*/*{_LABEL}")
        }
        missing = [name for name in names if name not in found]
        if missing:
            raise UserError(
                f"{self._labels}: {len(missing)} of {len(names)} images have no label "
                f"file, e.g. {', '.join(n + _LABEL for n in missing[:3])}; add them, "
                f"or remove the images"
            )
        extra = len(found) - len(names)
        if extra:
            logging.warning("%s: %d labels without an image", self._labels, extra)


class ClassSubset:
    """A source of 19 classes seen as one of 16 or 13: the others are ignored."""

    def __init__(self, source, num_classes: int):
        self._source = source
        self._lut = labels.subset_lut(num_classes)
        self.num_classes = num_classes

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        example = self._source[index]
        if "label" in example:
            example = {**example, "label": self._lut[example["label"]]}
        return example

    def fingerprint(self) -> str:
        return f"ClassSubset {self.num_classes} {self._source.fingerprint()}"


def _to_class(num_classes: int) -> np.ndarray:
    """u8[256]: Cityscapes label id -> class index, IGNORE or UNKNOWN."""
    to_train = labels.CITYSCAPES_IDS_TO_TRAIN
    to_class = labels.subset_lut(num_classes)[to_train]
    to_class[to_train == labels.UNKNOWN] = labels.UNKNOWN
    return to_class


def _list_images(root: str, split: str) -> list[str]:
    """Sorted 'city/stem' of all images of a split."""
    if not root:
        raise UserError(
            "no data folder given: set --config.data.source.root (or target, eval) to "
            "the folder with leftImg8bit and gtFine, or to an environment variable "
            "such as '$CITYSCAPES'"
        )
    images = pathlib.Path(root) / "leftImg8bit"
    if not images.is_dir():
        raise UserError(
            f"{images}: no such folder; point the data set's root (--config.data.*.root"
            " or the environment variable in it) at the folder that holds leftImg8bit"
        )
    splits = sorted(p.name for p in images.iterdir() if p.is_dir())
    if split not in splits:
        raise UserError(
            f"{images}: no split '{split}'; it has {', '.join(splits) or 'none'}"
        )
    names = sorted(
        p.relative_to(images / split).as_posix().removesuffix(_IMAGE)
        for p in (images / split).glob(f"*/*{_IMAGE}")
        if p.name not in _SKIP
    )
    if not names:
        raise UserError(f"{images / split}: no images <city>/*{_IMAGE} in it")
    return names


def _part(names: list[str], start: float, stop: float, *, where) -> list[str]:
    if not 0 <= start < stop <= 1:
        raise UserError(f"start={start}, stop={stop}: need 0 <= start < stop <= 1")
    part = names[round(start * len(names)) : round(stop * len(names))]
    if not part:
        raise UserError(
            f"{where}: no image left between start={start} and stop={stop} of "
            f"{len(names)}; widen them"
        )
    return part


def _streets(domain: str, spec, num_classes: int, seed: int, labelled: bool):
    if (spec.start, spec.stop) != (0.0, 1.0):
        raise UserError(
            f"{spec.name}: start and stop are for folders; set length instead"
        )
    source = Streets(
        domain,
        length=spec.length,
        size=tuple(spec.size),
        seed=seed,
        split=spec.split,
        labelled=labelled,
    )
    return source if num_classes == 19 else ClassSubset(source, num_classes)


def _cityscapes(spec, num_classes, seed, labelled):
    del seed  # files do not depend on it
    return CityscapesFolder(
        spec.root,
        split=spec.split,
        num_classes=num_classes,
        labelled=labelled,
        start=spec.start,
        stop=spec.stop,
    )


SOURCES = {
    "streets_rendered": functools.partial(_streets, "rendered"),
    "streets_camera": functools.partial(_streets, "camera"),
    "cityscapes": _cityscapes,
}


def build(spec, *, num_classes: int, seed: int, labelled: bool):
    """The source that a config describes.

    Args:
        spec: fields name (a key of SOURCES), root (already expanded), split, length,
            size, start, stop.
        num_classes: 19, 16 or 13.
        seed: of the rendered streets.
        labelled: whether items have a 'label'.
    Raises:
        UserError: unknown name, or what the source raises.
    """
    if spec.name not in SOURCES:
        raise UserError(
            f"data set '{spec.name}' is unknown; choose one of {', '.join(SOURCES)}"
        )
    return SOURCES[spec.name](spec, num_classes, seed, labelled)
