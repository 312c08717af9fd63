"""How each known data set lays out its files, and own ones described in a config."""

import dataclasses
import io
import re
from collections.abc import Mapping

from tufl_jax import labels
from tufl_jax.data.files import Tree
from tufl_jax.errors import UserError

_FILLED = ("split", "Split", "city", "annotation")  # markers besides {name}


def _empty():
    return dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the files of a data set are and what their ids mean.

    Attributes:
        images: path below the root. {name} is what tells the items apart and may hold
            folders; {split}, {Split} (its first letter a capital), {city} and
            {annotation} are filled from the config; a last `.*` is .png or .jpg.
        labels: the same for the label of each name; '' if there are none.
        ids: raw id of a label file -> class name, '' for ids that do not count.
        decode: key of reading.READ_LABEL.
        lists: split -> file that lists its names, '' for all there are; empty if the
            splits are folders. A list that is missing means all, except for .mat.
        skip: names left out wherever they are found, and why.
        odd: names left out where image and label differ in size, and said so.
        counts: items each split has when it is complete.
        options: fields of the config that this data set needs.
    """

    images: str
    labels: str
    ids: Mapping[int, str] = _empty()
    decode: str = "ids"
    lists: Mapping[str, str] = _empty()
    skip: Mapping[str, str] = _empty()
    odd: frozenset[str] = frozenset()
    counts: Mapping[str, int] = _empty()
    options: Mapping[str, tuple[str, ...]] = _empty()

    def filled(self, spec) -> "Layout":
        """The layout with split, city and annotation of a config put in.

        Raises UserError for a value that the data set does not have.
        """
        for key, allowed in self.options.items():
            if spec[key] not in allowed:
                raise UserError(
                    f"{spec.name}: {key}='{spec[key]}' must be one of "
                    f"{', '.join(allowed)}"
                )
        if self.lists and spec.split not in self.lists:
            raise UserError(
                f"{spec.name}: no split '{spec.split}'; it has {', '.join(self.lists)}"
            )
        values = {
            "split": spec.split,
            "Split": spec.split.capitalize(),
            "city": spec.city,
            "annotation": spec.annotation,
        }
        return dataclasses.replace(
            self,
            images=_fill(self.images, values),
            labels=_fill(self.labels, values),
            lists={k: _fill(v, values) for k, v in self.lists.items()},
        )


# The authors say that 60 label maps have another size than their image; these are named
# by several independent loaders.
_GTA5_ODD = frozenset(f"{i:05d}" for i in (15188, 17705, *range(20801, 20861)))

LAYOUTS = {
    "cityscapes": Layout(
        images="leftImg8bit/{split}/{name}_leftImg8bit.png",
        labels="{annotation}/{split}/{name}_{annotation}_labelIds.png",
        ids=labels.CITYSCAPES_IDS,
        skip={
            "troisdorf/troisdorf_000000_000073": "damaged in the original upload of "
            "train_extra; papers count 19,997 without it"
        },
        counts={"train": 2975, "val": 500, "test": 1525, "train_extra": 19997},
        options={"annotation": ("gtFine", "gtCoarse")},
    ),
    "gta5": Layout(
        images="images/{name}.png",
        labels="labels/{name}.png",
        ids=labels.GTA5_IDS,
        lists={"all": "", **dict.fromkeys(("train", "val", "test"), "split.mat")},
        odd=_GTA5_ODD,
        counts={"all": 24966, "train": 12403, "val": 6382, "test": 6181},
    ),
    "synthia": Layout(
        images="RAND_CITYSCAPES/RGB/{name}.png",
        labels="RAND_CITYSCAPES/GT/LABELS/{name}.png",
        ids=labels.SYNTHIA_IDS,
        decode="synthia",
        lists={"all": ""},
        counts={"all": 9400},
    ),
    "crosscity": Layout(
        images="{city}/Images/{Split}/{name}.*",
        labels="{city}/Labels/{Split}/{name}_eval.png",
        ids=labels.CROSSCITY_IDS,
        lists={"train": "{city}/List/train.txt", "test": "{city}/List/test.txt"},
        counts={"train": 3200, "test": 100},
        options={"city": ("Rio", "Rome", "Taipei", "Tokyo")},
    ),
    "folder": Layout(images="", labels=""),
}


def of_files(spec) -> Layout:
    """The layout a config describes, with everything but {name} filled in.

    Args:
        spec: fields name (a key of LAYOUTS), split, city, annotation, and images and
            labels, which replace those of the table where not empty.
    Raises:
        UserError: a field is missing or does not fit.
    """
    layout = LAYOUTS[spec.name]
    if spec.name == "folder" and not spec.images:
        raise UserError(
            "name='folder' needs images, the pattern of its image files, such as "
            "'frames/{split}/{name}.jpg'"
        )
    own = {key: spec[key] for key in ("images", "labels") if spec[key]}
    for key, pattern in own.items():
        _check_pattern(pattern, key)
    return dataclasses.replace(layout, **own).filled(spec)


def of_spec(spec, classes: labels.Classes) -> Layout:
    """`of_files` with the meaning of the ids: of the table, or of the config.

    Args:
        spec: as there, and ids and other_ids.
        classes: of the training.
    Raises:
        UserError: as there, or ids that cannot be.
    """
    layout = of_files(spec)
    ids = layout.ids
    if spec.ids:
        ids = _own_ids(spec, classes)
    elif spec.name == "folder":  # files that hold class indices
        ids = dict(enumerate(classes.names))
    if spec.other_ids == "ignore":
        ids = dict.fromkeys(range(256), "") | dict(ids)
    elif spec.other_ids != "error":
        raise UserError(f"other_ids='{spec.other_ids}' must be 'error' or 'ignore'")
    return dataclasses.replace(layout, ids=ids)


def raw_ids(spec) -> Mapping[int, str] | None:
    """The ids that label files may hold, with some names; None: any.

    Args:
        spec: as for `of_spec`.
    """
    if spec.other_ids == "ignore":
        return None
    return (
        dict.fromkeys((raw for raw, _ in spec.ids), "")
        or LAYOUTS[spec.name].ids
        or None
    )


def listed_names(layout: Layout, split: str, tree: Tree) -> list[str] | None:
    """Names of a split from the data set's own list; None: all that are found.

    Raises UserError for a list that cannot be read.
    """
    path = layout.lists.get(split, "")
    if not path:
        return None
    if path.endswith(".mat"):
        return _mat_names(tree, path, split)
    if not tree.exists(path):
        return None
    try:
        lines = tree.read(path).decode().split()
    except UnicodeDecodeError as error:
        raise UserError(f"{tree.root / path}: not a text file ({error})") from error
    return [line.removesuffix(".png").removesuffix(".jpg") for line in lines]


def _mat_names(tree: Tree, path: str, split: str) -> list[str]:
    import scipy.io

    key = f"{split}Ids"
    try:
        ids = scipy.io.loadmat(io.BytesIO(tree.read(path)))[key]
    except (
        ValueError,
        KeyError,
        TypeError,
        NotImplementedError,
        scipy.io.matlab.MatReadError,
    ) as error:
        raise UserError(
            f"{tree.root / path}: no list '{key}' in it ({error}); take the split.mat "
            "of the data set's page"
        ) from error
    return [f"{int(i):05d}" for i in ids.ravel()]


def _own_ids(spec, classes: labels.Classes) -> dict[int, str]:
    """{raw id: class name} of the pairs in a config."""
    known = (*classes.names, *labels.CITYSCAPES)
    ids = {}
    for pair in spec.ids:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UserError(f"ids: {pair!r} is not a pair (raw id, class name)")
        raw, name = pair
        if not isinstance(raw, int) or not 0 <= raw <= 255:
            raise UserError(f"ids: raw id {raw!r} is not a number from 0 to 255")
        if isinstance(name, int) and 0 <= name < len(classes):
            name = classes.names[name]
        elif isinstance(name, int) and name == labels.IGNORE:
            name = ""
        if name != "" and name not in known:
            raise UserError(
                f"ids: {raw} -> {name!r} is none of the classes "
                f"({', '.join(classes.names)}){labels.near(str(name), known)}"
            )
        if ids.setdefault(raw, name) != name:
            raise UserError(f"ids: {raw} is both '{ids[raw]}' and '{name}'")
    return ids


def _check_pattern(pattern: str, key: str) -> None:
    if pattern.count("{name}") != 1:
        raise UserError(
            f"{key}='{pattern}' needs {{name}} once, where the items' file names differ"
        )
    unknown = set(re.findall(r"{(.*?)}", pattern)) - {"name", *_FILLED}
    if unknown:
        raise UserError(
            f"{key}='{pattern}': {{{unknown.pop()}}} is none of {{name}}, "
            f"{', '.join(f'{{{x}}}' for x in _FILLED)}"
        )
    if pattern.startswith("/"):
        raise UserError(f"{key}='{pattern}' must be a path below root")


def _fill(pattern: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        marker = "{" + key + "}"
        if marker in pattern and not value:
            raise UserError(f"'{pattern}' needs {key}, which is empty in the config")
        pattern = pattern.replace(marker, value)
    return pattern
