"""Scores in the common classes of two taxonomies: what is right, what is wrong, and what is not scored."""

import numpy as np
import pytest

from uov_hf.evaluation.predictions import Prediction
from uov_hf.evaluation.reports import evaluation_tables, without_nan
from uov_hf.evaluation.scans import LabelledScan
from uov_hf.evaluation.scored_classes import choose_classes
from uov_hf.evaluation.scores import Scores
from uov_hf.vocabulary import load_map, load_vocabulary


CITYSCAPES, KITTI = (load_vocabulary(name).class_names for name in ("cityscapes", "semantic_kitti"))
MAP = load_map("cityscapes_semantic_kitti")


def scan_of(truth, teacher=None):
    """Points in a row from 3 m on, of which a camera sees the first half."""
    points = np.array([[3 + place, 0, 0, 9] for place in range(len(truth))], dtype=np.float32)
    everywhere, seen = np.ones(len(truth), bool), np.arange(len(truth)) < len(truth) // 2
    regions = {"all_points": everywhere, "seen_points": seen, "unseen_points": ~seen}
    return LabelledScan("a", points, {}, np.array(truth, np.uint8), regions, teacher, np.zeros(len(truth), np.int32))


def ids(names, class_names):
    return [255 if name is None else class_names.index(name) for name in names]


def scores_of(predicted, truth, predicts=CITYSCAPES, taxonomy="semantic_kitti", teacher=None):
    scores = Scores(choose_classes(taxonomy, predicts, teacher and CITYSCAPES, MAP), with_teacher=teacher is not None)
    labels = np.array(ids(predicted, predicts))
    names = load_vocabulary(taxonomy).class_names
    teacher = None if teacher is None else np.array(ids(teacher, CITYSCAPES), np.uint8)
    scores.update(Prediction(labels, np.full(len(labels), 0.5, np.float32)), scan_of(ids(truth, names), teacher))
    return scores


def by_name(result, class_names=MAP.class_names):
    ious = zip(class_names, result["per_category_iou"], strict=True)
    return {name: iou for name, iou in ious if not np.isnan(iou)}


def test_classes_that_one_side_divides_are_scored_together_in_both_directions():
    coarse = ["rider", "rider", "vegetation", "car", "wall", "bus"]
    fine = ["bicyclist", "motorcyclist", "trunk", "car", "fence", "other-vehicle"]
    for scores in (scores_of(coarse, fine), scores_of(fine, coarse, KITTI, "cityscapes")):
        result = scores.compute()["all_points"]
        assert result["overall_accuracy"] == result["mean_iou"] == 1 and result["num_points"] == 6
        assert set(by_name(result)) == {"two-wheeler", "vegetation", "car", "fence", "other vehicle"}
        assert result["num_classes"] == 5


def test_a_class_without_a_partner_is_ignored_in_the_truth_and_wrong_as_a_prediction():
    scores = scores_of(["road", "car", "sky", "road", None], ["parking", "other-ground", "road", "road", "road"])
    result = scores.compute()["all_points"]
    assert result["num_points"] == 3 and result["overall_accuracy"] == pytest.approx(1 / 3)
    assert by_name(result) == {"road": pytest.approx(1 / 3)}  # the sky is a miss of the road, as is no prediction
    calibration = scores.compute()["calibration"]  # of the two points that have a truth and a prediction
    assert calibration["bins"] == [{"confidence": 0.5, "accuracy": 0.5, "num_points": 2}]


def test_the_labels_of_a_teacher_are_scored_in_the_common_classes_too():
    truth = ["bicyclist", "trunk", "road", "road"]
    results = scores_of(truth, truth, KITTI, teacher=["rider", "pole", "road", "road"]).compute()
    assert by_name(results["teacher_seen_points"]) == {"two-wheeler": 1, "vegetation": 0}
    assert results["all_points"]["mean_iou"] == 1


def test_a_common_class_is_a_thing_if_it_is_one_in_the_truth():
    classes = choose_classes("semantic_kitti", CITYSCAPES, taxonomy_map=MAP)
    things = {name for name, is_thing in zip(classes.class_names, classes.is_thing, strict=True) if is_thing}
    assert things == {"person", "two-wheeler", "car", "truck", "other vehicle"}


def test_the_tables_name_the_map_and_the_classes_that_are_not_scored():
    scores = scores_of(["road", "car"], ["road", "car"])
    tables = evaluation_tables(without_nan(scores.compute()), scores.classes.class_names, MAP)
    assert tables.startswith("Scored in the 13 common classes of cityscapes and semantic_kitti, by the map ")
    assert "traffic light, sky (cityscapes); parking, other-ground (semantic_kitti)" in tables
    assert "| road | 100.0 |" in tables and "| two-wheeler | – |" in tables


def test_classes_of_another_taxonomy_are_refused_with_the_map_to_give():
    with pytest.raises(ValueError, match=r"The model predicts .* Give --map cityscapes_semantic_kitti: "):
        choose_classes("semantic_kitti", CITYSCAPES)
    with pytest.raises(ValueError, match=r"The teacher predicts .* Give --map cityscapes_semantic_kitti: "):
        choose_classes("semantic_kitti", KITTI, teacher=CITYSCAPES)
    with pytest.raises(ValueError, match=r"the classes \['road', 'car'\], the ground truth .* or write a map"):
        choose_classes("semantic_kitti", ["road", "car"])
    with pytest.raises(ValueError, match=r"the classes \['traffic-sign', .* `set_classes`"):  # another order
        choose_classes("semantic_kitti", KITTI[::-1])
    with pytest.raises(ValueError, match="No taxonomy of the map .*cityscapes_semantic_kitti.yaml has the classes"):
        choose_classes("nuscenes", CITYSCAPES, taxonomy_map=MAP)
    with pytest.raises(ValueError, match="without annotation"):
        choose_classes(None, CITYSCAPES)
