"""Class tables: the classes of a training, and which raw ids of a file they are.

A *label id* is what a file stores; the *class index* is what networks and losses see,
with `IGNORE` (255) for pixels that do not count. Between them stand names: each data
set has a table from its ids to names, and the `Classes` of a training find their own
names in it. The *training id* is the index among the 19 Cityscapes classes.
"""

import colorsys
import dataclasses
import difflib
from collections.abc import Mapping

import numpy as np

from tufl_jax.errors import UserError

IGNORE = 255
UNKNOWN = 254  # look-up entry of an id that no table has: map_ids refuses it
MAX_CLASSES = UNKNOWN

# (label id, training id, name, colour), as in the Cityscapes scripts.
_TABLE = (
    (7, 0, "road", (128, 64, 128)),
    (8, 1, "sidewalk", (244, 35, 232)),
    (11, 2, "building", (70, 70, 70)),
    (12, 3, "wall", (102, 102, 156)),
    (13, 4, "fence", (190, 153, 153)),
    (17, 5, "pole", (153, 153, 153)),
    (19, 6, "traffic light", (250, 170, 30)),
    (20, 7, "traffic sign", (220, 220, 0)),
    (21, 8, "vegetation", (107, 142, 35)),
    (22, 9, "terrain", (152, 251, 152)),
    (23, 10, "sky", (70, 130, 180)),
    (24, 11, "person", (220, 20, 60)),
    (25, 12, "rider", (255, 0, 0)),
    (26, 13, "car", (0, 0, 142)),
    (27, 14, "truck", (0, 0, 70)),
    (28, 15, "bus", (0, 60, 100)),
    (31, 16, "train", (0, 80, 100)),
    (32, 17, "motorcycle", (0, 0, 230)),
    (33, 18, "bicycle", (119, 11, 32)),
)
CITYSCAPES = tuple(name for _, _, name, _ in _TABLE)
PALETTE = np.array([colour for *_, colour in _TABLE], np.uint8)

# Training ids of the evaluated subsets: all; SYNTHIA's 16 ("mIoU": no terrain,
# truck, train); 13 ("mIoU*": also no wall, fence, pole; the Cross-City classes).
SUBSETS = {
    "19": tuple(range(19)),
    "16": (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
    "13": (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
}

# Raw ids of the known data sets -> name; '' is an id that exists and does not count.
# 255 is one of these in every table: Cityscapes files hold it for id -1.
CITYSCAPES_IDS = dict.fromkeys(range(34), "") | {i: name for i, _, name, _ in _TABLE}
GTA5_IDS = CITYSCAPES_IDS | {34: ""}  # its own id for license plates
# SYNTHIA-RAND-CITYSCAPES has ids of its own; 16, 18 and 20 do not occur in it.
SYNTHIA_IDS = dict.fromkeys(range(23), "") | {
    1: "sky",
    2: "building",
    3: "road",
    4: "sidewalk",
    5: "fence",
    6: "vegetation",
    7: "pole",
    8: "car",
    9: "traffic sign",
    10: "person",
    11: "bicycle",
    12: "motorcycle",
    15: "traffic light",
    16: "terrain",
    17: "rider",
    18: "truck",
    19: "bus",
    20: "train",
    21: "wall",
}
# The Cross-City labels hold 13 classes under their Cityscapes ids.
CROSSCITY_IDS = CITYSCAPES_IDS | {
    i: "" for i, train_id, _, _ in _TABLE if train_id not in SUBSETS["13"]
}


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of a training, in the order of their indices.

    Attributes:
        names: C different names.
        colours: (red, green, blue) of each, 0 to 255.
    Raises:
        UserError: at construction, for names or colours that cannot be.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]

    def __post_init__(self):
        if not 0 < len(self.names) <= MAX_CLASSES:
            raise UserError(f"{len(self.names)} classes: give 1 to {MAX_CLASSES}")
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice or "" in self.names:
            raise UserError(
                f"class names must differ and not be empty: {sorted(twice) or ['']}"
            )
        if len(self.colours) != len(self.names):
            raise UserError(
                f"{len(self.colours)} colours for {len(self.names)} classes: give one "
                "(red, green, blue) for each, or none"
            )
        for name, colour in zip(self.names, self.colours, strict=True):
            if len(colour) != 3 or not all(0 <= x <= 255 for x in colour):
                raise UserError(
                    f"colour {colour} of class '{name}': give (red, green, blue), each "
                    "from 0 to 255"
                )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def palette(self) -> np.ndarray:
        """u8[C, 3]."""
        return np.array(self.colours, np.uint8)

    def legend(self) -> dict[str, tuple[int, int, int]]:
        """{name: colour}, in the order of the indices."""
        return dict(zip(self.names, self.colours, strict=True))

    def colorize(self, labels: np.ndarray) -> np.ndarray:
        """Class indices u8[..., H, W] -> u8[..., H, W, 3]; all others are black."""
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(self)] = self.palette
        return colours[labels]

    def lut(self, ids: Mapping[int, str]) -> np.ndarray:
        """The look-up table of a data set whose files hold `ids`.

        Args:
            ids: raw id 0..255 -> name; '' and names that these classes lack are
                ignored.
        Returns:
            u8[256]: raw id -> class index, IGNORE, or UNKNOWN where `ids` has no
            entry. 255 is ignored unless `ids` names it.
        """
        lut = np.full(256, UNKNOWN, np.uint8)
        lut[IGNORE] = IGNORE
        index = {name: i for i, name in enumerate(self.names)}
        for raw, name in ids.items():
            lut[raw] = index.get(name, IGNORE)
        return lut


