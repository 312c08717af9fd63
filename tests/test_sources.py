"""Data sets in their official formats: what is read, and what is refused at once."""

import pickle

import numpy as np
import pytest
from PIL import Image

from tests import replicas
from tests.replicas import cityscapes, crosscity, expected, gta5, own, synthia
from tufl_jax import config as config_lib
from tufl_jax import labels
from tufl_jax.data import sources
from tufl_jax.errors import UserError


def build(name, root, *, classes=None, labelled=True, **fields):
    """The source that these fields of a config describe."""
    spec = config_lib.base().data.eval
    spec.update({"name": name, "root": str(root), "split": "train", **fields})
    classes = classes or labels.cityscapes(19)
    return sources.build(spec, classes=classes, seed=0, labelled=labelled)


def refused(call, *words):
    """The error has one line with all words in it."""
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    assert all(str(word) in message for word in words), message


def assert_reads(source, written, table, num_classes=19):
    assert [item["name"] for item in source] == sorted(written)
    for item in source:
        image, ids = written[item["name"]]
        np.testing.assert_array_equal(item["image"], image)
        assert item["label"].dtype == np.uint8
        np.testing.assert_array_equal(item["label"], expected(ids, table, num_classes))


@pytest.mark.parametrize("num_classes", [19, 16, 13])
def test_every_data_set_reads_what_was_written(tmp_path, num_classes):
    for write, split, table, fields in (
        (cityscapes, "train", labels.CITYSCAPES_IDS, {}),
        (
            replicas.train_extra,
            "train_extra",
            labels.CITYSCAPES_IDS,
            {"annotation": "gtCoarse"},
        ),
        (gta5, "all", labels.GTA5_IDS, {}),
        (synthia, "all", labels.SYNTHIA_IDS, {}),
    ):
        root = tmp_path / write.__name__
        options = {"splits": ("train",)} if write is cityscapes else {}
        written = write(root, **options)
        name = "cityscapes" if write is replicas.train_extra else write.__name__
        source = build(
            name, root, split=split, classes=labels.cityscapes(num_classes), **fields
        )
        assert_reads(source, written, table, num_classes)


def test_names_of_the_id_tables_are_classes():
    for table in (
        labels.CITYSCAPES_IDS,
        labels.GTA5_IDS,
        labels.SYNTHIA_IDS,
        labels.CROSSCITY_IDS,
    ):
        assert set(table.values()) - {""} <= set(labels.CITYSCAPES)
    # Published table: SYNTHIA id -> training id.
    published = {1: 10, 2: 2, 3: 0, 4: 1, 5: 4, 6: 8, 7: 5, 8: 13, 9: 7, 10: 11}
    published |= {11: 18, 12: 17, 15: 6, 16: 9, 17: 12, 18: 14, 19: 15, 20: 16, 21: 3}
    lut = labels.cityscapes(19).lut(labels.SYNTHIA_IDS)
    assert {i: lut[i] for i in range(23) if lut[i] != 255} == published
    # Cross-City: Cityscapes id -> index of its 13 classes.
    published = {7: 0, 8: 1, 11: 2, 19: 3, 20: 4, 21: 5, 23: 6, 24: 7, 25: 8, 26: 9}
    published |= {28: 10, 32: 11, 33: 12}
    lut = labels.cityscapes(13).lut(labels.CROSSCITY_IDS)
    assert {i: lut[i] for i in range(34) if lut[i] != 255} == published


def test_crosscity_of_both_endings_with_its_lists(tmp_path):
    written = crosscity(tmp_path, city="Rio") | {}
    crosscity(tmp_path, city="Rome", train=1, test=1)
    test = {k: v for k, v in written.items() if v[1] is not None}
    source = build("crosscity", tmp_path, city="Rio", split="test")
    assert_reads(source, test, labels.CROSSCITY_IDS)
    train = build("crosscity", tmp_path, city="Rio", split="train", labelled=False)
    assert [x["name"] for x in train] == sorted(written.keys() - test.keys())
    assert all((x["image"] == written[x["name"]][0]).all() for x in train)
    refused(
        lambda: build("crosscity", tmp_path, city="Rio", split="train"),
        "3 of 3 images have no label file",
    )
    refused(lambda: build("crosscity", tmp_path, city="Paris"), "city='Paris'", "Tokyo")
    refused(
        lambda: build("crosscity", tmp_path, city="Rio", split="val"), "train, test"
    )
    (tmp_path / "Rio/Images/Train/pano_00001_0_180.png").unlink()
    refused(
        lambda: build("crosscity", tmp_path, city="Rio", labelled=False),
        "1 of 3 images that Rio/List/train.txt lists are absent",
        "pano_00001_0_180",
    )
    (tmp_path / "Rio/List/train.txt").unlink()
    assert len(build("crosscity", tmp_path, city="Rio", labelled=False)) == 2


