"""Properties of the metrics: equal to counts by loops, independent of order and layout, and strict about classes."""

import math

import numpy as np
import torch
from hostile_arrays import FLOATS, INTEGERS, anything, as_tensor, clouds, generators, ids, result_or_error
from hypothesis import given
from hypothesis import strategies as st

from uov_hf.evaluation.label_statistics import find_range_bins, global_voxels, most_frequent_labels
from uov_hf.evaluation.metrics import ConfidenceBins, ConfusionMatrix
from uov_hf.evaluation.panoptic import PanopticQuality, cluster_things


NAMES = ["predictions", "labels", "predicted_instances", "instances"]


@given(st.integers(1, 6), st.integers(0, 40), st.sampled_from([255, -1, 300]), st.data())
def test_the_confusion_matrix_counts_as_a_loop_does(num_labels, size, ignore_index, data):
    dtypes = ["i2", "i4", "i8"] if ignore_index != 255 else INTEGERS[1:]
    predictions, labels = (data.draw(ids(size, num_labels, dtypes, also=ignore_index)) for _ in range(2))
    matrix = ConfusionMatrix(num_labels, ignore_index)
    result_or_error([], matrix.update, predictions, labels)
    expected = np.zeros((num_labels, num_labels + 1), np.int64)
    for prediction, label in zip(predictions.tolist(), labels.tolist(), strict=True):
        if label != ignore_index:
            expected[label, num_labels if prediction == ignore_index else prediction] += 1
    assert (matrix.counts == expected).all()
    other = ConfusionMatrix(num_labels, ignore_index)
    order = data.draw(generators()).permutation(size)
    half = size // 2
    for rows in (order[:half], order[half:]):
        part = ConfusionMatrix(num_labels, ignore_index)
        part.update(as_tensor(predictions[rows].astype("i8")), labels[rows])
        other.merge(part)
    assert (other.counts == matrix.counts).all()
    metrics = matrix.compute()
    for name, value in metrics.items():
        values = value if isinstance(value, list) else [value]
        assert name.startswith("num") or all(math.isnan(one) or -1e-12 <= one <= 1 + 1e-12 for one in values)
    named = [iou for iou in metrics["per_category_iou"] if not math.isnan(iou)]
    assert metrics["num_classes"] == len(named) and (
        not named or math.isclose(metrics["mean_iou"], sum(named) / len(named))
    )


@given(
    anything([(5,), (6,), (5, 1), (2, 3), (3, 2)]),
    anything([(5,), (6,), (5, 1), (2, 3)]),
    st.sampled_from([255, -1]),
    st.booleans(),
)
def test_any_arrays_are_counted_or_an_error_names_them(predictions, labels, ignore_index, as_torch):
    matrix = ConfusionMatrix(3, ignore_index)
    arrays = [as_tensor(array) if as_torch else array for array in (predictions, labels)]
    result_or_error(NAMES, matrix.update, *arrays)
    total = int(matrix.counts.sum())
    assert total == 0 or total == (labels != ignore_index).sum()


@given(generators(), st.integers(0, 40), st.integers(1, 20), st.sampled_from(["f2", "f4", "f8"]))
def test_bins_of_confidence_do_not_depend_on_the_order(generator, size, num_bins, dtype):
    confidences, is_right = generator.random(size).astype(dtype), generator.random(size) < 0.5
    bins, other = ConfidenceBins(num_bins), ConfidenceBins(num_bins)
    result_or_error([], bins.update, confidences, is_right)
    for row in generator.permutation(size):
        other.update(confidences[row : row + 1], is_right[row : row + 1])
    assert (bins.counts == other.counts).all() and bins.counts[0].sum() == size
    error = bins.compute()["expected_calibration_error"]
    assert math.isnan(error) if size == 0 else 0 <= error <= 1


@given(anything([(5,), (6,)]), anything([(5,), (6,)], ["?", "?", "i8", "f4"]), st.integers(-1, 3))
def test_any_confidences_are_counted_or_an_error_names_them(confidences, is_right, num_bins):
    bins = result_or_error(["num_bins"], ConfidenceBins, num_bins)
    if bins is not None:
        result_or_error(["confidences", "is_right"], bins.update, confidences, is_right)
        assert bins.counts[0].sum() in (0, getattr(confidences, "size", 0)) and (bins.counts >= 0).all()


def panoptic_by_loops(predictions, predicted_instances, labels, instances, is_thing, min_points) -> np.ndarray:
    """TP, FP, FN and the sum of IoUs of every class, from sets of points."""
    counts = np.zeros((4, len(is_thing)))
    scored = [point for point, label in enumerate(labels) if label != 255]

    def segments(classes, numbers):
        found: dict[tuple, set] = {}
        for point in scored:
            if classes[point] != 255:
                key = (classes[point], numbers[point] if is_thing[classes[point]] else 0)
                found.setdefault(key, set()).add(point)
        return found

    predicted, true = segments(predictions, predicted_instances), segments(labels, instances)
    matched_predicted, matched_true = set(), set()
    for one, points in predicted.items():
        for other, others in true.items():
            iou = len(points & others) / len(points | others)
            if one[0] == other[0] and iou > 0.5:
                counts[0, one[0]] += 1
                counts[3, one[0]] += iou
                matched_predicted.add(one)
                matched_true.add(other)
    for row, found, matched in ((1, predicted, matched_predicted), (2, true, matched_true)):
        for key, points in found.items():
            counts[row, key[0]] += key not in matched and len(points) >= min_points
    return counts


