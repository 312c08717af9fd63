"""Class tables: Cityscapes label ids, training ids, subsets and colours.

Three numberings, always in this order: the *label id* stored in a file, the
*training id* (0..18, the 19 evaluated classes) and the *class index* of the chosen
subset of 19, 16 or 13 classes, which is what networks and losses see. `IGNORE` is
255 in the last two.
"""

import numpy as np

from tufl_jax.errors import UserError

IGNORE = 255
UNKNOWN = 254  # look-up entry of an id that no table has: map_ids refuses it

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
_MAX_ID = 33  # ids 0..33 exist; those without a row above are not evaluated

CITYSCAPES = tuple(name for _, _, name, _ in _TABLE)
PALETTE = np.array([colour for *_, colour in _TABLE], np.uint8)

# Training ids of the evaluated subsets: all; SYNTHIA's 16 ("mIoU": no terrain,
# truck, train); 13 ("mIoU*": also no wall, fence, pole; the Cross-City classes).
SUBSETS = {
    "19": tuple(range(19)),
    "16": (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
    "13": (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
}


def _ids_to_train() -> np.ndarray:
    lut = np.full(256, UNKNOWN, np.uint8)
    lut[: _MAX_ID + 1] = IGNORE
    lut[255] = IGNORE  # label id -1 (license plate) in an 8-bit file
    for label_id, train_id, _, _ in _TABLE:
        lut[label_id] = train_id
    return lut


CITYSCAPES_IDS_TO_TRAIN = _ids_to_train()


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


def subset_lut(num_classes: int) -> np.ndarray:
    """u8[256]: training id -> class index of the subset, IGNORE for all others."""
    lut = np.full(256, IGNORE, np.uint8)
    for index, train_id in enumerate(subset(num_classes)):
        lut[train_id] = index
    return lut


def class_names(num_classes: int) -> tuple[str, ...]:
    """Names of the subset's classes, in the order of their indices."""
    return tuple(CITYSCAPES[t] for t in subset(num_classes))


def colorize(labels: np.ndarray, num_classes: int = 19) -> np.ndarray:
    """Class indices u8[..., H, W] -> colours u8[..., H, W, 3]; IGNORE is black."""
    colours = np.zeros((256, 3), np.uint8)
    colours[:num_classes] = PALETTE[list(subset(num_classes))]
    return colours[labels]
