"""The official folders (or zip archives) of a data set, read as they are."""

from collections.abc import Callable

from absl import logging

from tufl_jax.data import layouts, reading
from tufl_jax.data.files import Tree, raise_it
from tufl_jax.data.layouts import Layout
from tufl_jax.errors import UserError

_HEADER = 65536  # bytes in which the size of a picture is found


class FolderFiles:
    """The files of one split; see `pairs.Pairs` for what it offers.

    Args:
        root: folder that holds what the layout's patterns name.
        layout: filled in.
        split: for the data set's own list of names.
        labelled: whether every item must have a label file.
        report: what is done about a fault that other files do not share; if it returns,
            the file is left out, but a missing label is not.
    Raises:
        UserError: the folder, images or label files are missing.
    Attributes:
        skipped: {name: why} of files that are there and left out.
        has_labels: whether the items have label files.
        without_image: names of label files that have none.
    """

    def __init__(
        self,
        root: str,
        layout: Layout,
        *,
        split: str,
        labelled: bool,
        report: Callable[[UserError], None] = raise_it,
    ):
        if not root:
            raise UserError(
                "no data folder given: set --config.data.source.root (or target, eval) "
                "to the folder of the data set, or to an environment variable such as "
                "'$CITYSCAPES'"
            )
        self._tree = Tree(root)
        self._images = self._tree.find(layout.images, report=report)
        if not self._images:
            raise _nothing_found(self._tree, layout.images)
        self._labels = {}
        if layout.labels:
            self._labels = self._tree.find(layout.labels, report=report)
        self.without_image = sorted(self._labels.keys() - self._images.keys())
        if self.without_image:
            logging.warning(
                "%s: %d labels have no image", self._tree.root, len(self.without_image)
            )
        listed = layouts.listed_names(layout, split, self._tree)
        if listed is not None:
            self._keep_listed(listed, layout.lists[split], report)
        self.skipped = self._skip(layout, report)
        self.names = [name for name in self._images if name not in self.skipped]
        self.has_labels = bool(self._labels.keys() & self._images.keys())
        self._label_pattern = layout.labels
        if labelled:
            self.check_labels()

    def image(self, index: int) -> tuple[bytes, str]:
        """Content and path of an image file."""
        return self._read(self._images[self.names[index]])

    def label(self, index: int) -> tuple[bytes, str]:
        """Content and path of a label file."""
        return self._read(self._labels[self.names[index]])

    def stamp(self, index: int) -> str:
        """Changes when the label file does."""
        return self._tree.stamp(self._labels[self.names[index]])

    def image_stamp(self, index: int) -> str:
        """Changes when the image file does."""
        return self._tree.stamp(self._images[self.names[index]])

    def has_label(self, index: int) -> bool:
        """Whether there is a label file."""
        return self.names[index] in self._labels

    def label_path(self, index: int) -> str:
        """Where the label file is or should be."""
        path = self._label_pattern.replace("{name}", self.names[index])
        return str(self._tree.root / path)

    def check_labels(self) -> None:
        """Raise UserError if an image has no label file."""
        missing = [name for name in self.names if name not in self._labels]
        if missing:
            examples = ", ".join(
                self._label_pattern.replace("{name}", name) for name in missing[:3]
            )
            raise UserError(
                f"{self._tree.root}: {len(missing)} of {len(self.names)} images have "
                f"no label file, e.g. {examples}; add them, or remove the images"
            )

    def _read(self, path: str) -> tuple[bytes, str]:
        return self._tree.read(path), str(self._tree.root / path)

    def _keep_listed(self, listed: list[str], path: str, report: Callable) -> None:
        absent = sorted(set(listed) - self._images.keys())
        if absent:
            report(
                UserError(
                    f"{self._tree.root}: {len(absent)} of {len(listed)} images that "
                    f"{path} lists are absent, e.g. {', '.join(absent[:3])}; restore "
                    "them"
                )
            )
        present = sorted(set(listed) - set(absent))
        self._images = {name: self._images[name] for name in present}

    def _skip(self, layout: Layout, report: Callable) -> dict[str, str]:
        skipped = {n: why for n, why in layout.skip.items() if n in self._images}
        for name in sorted(layout.odd & self._images.keys() & self._labels.keys()):
            try:
                sizes = [self._size(x[name]) for x in (self._images, self._labels)]
            except UserError as error:
                report(error)
                continue
            if sizes[0] != sizes[1]:
                (ih, iw), (lh, lw) = sizes
                skipped[name] = f"image is {iw}x{ih} pixels, its label {lw}x{lh}"
        for name, why in skipped.items():
            logging.info("%s: skipping %s: %s", self._tree.root, name, why)
        return skipped

    def _size(self, path: str) -> tuple[int, int]:
        where = str(self._tree.root / path)
        return reading.size(self._tree.read(path, _HEADER), where)


def _nothing_found(tree: Tree, pattern: str) -> UserError:
    """Says how far down the folders are as expected."""
    *folders, _ = pattern.partition("{name}")[0].split("/")
    good = ""
    for folder in folders:
        inside = tree.folders(good)
        below = f"{good}/{folder}" if good else folder
        if folder not in inside:
            return UserError(
                f"{tree.root / good}: no folder '{folder}' in it, only "
                f"{', '.join(inside) or 'none'}; is the data set's root (--config."
                "data.*.root or the environment variable in it) right, and its split?"
            )
        good = below
    return UserError(f"{tree.root}: no images {pattern} in it")
