"""Robo3D's rates by their definitions, the baseline that they compare with, and the counts of one condition."""

import json

import numpy as np
import pytest

from uov_hf.evaluation.conditions import ConditionScores
from uov_hf.evaluation.corruptions import SEVERITIES
from uov_hf.evaluation.predictions import Prediction
from uov_hf.evaluation.reports import robustness_table, without_nan
from uov_hf.evaluation.robustness import NO_BASELINE, Baseline, read_baseline, summarise
from uov_hf.evaluation.scans import LabelledScan
from uov_hf.evaluation.scored_classes import choose_classes
from uov_hf.vocabulary import load_vocabulary


CLASSES = load_vocabulary("nuscenes").class_names
SCORED = choose_classes("nuscenes", CLASSES)
CAR, ROAD = CLASSES.index("car"), CLASSES.index("driveable_surface")
SAME = {"class_names": CLASSES, "split": "val", "num_frames": 3, "seed": 0}


def metrics(share_right):
    """Of 100 car points, of which so many are right, and the others get no prediction."""
    labels = np.full(100, CAR, dtype=np.uint8)
    is_right = np.arange(100) < 100 * share_right
    scores = ConditionScores(SCORED)
    scan = LabelledScan("a", np.zeros((100, 4), np.float32), {}, labels, {})
    scores.update(Prediction(np.where(is_right, CAR, 255), np.where(is_right, 0.5, 0).astype(np.float32)), scan)
    return scores.compute()


def conditions(**shares):
    """`conditions(fog=(0.6, 0.5, 0.1))`: the mean IoU of each severity."""
    return {
        name: {severity: metrics(share) for severity, share in zip(SEVERITIES, own, strict=True)}
        for name, own in shares.items()
    }


def test_the_rates_are_those_of_robo3d():
    found = conditions(fog=(0.6, 0.5, 0.1), snow=(0.8, 0.8, 0.8))
    result = summarise(metrics(0.8), found, 0, Baseline("other", {"fog": 1.5, "snow": 1.2}))
    fog, snow = result["corruptions"]["fog"], result["corruptions"]["snow"]
    assert fog["resilience_rate"] == pytest.approx((0.6 + 0.5 + 0.1) / (3 * 0.8))
    assert snow["resilience_rate"] == pytest.approx(1)
    assert fog["corruption_error"] == pytest.approx((0.4 + 0.5 + 0.9) / 1.5)
    assert snow["corruption_error"] == pytest.approx(0.6 / 1.2)
    assert result["mean_resilience_rate"] == pytest.approx((0.5 + 1) / 2)
    assert result["mean_corruption_error"] == pytest.approx((1.2 + 0.5) / 2)
    assert result["baseline"] == "other" and result["note"] is None


def test_a_model_is_its_own_baseline_with_an_error_of_one(tmp_path):
    found = conditions(fog=(0.6, 0.5, 0.1), snow=(0.8, 0.7, 0.8))
    alone = without_nan(summarise(metrics(0.8), found, 0))
    content = {**SAME, "broken_frames": [], "model_name_or_path": "out/uov", "robustness": alone}
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    baseline = read_baseline(tmp_path / "metrics.json", ["fog", "snow"], **{**SAME})
    again = summarise(metrics(0.8), found, 0, baseline)
    assert again["mean_corruption_error"] == pytest.approx(1) and again["baseline"] == "out/uov"


def test_without_a_baseline_there_is_no_corruption_error_and_the_table_says_why():
    result = without_nan(summarise(metrics(0.8), conditions(fog=(0.6, 0.5, 0.1)), 0))
    assert result["mean_corruption_error"] is None and result["note"] == NO_BASELINE
    table = robustness_table(result)
    assert NO_BASELINE in table
    fog = next(line for line in table.split("\n") if line.startswith("| fog"))
    # The calibration error is 50 %: all predictions are right, with a confidence of one half.
    assert fog.split(" | ")[1:7] == ["60.0", "50.0", "10.0", "50.0", "–", "50.0"]
    assert "| **mean** | – | – | – | 50.0 | – |" in table


def test_the_table_marks_a_mean_over_fewer_classes():
    result = without_nan(summarise(metrics(0.8), conditions(fog=(0.6, 0.5, 0.1)), 0))
    result["clean"]["all_points"]["num_classes"] = 2
    assert "| fog | 60.0 (1 of 2 classes) | 50.0 (1 of 2 classes) |" in robustness_table(result)


def test_nothing_is_divided_by_a_clean_iou_or_a_baseline_error_of_zero():
    result = summarise(metrics(0), conditions(fog=(0, 0, 0)), 0, Baseline("perfect", {"fog": 0.0}))
    assert np.isnan([result["mean_resilience_rate"], result["mean_corruption_error"]]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "test"}, "the split val, got test"),
        ({"num_frames": 2}, "the num_frames 3, got 2"),
        ({"class_names": ["a"]}, r"the class_names \['barrier'.*got \['a'\]"),
        ({"robustness": {"seed": 1, "corruptions": conditions(fog=(1, 1, 1))}}, None),
        ({"robustness": None}, "with --corruptions fog: a key is missing or has another value"),
        ({"robustness": {"seed": 0, "corruptions": {}}}, "with --corruptions fog: it has no fog"),
    ],
)
def test_a_baseline_of_other_scans_is_refused(change, message, tmp_path):
    path = tmp_path / "metrics.json"
    alone = without_nan(summarise(metrics(0.8), conditions(fog=(0.6, 0.5, 0.1)), 0))
    content = {**SAME, "broken_frames": [], "model_name_or_path": "a", "robustness": alone, **change}
    if message is None:
        content["robustness"] = {**alone, "seed": 1}
        message = "the seed 0, got 1. Evaluate the baseline with the same arguments"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"--corruption_baseline {path}: expected .*{message}"):
        read_baseline(path, ["fog"], **SAME)


def test_a_missing_or_broken_baseline_is_named(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name in ("missing.json", "broken.json", "deep.json"):
        with pytest.raises(ValueError, match=f"{name}: expected the metrics.json of an evaluation with --corruptions"):
            read_baseline(tmp_path / name, ["fog"], **SAME)


def test_points_without_a_prediction_are_the_least_confident_and_not_calibrated():
    labels = np.array([CAR, CAR, ROAD, ROAD, 255])
    scores = ConditionScores(SCORED)
    prediction = Prediction(np.array([CAR, ROAD, ROAD, 255, CAR]), np.array([0.9, 0.6, 0.8, 0, 1], dtype=np.float32))
    scores.update(prediction, LabelledScan("a", np.zeros((5, 4), np.float32), {}, labels, {}))
    result = scores.compute()
    assert sum(row["num_points"] for row in result["calibration"]["bins"]) == 3
    # In the order of the confidences: right, right, wrong, without a prediction.
    assert result["abstention"]["area_under_risk_coverage"] == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert result["abstention"]["risk_at_coverage"]["100%"] == 1 - result["all_points"]["overall_accuracy"]
