"""Single files: official formats decoded exactly, every damage found and named."""

import contextlib
import io
import os
import pathlib
import struct
import tempfile
import zlib

import numpy as np
import pytest
from PIL import Image

from tests import replicas
from tests.test_prepare import prepare
from tests.test_sources import build, refused
from tufl_jax.data import reading
from tufl_jax.errors import UserError


def png(array, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", **options)
    return file.getvalue()


def sixteen_bit(channels, tmp_path):
    replicas.save_16_bit(tmp_path / "label.png", channels)
    return (tmp_path / "label.png").read_bytes()


def claiming(width, height):
    """A PNG whose header claims a size that its few bytes do not hold."""
    data = bytearray(png(np.zeros((2, 2), np.uint8)))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_synthia_labels_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(0)
    channels = rng.integers(0, 2**16, (37, 53, 3), np.uint16)
    ids = reading.read_synthia_ids(sixteen_bit(channels, tmp_path), "a.png")
    assert ids.dtype == np.uint16
    np.testing.assert_array_equal(ids, channels[..., 0])
    channels[..., 0] %= 23
    ids = reading.read_synthia_ids(sixteen_bit(channels, tmp_path), "a.png")
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, channels[..., 0])


def test_synthia_export_of_one_channel():
    ids = np.arange(22, dtype=np.uint8).reshape(2, 11)
    np.testing.assert_array_equal(reading.read_synthia_ids(png(ids), "a.png"), ids)


def test_synthia_label_read_by_a_wrong_decoder_is_refused(tmp_path):
    channels = np.zeros((4, 6, 3), np.uint16)
    channels[..., 1] = 300  # instances alone do not make a label
    for data in (sixteen_bit(channels, tmp_path), png(np.zeros((4, 6), np.uint8))):
        refused(lambda d=data: reading.read_synthia_ids(d, "a.png"), "a.png", "void")
    colour = png(np.zeros((4, 6, 3), np.uint8))
    refused(lambda: reading.read_synthia_ids(colour, "a.png"), "a.png", "mode RGB")


def test_palette_labels_are_indices(tmp_path):
    ids = np.arange(35, dtype=np.uint8).reshape(5, 7)
    palette = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    replicas.save_palette(tmp_path / "a.png", ids, palette)
    data = (tmp_path / "a.png").read_bytes()
    np.testing.assert_array_equal(reading.read_ids(data, "a.png"), ids)
    assert (reading.read_image(data, "a.png") == palette[ids]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
def test_grey_labels(dtype):
    ids = (np.arange(12).reshape(3, 4) % 2).astype(dtype)
    out = reading.read_ids(png(ids), "a.png")
    assert np.issubdtype(out.dtype, np.integer)
    np.testing.assert_array_equal(out, ids)


def test_wrong_kinds_of_label_are_refused(tmp_path):
    colours = np.zeros((4, 6, 3), np.uint8)
    refused(lambda: reading.read_ids(png(colours), "a.png"), "a.png", "mode RGB")
    official = sixteen_bit(colours.astype(np.uint16), tmp_path)
    refused(lambda: reading.read_ids(official, "a.png"), "a.png", "SYNTHIA's")
    jpeg = io.BytesIO()
    Image.fromarray(colours[..., 0]).save(jpeg, "JPEG")
    refused(lambda: reading.read_ids(jpeg.getvalue(), "a.png"), "a.png", "JPEG")


def test_photographs():
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert (reading.read_image(png(grey), "a") == grey[..., None]).all()
    rgba = np.random.default_rng(0).integers(0, 256, (4, 6, 4), np.uint8)
    np.testing.assert_array_equal(reading.read_image(png(rgba), "a"), rgba[..., :3])
    deep = png(grey.astype(np.uint16))
    refused(lambda: reading.read_image(deep, "a.png"), "a.png", "I;16", "8-bit")


@pytest.mark.parametrize("read", [reading.read_image, reading.read_ids])
def test_damaged_files_are_refused(read):
    rng = np.random.default_rng(0)
    good = png(rng.integers(0, 30, (40, 50), np.uint8))
    read(good, "a.png")
    for cut in range(0, len(good) - 12, 97):  # the last chunk holds nothing
        with pytest.raises(UserError, match=r"^a\.png: "):
            read(good[:cut], "a.png")
    middle = len(good) // 2
    flipped = good[:middle] + bytes(8) + good[middle + 8 :]
    refused(lambda: read(flipped, "a.png"), "a.png", "cannot be read")
    refused(lambda: read(b"", "a.png"), "a.png: is empty (0 bytes)")
    refused(lambda: read(b"hello", "a.png"), "a.png", "not a picture file")


def test_truncated_jpeg_is_refused():
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    data = file.getvalue()
    assert reading.read_image(data, "a.jpg").shape == (64, 64, 3)
    refused(lambda: reading.read_image(data[:-200], "a.jpg"), "a.jpg", "truncated")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_refused_before_they_need_memory():
    for size in ((9460, 9460), (60_000, 60_000)):
        for read in (reading.read_image, reading.read_ids, reading.size):
            refused(lambda s=size, r=read: r(claiming(*s), "a.png"), "a.png", "89 mill")
    # A fifty-megapixel photograph is inside the limit.
    assert reading.size(claiming(8660, 5773), "a.png") == (5773, 8660)
    data = png(np.zeros((5773, 8660), np.uint8), compress_level=1)
    assert reading.read_ids(data, "a.png").shape == (5773, 8660)


CORRUPTIONS = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:60]),
    "empty": lambda path: path.write_bytes(b""),
    "another size": lambda path: replicas.save(path, np.full((9, 9), 7, np.uint8)),
    "in colour": lambda path: replicas.save(path, np.zeros((*replicas.SIZE, 3), "u1")),
    "id 200": lambda path: replicas.save(path, np.full(replicas.SIZE, 200, np.uint8)),
    "grey of its colours": lambda path: replicas.save(
        path, np.full(replicas.SIZE, 90, np.uint8)
    ),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path)),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("nothing")),
}


