"""Scales, mirror images, windows and tiles against loops over pixels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tufl_jax import config as config_lib
from tufl_jax import inference, windows

CLASSES = 5


class Network:
    """A convolution and the global mean: sees its border and its size."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self._kernel = rng.normal(0, 2, (3, 3, 3, CLASSES)).astype(np.float32)
        self._mean = rng.normal(0, 5, (3, CLASSES)).astype(np.float32)

    def apply(self, variables, x, train):
        assert not train
        local = jax.lax.conv_general_dilated(
            x, self._kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return (
            variables["gain"] * local + (x.mean((1, 2)) @ self._mean)[:, None, None],
        )


VARIABLES = {"gain": np.float32(1)}


def settings(**changes):
    config = config_lib.base()
    config.model.normalization = "unit"
    config.eval.batch_size = 8
    config.eval.update(changes)
    return config


def photographs(size, count=8):
    rng = np.random.default_rng(size)
    small = rng.integers(0, 256, (count, size[0] // 4 + 1, size[1] // 4 + 1, 3))
    large = small.repeat(4, 1).repeat(4, 2)[:, : size[0], : size[1]]
    return large.astype(np.uint8)


def probabilities(predictor, images):
    """f32[B, H, W, C], put together from the tiles, and the classes."""
    whole = np.full((*images.shape[:3], CLASSES), np.nan, np.float32)
    classes = np.full(images.shape[:3], 255, np.uint8)
    for tile in predictor(predictor.replicate(VARIABLES), images):
        h = tile.rows.stop - tile.rows.start
        w = tile.columns.stop - tile.columns.start
        whole[:, tile.rows, tile.columns] = tile.probabilities[:, :h, :w]
        classes[:, tile.rows, tile.columns] = tile.prediction[:, :h, :w]
    return whole, classes


def sample(map_, row, column):
    """Bilinear at one position, the border repeated."""
    height, width = map_.shape[:2]
    row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
    y, x = int(row), int(column)
    down, right = row - y, column - x
    y1, x1 = min(y + 1, height - 1), min(x + 1, width - 1)
    above = map_[y, x] * (1 - right) + map_[y, x1] * right
    below = map_[y1, x] * (1 - right) + map_[y1, x1] * right
    return above * (1 - down) + below * down


def resized(map_, size):
    step = [(n - 1) / max(m - 1, 1) for n, m in zip(map_.shape, size, strict=False)]
    return np.array(
        [[sample(map_, i * step[0], j * step[1]) for j in range(size[1])]
         for i in range(size[0])]
    )  # fmt: skip


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def by_loops(network, image, sizes, flips, window, stride):
    """The definition, pixel by pixel, for one image."""
    height, width = image.shape[:2]
    views = []
    for size, flip in itertools.product(sizes, flips):
        x = resized(image.astype(np.float64), size) / 255
        w = [min(a, b) for a, b in zip(window or size, size, strict=True)]
        starts = [
            windows_by_hand(n, a, b)
            for n, a, b in zip(size, w, stride or w, strict=True)
        ]
        total, count = np.zeros((height, width, CLASSES)), np.zeros((height, width, 1))
        for top, left in itertools.product(*starts):
            part = x[top : top + w[0], left : left + w[1]].astype(np.float32)
            seen = part[:, ::-1] if flip else part
            logits = np.asarray(network.apply(VARIABLES, seen[None], train=False)[0][0])
            logits = logits[:, ::-1] if flip else logits
            for i, j in itertools.product(range(height), range(width)):
                row = i * (size[0] - 1) / max(height - 1, 1) - top
                column = j * (size[1] - 1) / max(width - 1, 1) - left
                if -0.5 <= row < w[0] - 0.5 and -0.5 <= column < w[1] - 0.5:
                    total[i, j] += softmax(sample(logits, row, column))
                    count[i, j] += 1
        assert count.min() > 0
        views.append(total / count)
    return np.mean(views, 0)


def windows_by_hand(size, window, stride):
    starts = [0]
    while starts[-1] + window < size:
        starts.append(min(starts[-1] + stride, size - window))
    return starts


CASES = {
    "whole": dict(),
    "resize": dict(resize=(14, 33)),
    "scales and flip": dict(scales=(0.5, 1.0, 1.75), flip=True),
    "windows": dict(window=(9, 16), stride=(7, 13)),
    "own stride": dict(window=(12, 12)),
    "window larger than the image": dict(window=(64, 12), stride=(64, 9)),
    "windows of a larger input": dict(resize=(23, 33), window=(16, 16)),
    "no overlap": dict(resize=(16, 33), window=(8, 11), stride=(8, 11)),
    "tiles": dict(window=(9, 16), stride=(7, 13), tile=(8, 13)),
    "all": dict(
        resize=(10, 18), scales=(0.75, 1.5), flip=True, window=(7, 12), tile=(8, 12)
    ),
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_matches_the_loops(changes, monkeypatch):
    monkeypatch.setattr(windows, "BUCKET", 8)
    config, network = settings(**changes), Network()
    images = photographs((13, 21))
    ours, classes = probabilities(inference.Predictor(config, network), images)
    height, width = config.eval.resize or (13, 21)
    sizes = [(round(height * s), round(width * s)) for s in config.eval.scales]
    flips = (False, True) if config.eval.flip else (False,)
    window = config.eval.window
    stride = config.eval.stride or (window and [-(-5 * x // 6) for x in window])
    expected = by_loops(network, images[3], sizes, flips, window, stride)
    np.testing.assert_allclose(ours[3], expected, atol=2e-5)
    np.testing.assert_allclose(ours.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(classes, ours.argmax(-1))


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (3, 2)])
def test_tiny_images(size):
    for changes in (dict(), CASES["all"], dict(window=(4, 4), stride=(1, 1))):
        predictor = inference.Predictor(settings(**changes), Network())
        ours, _ = probabilities(predictor, photographs(size))
        np.testing.assert_allclose(ours.sum(-1), 1, atol=1e-5)


def test_one_whole_view_is_one_forward_pass():
    network = Network()
    images = photographs((21, 34))
    ours, _ = probabilities(inference.Predictor(settings(), network), images)
    logits = network.apply(VARIABLES, images / np.float32(255), train=False)[0]
    np.testing.assert_allclose(ours, jax.nn.softmax(logits), atol=2e-5)


def test_nothing_of_a_large_image_is_whole_on_the_device():
    """Bounded by tile and window, whatever the image: seven times a tile here."""
    config = settings(window=(32, 32), tile=(64, 64), scales=(1.5,))
    predictor = inference.Predictor(config, Network())
    largest = 0
    add = predictor._add

    def watched(*args, **kwargs):
        nonlocal largest
        shapes = [x.shape for x in jax.tree.leaves(args) if np.ndim(x) == 4]
        largest = max(largest, *(h * w for _, h, w, _ in shapes))
        return add(*args, **kwargs)

    predictor._add = watched
    images = photographs((150, 190))
    ours, _ = probabilities(predictor, images)
    assert not np.isnan(ours).any()
    assert largest == 64 * 64


def test_many_sizes_share_compilations():
    sizes = [(h, w) for h in (40, 43, 51) for w in (40, 45, 58)]
    for changes in (dict(resize=(16, 16)), dict(window=(32, 32), stride=(32, 32))):
        predictor = inference.Predictor(settings(**changes), Network())
        for size in sizes:
            probabilities(predictor, photographs(size))
        assert predictor._add._cache_size() <= 2
        assert predictor._decide._cache_size() == 1


def test_compilations_for_exact_sizes_do_not_pile_up(monkeypatch, caplog):
    monkeypatch.setattr(inference, "_MANY_SIZES", 3)
    predictor = inference.Predictor(settings(), Network())
    for width in range(8, 13):
        probabilities(predictor, photographs((8, width)))
        assert predictor._add._cache_size() <= 4
    assert "config.eval.resize" in caplog.text


def test_starts_of_windows():
    assert windows.window_starts(10, 4, 3) == [0, 3, 6]
    assert windows.window_starts(11, 4, 3) == [0, 3, 6, 7]
    assert windows.window_starts(4, 4, 3) == [0]
    assert windows.window_starts(3, 4, 3) == [0]
    for size, window in itertools.product(range(1, 30), range(1, 12)):
        for stride in range(1, window + 1):
            expected = windows_by_hand(size, window, stride)
            assert windows.window_starts(size, window, stride) == expected


def test_weights_of_the_windows_sum_to_one_everywhere():
    for size, input_size, tile in itertools.product((1, 2, 37), (1, 5, 64), (8, 37)):
        for start in range(0, size, tile):
            part = range(start, min(start + tile, size))
            sums = np.zeros(64)
            for span in windows.spans(size, input_size, part, 64, 7, 5):
                sums[span.offset :][: len(span.weight)] += span.weight
            np.testing.assert_allclose(sums[: len(part)], 1, rtol=1e-6)
            assert not sums[len(part) :].any()


def test_the_prediction_is_the_same_for_every_batch_it_is_in():
    predictor = inference.Predictor(settings(scales=(0.5, 1.0)), Network())
    images = photographs((16, 24))
    _, together = probabilities(predictor, images)
    for i in (0, 5):
        alone = np.repeat(images[i][None], 8, 0)
        np.testing.assert_array_equal(
            probabilities(predictor, alone)[1][2], together[i]
        )
    assert jnp.unique(jnp.asarray(together)).size > 1
