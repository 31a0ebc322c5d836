"""ConfusionMatrix: the numbers that nuScenes-lidarseg's own evaluation would print."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from uov_hf.evaluation.metrics import ConfusionMatrix


def matrix_of(predictions, labels, num_labels=3):
    matrix = ConfusionMatrix(num_labels)
    matrix.update(np.array(predictions), np.array(labels))
    return matrix


def test_a_class_without_truth_is_in_no_mean_but_that_of_the_official_code():
    result = matrix_of([0, 0, 1], [0, 0, 0]).compute()
    # Class 1 is predicted but never there: a miss of class 0, and no more. Class 2 is neither.
    assert result["per_category_iou"] == pytest.approx([2 / 3, math.nan, math.nan], nan_ok=True)
    assert result["mean_iou"] == pytest.approx(2 / 3) and result["num_classes"] == 1
    assert result["official_mean_iou"] == pytest.approx((2 / 3 + 0 + 1) / 3)


def test_a_point_without_a_prediction_is_a_miss_and_no_false_alarm():
    result = matrix_of([0, 255, 1], [0, 0, 1]).compute()
    assert result["per_category_iou"][:2] == [0.5, 1.0]
    assert result["overall_accuracy"] == pytest.approx(2 / 3)


def random_predictions(seed, num_labels, absent=(), with_gaps=False):
    """Skewed like a street: a few classes are nearly everything; those of `absent` are neither there nor predicted."""
    generator = np.random.default_rng(seed)
    share = generator.dirichlet(np.full(num_labels, 0.3))
    share[list(absent)] = 0
    labels = generator.choice(num_labels, 5000, p=share / share.sum())
    guesses = generator.choice(np.setdiff1d(np.arange(num_labels), absent), 5000)
    predictions = np.where(generator.random(5000) < 0.6, labels, guesses)
    predictions[generator.random(5000) < 0.05 * with_gaps] = 255
    labels[generator.random(5000) < 0.1] = 255
    return predictions, labels


@pytest.mark.parametrize("seed, num_labels, absent", [(0, 3, ()), (1, 16, ()), (2, 16, (4, 7)), (3, 19, (0, 18))])
def test_metrics_are_those_of_scikit_learn(seed, num_labels, absent):
    predictions, labels = random_predictions(seed, num_labels, absent)
    matrix = matrix_of(predictions, labels, num_labels)
    result = matrix.compute()
    kept, classes = labels != 255, np.arange(num_labels)
    truth, predicted = labels[kept], predictions[kept]
    iou = jaccard_score(truth, predicted, labels=classes, average=None, zero_division=0)
    iou[~np.isin(classes, truth)] = np.nan  # scikit-learn has a number for a class without truth
    np.testing.assert_allclose(result["per_category_iou"], iou, rtol=1e-12)
    assert set(absent) <= set(np.flatnonzero(np.isnan(iou)))
    assert np.array_equal(matrix.counts[:, :num_labels], confusion_matrix(truth, predicted, labels=classes))
    assert result["mean_iou"] == pytest.approx(np.nanmean(iou), rel=1e-12)
    assert result["overall_accuracy"] == pytest.approx(accuracy_score(truth, predicted), rel=1e-12)
    present = np.setdiff1d(classes, absent)  # the weight of a class that is not there is 0, and 0 · NaN is not
    weighted = jaccard_score(truth, predicted, labels=present, average="weighted")
    assert result["fwiou"] == pytest.approx(weighted, rel=1e-12)
    assert result["official_fwiou"] == pytest.approx(jaccard_score(truth, predicted, average="micro"), rel=1e-12)


def devkit_scores(predictions, labels, num_labels):
    """IoU and its weighted mean as nuscenes-devkit's eval/lidarseg counts them; class 0 is void."""
    counts = np.zeros((num_labels + 1, num_labels + 1))
    np.add.at(counts, ((labels + 1) % 256, predictions + 1), 1)
    counts[0] = counts[:, 0] = 0
    union = counts.sum(axis=1) + counts.sum(axis=0) - counts.diagonal()
    with np.errstate(invalid="ignore"):
        iou = counts.diagonal() / union
    return iou[1:], np.nansum(counts.sum(axis=1) * iou) / counts.sum()


@pytest.mark.parametrize("seed, absent", [(4, ()), (5, (3,)), (6, (0, 9, 15))])
def test_metrics_of_the_classes_with_truth_are_those_of_the_nuscenes_devkit(seed, absent):
    predictions, labels = random_predictions(seed, 16, absent)
    result = matrix_of(predictions, labels, 16).compute()
    iou, fwiou = devkit_scores(predictions, labels, 16)
    has_truth = np.isin(np.arange(16), labels)
    np.testing.assert_allclose(np.array(result["per_category_iou"])[has_truth], iou[has_truth], rtol=1e-12)
    assert (
        np.isnan(np.array(result["per_category_iou"])[~has_truth]).all() and result["num_classes"] == has_truth.sum()
    )
    assert result["num_points"] == (labels != 255).sum()
    assert (result["mean_iou"], result["fwiou"]) == pytest.approx((iou[has_truth].mean(), fwiou), rel=1e-12)


