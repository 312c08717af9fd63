"""Tiny copies of the data sets, in their official formats to the byte layout.

Each writer returns {name: (image u8[H, W, 3], ids of the label [H, W] or None)} of what
it has written below `root`.
"""

import pathlib
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image

from tufl_jax import labels

SIZE = (32, 64)  # (height, width) of most pictures


def cityscapes(
    root, *, splits=("train", "val"), per_split=3, annotation="gtFine", size=SIZE
):
    """leftImg8bit and gtFine or gtCoarse in two cities a split; grey label ids."""
    written = {}
    for split in splits:
        for i in range(per_split):
            city = ("aachen", "bochum")[i % 2]
            name = f"{city}/{city}_{i:06d}_000019"
            image, ids = picture(f"{split}{name}", [*range(34), 255], size)
            save(root / f"leftImg8bit/{split}/{name}_leftImg8bit.png", image)
            save(root / f"{annotation}/{split}/{name}_{annotation}_labelIds.png", ids)
            written[name] = image, ids
    return written


def train_extra(root, *, count=3, damaged=True, labelled=True):
    """The extra images with coarse labels, and the one with the damaged upload."""
    written = cityscapes(
        root, splits=("train_extra",), per_split=count, annotation="gtCoarse"
    )
    if not labelled:
        for path in root.glob("gtCoarse/train_extra/*/*.png"):
            path.unlink()
    if damaged:
        name = "troisdorf/troisdorf_000000_000073"
        path = root / f"leftImg8bit/train_extra/{name}_leftImg8bit.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
    return written


def gta5(root, *, count=4, odd=True, split_mat=True):
    """Palette labels of slightly different sizes; number 15188 misfits its image."""
    written = {}
    palette = np.zeros((256, 3), np.uint8)
    palette[[7, 26]] = (128, 64, 128), (0, 0, 142)
    for i in range(1, count + 1):
        size = (SIZE[0] - i % 3, SIZE[1] + i % 2)
        image, ids = picture(f"gta{i}", range(35), size)
        save(root / f"images/{i:05d}.png", image)
        save_palette(root / f"labels/{i:05d}.png", ids, palette)
        written[f"{i:05d}"] = image, ids
    if odd:
        save(root / "images/15188.png", np.zeros((*SIZE, 3), np.uint8))
        save_palette(root / "labels/15188.png", np.zeros((9, 9), np.uint8), palette)
    if split_mat:
        import scipy.io

        rows = np.arange(1, count + 1, dtype=np.uint16)[:, None]
        parts = {"trainIds": rows[:-2], "valIds": rows[-2:-1], "testIds": rows[-1:]}
        scipy.io.savemat(root / "split.mat", parts)
    return written


def synthia(root, *, count=3):
    """16-bit three-channel labels: class, instance, nothing."""
    written = {}
    folder = pathlib.Path(root) / "RAND_CITYSCAPES"
    for i in range(count):
        image, ids = picture(f"synthia{i}", range(23), SIZE)
        instances = ids.astype(np.uint16) * 300
        save(folder / f"RGB/{i:07d}.png", image)
        save_16_bit(
            folder / f"GT/LABELS/{i:07d}.png",
            np.stack([ids, instances, np.zeros_like(instances)], -1),
        )
        written[f"{i:07d}"] = image, ids
    return written


def crosscity(root, *, city="Rio", train=3, test=2):
    """Unlabelled train and labelled test images, .jpg and .png in turn, with lists."""
    written = {}
    for split, count in (("Train", train), ("Test", test)):
        names = []
        for i in range(count):
            name = f"pano_{i:05d}_{split == 'Test':d}_180"
            image, ids = picture(f"{city}{name}", range(34), SIZE)
            ending = (".jpg", ".png")[i % 2]
            path = root / city / "Images" / split / (name + ending)
            save(path, image)
            if ending == ".jpg":  # lossy: what is read back is what was written
                image = np.asarray(Image.open(path))
            if split == "Test":
                save(root / city / f"Labels/Test/{name}_eval.png", ids)
            written[name] = image, ids if split == "Test" else None
            names.append(name)
        path = root / city / f"List/{split.lower()}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(names) + "\n")
    return written


def own(root, *, splits=("train", "val"), per_split=4, ids=(0, 1, 2, 7)):
    """frames/<split>/*.jpg with masks/<split>/*.png, as docs/data.md describes."""
    written = {}
    for split in splits:
        for i in range(per_split):
            image, label = picture(f"own{split}{i}", ids, SIZE)
            path = root / f"frames/{split}/{i:04d}.jpg"
            save(path, image)
            save(root / f"masks/{split}/{i:04d}.png", label)
            written[f"{split}/{i:04d}"] = np.asarray(Image.open(path)), label
    return written


def zipped(root, archive, *folders):
    """Moves folders of `root` into root/archive, named as in the official ones."""
    with zipfile.ZipFile(pathlib.Path(root) / archive, "w") as file:
        for folder in folders:
            for path in sorted(pathlib.Path(root, folder).rglob("*")):
                if path.is_file():
                    file.write(path, path.relative_to(root).as_posix())
                    path.unlink()


def picture(name, ids, size=SIZE):
    """An image u8[H, W, 3] and ids [H, W] in blocks; every name gives another one.

    Regions of one id have one colour, so that a network can learn from a few of them.
    """
    rng = np.random.default_rng([ord(letter) for letter in name])
    rows, columns = (np.arange(x) * 4 // x for x in size)
    blocks = rng.choice(np.array(list(ids), np.uint8), (4, 4))
    label = blocks[rows][:, columns]
    colours = np.random.default_rng(0).integers(30, 220, (256, 3))
    image = colours[label] + rng.integers(-20, 20, (*size, 3))
    return image.astype(np.uint8), label


def save(path, array):
    """A picture file; its folder is created."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, quality=95)


def save_palette(path, ids, palette):
    """A palette PNG whose indices are `ids` u8[H, W]."""
    picture = Image.fromarray(ids).convert("P")
    picture.putpalette(palette.ravel().tolist())
    picture.frombytes(ids.tobytes())
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def save_16_bit(path, channels):
    """A PNG of three 16-bit channels [H, W, 3], rows filtered in all five ways."""
    height, width, _ = channels.shape
    rows = channels.astype(">u2").view(np.uint8).reshape(height, -1)
    above = np.zeros(rows.shape[1], np.uint8)
    data = b""
    for i, row in enumerate(rows):
        kind = i % 5
        left, corner = (
            np.concatenate([np.zeros(6, np.uint8), x[:-6]]) for x in (row, above)
        )
        predictions = (
            np.zeros_like(row),
            left,
            above,
            ((left.astype(int) + above) // 2).astype(np.uint8),
            _paeth(left.astype(int), above.astype(int), corner.astype(int)),
        )
        data += bytes([kind]) + (row - predictions[kind]).tobytes()
        above = row
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(data))
        + _chunk(b"IEND", b"")
    )


def _paeth(left, above, corner):
    guess = left + above - corner
    distances = [abs(guess - x) for x in (left, above, corner)]
    return np.choose(np.argmin(distances, 0), (left, above, corner)).astype(np.uint8)


def _chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def expected(ids, table, num_classes=19):
    """Class indices of raw ids, by a loop that shares nothing with the readers."""
    names = labels.class_names(num_classes)
    out = np.full(ids.shape, 255, np.uint8)
    for raw in np.unique(ids):
        name = table.get(int(raw), "")
        if name in names:
            out[ids == raw] = names.index(name)
    return out
