"""Folders in the Cityscapes layout: what is read, and each way they can be wrong."""

import pickle

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from tufl_jax import labels
from tufl_jax.data import sources
from tufl_jax.data.sources import CityscapesFolder
from tufl_jax.errors import UserError

IMAGE = "leftImg8bit/train/{}_leftImg8bit.png"
LABEL = "gtFine/train/{}_gtFine_labelIds.png"
NAMES = ("aa/aa_0", "aa/aa_1", "bb/bb_0", "bb/bb_1")


def picture(name):
    rng = np.random.default_rng([ord(letter) for letter in name])
    image = rng.integers(0, 256, (9, 13, 3), np.uint8)
    ids = rng.choice([0, 7, 12, 22, 33, 255], (9, 13)).astype(np.uint8)
    return image, ids


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def root(tmp_path):
    for name in NAMES:
        image, ids = picture(name)
        save(tmp_path / IMAGE.format(name), image)
        save(tmp_path / LABEL.format(name), ids)
    return tmp_path


def refused(call, *words):
    """The error has one line with all words in it."""
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    assert all(str(word) in message for word in words), message


def test_reads_what_was_written(root):
    source = CityscapesFolder(str(root), split="train")
    assert len(source) == 4
    assert [item["name"] for item in source] == list(NAMES)
    for item in source:
        image, ids = picture(item["name"])
        np.testing.assert_array_equal(item["image"], image)
        expected = {0: 255, 7: 0, 12: 3, 22: 9, 33: 18, 255: 255}
        np.testing.assert_array_equal(
            item["label"], np.vectorize(expected.get)(ids).astype(np.uint8)
        )
        assert item["label"].dtype == np.uint8


@pytest.mark.parametrize("num_classes,mapped", [(16, {0, 3, 15}), (13, {0, 12})])
def test_subsets_ignore_the_other_classes(root, num_classes, mapped):
    source = CityscapesFolder(root, split="train", num_classes=num_classes)
    names = labels.class_names(num_classes)
    assert set(np.unique(source[0]["label"])) == mapped | {255}
    assert {names[i] for i in mapped} <= {"road", "wall", "bicycle"}


def test_unlabelled_needs_no_label_files(root):
    for path in root.glob("gtFine/*/*/*"):
        path.unlink()
    source = CityscapesFolder(root, split="train", labelled=False)
    assert set(source[3]) == {"image", "name"}
    assert len(source.fingerprint()) == 64


def test_parts_share_nothing_and_miss_nothing(root):
    def names(start, stop):
        source = CityscapesFolder(root, split="train", start=start, stop=stop)
        return [item["name"] for item in source]

    assert names(0, 0.3) + names(0.3, 0.75) + names(0.75, 1) == list(NAMES)
    refused(lambda: names(0.5, 0.5), "start=0.5", "stop=0.5")
    refused(lambda: names(0.0, 1.5), "stop=1.5")
    refused(lambda: names(0.0, 0.01), "no image left", root)


def test_pickles(root):
    source = CityscapesFolder(root, split="train")
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[1]["image"], source[1]["image"])
    assert copy.fingerprint() == source.fingerprint()


def test_palette_and_sixteen_bit_labels(root):
    _, ids = picture(NAMES[0])
    expected = CityscapesFolder(root, split="train").label(0)
    palette = Image.fromarray(ids).convert("P")
    palette.putdata(ids.ravel().tolist())
    palette.save(root / LABEL.format(NAMES[0]))
    np.testing.assert_array_equal(
        CityscapesFolder(root, split="train").label(0), expected
    )
    save(root / LABEL.format(NAMES[0]), ids.astype(np.uint16))
    np.testing.assert_array_equal(
        CityscapesFolder(root, split="train").label(0), expected
    )


def test_known_damaged_picture_is_skipped(root):
    bad = "troisdorf/troisdorf_000000_000073"
    save(root / IMAGE.format(bad), picture(bad)[0])
    assert len(CityscapesFolder(root, split="train")) == 4


