"""Labelled and unlabelled image sets with random access.

A source has `len(source)` and `source[i] -> {'image': u8[H, W, 3], 'label': u8[H, W]
class indices with 255 ignored, 'name': str}` (no 'label' when unlabelled), can be
pickled, and has `name(i)` and `fingerprint() -> str`, which changes when its labels do.
Optional:
`label(i) -> u8[H, W]`, when that is cheaper than source[i]['label'], and
`undecoded(i)`, which is source[i] with a `reading.Photograph` as image.
"""

from tufl_jax import labels
from tufl_jax.data import layouts
from tufl_jax.data.folders import FolderFiles
from tufl_jax.data.layouts import LAYOUTS
from tufl_jax.data.pairs import Pairs
from tufl_jax.data.prepared import PreparedFiles
from tufl_jax.data.streets import Streets
from tufl_jax.data.translated import TranslatedFiles, TranslatedStreets
from tufl_jax.errors import UserError

STREETS = {"streets_rendered": "rendered", "streets_camera": "camera"}
NAMES = (*STREETS, *LAYOUTS)
FORMATS = ("folder", "prepared")


def build(spec, *, classes: labels.Classes, seed: int, labelled: bool):
    """The source that a config describes.

    Args:
        spec: the fields of config.data.*, with root and translated expanded.
        classes: of the training.
        seed: of the rendered streets.
        labelled: whether items have a 'label'.
    Raises:
        UserError: an unknown name, or what the source raises.
    """
    if spec.name in STREETS:
        return _streets(spec, classes, seed, labelled)
    if spec.name not in LAYOUTS:
        raise UserError(
            f"data set '{spec.name}' is unknown; choose one of {', '.join(NAMES)}"
        )
    if spec.format not in FORMATS:
        raise UserError(f"format='{spec.format}' must be one of {', '.join(FORMATS)}")
    layout = layouts.of_spec(spec, classes)
    if spec.format == "prepared":
        files = PreparedFiles(spec.root, spec, labelled=labelled)
    else:
        files = FolderFiles(spec.root, layout, split=spec.split, labelled=labelled)
    if spec.translated:
        files = TranslatedFiles(files, spec.translated)
    return Pairs(
        files,
        layout=layout,
        classes=classes,
        labelled=labelled,
        start=spec.start,
        stop=spec.stop,
        where=f"{spec.name} ({spec.root})",
    )


class Relabelled:
    """A source of the 19 Cityscapes classes, seen with the classes of a training."""

    def __init__(self, source, classes: labels.Classes):
        self._source = source
        self._lut = classes.lut(dict(enumerate(labels.CITYSCAPES)))
        self.classes = classes

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        example = self._source[index]
        if "label" in example:
            example = {**example, "label": self._lut[example["label"]]}
        return example

    def name(self, index: int) -> str:
        return self._source.name(index)

    def fingerprint(self) -> str:
        return f"Relabelled {self.classes.names} {self._source.fingerprint()}"


def _streets(spec, classes: labels.Classes, seed: int, labelled: bool):
    if (spec.start, spec.stop) != (0.0, 1.0):
        raise UserError(
            f"{spec.name}: start and stop are for folders; set length instead"
        )
    source = Streets(
        STREETS[spec.name],
        length=spec.length,
        size=tuple(spec.size),
        seed=seed,
        split=spec.split,
        labelled=labelled,
    )
    if spec.translated:
        source = TranslatedStreets(source, spec.translated)
    return source if classes.names == labels.CITYSCAPES else Relabelled(source, classes)
