"""The baselines are fitted on the teacher's labels alone, and predict by single points."""

import numpy as np
import pytest

from uov_hf.configuration_uov import IGNORED
from uov_hf.evaluation.baselines import fit_baselines
from uov_hf.evaluation.scans import LabelledScan


def scan(seed, teacher=True) -> LabelledScan:
    """Low points are of class 2, high ones of class 5; the teacher labels nine tenths of them, the truth is wrong."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-10, 10, (600, 4)).astype(np.float32)
    labels = np.where(points[:, 2] < 4, 2, 5)
    teacher_labels = np.where(rng.random(600) < 0.9, labels, IGNORED).astype(np.uint8) if teacher else None
    truth = np.full(600, 7, np.uint8)
    return LabelledScan(f"{seed}", points, {}, truth, {"all_points": np.ones(600, bool)}, teacher_labels)


def test_they_have_the_teachers_majority_and_its_rule_for_single_points():
    baselines = fit_baselines([scan(0), scan(1)], seed=0)
    other = scan(2)
    assert (baselines["majority_class"](other) == 2).all()
    predicted = baselines["point_classifier"](other)
    assert (predicted == np.where(other.points[:, 2] < 4, 2, 5)).mean() > 0.95


def test_a_seed_gives_the_same_classifier():
    one, two = (fit_baselines([scan(0)], seed=3)["point_classifier"](scan(1)) for _ in range(2))
    assert np.array_equal(one, two)


def test_a_class_of_a_single_point_among_many_is_left_out():
    scans = [scan(seed) for seed in range(20)]  # above 10,000 points
    scans[0].teacher_labels[0] = 9
    assert set(fit_baselines(scans)["point_classifier"](scan(20))) == {2, 5}


@pytest.mark.parametrize("scans", [[], [scan(0, teacher=False)]])
def test_without_labels_of_the_teacher_they_are_refused(scans):
    with pytest.raises(ValueError, match="need"):
        fit_baselines(scans)