def test_fingerprint_follows_the_labels(root):
    def fingerprint(**options):
        return CityscapesFolder(root, split="train", **options).fingerprint()

    before = fingerprint()
    assert fingerprint() == before
    assert fingerprint(stop=0.5) != before and fingerprint(num_classes=16) != before
    save(root / LABEL.format(NAMES[2]), np.zeros((9, 13), np.uint8))
    assert fingerprint() != before


def test_missing_folders(root):
    def make(path=root, split="train"):
        return lambda: CityscapesFolder(path, split=split)

    refused(make(""), "no data folder", "--config.data", "environment variable")
    refused(make(root / "nowhere"), root / "nowhere", "environment variable")
    (root / "leftImg8bit/val").mkdir()
    refused(make(split="test"), "no split 'test'", "train, val")
    refused(make(split="val"), "no images", root / "leftImg8bit/val")


def test_images_without_labels_are_found_at_construction(root):
    for name in NAMES[1:]:
        (root / LABEL.format(name)).unlink()
    refused(
        lambda: CityscapesFolder(root, split="train"), "3 of 4", "aa/aa_1", "bb/bb_1"
    )


def test_bad_label_files(root):
    source = CityscapesFolder(root, split="train")
    path = root / LABEL.format(NAMES[0])
    good = path.read_bytes()
    save(path, np.zeros((9, 12), np.uint8))
    refused(lambda: source[0], path, "12x9", "13x9")
    save(path, np.full((9, 13), 34, np.uint8))
    refused(lambda: source[0], path, "label id 34")
    save(path, np.full((9, 13), 3000, np.uint16))
    refused(lambda: source[0], path, "label id 3000")
    save(path, np.zeros((9, 13, 3), np.uint8))
    refused(lambda: source[0], path, "mode RGB", "label ids")
    for broken in (b"", b"not a picture", good[:40], good[: len(good) // 2]):
        path.write_bytes(broken)
        refused(lambda: source[0], path, "cannot be read")
    middle = len(good) // 2
    path.write_bytes(good[:middle] + bytes(8) + good[middle + 8 :])
    refused(lambda: source[0], path, "cannot be read")
    path.unlink()
    refused(lambda: source[0], path, "cannot be read")


def test_bad_image_files(root):
    source = CityscapesFolder(root, split="train")
    path = root / IMAGE.format(NAMES[0])
    path.write_bytes(path.read_bytes()[:100])
    refused(lambda: source[0], path, "cannot be read")
    save(path, np.zeros((9, 13), np.uint16))
    refused(lambda: source[0], path, "mode I;16", "8-bit")
    save(path, np.arange(117, dtype=np.uint8).reshape(9, 13))
    assert source[0]["image"].shape == (9, 13, 3)  # grey pictures are fine


def test_build(root):
    spec = ConfigDict(
        {
            "name": "cityscapes",
            "root": str(root),
            "split": "train",
            "length": 3,
            "size": (32, 64),
            "start": 0.0,
            "stop": 0.5,
        }
    )
    options = {"num_classes": 19, "seed": 0, "labelled": True}
    assert len(sources.build(spec, **options)) == 2
    spec.name = "streets"
    refused(
        lambda: sources.build(spec, **options),
        "'streets'",
        "streets_rendered, streets_camera, cityscapes",
    )
    spec.name = "streets_camera"
    refused(lambda: sources.build(spec, **options), "start and stop")
    spec.stop = 1.0
    assert len(sources.build(spec, **options)) == 3


def test_streets_with_fewer_classes():
    spec = ConfigDict(
        {
            "name": "streets_rendered",
            "root": "",
            "split": "train",
            "length": 2,
            "size": (32, 64),
            "start": 0.0,
            "stop": 1.0,
        }
    )
    full = sources.build(spec, num_classes=19, seed=0, labelled=True)
    part = sources.build(spec, num_classes=13, seed=0, labelled=True)
    np.testing.assert_array_equal(
        part[1]["label"], labels.subset_lut(13)[full[1]["label"]]
    )
    assert part.fingerprint() != full.fingerprint()
    bare = sources.build(spec, num_classes=13, seed=0, labelled=False)
    assert "label" not in bare[0]
