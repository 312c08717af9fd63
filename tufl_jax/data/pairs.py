"""Image and label files as examples, whatever holds the files."""

import hashlib

import numpy as np

from tufl_jax import labels
from tufl_jax.data import reading
from tufl_jax.data.layouts import Layout
from tufl_jax.errors import UserError


class Pairs:
    """A source (see data/sources.py) of decoded files.

    Args:
        files: `names` (list of str, sorted), `skipped` ({name: why}), `image(i)` and
            `label(i)` -> (content of a file, its path for messages), `stamp(i)` -> str
            that changes when the label does: data/folders.py or data/prepared.py.
        layout: how label files are decoded and what their ids mean.
        classes: of the training.
        labelled: False never looks at labels, and gives no 'label'.
        start, stop: use this part of the sorted names, 0 to 1.
        where: the data set, for messages.
    Attributes:
        layout, files, classes, labelled: as given.
    Raises:
        UserError: at construction if no item is left; at access if a file cannot be
            read, a label's size differs from its image's, or a label id does not exist.
    """

    def __init__(
        self,
        files,
        *,
        layout: Layout,
        classes: labels.Classes,
        labelled: bool,
        start: float = 0.0,
        stop: float = 1.0,
        where: str,
    ):
        self.layout = layout
        self.classes = classes
        self.labelled = labelled
        self.files = files
        self._decode = reading.READ_LABEL[layout.decode]
        self._to_class = classes.lut(layout.ids)
        self._indices = _part(len(files.names), start, stop, where=where)
        if labelled and not (self._to_class < labels.UNKNOWN).any():
            raise UserError(
                f"{where}: none of the classes {', '.join(classes.names)} is among its "
                f"own ({', '.join(sorted(set(layout.ids.values()) - {''}))}): give ids"
            )

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict:
        """{'image': u8[H, W, 3], 'label': u8[H, W] when labelled, 'name': str}."""
        example = {"image": self.image(index), "name": self.name(index)}
        if self.labelled:
            label = self.label(index)
            self._check_sizes(index, example["image"], label)
            example["label"] = label
        return example

    def name(self, index: int) -> str:
        """What tells the item apart from the others, such as 'city/city_000000'."""
        return self.files.names[self._indices[index]]

    def image_file(self, index: int) -> tuple[bytes, str]:
        """Content and path of the image file."""
        return self.files.image(self._indices[index])

    def label_file(self, index: int) -> tuple[bytes, str]:
        """Content and path of the label file."""
        return self.files.label(self._indices[index])

    def image(self, index: int) -> np.ndarray:
        """The photograph u8[H, W, 3]."""
        return reading.read_image(*self.image_file(index))

    def raw_label(self, index: int) -> np.ndarray:
        """The ids that the label file holds, [H, W] of an integer type."""
        return self._decode(*self.label_file(index))

    def label(self, index: int) -> np.ndarray:
        """Class indices u8[H, W], without decoding the image."""
        data, where = self.label_file(index)
        return labels.map_ids(self._decode(data, where), self._to_class, where=where)

    def fingerprint(self) -> str:
        """Changes with the list of items, the label files and the meaning of ids."""
        digest = hashlib.sha256(self._to_class.tobytes())
        for index in self._indices:
            stamp = self.files.stamp(index) if self.labelled else ""
            digest.update(f"{self.files.names[index]} {stamp}\n".encode())
        return digest.hexdigest()

    def _check_sizes(self, index: int, image: np.ndarray, label: np.ndarray) -> None:
        if label.shape != image.shape[:2]:
            image_path, label_path = (
                self.image_file(index)[1],
                self.label_file(index)[1],
            )
            raise UserError(
                f"{label_path}: label is {label.shape[1]}x{label.shape[0]} pixels, "
                f"its image {image_path} is {image.shape[1]}x{image.shape[0]}; use "
                "files of one size"
            )


def _part(count: int, start: float, stop: float, *, where: str) -> range:
    if not 0 <= start < stop <= 1:
        raise UserError(f"start={start}, stop={stop}: need 0 <= start < stop <= 1")
    part = range(round(start * count), round(stop * count))
    if not part:
        raise UserError(
            f"{where}: no image left between start={start} and stop={stop} of {count}; "
            "widen them"
        )
    return part
