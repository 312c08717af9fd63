"""Images that were translated to another style, in place of a data set's own.

A folder of {name}.png (or .jpg, .jpeg), one for each item's name: what
`python -m tufl_jax.translate` writes, or another tool. It lies beside a NAME.json that
says where the images came from, if this project wrote them.
"""

import json
import os
import pathlib

from tufl_jax.data import reading
from tufl_jax.data.files import Tree
from tufl_jax.errors import UserError


def description(folder: str | os.PathLike) -> pathlib.Path:
    """The file that says how a folder was made."""
    folder = pathlib.Path(folder)
    return folder.with_name(folder.name + ".json")


class TranslatedImages:
    """The images of a folder by their items' names.

    Args:
        folder: see above.
        names: of all items that are wanted.
    Raises:
        UserError: there is no such folder, or an item has no image in it.
    """

    def __init__(self, folder: str, names: list[str]):
        if not pathlib.Path(folder).is_dir():
            raise UserError(
                f"{folder}: no translated images there: run python -m "
                "tufl_jax.translate first, or set config.data.*.translated to '' for "
                "the images as they are"
            )
        self._tree = Tree(folder)
        self._paths = self._tree.find("{name}.*")
        missing = [name for name in names if name not in self._paths]
        if missing:
            raise UserError(
                f"{folder}: {len(missing)} of {len(names)} images are not there, e.g. "
                f"{', '.join(missing[:3])}: run the command that translates them again"
            )

    def __call__(self, name: str) -> tuple[bytes, str]:
        """Content and path of an item's image."""
        path = self._paths[name]
        return self._tree.read(path), str(self._tree.root / path)

    def stamp(self, name: str) -> str:
        """Changes when the image does."""
        return self._tree.stamp(self._paths[name])


class TranslatedFiles:
    """The files of a data set with other images; see `pairs.Pairs` for the interface.

    Args:
        files: data/folders.py or data/prepared.py.
        folder: see above.
    """

    def __init__(self, files, folder: str):
        self._files = files
        self._translated = TranslatedImages(folder, files.names)
        self.names, self.skipped = files.names, files.skipped

    def image(self, index: int) -> tuple[bytes, str]:
        """Content and path of a translated image."""
        return self._translated(self.names[index])

    def label(self, index: int) -> tuple[bytes, str]:
        """Content and path of the data set's own label."""
        return self._files.label(index)

    def stamp(self, index: int) -> str:
        """Changes when the label file does."""
        return self._files.stamp(index)

    def has_label(self, index: int) -> bool:
        """Whether there is a label file."""
        return self._files.has_label(index)

    def label_path(self, index: int) -> str:
        """Where the label file is or should be."""
        return self._files.label_path(index)


class TranslatedStreets:
    """Rendered streets with other images.

    Args:
        streets: data/streets.py.
        folder: see above.
    Raises:
        UserError: as TranslatedImages, or the images are of other streets.
    """

    def __init__(self, streets, folder: str):
        self._streets = streets
        names = [streets.name(i) for i in range(len(streets))]
        self._translated = TranslatedImages(folder, names)
        # Streets of another seed have the same names.
        path = description(folder)
        seed = json.loads(path.read_text())["seed"] if path.exists() else None
        if seed != streets.seed:
            raise UserError(
                f"{folder}: translated from the streets of seed {seed}, not "
                f"{streets.seed}: translate these, or set config.seed"
            )

    def __len__(self) -> int:
        return len(self._streets)

    def __getitem__(self, index: int) -> dict:
        """As Streets; UserError for an image of another size."""
        item = self._streets[index]
        data, where = self._translated(item["name"])
        image = reading.read_image(data, where)
        if image.shape != item["image"].shape:
            height, width = self._streets.size
            raise UserError(
                f"{where}: {image.shape[1]}x{image.shape[0]} pixels, its street has "
                f"{width}x{height}: translate them at this size"
            )
        return {**item, "image": image}

    def name(self, index: int) -> str:
        """What tells the item apart from the others."""
        return self._streets.name(index)

    def fingerprint(self) -> str:
        """Changes when the labels do."""
        return self._streets.fingerprint()