def cityscapes(num_classes: int) -> Classes:
    """The subset of the Cityscapes classes with that many; UserError if none has."""
    chosen = [_TABLE[train_id] for train_id in subset(num_classes)]
    return Classes(
        tuple(name for _, _, name, _ in chosen), tuple(colour for *_, colour in chosen)
    )


def of_config(config) -> Classes:
    """The classes a config describes.

    Args:
        config: fields num_classes and classes.names, classes.colours; without names,
            the Cityscapes subset of num_classes.
    Raises:
        UserError: they do not fit each other.
    """
    names = tuple(config.classes.names)
    colours = tuple(tuple(colour) for colour in config.classes.colours)
    if not names:
        if colours:
            raise UserError(
                "config.classes.colours needs config.classes.names beside it"
            )
        return cityscapes(config.num_classes)
    if len(names) != config.num_classes:
        raise UserError(
            f"config.classes.names has {len(names)} names and config.num_classes is "
            f"{config.num_classes}: make them equal"
        )
    return Classes(names, colours or _distinct_colours(len(names)))


def _distinct_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Colours far apart: hues by the golden ratio, in three brightnesses."""
    colours = (
        colorsys.hsv_to_rgb(i * 0.618034 % 1, 0.75, (0.95, 0.7, 0.5)[i % 3])
        for i in range(count)
    )
    return tuple(tuple(round(255 * x) for x in colour) for colour in colours)


def near(name: str, names) -> str:
    """'; did you mean ...?' for the nearest of `names`, or ''."""
    found = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{found[0]}'?" if found else ""


def map_ids(raw: np.ndarray, lut: np.ndarray, *, where: str) -> np.ndarray:
    """Looks every id of a label picture up in a table.

    Args:
        raw: integer ids of any shape, e.g. [H, W].
        lut: u8[256], the value of each id; UNKNOWN marks ids that do not exist.
        where: name of the file, for the error.
    Returns:
        u8, shaped as `raw`.
    Raises:
        UserError: an id is not in the table; names `where` and the ids.
    """
    inside = (raw >= 0) & (raw <= 255) if raw.dtype != np.uint8 else None
    if inside is None or inside.all():
        out = lut[raw]
        bad = out == UNKNOWN
    else:
        bad = ~inside
    if bad.any():
        ids = ", ".join(str(i) for i in np.unique(raw[bad])[:5])
        known = np.flatnonzero(lut != UNKNOWN)
        known = known[known != 255]
        raise UserError(
            f"{where}: label id {ids} is not in the table of this data set (ids "
            f"{known.min()}..{known.max()} and 255); is it a file of label ids?"
        )
    return out


def subset(num_classes: int) -> tuple[int, ...]:
    """Training ids of the subset with that many classes; UserError if there is none."""
    if str(num_classes) not in SUBSETS:
        raise UserError(
            f"num_classes={num_classes}: choose one of {', '.join(SUBSETS)}"
        )
    return SUBSETS[str(num_classes)]


def class_names(num_classes: int) -> tuple[str, ...]:
    """Names of the subset's classes, in the order of their indices."""
    return cityscapes(num_classes).names