def test_gta5_splits_and_odd_sizes(tmp_path, caplog):
    gta5(tmp_path)

    def names(split):
        return [x["name"] for x in build("gta5", tmp_path, split=split)]

    with caplog.at_level("INFO"):
        assert names("all") == ["00001", "00002", "00003", "00004"]
    assert "skipping 15188: image is 64x32 pixels, its label 9x9" in caplog.text
    assert names("train") + names("val") + names("test") == names("all")
    refused(lambda: names("tset"), "gta5: no split 'tset'", "all, train, val, test")
    (tmp_path / "split.mat").write_bytes(b"nonsense")
    refused(lambda: names("train"), tmp_path / "split.mat", "trainIds")
    (tmp_path / "split.mat").unlink()
    refused(lambda: names("train"), tmp_path / "split.mat")
    # A listed file whose sizes agree is used, any other that misfits is an error.
    replicas.save(tmp_path / "images/15188.png", np.zeros((9, 9, 3), np.uint8))
    assert names("all")[-1] == "15188"
    replicas.save(tmp_path / "images/00002.png", np.zeros((9, 9, 3), np.uint8))
    refused(
        lambda: names("all"),
        tmp_path / "images/00002.png",
        tmp_path / "labels/00002.png",
    )


def test_the_damaged_train_extra_image_makes_no_difference(tmp_path, caplog):
    for damaged in (False, True):
        root = tmp_path / str(damaged)
        replicas.train_extra(root, damaged=damaged, labelled=False)
        with caplog.at_level("INFO"):
            source = build("cityscapes", root, split="train_extra", labelled=False)
        assert len(source) == 3
        assert ("19,997" in caplog.text) == damaged


def test_synthia_as_other_tools_export_it(tmp_path):
    written = synthia(tmp_path)
    official = [x["label"] for x in build("synthia", tmp_path, split="all")]
    for name, (_, ids) in written.items():
        replicas.save(tmp_path / f"parsed_LABELS/{name}.png", ids)
    exported = build(
        "synthia", tmp_path, split="all", labels="parsed_LABELS/{name}.png"
    )
    for i, label in enumerate(official):
        np.testing.assert_array_equal(exported[i]["label"], label)


def test_archives_are_read_like_folders(tmp_path):
    for name, write, folders, fields in (
        ("cityscapes", cityscapes, ("leftImg8bit", "gtFine"), {"split": "val"}),
        ("gta5", gta5, ("images", "labels"), {"split": "all"}),
        ("synthia", synthia, ("RAND_CITYSCAPES",), {"split": "all"}),
    ):
        root = tmp_path / name
        write(root)
        unpacked = list(build(name, root, **fields))
        for i, folder in enumerate(folders):
            replicas.zipped(root, f"{i:02d}.zip", folder)
        packed = pickle.loads(pickle.dumps(build(name, root, **fields)))
        assert len(packed) == len(unpacked) > 0
        for a, b in zip(packed, unpacked, strict=True):
            assert a["name"] == b["name"]
            np.testing.assert_array_equal(a["image"], b["image"])
            np.testing.assert_array_equal(a["label"], b["label"])


OWN = labels.Classes(("road", "crack"), ((1, 2, 3), (4, 5, 6)))
OWN_FIELDS = {
    "images": "frames/{split}/{name}.jpg",
    "labels": "masks/{split}/{name}.png",
    "ids": ((0, ""), (1, "road"), (2, "crack"), (7, "road")),
}


def test_own_folders(tmp_path):
    written = own(tmp_path)
    source = build("folder", tmp_path, split="val", classes=OWN, **OWN_FIELDS)
    assert len(source) == 4
    for item in source:
        image, ids = written[f"val/{item['name']}"]
        np.testing.assert_array_equal(item["image"], image)
        want = np.array([255, 0, 1, 3, 3, 3, 3, 0])[ids]
        np.testing.assert_array_equal(item["label"], want)
    bare = build("folder", tmp_path, labelled=False, images="frames/{split}/{name}.*")
    assert set(bare[0]) == {"image", "name"}


def test_own_ids(tmp_path):
    own(tmp_path, ids=(0, 1, 255))

    def read(**fields):
        fields = {**OWN_FIELDS, **fields}
        source = build("folder", tmp_path, classes=OWN, **fields)
        return set(np.concatenate([np.unique(x["label"]) for x in source]))

    assert read(ids=()) == {0, 1, 255}  # files of class indices
    assert read(ids=((0, 1), (1, 255))) == {1, 255}
    assert read(ids=((0, "road"), (1, "road"), (255, "crack"))) == {0, 1}
    assert read(ids=((1, "crack"),), other_ids="ignore") == {1, 255}
    refused(lambda: read(ids=((1, "crack"),)), "label id 0")
    refused(lambda: read(ids=((1, "crak"),)), "'crak'", "did you mean 'crack'")
    refused(lambda: read(ids=((1, "road"), (1, "crack"))), "1 is both")
    refused(lambda: read(ids=((256, "road"),)), "256")
    refused(lambda: read(ids=(3,)), "3 is not a pair")
    refused(lambda: read(other_ids="drop"), "'error' or 'ignore'")
    refused(lambda: read(images=""), "needs images")
    refused(lambda: read(images="frames/*.jpg"), "{name}")
    refused(lambda: read(images="/frames/{name}.jpg"), "below root")
    refused(lambda: read(labels=""), "label")


