import numpy as np
import pytest

from tufl_jax import config as config_lib
from tufl_jax import labels
from tufl_jax.errors import UserError


def test_tables_agree():
    assert len(labels.CITYSCAPES) == 19 and labels.PALETTE.shape == (19, 3)
    lut = labels.cityscapes(19).lut(labels.CITYSCAPES_IDS)
    assert sorted(t for t in lut if t < 19) == list(range(19))
    # Spot checks against the published table.
    for label_id, train_id, name in (
        (7, 0, "road"),
        (11, 2, "building"),
        (23, 10, "sky"),
        (28, 15, "bus"),
        (31, 16, "train"),
        (33, 18, "bicycle"),
    ):
        assert lut[label_id] == train_id
        assert labels.CITYSCAPES[train_id] == name
    ignored = [*range(7), 9, 10, 14, 15, 16, 18, 29, 30, 255]
    assert all(lut[i] == labels.IGNORE for i in ignored)
    assert all(lut[i] == labels.UNKNOWN for i in range(34, 255))


LUT = labels.cityscapes(19).lut(labels.CITYSCAPES_IDS)


def test_map_ids_maps():
    raw = np.array([[7, 33], [0, 255]], np.uint8)
    for dtype in (np.uint8, np.uint16, np.int32):
        out = labels.map_ids(raw.astype(dtype), LUT, where="a.png")
        assert out.dtype == np.uint8
        np.testing.assert_array_equal(out, [[0, 18], [255, 255]])


@pytest.mark.parametrize("value,dtype", [(34, "u1"), (254, "u1"), (999, "u2")])
def test_map_ids_refuses_unknown_ids(value, dtype):
    raw = np.array([[7, value]], dtype)
    with pytest.raises(UserError, match=f"somewhere/a.png.*{value}") as error:
        labels.map_ids(raw, LUT, where="somewhere/a.png")
    assert "\n" not in str(error.value)


def test_subsets():
    names = {n: labels.class_names(n) for n in (19, 16, 13)}
    assert set(names[19]) - set(names[16]) == {"terrain", "truck", "train"}
    assert set(names[16]) - set(names[13]) == {"wall", "fence", "pole"}
    for n in (19, 16, 13):
        lut = labels.cityscapes(n).lut(dict(enumerate(labels.CITYSCAPES)))
        assert lut.dtype == np.uint8 and lut[255] == 255
        assert [labels.CITYSCAPES[t] for t in range(19) if lut[t] != 255] == list(
            names[n]
        )
        assert sorted(lut[lut < 19]) == list(range(n))
        assert all(lut[19:255] == labels.UNKNOWN)
    with pytest.raises(UserError, match="num_classes=12.*19, 16, 13"):
        labels.cityscapes(12)


def test_colorize():
    picture = labels.cityscapes(16).colorize(np.array([[0, 9], [15, 255]], np.uint8))
    np.testing.assert_array_equal(
        picture, [[[128, 64, 128], [70, 130, 180]], [[119, 11, 32], [0, 0, 0]]]
    )
    assert labels.cityscapes(13).legend()["sky"] == (70, 130, 180)


def with_classes(num_classes, names=(), colours=()):
    config = config_lib.base()
    config.num_classes = num_classes
    config.classes.names = names
    config.classes.colours = colours
    return labels.of_config(config)


def test_classes_of_a_config():
    assert with_classes(16) == labels.cityscapes(16)
    own = with_classes(2, ("road", "crack"), ((1, 2, 3), (4, 5, 6)))
    assert own.names == ("road", "crack") and len(own) == 2
    np.testing.assert_array_equal(own.palette, [[1, 2, 3], [4, 5, 6]])
    chosen = with_classes(60, tuple(f"class {i}" for i in range(60)))
    assert len(set(chosen.colours)) == 60 and (0, 0, 0) not in chosen.colours


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((18,), "19, 16, 13"),
        ((19, ("road",)), "1 names and config.num_classes is 19"),
        ((2, ("road", "road")), "must differ.*road"),
        ((2, ("road", "")), "not be empty"),
        ((2, ("road", "car"), ((1, 2, 3),)), "1 colours for 2 classes"),
        ((1, ("road",), ((1, 2, 300),)), "'road'.*0 to 255"),
        ((19, (), ((1, 2, 3),)), "needs config.classes.names"),
        ((255, tuple(str(i) for i in range(255))), "1 to 254"),
    ],
)
def test_impossible_classes_are_refused(arguments, message):
    with pytest.raises(UserError, match=message) as error:
        with_classes(*arguments)
    assert "\n" not in str(error.value)
