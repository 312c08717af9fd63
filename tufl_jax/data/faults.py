"""What is wrong with one image and its label."""

import dataclasses
import hashlib

import numpy as np
from PIL import Image

from tufl_jax import labels
from tufl_jax.data import reading
from tufl_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
      kind: a word or two, the same for problems of one sort.
      message: one line that names the file.
      fatal: whether a training would stop at it or go wrong.
    """

    kind: str
    message: str
    fatal: bool = True


@dataclasses.dataclass
class Item:
    """What was found out about one image and its label.

    Attributes:
      problems: all there are.
      size: (height, width) of the image.
      digest: of the pixels of the image, whatever file they are in.
      pixels: i64[256] by raw id.
      class_images: i64[256] by class index, 1 for those the label holds.
    """

    problems: list[Problem]
    size: tuple[int, int] | None = None
    digest: bytes = b""
    pixels: np.ndarray | None = None
    class_images: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Items:
    """The files of a split, decoded.

    Attributes:
      files: data/folders.py or data/prepared.py.
      decode: one of reading.READ_LABEL.
      to_class: u8[256], the class of each raw id.
    """

    files: object
    decode: object
    to_class: np.ndarray

    def name(self, index: int) -> str:
        return self.files.names[index]

    def image(self, index: int) -> np.ndarray:
        return reading.read_image(*self.files.image(index))

    def label(self, index: int) -> np.ndarray:
        data, where = self.files.label(index)
        return labels.map_ids(self.decode(data, where), self.to_class, where=where)

    def has_label(self, index: int) -> bool:
        return self.files.has_label(index)


def look_at(source: Items, labelled: bool, index: int) -> Item:
    """Read an item and, where `labelled`, its label; faults are noted, none raised."""
    item = Item([])
    try:
        data, where = source.files.image(index)
        image = reading.read_image(data, where)
        item.size = image.shape[:2]
        item.digest = hashlib.blake2b(image, digest_size=16).digest()
        if _single_colour(image):
            text = f"{where}: the whole picture has one colour"
            item.problems.append(Problem("one colour", text, fatal=False))
        del image
    except UserError as error:
        item.problems.append(Problem("image", str(error)))
    if not labelled:
        return item
    if not source.has_label(index):
        path = source.files.label_path(index)
        text = f"{path}: is missing; add this label, or remove its image"
        item.problems.append(Problem("no label", text))
        return item
    try:
        data, where = source.files.label(index)
        raw = source.decode(data, where)
        _check_label(item, raw, where, source.to_class)
    except UserError as error:
        item.problems.append(Problem("label", str(error)))
    return item


def _check_label(item: Item, raw: np.ndarray, where: str, to_class) -> None:
    if item.size and raw.shape != item.size:
        text = (
            f"{where}: label is {raw.shape[1]}x{raw.shape[0]} pixels, its image "
            f"{item.size[1]}x{item.size[0]}; use files of one size"
        )
        item.problems.append(Problem("size mismatch", text))
    if raw.dtype != np.uint8 and (raw.min() < 0 or raw.max() > 255):
        labels.map_ids(raw, to_class, where=where)  # raises and says which
    # Pillow's histogram is many times faster than NumPy's bincount on bytes.
    counts = Image.fromarray(raw.astype(np.uint8, copy=False)).histogram()
    counts = np.array(counts, np.int64)
    if (unknown := (counts > 0) & (to_class == labels.UNKNOWN)).any():
        ids = ", ".join(str(i) for i in np.flatnonzero(unknown)[:5])
        share = 100 * counts[unknown].sum() / counts.sum()
        text = (
            f"{where}: id {ids} is not in the table of this data set ({share:.1f} % of "
            "the label); is it a file of label ids, or a grey picture of its colours?"
        )
        item.problems.append(Problem("unknown ids", text))
    elif counts[0] == counts.sum():
        text = f"{where}: every pixel has id 0: was it decoded wrongly?"
        item.problems.append(Problem("all zero", text, fatal=False))
    item.pixels = counts
    known = to_class < labels.UNKNOWN
    present = np.unique(to_class[known & (counts > 0)])
    item.class_images = np.bincount(present, minlength=256)[:256]


def _single_colour(image: np.ndarray) -> bool:
    few = image[::16, ::16].reshape(-1, 3)
    return bool((few == few[0]).all() and (image == image[0, 0]).all())
