import numpy as np
import pytest

from tufl_jax import labels
from tufl_jax.errors import UserError


def test_tables_agree():
    assert len(labels.CITYSCAPES) == 19 and labels.PALETTE.shape == (19, 3)
    lut = labels.CITYSCAPES_IDS_TO_TRAIN
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


def test_map_ids_maps():
    raw = np.array([[7, 33], [0, 255]], np.uint8)
    for dtype in (np.uint8, np.uint16, np.int32):
        out = labels.map_ids(
            raw.astype(dtype), labels.CITYSCAPES_IDS_TO_TRAIN, where="a.png"
        )
        assert out.dtype == np.uint8
        np.testing.assert_array_equal(out, [[0, 18], [255, 255]])


@pytest.mark.parametrize("value,dtype", [(34, "u1"), (254, "u1"), (999, "u2")])
def test_map_ids_refuses_unknown_ids(value, dtype):
    raw = np.array([[7, value]], dtype)
    with pytest.raises(UserError, match=f"somewhere/a.png.*{value}") as error:
        labels.map_ids(raw, labels.CITYSCAPES_IDS_TO_TRAIN, where="somewhere/a.png")
    assert "\n" not in str(error.value)


def test_subsets():
    names = {n: labels.class_names(n) for n in (19, 16, 13)}
    assert set(names[19]) - set(names[16]) == {"terrain", "truck", "train"}
    assert set(names[16]) - set(names[13]) == {"wall", "fence", "pole"}
    for n in (19, 16, 13):
        lut = labels.subset_lut(n)
        assert lut.dtype == np.uint8 and lut[255] == 255
        assert [labels.CITYSCAPES[t] for t in range(19) if lut[t] != 255] == list(
            names[n]
        )
        assert sorted(lut[lut != 255]) == list(range(n))
    with pytest.raises(UserError, match="num_classes=12.*19, 16, 13"):
        labels.subset_lut(12)


def test_colorize():
    picture = labels.colorize(np.array([[0, 9], [15, 255]], np.uint8), 16)
    np.testing.assert_array_equal(
        picture, [[[128, 64, 128], [70, 130, 180]], [[119, 11, 32], [0, 0, 0]]]
    )
