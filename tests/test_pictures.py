"""Contact sheets, entropy pictures and score tables."""

import os

import numpy as np
import pytest
from PIL import Image

from tufl_jax import labels as label_tables
from tufl_jax import pictures


def flat(color, height=20, width=40):
    return np.full((height, width, 3), color, np.uint8)


def loop_entropy(logits):
    out = np.zeros(logits.shape[:2])
    for index in np.ndindex(*out.shape):
        p = np.exp(logits[index] - np.max(logits[index]))
        p /= p.sum()
        out[index] = sum(-q * np.log(q) for q in p if q > 0) / np.log(len(p))
    return out


def test_entropy_matches_a_loop():
    logits = np.random.default_rng(0).normal(size=(3, 5, 4)) * 5
    np.testing.assert_allclose(
        pictures.entropy(logits), loop_entropy(logits), rtol=1e-12
    )
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(
        pictures.entropy(p, probabilities=True), loop_entropy(logits), rtol=1e-9
    )


def test_entropy_of_uniform_certain_and_saturated_pixels():
    logits = np.zeros((1, 3, 19), np.float32)
    logits[0, 1, 3], logits[0, 2, 3] = 100, 1e30
    np.testing.assert_allclose(pictures.entropy(logits), [[1, 0, 0]], atol=1e-12)
    certain = np.eye(3)[None]
    assert np.all(pictures.entropy(certain, probabilities=True) == 0)


def test_entropy_map_runs_from_black_to_cream():
    logits = np.zeros((1, 2, 5))
    logits[0, 1, 0] = 1e3
    picture = pictures.entropy_map(logits)
    assert picture.shape == (1, 2, 3) and picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [252, 253, 191]
    assert picture[0, 1].tolist() == [0, 0, 4]


def test_color_map_brightens_evenly_and_clips():
    ramp = pictures.color_map(np.linspace(0, 1, 101)).astype(float)
    lightness = ramp @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(lightness) > 0)
    ends = pictures.color_map(np.array([-1.0, np.nan, 2.0]))
    assert ends.tolist() == [[0, 0, 4], [0, 0, 4], [252, 253, 191]]


def test_overlay_mixes_classes_and_leaves_ignored_pixels():
    image = flat(100, 1, 3)
    labels = np.array([[0, 255, 13]], np.uint8)
    out = pictures.overlay(image, labels, label_tables.PALETTE, opacity=0.5)
    expected = np.round(0.5 * 100 + 0.5 * label_tables.PALETTE[[0, 13]])
    np.testing.assert_array_equal(out[0, [0, 2]], expected)
    np.testing.assert_array_equal(out[0, 1], image[0, 1])


def test_entropy_map_takes_the_entropy_itself():
    logits = np.random.default_rng(1).normal(size=(4, 3, 6))
    np.testing.assert_array_equal(
        pictures.entropy_map(pictures.entropy(logits).astype(np.float32)),
        pictures.entropy_map(logits),
    )


def test_legend_holds_the_classes_present():
    maps = [np.array([[0, 255]], np.uint8), np.array([[13, 0]], np.uint8)]
    table = label_tables.CITYSCAPES, label_tables.PALETTE
    entries = pictures.classes_present(maps, *table)
    assert list(entries) == ["road", "car"]
    assert entries["car"].tolist() == [0, 0, 142]
    assert pictures.classes_present([], *table) == {}


def cells_of(sheet, color):
    """Bounding box (left, top, right, bottom) of the pixels of one colour."""
    found = np.all(np.asarray(sheet) == color, axis=-1)
    y, x = np.nonzero(found)
    return x.min(), y.min(), x.max() + 1, y.max() + 1, int(found.sum())


