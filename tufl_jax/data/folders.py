"""The official folders (or zip archives) of a data set, read as they are."""

from absl import logging

from tufl_jax.data import layouts, reading
from tufl_jax.data.files import Tree
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
    Raises:
        UserError: the folder, images or label files are missing.
    Attributes:
        skipped: {name: why} of files that are there and left out.
        has_labels: whether the items have label files.
    """

    def __init__(self, root: str, layout: Layout, *, split: str, labelled: bool):
        if not root:
            raise UserError(
                "no data folder given: set --config.data.source.root (or target, eval) "
                "to the folder of the data set, or to an environment variable such as "
                "'$CITYSCAPES'"
            )
        self._tree = Tree(root)
        self._images = self._tree.find(layout.images)
        if not self._images:
            raise _nothing_found(self._tree, layout.images)
        self._labels = self._tree.find(layout.labels) if layout.labels else {}
        extra = len(self._labels.keys() - self._images.keys())
        if extra:
            logging.warning("%s: %d labels have no image", self._tree.root, extra)
        listed = layouts.listed_names(layout, split, self._tree)
        if listed is not None:
            self._keep_listed(listed, layout.lists[split])
        self.skipped = self._skip(layout)
        self.names = [name for name in self._images if name not in self.skipped]
        self.has_labels = bool(self._labels.keys() & self._images.keys())
        if labelled or self.has_labels:
            self._check_pairs(layout, labelled=labelled)

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

    def _read(self, path: str) -> tuple[bytes, str]:
        return self._tree.read(path), str(self._tree.root / path)

    def _keep_listed(self, listed: list[str], path: str) -> None:
        absent = sorted(set(listed) - self._images.keys())
        if absent:
            raise UserError(
                f"{self._tree.root}: {len(absent)} of {len(listed)} images that {path} "
                f"lists are absent, e.g. {', '.join(absent[:3])}; restore them"
            )
        self._images = {name: self._images[name] for name in sorted(set(listed))}

    def _skip(self, layout: Layout) -> dict[str, str]:
        skipped = {n: why for n, why in layout.skip.items() if n in self._images}
        for name in sorted(layout.odd & self._images.keys() & self._labels.keys()):
            sizes = [self._size(paths[name]) for paths in (self._images, self._labels)]
            if sizes[0] != sizes[1]:
                (ih, iw), (lh, lw) = sizes
                skipped[name] = f"image is {iw}x{ih} pixels, its label {lw}x{lh}"
        for name, why in skipped.items():
            logging.info("%s: skipping %s: %s", self._tree.root, name, why)
        return skipped

    def _size(self, path: str) -> tuple[int, int]:
        where = str(self._tree.root / path)
        return reading.size(self._tree.read(path, _HEADER), where)

    def _check_pairs(self, layout: Layout, *, labelled: bool) -> None:
        missing = [name for name in self.names if name not in self._labels]
        if missing:
            examples = ", ".join(
                layout.labels.replace("{name}", name) for name in missing[:3]
            )
            message = (
                f"{self._tree.root}: {len(missing)} of {len(self.names)} images have "
                f"no label file, e.g. {examples}; add them, or remove the images"
            )
            if labelled:
                raise UserError(message)
            logging.warning("%s", message)


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
