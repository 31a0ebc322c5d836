"""Panoptic quality against a transcription in loops, and clusters of scenes one can draw."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest

from uov_hf.data import load_frames
from uov_hf.evaluation.panoptic import MIN_POINTS, PanopticQuality, cluster_things
from uov_hf.vocabulary import load_vocabulary


IS_THING = np.array([True, True, False])


def quality(predictions, predicted_instances, labels, instances, min_points=1):
    panoptic = PanopticQuality(IS_THING, min_points)
    panoptic.update(*map(np.asarray, (predictions, predicted_instances, labels, instances)))
    return panoptic


def quality_by_loops(predictions, predicted_instances, labels, instances, min_points):
    """PanopticEval of semantic-kitti-api, in words: TP, FP, FN and the sum of IoUs of each class."""
    points = [p for p in zip(predictions, predicted_instances, labels, instances, strict=True) if p[2] != 255]
    rows = []
    for c in range(3):
        thing = bool(IS_THING[c])
        predicted = Counter(pi if thing else 0 for p, pi, _, _ in points if p == c)
        true = Counter(ti if thing else 0 for _, _, t, ti in points if t == c)
        both = Counter((pi if thing else 0, ti if thing else 0) for p, pi, t, ti in points if p == c and t == c)
        ious = {pair: n / (predicted[pair[0]] + true[pair[1]] - n) for pair, n in both.items()}
        matched = {pair: iou for pair, iou in ious.items() if iou > 0.5}
        found, hit = {pair[0] for pair in matched}, {pair[1] for pair in matched}
        false_alarms = sum(n >= min_points and segment not in found for segment, n in predicted.items())
        misses = sum(n >= min_points and segment not in hit for segment, n in true.items())
        rows.append((len(matched), false_alarms, misses, sum(matched.values())))
    return np.array(rows).T


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("min_points", [1, 15])
def test_it_counts_as_the_benchmarks_own_evaluations_do(seed, min_points):
    generator = np.random.default_rng(seed)
    labels, instances = generator.choice([0, 1, 2, 255], 900), generator.integers(0, 9, 900)
    confused = generator.random((2, 900)) < [[0.15], [0.25]]
    predictions = np.where(confused[0], generator.choice([0, 1, 2, 255], 900), labels)
    predicted_instances = np.where(confused[1], generator.integers(0, 12, 900), instances + 3)
    scan = predictions, predicted_instances, labels, instances
    panoptic, expected = quality(*scan, min_points), quality_by_loops(*scan, min_points)
    assert np.array_equal(panoptic.counts[:3], expected[:3])
    np.testing.assert_allclose(panoptic.counts[3] * 2.0**-32, expected[3], atol=1e-7)
    hits, false_alarms, misses, ious = expected
    result = panoptic.compute()
    pq = ious / (hits + false_alarms / 2 + misses / 2)
    np.testing.assert_allclose(result["per_category_pq"], pq, atol=1e-7)
    assert result["pq"] == pytest.approx(pq.mean(), abs=1e-7)
    assert result["things"]["pq"] == pytest.approx(pq[:2].mean(), abs=1e-7)
    np.testing.assert_allclose(
        np.multiply(result["per_category_sq"], result["per_category_rq"]), result["per_category_pq"], atol=1e-7
    )


def test_the_truth_is_perfect_and_an_absent_class_has_no_quality():
    labels, instances = [0, 0, 0, 2, 2, 255], [1, 1, 2, 7, 8, 0]
    result = quality(labels[:5] + [1], instances, labels, instances).compute()
    assert (result["pq"], result["sq"], result["rq"]) == (1, 1, 1)
    assert result["per_category_pq"][:1] == [1] and np.isnan(result["per_category_pq"][1])
    assert result["stuff"]["pq"] == 1  # instances of stuff are one segment


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": [0, 3]}, "`labels` must lie between 0 and 2, or be 255, got 3 to 3"),
        ({"predictions": [-1, 1]}, "`predictions` must lie between 0 and 2, or be 255, got -1 to -1"),
        ({"predictions": [0.0, 1.0]}, "`predictions` must be whole numbers .* got float64"),
        ({"labels": [0.0, 255.0]}, "`labels` must be whole numbers of shape"),
        ({"predicted_instances": [[1], [0]]}, r"`predicted_instances` must be .* got int64 of shape \(2, 1\)"),
        ({"instances": [1]}, r"`instances` must be whole numbers of shape \(2,\), got .* \(1,\)"),
    ],
)
def test_what_is_no_class_is_refused_and_changes_no_count(change, message):
    panoptic = PanopticQuality(IS_THING, min_points=1)
    arrays = {"predictions": [0, 1], "predicted_instances": [1, 0], "labels": [0, 255], "instances": [1, 0]}
    with pytest.raises(ValueError, match=message):
        panoptic.update(**{name: np.array(values) for name, values in (arrays | change).items()})
    assert not panoptic.counts.any()


def test_the_label_that_does_not_count_must_be_no_class():
    with pytest.raises(ValueError, match="`ignore_index` must be 3 or more"):
        PanopticQuality(IS_THING, ignore_index=0)


def test_a_point_without_a_prediction_makes_its_segment_smaller_and_no_false_alarm():
    panoptic = quality([0, 0, 255, 255], [1, 1, 1, 1], [0, 0, 0, 2], [5, 5, 5, 0])
    assert panoptic.counts[:3].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert panoptic.compute()["per_category_sq"][0] == pytest.approx(2 / 3)


def test_a_point_of_the_only_class_may_be_without_a_prediction():
    panoptic = PanopticQuality([True], min_points=1)
    panoptic.update(*map(np.array, ([0, 0, 255], [1, 1, 0], [0, 0, 0], [1, 1, 1])))
    assert panoptic.counts[:3].tolist() == [[1], [0], [0]]


@pytest.mark.parametrize("radius", [0, -1, np.inf, np.nan])
def test_a_radius_that_is_not_above_zero_or_not_finite_is_refused(radius):
    with pytest.raises(ValueError, match="`radius` must be a finite number of metres above 0"):
        cluster_things(np.zeros((1, 3)), np.zeros(1, int), IS_THING, radius)


def test_clusters_end_where_a_gap_is_wider_than_the_radius_and_at_the_border_of_a_class():
    x = np.array([0.0, 0.4, 0.8, 2.0, 2.3, 2.6, np.nan])
    points = np.stack([x, 0 * x, 0 * x, 0 * x], axis=1)
    found = cluster_things(points, np.array([0, 0, 0, 0, 1, 2, 0]), IS_THING)
    wide = cluster_things(points, np.array([0, 0, 0, 0, 1, 2, 0]), IS_THING, radius=1.3)
    assert found.tolist() == [1, 1, 1, 2, 3, 0, 0] and wide.tolist() == [1, 1, 1, 1, 2, 0, 0]
    assert cluster_things(points[:0], np.zeros(0, int), IS_THING).tolist() == []


def test_clustering_a_scan_that_is_all_one_thing_needs_little_memory():
    generator = np.random.default_rng(0)
    points = np.concatenate([generator.uniform(-4, 4, (60_000, 2)), generator.normal(0, 0.02, (60_000, 1))], axis=1)
    tracemalloc.start()
    instances = cluster_things(points, np.zeros(60_000, int), IS_THING)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert instances.tolist() == [1] * 60_000 and peak < 60e6


def test_on_a_real_scan_clusters_of_the_true_labels_find_most_true_instances(shared_data):
    frame = load_frames("semantic_kitti", "all", data_dir=shared_data / "semantickitti" / "dataset")[0]
    is_thing = load_vocabulary("semantic_kitti").is_thing
    clusters = cluster_things(frame["points"], frame["labels"], is_thing)
    results = []
    for found in (frame["instances"], clusters):
        panoptic = PanopticQuality(is_thing, min_points=50)
        panoptic.update(frame["labels"], found, frame["labels"], frame["instances"])
        results.append(panoptic.compute())
    assert results[0]["pq"] == results[1]["stuff"]["pq"] == 1 and results[1]["things"]["pq"] > 0.5


def test_the_smallest_segments_are_those_of_the_benchmarks():
    """`min_points` of nuScenes-panoptic's and of SemanticKITTI's evaluation; PanopticEval's default for others."""
    assert MIN_POINTS == {"nuscenes": 15, "semantic_kitti": 50}
    sizes = np.repeat([0, 1], [30, 29])  # wrong segments of two classes, one point too small
    panoptic = PanopticQuality(IS_THING)
    panoptic.update(sizes, np.ones(59, int), np.full(59, 2), np.zeros(59, int))
    assert panoptic.counts[1].tolist() == [1, 0, 0] and panoptic.counts.dtype == np.int64


