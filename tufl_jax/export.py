"""Predictions as files: label ids as the Cityscapes benchmark takes them, colours."""

import os
import pathlib

import numpy as np
from PIL import Image

from tufl_jax import labels, pictures


class Exporter:
    """Writes two pictures of each prediction, at its size.

    `folder/labelIds/<name>_labelIds.png` holds Cityscapes label ids (for classes that
    are not all theirs, the class indices). The benchmark's script takes this folder as
    CITYSCAPES_RESULTS, and zipped it is a submission: it finds the one file that begins
    with <city>_<sequence>_<frame>. `folder/colour/<name>.png` is for the eye, in the
    palette of the classes.

    Args:
      folder: created if it is not there.
      classes: of the network.
    """

    def __init__(self, folder: str | os.PathLike, classes: labels.Classes):
        self._folder = pathlib.Path(folder)
        ids = {name: raw for raw, name in labels.CITYSCAPES_IDS.items() if name}
        known = all(name in ids for name in classes.names)
        values = [ids[n] if known else i for i, n in enumerate(classes.names)]
        self._ids = np.array(values, np.uint8)
        self._palette = classes.palette.ravel().tolist()

    def __call__(self, name: str, prediction: np.ndarray) -> None:
        """Write one prediction, class indices u8[H, W], under the name of its image."""
        ids = self._folder / "labelIds" / f"{name}_labelIds.png"
        pictures.save_png(self._ids[prediction], ids)
        colours = Image.fromarray(prediction)
        colours.putpalette(self._palette)
        pictures.save_png(colours, self._folder / "colour" / f"{name}.png")