def test_sheet_places_every_picture_on_the_grid():
    red, green, blue = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    sheet = pictures.contact_sheet(
        [[flat(red), flat(green)], [flat(blue), None]],
        ["left", "right"],
        row_titles=["one", "two"],
    )
    boxes = {color: cells_of(sheet, color) for color in (red, green, blue)}
    for left, top, right, bottom, pixels in boxes.values():
        assert (right - left, bottom - top, pixels) == (40, 20, 800)
    assert boxes[red][1] == boxes[green][1] and boxes[red][0] == boxes[blue][0]
    assert boxes[green][0] > boxes[red][2] and boxes[blue][1] > boxes[red][3]
    empty = np.asarray(sheet)[boxes[blue][1] + 5, boxes[green][0] + 5]
    assert empty.tolist() == [236] * 3


def test_sheet_of_dictionaries_equals_sheet_of_lists():
    rows = [{"a": flat(1), "b": flat(2)}, {"b": flat(3)}]
    from_dicts = pictures.contact_sheet(rows)
    from_lists = pictures.contact_sheet(
        [[flat(1), flat(2)], [None, flat(3)]], ["a", "b"]
    )
    np.testing.assert_array_equal(np.asarray(from_dicts), np.asarray(from_lists))


def test_titles_and_legend_add_room_and_ink():
    plain = pictures.contact_sheet([[flat(200)]])
    titled = pictures.contact_sheet([[flat(200)]], ["title"])
    # Two lines of classes in a narrow sheet are higher than one.
    one = pictures.contact_sheet([[flat(200)]], legend={"a": (9, 8, 7)})
    two = pictures.contact_sheet(
        [[flat(200)]], legend={"aaaaa": (9, 8, 7), "bbbbb": (9, 8, 7)}
    )
    assert plain.height < titled.height and plain.width == titled.width
    assert plain.height < one.height < two.height
    assert (np.asarray(titled)[: titled.height - plain.height] < 100).any()
    assert cells_of(one, (9, 8, 7))[4] > 50


def test_pictures_of_other_sizes_are_fitted_and_long_titles_cut():
    odd = pictures.contact_sheet(
        [[flat((250, 0, 0)), flat((0, 250, 0), 7, 13)]], ["x" * 60, ""], cell_width=21
    )
    for color in ((250, 0, 0), (0, 250, 0)):
        left, top, right, bottom, _ = cells_of(odd, color)
        assert (right - left, bottom - top) == (21, 10)
    one_pixel = pictures.contact_sheet([[flat(5, 1, 1)]])
    assert one_pixel.width > 1


@pytest.mark.parametrize(
    "rows, options, message",
    [
        ([], {}, "at least one"),
        ([[None]], {}, "at least one"),
        ([[flat(1)]], {"columns": ["a", "b"]}, "2 column titles for 1"),
        ([[flat(1)]], {"row_titles": []}, "0 row titles for 1"),
    ],
)
def test_sheet_refuses_what_does_not_fit(rows, options, message):
    with pytest.raises(ValueError, match=message):
        pictures.contact_sheet(rows, **options)


def test_saving_replaces_the_file_in_one_go(tmp_path, monkeypatch):
    path = tmp_path / "new" / "sheet.png"
    pictures.save_png(flat(7), path)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), flat(7))

    def fail(*_):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="killed"):
            pictures.save_png(flat(8), path)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), flat(7))
    pictures.save_png(Image.fromarray(flat(9)), path)
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(path)), flat(9))


def test_text_table():
    table = pictures.text_table(
        ["road", "traffic light"],
        {"source": [0.5, None], "stage 1": [0.9123, 1.0], "none": [None, float("nan")]},
        mean="mean",
    )
    assert table.splitlines() == [
        "class          source  stage 1  none",
        "------------------------------------",
        "road             50.0     91.2     -",
        "traffic light       -    100.0     -",
        "------------------------------------",
        "mean             50.0     95.6     -",
    ]


def test_text_table_without_mean_and_with_wrong_lengths():
    table = pictures.text_table(["a"], {"x": [0.1]})
    assert table.splitlines() == ["class     x", "-----------", "a      10.0"]
    with pytest.raises(ValueError, match="column 'x': 2 values, 1 names"):
        pictures.text_table(["a"], {"x": [0.1, 0.2]})