@pytest.mark.parametrize("what", CORRUPTIONS)
def test_corrupt_labels_are_named(tmp_path, what):
    replicas.cityscapes(tmp_path)
    path = sorted(tmp_path.glob("gtFine/train/*/*"))[1]
    CORRUPTIONS[what](path)
    refused(lambda: list(build("cityscapes", tmp_path)), path)
    refused(lambda: prepare("cityscapes", tmp_path, tmp_path / "out"), path)
    if what == "id 200":  # a config may give it a meaning
        prepare("cityscapes", tmp_path, tmp_path / "out", other_ids="ignore")


@pytest.mark.parametrize("what", ["truncated", "empty", "a link to itself"])
def test_corrupt_images_are_named(tmp_path, what):
    replicas.cityscapes(tmp_path)
    path = sorted(tmp_path.glob("leftImg8bit/train/*/*"))[1]
    CORRUPTIONS[what](path)
    refused(lambda: list(build("cityscapes", tmp_path)), path)
    refused(lambda: prepare("cityscapes", tmp_path, tmp_path / "out"), path)


def test_two_files_of_one_name(tmp_path):
    replicas.crosscity(tmp_path)
    second = tmp_path / "Rio/Images/Test/pano_00000_1_180.png"
    replicas.save(second, np.zeros((2, 2), np.uint8))
    refused(
        lambda: build("crosscity", tmp_path, city="Rio", split="test"),
        "pano_00000_1_180.png",
        "pano_00000_1_180.jpg",
        "one name",
    )


def test_folder_links(tmp_path):
    replicas.cityscapes(tmp_path / "real")
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    assert len(build("cityscapes", tmp_path / "linked")) == 3
    loop = tmp_path / "real/leftImg8bit/train/again"
    loop.symlink_to(tmp_path / "real/leftImg8bit")
    refused(lambda: build("cityscapes", tmp_path / "real"), "again", "leads back")


@contextlib.contextmanager
def nobody():
    """For root, who may read everything, another effective user."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_unreadable_files_and_folders():
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is root's alone
        root = pathlib.Path(folder)
        root.chmod(0o755)
        replicas.cityscapes(root)
        path = next(root.glob("gtFine/train/*/*"))
        path.chmod(0)
        with nobody():
            refused(lambda: list(build("cityscapes", root)), path, "Permission denied")
        path.parent.chmod(0)
        with nobody():
            refused(lambda: build("cityscapes", root), path.parent, "Permission denied")
        path.parent.chmod(0o755)


def test_damaged_archives(tmp_path):
    replicas.cityscapes(tmp_path)
    replicas.zipped(tmp_path, "gtFine_trainvaltest.zip", "gtFine")
    path = tmp_path / "gtFine_trainvaltest.zip"
    good = path.read_bytes()
    place = good.find(b"IDAT")
    path.write_bytes(good[:place] + bytes(40) + good[place + 40 :])
    refused(lambda: list(build("cityscapes", tmp_path)), path, "damaged", "labelIds")
    half = tmp_path / "half"
    replicas.cityscapes(half)
    (half / "gtFine_trainvaltest.zip").write_bytes(good[: len(good) // 2])
    refused(lambda: build("cityscapes", half), "not a whole zip archive", half)


def test_a_photograph_decodes_its_top_to_the_same_pixels():
    """PNG of all kinds, JPEG, and whatever was cut off: as decoding the whole file."""
    image = np.random.default_rng(0).integers(0, 256, (41, 30, 3), np.uint8)
    grey = Image.fromarray(image).convert("L")
    palette = Image.fromarray(image).quantize(16)
    rgba = Image.fromarray(image).convert("RGBA")
    for picture in (Image.fromarray(image), grey, palette, rgba):
        for ending in ("PNG", "BMP"):
            file = io.BytesIO()
            (picture.convert("RGB") if ending == "BMP" else picture).save(file, ending)
            data = file.getvalue()
            expected = reading.read_image(data, "a")
            photograph = reading.Photograph(data, "a")
            assert photograph.shape == (41, 30, 3)
            for count in (1, 7, 40, 41):
                top = np.asarray(photograph.rows(count))
                assert len(top) == (count if ending == "PNG" else 41)
                np.testing.assert_array_equal(top, expected[: len(top)])
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    cut = reading.Photograph(file.getvalue()[:-40], "cut.png")
    refused(lambda: cut.rows(3), "cut.png", "truncated")
    refused(lambda: reading.Photograph(b"", "none.png"), "none.png", "0 bytes")
