"""Scores: what is counted where, that shares of the scans add up to all of them, and that memory does not grow."""

import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from uov_hf.evaluation.predictions import Prediction
from uov_hf.evaluation.reports import evaluation_tables, without_nan
from uov_hf.evaluation.scans import LabelledScan
from uov_hf.evaluation.scored_classes import choose_classes
from uov_hf.evaluation.scores import Scores
from uov_hf.vocabulary import load_vocabulary


CAR, ROAD = (load_vocabulary("nuscenes").class_names.index(name) for name in ("car", "driveable_surface"))
NUSCENES = choose_classes("nuscenes", load_vocabulary("nuscenes").class_names)


def drawn_scan(instances=True):
    """Five points at 1, 5, 15, 25 and 60 m: two cars on a road; a camera sees the first three."""
    points = np.array([[1, 0, 0, 9], [5, 0, 0, 9], [15, 0, 0, 9], [25, 0, 0, 9], [60, 0, 0, 9]], dtype=np.float32)
    seen = np.array([1, 1, 1, 0, 0], dtype=bool)
    regions = {"all_points": np.ones(5, dtype=bool), "seen_points": seen, "unseen_points": ~seen}
    labels = np.array([ROAD, CAR, CAR, ROAD, 255])
    ids = np.array([0, 1, 2, 0, 0]) if instances else None
    return LabelledScan("a", points, {}, labels, regions, instances=ids)


def predict(labels, confidences=(0.9, 0.8, 0.7, 0.6, 0.5)):
    return Prediction(np.array(labels), np.array(confidences, dtype=np.float32))


def test_every_number_counts_the_points_of_its_name():
    scores = Scores(NUSCENES)
    scores.panoptic.min_points = 1
    scores.update(predict([ROAD, CAR, ROAD, 255, CAR]), drawn_scan())
    results = scores.compute()
    assert [results[name]["num_points"] for name in ("all_points", "seen_points", "unseen_points")] == [4, 3, 1]
    assert results["all_points"]["overall_accuracy"] == 0.5 and results["unseen_points"]["overall_accuracy"] == 0
    by_range = {name: result["overall_accuracy"] for name, result in results["by_range"].items()}
    assert by_range == {"2–10 m": 1.0, "10–20 m": 0.0, "20–30 m": 0.0}
    bins = results["calibration"]["bins"]
    assert [(round(row["confidence"], 3), row["accuracy"]) for row in bins] == [(0.7, 0), (0.8, 1), (0.9, 1)]
    assert results["panoptic"]["per_category_pq"][CAR] == pytest.approx(1 / 1.5)  # one of two cars is found
    assert results["panoptic"]["per_category_pq"][ROAD] == 0  # its segment is half wrong


def test_absent_regions_and_instances_are_not_reported():
    scan = drawn_scan(instances=False)
    scan.regions.pop("seen_points"), scan.regions.pop("unseen_points")
    scores = Scores(NUSCENES)
    scores.update(predict([ROAD, CAR, CAR, ROAD, CAR]), scan)
    results = without_nan(scores.compute())
    assert list(results) == ["all_points", "calibration", "abstention", "by_range"]
    assert results["all_points"]["num_classes"] == 2
    table = evaluation_tables(results, load_vocabulary("nuscenes").class_names)
    assert "| driveable surface | 100.0 |" in table and "| bus | – |" in table and "PQ" not in table
    assert "| mean IoU of the classes with truth | 100.0 |" in table and "| classes with truth | 2 |" in table
    assert "| as the official UOV code: mean IoU of all classes, 100 for an absent one | 100.0 |" in table
    assert "| most confident points | 100% | 90% |" in table
    assert "| wrong predictions among them, in % | 0.0 | 0.0 |" in table
    assert "| by range, in % | 2–10 m | 10–20 m | 20–30 m |" in table and "| points | 4 |" in table


def test_scans_shared_by_processes_count_as_those_of_one():
    generator = np.random.default_rng(0)
    predictions = [predict(generator.choice([CAR, ROAD, 255], 5), generator.random(5)) for _ in range(6)]

    def count(own):
        scores = Scores(NUSCENES)
        for one in own:
            scores.update(one, drawn_scan())
        return scores

    class TwoProcesses:
        """`reduce` of the first of two processes: it adds what the second has, counter by counter."""

        device = "cpu"

        def __init__(self, other):
            counters = [*other.regions.values(), *other.ranges.values(), *other.overall.counters, other.panoptic]
            totals = np.array([other.num_scans, other.num_points, other.num_predicted])
            self.others = iter([*(counter.counts for counter in counters), totals])

        def reduce(self, counts, how):
            return counts + torch.from_numpy(next(self.others))

    first, second, together = count(predictions[::2]), count(predictions[1::2]), count(predictions)
    first.reduce(TwoProcesses(second))
    assert without_nan(first.compute()) == without_nan(together.compute())
    assert (first.num_scans, first.num_points, first.num_predicted) == (6, 30, together.num_predicted)


@pytest.mark.parametrize(
    "predicted, truth, message",
    [
        ([ROAD] * 5, [255] * 5, "No point can be scored: .* got none at 5 points .scans: 1..*--min_range"),
        (
            [255] * 5,
            [ROAD] * 5,
            "Expected a predicted label .* got none at 5 points .*point_cloud_range",
        ),
    ],
)
def test_an_evaluation_of_nothing_stops(predicted, truth, message):
    scores, scan = Scores(NUSCENES), replace(drawn_scan(), labels=np.array(truth))
    scores.update(predict(predicted), scan)
    with pytest.raises(ValueError, match=message):
        scores.check(needs_truth=True)
    if predicted[0] != 255:
        scores.check(needs_truth=False)  # as of a test split, whose predictions are exported
    scores.update(predict([ROAD, 255, 255, 255, 255]), drawn_scan())
    scores.check(needs_truth=True)  # absent classes and points without a prediction are no reason to stop


def test_an_evaluation_without_scans_stops():
    with pytest.raises(ValueError, match=r"got none at 0 points \(scans: 0\)"):
        Scores(NUSCENES).check(needs_truth=False)


def test_a_teacher_without_labels_has_no_result():
    for label, is_scored in ((255, False), (CAR, True)):
        scores = Scores(NUSCENES, with_teacher=True)
        scores.update(predict([ROAD] * 5), replace(drawn_scan(), teacher_labels=np.full(5, label)))
        assert ("teacher_seen_points" in scores.compute()) == is_scored


def test_memory_does_not_grow_with_the_number_of_scans():
    scores, scan, predicted = Scores(NUSCENES), drawn_scan(), predict([ROAD, CAR, CAR, ROAD, CAR])
    sizes = []
    tracemalloc.start()
    for num_scans in (10, 40):
        for _ in range(num_scans):
            scores.update(predicted, scan)
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[1] - sizes[0] < 10_000 and scores.compute()["all_points"]["num_points"] == 50 * 4