@given(
    generators(),
    st.integers(0, 40),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([0, 2**31, 2**33, -(2**40)]),
)
def test_panoptic_quality_counts_as_a_loop_over_segments_does(generator, size, num_labels, min_points, offset):
    is_thing = generator.random(num_labels) < 0.6
    classes = [np.where(generator.random(size) < 0.2, 255, generator.integers(0, num_labels, size)) for _ in range(2)]
    classes[0] = np.where(generator.random(size) < 0.7, classes[1], classes[0])
    numbers = [generator.integers(0, 3, size) * (offset + 1) for _ in range(2)]
    numbers[0] = np.where(generator.random(size) < 0.7, numbers[1], numbers[0])
    quality = PanopticQuality(is_thing, min_points)
    result_or_error([], quality.update, classes[0], numbers[0], classes[1], numbers[1])
    expected = panoptic_by_loops(
        *[a.tolist() for a in (classes[0], numbers[0], classes[1], numbers[1])], is_thing, min_points
    )
    assert (quality.counts[:3] == expected[:3]).all()
    np.testing.assert_allclose(quality.counts[3] * 2.0**-32, expected[3], atol=1e-6)


ARRAYS = anything([(6,), (6,), (6,), (5,), (6, 1)], [*INTEGERS, "i8", "i8", "f4", "?"])


@given(ARRAYS, ARRAYS, ARRAYS, ARRAYS, st.integers(0, 3))
def test_any_segments_are_counted_or_an_error_names_them(predictions, predicted_instances, labels, instances, valid):
    six = np.arange(6) % 3
    arrays = [
        array if place >= valid else six
        for place, array in enumerate((predictions, labels, predicted_instances, instances))
    ]
    quality = PanopticQuality(np.array([True, False, True]), min_points=1)
    result_or_error(NAMES, quality.update, arrays[0], arrays[2], arrays[1], arrays[3])
    assert (quality.counts >= 0).all() and quality.counts[:3].sum() <= 12


@given(clouds(max_points=40, scales=(0.3, 1.0, 30.0), dtypes=["f4", "f8"]), st.data())
def test_clusters_are_of_one_class_and_no_farther_apart_than_the_radius(points, data):
    predictions = data.draw(ids(len(points), 3, ["i8", "u1"], also=255))
    is_thing = np.array([True, False, True])
    instances = result_or_error([], cluster_things, points, predictions, is_thing)
    finite = np.isfinite(points[:, :3]).all(axis=1)
    assert ((instances > 0) == (np.append(is_thing, False)[np.minimum(predictions, 3)] & finite)).all()
    cells = np.floor(points[:, :3].astype(float) / 0.1)
    for number in range(1, instances.max(initial=0) + 1):
        rows = np.flatnonzero(instances == number)
        assert len(rows) and len(set(predictions[rows].tolist())) == 1
        others = np.flatnonzero((instances != number) & (predictions == predictions[rows[0]]) & finite)
        if len(others):  # no point of another cluster is as near as its cells allow
            gaps = np.abs(cells[rows][:, None] - cells[others][None]).max(axis=2)
            assert gaps.min() > 1


@given(
    anything([(5, 3), (5, 4)], FLOATS + ["i8"]),
    anything([(5,), (4,)], INTEGERS + ["f4"]),
    st.sampled_from([0.5, 0, math.nan, math.inf]),
)
def test_any_points_are_clustered_or_an_error_names_them(points, predictions, radius):
    found = result_or_error(
        ["points", "predictions", "radius"], cluster_things, points, predictions, np.array([True]), radius
    )
    assert found is None or found.shape == (len(points),)


@given(clouds(max_points=20), generators())
def test_ranges_and_voxels_of_any_points(points, generator):
    bins = result_or_error([], find_range_bins, points)
    distances = np.hypot(points[:, 0].astype(float), points[:, 1].astype(float))
    assert ((bins >= -1) & (bins <= 4)).all() and (bins[~np.isfinite(distances.astype("f4"))] == -1).all()
    pose = np.eye(4)
    pose[:3, 3] = [5e5, 5e6, 100]
    keys = result_or_error([], global_voxels, points, pose)
    assert keys.dtype == np.int64 and (keys >= 0).all() and (keys < 2**63 - 1).all()
    labels = generator.integers(0, 3, len(points))
    voxels, best = most_frequent_labels(keys, labels, 3)
    for voxel, label in zip(voxels, best, strict=True):
        counts = np.bincount(labels[keys == voxel], minlength=3)
        assert counts[label] == counts.max() and label == counts.argmax()


@given(st.integers(-3, 300), st.sampled_from([255, 0, -1, 5]))
def test_a_matrix_has_a_label_that_is_no_class(num_labels, ignore_index):
    matrix = result_or_error(["ignore_index"], ConfusionMatrix, num_labels, ignore_index)
    assert (matrix is not None) == (num_labels >= 1 and not 0 <= ignore_index < num_labels)
    assert torch.tensor(0 if matrix is None else matrix.counts.sum()) == 0