def test_known_data_set_with_own_classes(tmp_path):
    written = gta5(tmp_path)
    vehicles = labels.Classes(("car", "vehicle"), ((0, 0, 1), (0, 0, 2)))
    by_name = build("gta5", tmp_path, split="all", classes=vehicles)
    for item in by_name:
        _, ids = written[item["name"]]
        np.testing.assert_array_equal(item["label"] == 0, ids == 26)
        assert set(np.unique(item["label"])) <= {0, 255}
    strangers = labels.Classes(("tree",), ((0, 9, 0),))
    refused(
        lambda: build("gta5", tmp_path, split="all", classes=strangers), "tree", "ids"
    )
    merged = ((26, "vehicle"), (27, "vehicle"), (28, "vehicle"))
    grouped = build(
        "gta5",
        tmp_path,
        split="all",
        classes=vehicles,
        ids=merged,
        other_ids="ignore",
    )
    for item in grouped:
        _, ids = written[item["name"]]
        np.testing.assert_array_equal(item["label"] == 1, (ids >= 26) & (ids <= 28))


def test_parts_share_nothing_and_miss_nothing(tmp_path):
    written = cityscapes(tmp_path, splits=("train",), per_split=4)

    def names(start, stop):
        source = build("cityscapes", tmp_path, start=start, stop=stop)
        return [item["name"] for item in source]

    assert names(0.0, 0.3) + names(0.3, 0.75) + names(0.75, 1.0) == sorted(written)
    refused(lambda: names(0.5, 0.5), "start=0.5", "stop=0.5")
    refused(lambda: names(0.0, 1.5), "stop=1.5")
    refused(lambda: names(0.0, 0.01), "no image left", tmp_path)


def test_unlabelled_needs_no_label_files(tmp_path):
    cityscapes(tmp_path)
    for path in tmp_path.glob("gtFine/*/*/*"):
        path.unlink()
    source = build("cityscapes", tmp_path, labelled=False)
    assert set(source[2]) == {"image", "name"}
    assert len(source.fingerprint()) == 64


def test_fingerprint_follows_the_labels(tmp_path):
    cityscapes(tmp_path)

    def fingerprint(**options):
        return build("cityscapes", tmp_path, **options).fingerprint()

    before = fingerprint()
    assert fingerprint() == before
    assert fingerprint(stop=0.5) != before
    assert fingerprint(classes=labels.cityscapes(16)) != before
    path = next(tmp_path.glob("gtFine/train/*/*.png"))
    Image.new("L", (64, 32)).save(path)
    assert fingerprint() != before


def test_missing_folders(tmp_path):
    cityscapes(tmp_path)
    refused(lambda: build("cityscapes", ""), "no data folder", "--config.data")
    refused(lambda: build("cityscapes", tmp_path / "x"), tmp_path / "x", "no such")
    refused(
        lambda: build("cityscapes", tmp_path, split="test"),
        "no folder 'test'",
        "train, val",
    )
    refused(
        lambda: build("gta5", tmp_path, split="all"), "no folder 'images'", "gtFine"
    )
    refused(
        lambda: build("cityscapes", tmp_path, annotation="gtfine"),
        "annotation='gtfine'",
        "gtFine, gtCoarse",
    )
    refused(lambda: build("camvid", tmp_path), "'camvid'", "cityscapes, gta5")
    refused(lambda: build("gta5", tmp_path, format="zip"), "format='zip'", "prepared")


def test_images_without_labels_are_found_at_construction(tmp_path):
    cityscapes(tmp_path)
    first, second = sorted(tmp_path.glob("gtFine/train/*/*.png"))[:2]
    first.unlink()
    second.unlink()
    names = [p.relative_to(tmp_path).as_posix() for p in (first, second)]
    refused(lambda: build("cityscapes", tmp_path), "2 of 3", *names)


def test_streets():
    def streets(num_classes, labelled=True, **fields):
        fields = {"length": 2, "size": (32, 64), **fields}
        classes = labels.cityscapes(num_classes)
        options = {"classes": classes, "labelled": labelled}
        return build("streets_camera", "", **options, **fields)

    full, part = streets(19), streets(13)
    assert len(part) == 2
    lut = labels.cityscapes(13).lut(dict(enumerate(labels.CITYSCAPES)))
    np.testing.assert_array_equal(part[1]["label"], lut[full[1]["label"]])
    assert part.fingerprint() != full.fingerprint()
    assert "label" not in streets(13, labelled=False)[0]
    refused(lambda: streets(19, stop=0.5), "start and stop")
