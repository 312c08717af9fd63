"""Which images hold which class, and the donors cut from them."""

import dataclasses
import pathlib
import zipfile

import numpy as np
import pytest

from tests import replicas
from tests.test_sources import OWN_FIELDS, build, spec_of
from tufl_jax.data import builders, longtail
from tufl_jax.data.longtail import Donors
from tufl_jax.data.transforms import Augment
from tufl_jax.errors import UserError


@dataclasses.dataclass
class Blocks:
    """Item i: class i % 4 in a block of i pixels, class 4 elsewhere, 255 on top."""

    length: int = 9
    reads: list = dataclasses.field(default_factory=list)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.reads.append(index)
        label = np.full((12, 16), 4, np.uint8)
        label[0] = 255
        label[5, :index] = index % 4
        image = np.repeat(label[..., None], 3, -1)
        return {"image": image, "label": label, "name": str(index)}

    def fingerprint(self):
        return f"Blocks {self.length}"


class LabelOnly(Blocks):
    def label(self, index):
        return Blocks()[index]["label"]

    def __getitem__(self, index):
        raise AssertionError("the image was read")


def counted(source, num_classes, min_pixels):
    database = [[] for _ in range(num_classes)]
    for i in range(len(source)):
        label = Blocks()[i]["label"]
        for c in range(num_classes):
            if sum(pixel == c for pixel in label.ravel()) >= min_pixels:
                database[c].append(i)
    return database


@pytest.mark.parametrize("min_pixels", [1, 3, 8])
def test_database_against_a_loop(min_pixels):
    expected = counted(Blocks(), 6, min_pixels)
    for source in (Blocks(), LabelOnly()):
        database = longtail.class_database(source, 6, min_pixels=min_pixels)
        assert [images.tolist() for images in database] == expected
    assert not len(database[5])


def test_cache(tmp_path):
    def database(source, **options):
        out = longtail.class_database(source, 6, cache_dir=tmp_path / "c", **options)
        return [images.tolist() for images in out]

    first = Blocks()
    expected = database(first, min_pixels=2)
    assert expected == counted(first, 6, 2) and sorted(first.reads) == list(range(9))
    # Read again for no other threshold, but for another source.
    second = Blocks()
    assert database(second, min_pixels=5) == counted(second, 6, 5)
    assert second.reads == []
    third = Blocks(length=7)
    assert database(third, min_pixels=1) == counted(third, 6, 1)
    assert len(third.reads) == 7
    files = list((tmp_path / "c").iterdir())
    assert len(files) == 2 and all(path.suffix == ".npz" for path in files)


def test_damaged_cache_is_counted_again(tmp_path, caplog):
    options = {"min_pixels": 1, "cache_dir": tmp_path}
    longtail.class_database(Blocks(), 6, **options)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 3] ^= 255
    for bad in (b"", b"nonsense", good[: len(good) // 2], bytes(flipped)):
        path.write_bytes(bad)
        source = Blocks()
        database = longtail.class_database(source, 6, **options)
        assert [images.tolist() for images in database] == counted(source, 6, 1)
        assert path.read_bytes() == good
    np.savez_compressed(path, counts=np.zeros((2, 6), int))
    longtail.class_database(Blocks(), 6, **options)
    assert path.read_bytes() == good


def test_read_only_cache_folder_is_only_a_warning(tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    database = longtail.class_database(
        Blocks(), 6, min_pixels=1, cache_dir=in_the_way / "cache"
    )
    assert [images.tolist() for images in database] == counted(Blocks(), 6, 1)


@pytest.mark.parametrize(
    "name, write, split, zips",
    [
        ("cityscapes", replicas.cityscapes, "train", ("gtFine",)),
        ("gta5", replicas.gta5, "all", ("labels",)),
        ("synthia", replicas.synthia, "all", ("RAND_CITYSCAPES",)),
        ("folder", replicas.own, "train", ()),
    ],
)
def test_database_is_counted_again_when_files_change(
    tmp_path, caplog, name, write, split, zips
):
    fields = {"split": split}
    if name == "folder":
        fields |= {**OWN_FIELDS, "ids": ((1, "road"),), "other_ids": "ignore"}
    root = tmp_path / "files"
    write(root)
    source = build(name, root, **fields)
    label = pathlib.Path(source.label_file(0)[1])

    def database(root=root, **more):
        caplog.clear()
        with caplog.at_level("INFO"):
            found = longtail.class_database(
                build(name, root, **fields, **more), 19, cache_dir=tmp_path / "cache"
            )
        return [x.tolist() for x in found], "counting the classes" in caplog.text

    before, counted = database()
    assert counted and database() == (before, False)
    builders.prepare(spec_of(name, **fields), root=str(root), data_dir=str(tmp_path))
    assert database(tmp_path, format="prepared") == (before, True)
    assert database(tmp_path, format="prepared") == (before, False)
    for folder in zips:
        replicas.zipped(root, f"{folder}.zip", folder)
        assert database()[0] == before and not database()[1]
        with zipfile.ZipFile(root / f"{folder}.zip") as archive:
            archive.extractall(root)
    replicas.save(label, np.full(replicas.SIZE, 21, np.uint8))
    assert database()[1]


def donors():
    source = Blocks()
    return Donors(
        source=source,
        database=longtail.class_database(source, 6, min_pixels=3),
        augment=Augment(crop=(4, 6)),
    )


def test_donors_come_from_their_class_and_show_it():
    pool = donors()
    assert pool.classes() == [0, 1, 2, 3, 4]
    for seed in range(20):
        for c in pool.classes():
            view = longtail.draw(pool, c, np.random.default_rng(seed))
            assert view["image"].shape == (4, 6, 3) and view["label"].shape == (4, 6)
            assert (view["label"] == c).any()


def test_bank():
    pool = donors()
    bank = longtail.donor_bank(pool, per_class=3, seed=7)
    assert bank["image"].shape == (6, 3, 4, 6, 3) and bank["image"].dtype == np.uint8
    assert bank["label"].shape == (6, 3, 4, 6) and bank["label"].dtype == np.uint8
    np.testing.assert_array_equal(
        bank["available"], np.repeat([[True]] * 5 + [[False]], 3, 1)
    )
    for c in range(5):
        assert (bank["label"][c] == c).any(axis=(1, 2)).all()
    assert (bank["label"][5] == 255).all() and not bank["image"][5].any()
    again = longtail.donor_bank(pool, per_class=3, seed=7, num_threads=1)
    assert all((bank[name] == again[name]).all() for name in bank)
    other = longtail.donor_bank(pool, per_class=3, seed=8)
    assert (bank["label"] != other["label"]).any()
    # A longer bank starts with the shorter one.
    longer = longtail.donor_bank(pool, per_class=4, seed=7)
    np.testing.assert_array_equal(longer["image"][:, :3], bank["image"])


def test_class_lost_in_shrinking_is_an_error():
    augment = Augment(crop=(1, 1), resize=(2, 2), scales=(1.0,))
    pool = dataclasses.replace(donors(), augment=augment)
    with pytest.raises(UserError, match="class 1.*min_pixels"):
        longtail.draw(pool, 1, np.random.default_rng(0))


def test_no_donors_at_all():
    with pytest.raises(UserError, match="no image holds any class"):
        Donors(Blocks(), [np.array([], int)] * 3, Augment(crop=(4, 6))).classes()
