"""Rendered streets: determinism, labels, the long tail and the gap between domains."""

import functools
import pickle

import numpy as np
import pytest

from tufl_jax.data.streets import Streets
from tufl_jax.errors import UserError
from tufl_jax.labels import CITYSCAPES, IGNORE

DOMAINS = ("rendered", "camera")
SMALL = (48, 96)


# Percent of the labelled pixels of Cityscapes' training set (rounded).
RARE = {
    "wall": 0.66,
    "fence": 0.88,
    "traffic light": 0.2,
    "traffic sign": 0.55,
    "person": 1.2,
    "rider": 0.14,
    "truck": 0.27,
    "bus": 0.24,
    "train": 0.23,
    "motorcycle": 0.1,
    "bicycle": 0.4,
}


def streets(domain, **options):
    return Streets(domain, **{"length": 1000, "size": SMALL, **options})


def same(a, b):
    return (
        a.keys() == b.keys()
        and a["name"] == b["name"]
        and all(np.array_equal(a[k], b[k]) for k in ("image", "label") if k in a)
    )


@functools.cache
def survey(domain, number=220):
    """Per class: share of pictures that hold it, share of pixels; mean colours."""
    source = streets(domain)
    images, pixels, colours = np.zeros(19), np.zeros(19), []
    for i in range(number):
        item = source[i]
        counts = np.bincount(item["label"].ravel(), minlength=256)
        images += counts[:19] > 0
        pixels += counts[:19]
        colours.append(item["image"].mean((0, 1)))
    shares = dict(zip(CITYSCAPES, images / number, strict=True))
    areas = dict(zip(CITYSCAPES, pixels / pixels.sum(), strict=True))
    return shares, areas, np.array(colours)


@pytest.mark.parametrize("domain", DOMAINS)
def test_items_have_the_promised_form(domain):
    source = streets(domain, length=12)
    assert len(source) == 12
    for i in range(12):
        item = source[i]
        assert set(item) == {"image", "label", "name"}
        assert item["image"].shape == (*SMALL, 3)
        assert item["label"].shape == SMALL
        assert item["image"].dtype == item["label"].dtype == np.uint8
        assert item["name"] == f"streets_{domain}_train_{i:06d}"
        labels = item["label"]
        assert ((labels < 19) | (labels == IGNORE)).all()
        assert item["image"].std() > 10
        assert len(np.unique(labels)) >= 4


@pytest.mark.parametrize("domain", DOMAINS)
def test_an_item_depends_on_nothing_but_its_index(domain):
    source = streets(domain)
    forward = [source[i] for i in range(4)]
    again = streets(domain, length=7)
    np.random.seed(3)
    for i in (3, 1, 2, 0, 1):
        assert same(again[i], forward[i])
    assert same(pickle.loads(pickle.dumps(source))[2], forward[2])
    assert same(source[np.int64(2)], forward[2])


@pytest.mark.parametrize("domain", DOMAINS)
def test_neighbours_splits_seeds_and_domains_differ(domain):
    other = DOMAINS[domain == "rendered"]
    pictures = [
        streets(domain)[5]["image"],
        streets(domain)[6]["image"],
        streets(domain, split="val")[5]["image"],
        streets(domain, seed=1)[5]["image"],
        streets(other)[5]["image"],
    ]
    for i, a in enumerate(pictures):
        for b in pictures[:i]:
            assert (a != b).mean() > 0.3


@pytest.mark.parametrize("domain", DOMAINS)
def test_an_unlabelled_item_is_the_same_picture_without_label(domain):
    item = streets(domain, labelled=False)[4]
    assert set(item) == {"image", "name"}
    assert np.array_equal(item["image"], streets(domain)[4]["image"])


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_size_changes_the_resolution_and_not_the_scene(domain):
    small, large = streets(domain, size=(64, 128)), streets(domain, size=(128, 256))
    agree = [
        (small[i]["label"] == large[i]["label"][::2, ::2]).mean() for i in range(8)
    ]
    assert np.mean(agree) > 0.92
    assert min(agree) > 0.85


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("size", [(32, 64), (45, 101), (90, 120), (128, 64)])
def test_other_sizes(domain, size):
    for i in range(3):
        item = streets(domain, size=size)[i]
        assert item["image"].shape == (*size, 3)
        assert item["label"].shape == size
        assert {0, 2} <= set(np.unique(item["label"]).tolist())


@pytest.mark.parametrize("domain", DOMAINS)
def test_all_classes_appear_with_a_long_tail(domain):
    shares, areas, _ = survey(domain)
    assert min(shares.values()) > 0
    for name in ("road", "sidewalk", "building", "sky", "vegetation", "pole", "car"):
        assert shares[name] > 0.9
    for name in ("wall", "rider", "truck", "bus", "train", "motorcycle"):
        assert 0.005 < shares[name] < 0.25
        assert areas[name] < 0.02
    for rare, usual in (
        ("train", "car"),
        ("bus", "car"),
        ("motorcycle", "bicycle"),
        ("rider", "person"),
        ("wall", "fence"),
    ):
        assert shares[rare] < shares[usual]
        assert areas[rare] < areas[usual]
    assert areas["road"] > areas["car"] > areas["person"] > areas["motorcycle"]


@pytest.mark.parametrize("domain", DOMAINS)
def test_rare_classes_are_about_as_frequent_as_in_cityscapes(domain):
    _, areas, _ = survey(domain)
    for name, percent in RARE.items():
        assert 0.35 < 100 * areas[name] / percent < 6, name


def test_the_domains_differ_in_layout_and_light():
    _, rendered, clean = survey("rendered")
    _, camera, taken = survey("camera")
    assert camera["car"] > 1.3 * rendered["car"]
    assert camera["sky"] < rendered["sky"]
    assert taken.std(0).mean() > 1.3 * clean.std(0).mean()


def test_image_and_label_have_the_same_edges():
    """Flat colours change where the label does: it was painted by the same polygons."""
    item = streets("rendered", size=(96, 192))[1]
    image, label = item["image"].astype(int), item["label"]
    sky = label == 10
    step = sky[:-1] & (label[1:] == 2)  # a roof below the sky
    jump = np.abs(image[1:] - image[:-1]).sum(-1)
    assert step.sum() > 10
    assert (jump[step] > 15).mean() > 0.95


@pytest.mark.parametrize("index", [-1, 10, 11])
def test_an_index_outside_raises(index):
    with pytest.raises(IndexError, match="of 10"):
        streets("camera", length=10)[index]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"domain": "gta"}, "'gta'.*rendered, camera"),
        ({"split": "test"}, "'test'.*train, val"),
        ({"size": (16, 64)}, "size.*32, 64"),
        ({"size": (64,)}, "size.*32, 64"),
        ({"length": 0}, "length 0"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_impossible_options_say_what_is_possible(options, message):
    with pytest.raises(UserError, match=message):
        Streets(**{"domain": "rendered", "length": 5, **options})
