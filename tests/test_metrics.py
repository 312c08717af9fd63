"""Confusion matrices and IoU against loops and the benchmark script's results."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tufl_jax import labels as label_tables
from tufl_jax import metrics
from tufl_jax.errors import UserError

GOLDEN = pathlib.Path(__file__).parent / "golden"
CASES = sorted(GOLDEN.glob("eval_confusion_*.npz"))

on_device = jax.jit(metrics.confusion_matrix, static_argnums=2)


def loop_confusion(predictions, labels, num_classes, ignore=255):
    counts = np.zeros((num_classes, num_classes), np.int64)
    for guess, truth in zip(predictions.ravel(), labels.ravel(), strict=True):
        if truth != ignore:
            counts[truth, guess] += 1
    return counts


def random_maps(num_classes, shape=(2, 7, 9), seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, shape).astype(np.uint8)
    labels[rng.random(shape) < 0.2] = 255
    return rng.integers(0, num_classes, shape).astype(np.uint8), labels


def random_confusion(num_classes, seed=1):
    return np.random.default_rng(seed).integers(0, 50, (num_classes, num_classes))


def test_all_recorded_cases_are_here():
    assert len(CASES) == 9


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem[15:])
def test_matches_the_benchmark_script(path):
    case = np.load(path)
    num_classes = len(case["iou_cityscapes"])
    recorded = case["hist_pred_by_gt"].T
    host = metrics.confusion_matrix(case["predictions"], case["labels"], num_classes)
    device = on_device(
        jnp.asarray(case["predictions"]), jnp.asarray(case["labels"]), num_classes
    )
    np.testing.assert_array_equal(host, recorded)
    np.testing.assert_array_equal(device, recorded)
    np.testing.assert_allclose(metrics.iou(host), case["iou_cityscapes"], rtol=1e-12)
    numbers = metrics.summary(host, num_classes)
    assert numbers["miou"] == pytest.approx(float(case["miou_cityscapes"]), rel=1e-12)
    if num_classes == 16:
        expected = float(case["miou13_ignoring_nan"])
        assert numbers["miou_13"] == pytest.approx(expected, rel=1e-12)


def test_matches_the_released_iou():
    for path in CASES:
        case = np.load(path)
        ours = metrics.iou(case["hist_pred_by_gt"].T)
        np.testing.assert_allclose(ours, case["iou_released"], rtol=1e-12)


def test_matches_a_loop_eager_and_jitted():
    predictions, labels = random_maps(5)
    expected = loop_confusion(predictions, labels, 5)
    host = metrics.confusion_matrix(predictions, labels, 5)
    eager = metrics.confusion_matrix(jnp.asarray(predictions), jnp.asarray(labels), 5)
    np.testing.assert_array_equal(host, expected)
    np.testing.assert_array_equal(eager, expected)
    np.testing.assert_array_equal(on_device(predictions, labels, 5), expected)
    assert host.dtype == np.int64 and eager.dtype == jnp.int32


def test_predictions_on_ignored_pixels_do_not_count_whatever_they_are():
    labels = np.array([0, 255, 255], np.uint8)
    predictions = np.array([0, 1, 254], np.uint8)
    for count in (metrics.confusion_matrix, on_device):
        np.testing.assert_array_equal(count(predictions, labels, 2), [[1, 0], [0, 0]])


def test_another_ignore_label():
    labels = np.array([[-1, 0, 1]], np.int32)
    predictions = np.array([[1, 1, 1]], np.int32)
    expected = [[0, 1], [0, 1]]
    for as_array in (np.asarray, jnp.asarray):
        ours = metrics.confusion_matrix(
            as_array(predictions), as_array(labels), 2, ignore_label=-1
        )
        np.testing.assert_array_equal(ours, expected)


def test_all_ignored_and_no_pixels_give_zeros():
    labels = np.full((1, 3, 3), 255, np.uint8)
    for maps in (labels, labels[:0]):
        for as_array in (np.asarray, jnp.asarray):
            ours = metrics.confusion_matrix(as_array(maps), as_array(maps), 3)
            np.testing.assert_array_equal(ours, np.zeros((3, 3)))


@pytest.mark.parametrize("predictions, labels", [([0, 7], [0, 1]), ([0, 1], [0, 7])])
def test_index_outside_the_classes_is_an_error(predictions, labels):
    with pytest.raises(ValueError, match="7 is outside the 2 classes"):
        metrics.confusion_matrix(np.array(predictions), np.array(labels), 2)
    traced = on_device(np.array(predictions), np.array(labels), 2)
    np.testing.assert_array_equal(traced, [[1, 0], [0, 0]])


def test_different_shapes_are_an_error():
    with pytest.raises(ValueError, match="same shape"):
        metrics.confusion_matrix(np.zeros((2, 3), int), np.zeros((3, 2), int), 2)


def test_counts_above_the_float32_integers_stay_exact():
    huge = np.diag([2**53 - 1, 10]) + np.array([[0, 0], [1, 0]])
    assert metrics.iou(huge)[1] == 10 / 11
    matrix = metrics.confusion_matrix(np.zeros(5, int), np.zeros(5, int), 2)
    assert (matrix * 10**9)[0, 0] == 5 * 10**9


def test_iou_of_absent_predicted_only_and_missed_classes():
    #            found, absent, predicted only, missed
    confusion = np.zeros((4, 4), int)
    confusion[0, 0], confusion[0, 2], confusion[3, 0] = 6, 1, 3
    np.testing.assert_array_equal(metrics.iou(confusion), [0.6, np.nan, 0.0, 0.0])
    assert metrics.mean_iou(confusion) == pytest.approx(0.2)
    assert np.isnan(metrics.mean_iou(confusion, keep=[1]))


def test_summary_of_19_classes_takes_rows_of_the_same_matrix():
    confusion = random_confusion(19)
    numbers = metrics.summary(confusion, label_tables.CITYSCAPES)
    values = metrics.iou(confusion)
    dropped_16 = [
        label_tables.CITYSCAPES.index(n) for n in ("terrain", "truck", "train")
    ]
    dropped_13 = [label_tables.CITYSCAPES.index(n) for n in ("wall", "fence", "pole")]
    assert numbers["miou_16"] == pytest.approx(np.delete(values, dropped_16).mean())
    assert numbers["miou_13"] == pytest.approx(
        np.delete(values, dropped_16 + dropped_13).mean()
    )
    assert list(numbers["iou"]) == list(label_tables.CITYSCAPES)
    assert numbers["iou"]["road"] == values[0]
    assert numbers == metrics.summary(confusion, 19)
    assert (numbers["miou_16"], numbers["miou_13"]) == (
        numbers["miou_16_b"],
        numbers["miou_13_b"],
    )


@pytest.mark.parametrize("num_classes", [19, 16, 13])
def test_both_families_against_counting_with_changed_labels(num_classes):
    """A: other ground truth is 255. B: it stays and is a miss of what was predicted."""
    own = np.array(label_tables.subset(num_classes))
    rng = np.random.default_rng(num_classes)
    truth = rng.integers(0, 19, (3, 40, 50)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 255
    guess = rng.choice(own, truth.shape).astype(np.uint8)
    right = (rng.random(truth.shape) < 0.6) & np.isin(truth, own)
    guess[right] = truth[right]

    def mean(truth, keep):
        values = []
        for c in keep:
            a, b = (truth == c), (guess == c) & (truth != 255)
            values.append((a & b).sum() / (a | b).sum())
        return np.mean(values)

    numbers = metrics.summary(metrics.confusion_matrix(guess, truth, 19), num_classes)
    judged = 16 if num_classes == 19 else num_classes
    only = np.where(np.isin(truth, label_tables.subset(judged)), truth, 255)
    for size in (16, 13):
        keep = label_tables.subset(size)
        if size <= num_classes:
            assert numbers[f"miou_{size}_a"] == pytest.approx(mean(only, keep))
            assert numbers[f"miou_{size}_b"] == pytest.approx(mean(truth, keep))
            assert numbers[f"miou_{size}_a"] > numbers[f"miou_{size}_b"]
        else:
            assert f"miou_{size}_a" not in numbers
    everything = truth if num_classes == 19 else only
    assert numbers["miou"] == pytest.approx(mean(everything, own))
    assert list(numbers["iou"]) == list(label_tables.class_names(num_classes))


def test_a_network_predicts_no_class_it_lacks():
    confusion = np.zeros((19, 19), int)
    confusion[0, 9] = 1  # terrain
    with pytest.raises(ValueError, match="other classes than the 16"):
        metrics.summary(confusion, 16)


def test_summary_of_16_classes_drops_wall_fence_pole():
    confusion = random_confusion(16)
    numbers = metrics.summary(confusion, 16)
    expected = np.delete(metrics.iou(confusion), [3, 4, 5]).mean()
    assert numbers["miou_13"] == pytest.approx(expected)
    assert "miou_16" not in numbers


def test_summary_of_other_class_sets_and_of_absent_classes():
    numbers = metrics.summary(np.array([[3, 1, 0], [0, 0, 0], [0, 0, 0]]), "abc")
    assert numbers == {"miou": 0.375, "iou": {"a": 0.75, "b": 0.0, "c": None}}
    only_terrain = np.zeros((19, 19), int)
    only_terrain[9, 9] = 4
    numbers = metrics.summary(only_terrain, 19)
    assert numbers["miou"] == 1.0 and numbers["miou_16"] is None


def test_summary_refuses_an_empty_matrix_and_wrong_names():
    with pytest.raises(UserError, match="no labelled pixel"):
        metrics.summary(np.zeros((3, 3), int), "abc")
    with pytest.raises(ValueError, match="2 class names"):
        metrics.summary(np.ones((3, 3), int), "ab")


def test_restrict_equals_ignoring_the_ground_truth():
    keep = label_tables.subset(16)
    predictions, labels = random_maps(19, seed=3)
    confusion = metrics.confusion_matrix(predictions, labels, 19)
    ignored = np.where(np.isin(labels, keep), labels, 255)
    expected = metrics.confusion_matrix(predictions, ignored, 19)
    restricted = metrics.restrict(confusion, keep)
    np.testing.assert_array_equal(restricted, expected)
    # Protocol A never reads lower than protocol B on the same predictions.
    assert metrics.mean_iou(restricted, keep) >= metrics.mean_iou(confusion, keep)