@pytest.mark.parametrize("seed, absent", [(7, ()), (8, (2, 11))])
def test_the_official_code_counts_an_absent_class_as_one_and_keeps_void_answers_as_misses(seed, absent):
    predictions, labels = random_predictions(seed, 16, absent, with_gaps=True)
    counts = np.zeros((17, 17))  # method 5.1: class 0 is void; its row is zeroed, its column stays
    np.add.at(counts, ((labels.astype(int) + 1) % 256, (predictions.astype(int) + 1) % 256), 1)
    counts[0] = 0
    hits, union = counts.diagonal(), counts.sum(axis=0) + counts.sum(axis=1) - counts.diagonal()
    iou = [hits[c] / union[c] if union[c] else 1.0 for c in range(1, 17)]
    result = matrix_of(predictions, labels, 16).compute()
    assert result["official_mean_iou"] == pytest.approx(np.mean(iou), rel=1e-12)
    assert result["official_fwiou"] == pytest.approx(hits.sum() / (2 * counts.sum() - hits.sum()), rel=1e-12)
    assert result["official_mean_iou"] > result["mean_iou"] if absent else result["fwiou"] > 0


def test_merging_equals_counting_together():
    generator = np.random.default_rng(1)
    predictions, labels = generator.integers(0, 3, (2, 40)), generator.integers(0, 3, (2, 40))
    parts = [matrix_of(p, t) for p, t in zip(predictions, labels, strict=True)]
    parts[0].merge(parts[1])
    assert np.array_equal(parts[0].counts, matrix_of(predictions.ravel(), labels.ravel()).counts)
    with pytest.raises(ValueError, match="4 classes into one of 3"):
        parts[0].merge(ConfusionMatrix(4))


def test_tensors_count_as_arrays_do():
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1], dtype=torch.uint8))
    assert np.array_equal(matrix.counts, matrix_of([0, 1, 2], [0, 1, 1]).counts)


def test_without_scored_points_metrics_are_nan():
    result = matrix_of([0, 1], [255, 255]).compute()
    assert math.isnan(result["mean_iou"]) and math.isnan(result["fwiou"]) and result["num_points"] == 0


@pytest.mark.parametrize(
    "predictions, labels, message",
    [
        ([0, 1], [0], "`predictions` must have one id for each of the 1 `labels`, got 2"),
        ([3], [0], "`predictions` must be 0 … 2 or 255"),
        ([0], [-1], "`labels` must be 0 … 2 or 255"),
        ([0.5], [0], "`predictions` must be whole numbers of shape .*, got float64"),
        ([0], [0.5], "`labels` must be whole numbers of shape .*, got float64"),
    ],
)
def test_bad_ids_are_refused_with_the_reason(predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        matrix_of(predictions, labels)


@pytest.mark.parametrize("num_labels, ignore_index", [(3, 0), (3, 2), (0, 255), (1, 0)])
def test_the_label_that_does_not_count_is_no_class_of_a_matrix(num_labels, ignore_index):
    with pytest.raises(ValueError, match="`ignore_index` must lie outside the"):
        ConfusionMatrix(num_labels, ignore_index)


@pytest.mark.parametrize("ignore_index", [-1, 1, 255])
def test_any_other_number_may_be_the_label_that_does_not_count(ignore_index):
    matrix = ConfusionMatrix(1, ignore_index)
    matrix.update(np.array([0, ignore_index]), np.array([0, 0]))
    assert matrix.counts.tolist() == [[1, 1]] and matrix.counts.dtype == np.int64


@pytest.mark.filterwarnings("error")
def test_one_point_of_a_class_is_truth_and_none_is_no_warning():
    assert matrix_of([0, 1], [0, 1]).compute()["num_classes"] == 2
    assert math.isnan(ConfusionMatrix(3).compute()["mean_iou"])


def test_arrays_of_equally_many_ids_in_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"`predictions` must be whole numbers of shape \(num_points,\)"):
        ConfusionMatrix(3).update(np.zeros((2, 3), int), np.zeros((3, 2), int))


def test_an_id_beyond_int64_is_no_class_and_not_the_ignored_one():
    with pytest.raises(ValueError, match="`labels` must be 0 … 2 or -1"):
        ConfusionMatrix(3, ignore_index=-1).update(np.array([0]), np.array([2**64 - 1], np.uint64))


@pytest.mark.filterwarnings("error")
def test_scans_add_up_in_one_matrix_and_none_have_no_official_metric_either():
    matrix = ConfusionMatrix(3)
    assert all(math.isnan(matrix.compute()[name]) for name in ("official_mean_iou", "official_fwiou", "mean_iou"))
    for predictions, labels in (([0, 1], [0, 0]), ([2, 1], [2, 0])):
        matrix.update(np.array(predictions), np.array(labels))
    assert np.array_equal(matrix.counts, matrix_of([0, 1, 2, 1], [0, 0, 2, 0]).counts)
