"""ConfusionMatrix: the numbers that nuScenes-lidarseg's own evaluation would print."""

import math

import numpy as np
import pytest
import torch

from uov_hf.evaluation.metrics import ConfusionMatrix


def matrix_of(predictions, labels, num_labels=3):
    matrix = ConfusionMatrix(num_labels)
    matrix.update(np.array(predictions), np.array(labels))
    return matrix


def lidarseg_iou(predictions, labels, num_labels, ignored=255):
    """nuscenes-devkit eval/lidarseg, in words: per class TP / (TP + FP + FN) over the points that are not ignored."""
    kept = [(p, t) for p, t in zip(predictions, labels, strict=True) if t != ignored]
    ious = []
    for c in range(num_labels):
        hits = sum(p == c and t == c for p, t in kept)
        union = sum(p == c or t == c for p, t in kept)
        ious.append(hits / union if union else math.nan)
    return ious


def test_iou_is_that_of_nuscenes_lidarseg():
    generator = np.random.default_rng(0)
    predictions = generator.integers(0, 7, 500)
    labels = generator.choice([0, 1, 2, 3, 4, 5, 6, 255], 500)
    result = matrix_of(predictions, labels, num_labels=7).compute()
    expected = lidarseg_iou(predictions.tolist(), labels.tolist(), 7)
    np.testing.assert_allclose(result["per_category_iou"], expected, rtol=1e-12)
    assert result["mean_iou"] == pytest.approx(np.mean(expected), rel=1e-12)
    assert result["num_points"] == int((labels != 255).sum())


def test_an_absent_class_is_nan_and_a_phantom_class_counts_as_zero():
    iou = matrix_of([0, 0, 1], [0, 0, 0]).compute()["per_category_iou"]
    assert iou[0] == pytest.approx(2 / 3)
    assert iou[1] == 0.0  # predicted but never there: a false alarm
    assert math.isnan(iou[2])  # neither predicted nor there
    assert matrix_of([0, 0, 1], [0, 0, 0]).compute()["mean_iou"] == pytest.approx(1 / 3)


def test_an_unanswered_point_is_a_miss_and_no_false_alarm():
    result = matrix_of([0, 255, 1], [0, 0, 1]).compute()
    assert result["per_category_iou"][:2] == [0.5, 1.0]
    assert result["overall_accuracy"] == pytest.approx(2 / 3)


def test_fwiou_weighs_a_class_by_how_often_it_is_labelled():
    result = matrix_of([0, 0, 0, 0], [0, 0, 0, 1]).compute()
    assert result["fwiou"] == pytest.approx(0.75 * 0.75)


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


def test_nothing_scored_gives_nan_not_an_error():
    result = matrix_of([0, 1], [255, 255]).compute()
    assert math.isnan(result["mean_iou"]) and math.isnan(result["fwiou"]) and result["num_points"] == 0


@pytest.mark.parametrize(
    "predictions, labels, message",
    [
        ([0, 1], [0], "2 predictions do not go with 1 labels"),
        ([3], [0], "`predictions` must be 0 … 2 or 255"),
        ([0], [-1], "`labels` must be 0 … 2 or 255"),
        ([0.5], [0], "Class ids must be integers"),
    ],
)
def test_bad_ids_are_refused_with_the_reason(predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        matrix_of(predictions, labels)