def test_the_number_after_the_classes_may_be_the_one_that_does_not_count():
    panoptic = PanopticQuality([True, True, False], min_points=1, ignore_index=3)
    panoptic.update(*map(np.array, ([0, 0, 3, 2, 2], [1, 2, 0, 1, 2], [0, 0, 2, 2, 3], [1, 2, 0, 5, 6])))
    assert panoptic.counts[:3].tolist() == [[2, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert panoptic.compute()["things"]["pq"] == 1


@pytest.mark.filterwarnings("error")
def test_scans_add_up_and_none_have_no_quality():
    scans = [([0, 0, 1, 2], [1, 1, 2, 0], [0, 0, 0, 2], [1, 1, 1, 0]), ([1, 1, 0], [1, 2, 3], [1, 1, 1], [4, 4, 4])]
    panoptic = PanopticQuality(IS_THING, min_points=1)
    assert np.isnan([panoptic.compute()["pq"], panoptic.compute()["things"]["sq"]]).all()
    for scan in scans:
        panoptic.update(*map(np.array, scan))
    assert np.array_equal(panoptic.counts, sum(quality(*scan).counts for scan in scans))
    expected = sum(quality_by_loops(*scan, min_points=1) for scan in scans)
    assert np.array_equal(panoptic.counts[:3], expected[:3]) and expected[:3].any(axis=1).all()
    panoptic.update(*[np.array([], int)] * 4)
    assert np.array_equal(panoptic.counts[:3], expected[:3])


def test_intensities_make_no_clusters():
    points = np.array([[0.0, 0, 0, 0], [0.2, 0, 0, 90], [0.4, 0, 0, np.nan]])
    assert cluster_things(points, np.zeros(3, int), IS_THING).tolist() == [1, 1, 1]


def test_instances_that_differ_beyond_32_bits_are_two():
    instances = np.array([1, 1 + 2**32])
    panoptic = PanopticQuality(IS_THING, min_points=1)
    panoptic.update(np.zeros(2, int), instances, np.zeros(2, int), instances)
    assert panoptic.counts[0].tolist() == [2, 0, 0]


def test_instances_of_every_class_have_numbers_of_their_own():
    points, predictions = np.array([[0.0, 0, 0], [5, 0, 0], [0, 5, 0], [5, 5, 0]]), np.array([0, 0, 1, 2])
    assert sorted(cluster_things(points, predictions, np.ones(3, bool)).tolist()) == [1, 2, 3, 4]
