"""Submissions: every point has a class, in the numbers and files that the benchmarks require."""

import json

import numpy as np
import pytest

from uov_hf.evaluation.submissions import Submission, label_everywhere
from uov_hf.vocabulary import load_vocabulary


POINTS = np.array([[1, 0, 0, 9], [2, 0, 0, 9], [8, 0, 0, 9], [np.nan, 0, 0, 9]], dtype=np.float32)
NUSCENES, KITTI = load_vocabulary("nuscenes"), load_vocabulary("semantic_kitti")


def test_a_nuscenes_submission_has_the_classes_and_the_description_of_the_challenge(tmp_path):
    submission = Submission(tmp_path, "nuscenes", "val", NUSCENES.class_names)
    submission.write_scan("token", POINTS, np.array([0, 15, 3, 4]))
    submission.write_description()
    written = np.fromfile(tmp_path / "lidarseg" / "val" / "token_lidarseg.bin", dtype=np.uint8)
    assert written.tolist() == [1, 16, 4, 5]  # barrier, vegetation, car, construction vehicle
    meta = {"use_camera": False, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": True}
    assert json.loads((tmp_path / "val" / "submission.json").read_text()) == {"meta": meta}


def test_a_semantickitti_submission_has_raw_ids_that_read_back_as_the_same_classes(tmp_path):
    submission = Submission(tmp_path, "semantickitti", "test", KITTI.class_names)
    labels = np.arange(19)
    submission.write_scan("11/000042", np.zeros((19, 4)), labels)
    submission.write_description()
    written = np.fromfile(tmp_path / "sequences" / "11" / "predictions" / "000042.label", dtype=np.uint32)
    assert np.array_equal(KITTI.classes_of(written), labels)
    learning_map_inv = [10, 11, 15, 18, 20, 30, 31, 32, 40, 44, 48, 49, 50, 51, 70, 71, 72, 80, 81]
    assert written.tolist() == learning_map_inv
    assert [path.name for path in tmp_path.iterdir()] == ["sequences"]


def test_a_frame_id_leads_to_no_file_outside_the_submission(tmp_path):
    submission = Submission(tmp_path / "out", "nuscenes", "val", NUSCENES.class_names)
    with pytest.raises(ValueError, match="The frame id ../../../x: expected the name of a file in "):
        submission.write_scan("../../../x", POINTS, np.array([0, 15, 3, 4]))
    assert not list(tmp_path.iterdir())


def test_a_point_without_a_label_gets_that_of_the_nearest_labelled_point():
    assert label_everywhere(POINTS, np.array([255, 5, 7, 255])).tolist() == [5, 5, 7, 5]
    assert label_everywhere(POINTS, np.full(4, 255)).tolist() == [0] * 4
    labels = np.array([1, 255, 2, 255])
    assert label_everywhere(POINTS, labels) is not labels and labels.tolist() == [1, 255, 2, 255]


def test_classes_of_another_benchmark_are_refused(tmp_path):
    with pytest.raises(ValueError, match="A semantickitti submission has the classes"):
        Submission(tmp_path, "semantickitti", "val", NUSCENES.class_names)
