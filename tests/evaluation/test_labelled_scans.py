"""Scoring of small drawn scans: the points of each region, and the tables."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from uov_hf import UOVFeatureExtractor
from uov_hf.evaluation.reports import results_table, to_results, write_results
from uov_hf.evaluation.scans import LabelledScans
from uov_hf.evaluation.scores import count, new_matrices, score_segmenter
from uov_hf.geometry.projection import Camera


# Four points on the x axis at 1, 3, 5 and 7 m, each its own voxel but the last, which is in none.
POINTS = np.array([[1, 0, 0, 9], [3, 0, 0, 9], [5, 0, 0, 9], [7, 0, 0, 9]], dtype=np.float32)


# Along the x axis; it sees the points that are more than a metre away: all but the first.
CAMERA = {
    "lidar2cam": [np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)],
    "intrinsics": [np.array([[10, 0, 5], [0, 10, 5], [0, 0, 1]], dtype=np.float64)],
    "image_sizes": [np.array([10, 10])],
}
NO_CAMERA = dict.fromkeys(CAMERA, [])


def one_frame(labels, camera=NO_CAMERA):
    frame = {"frame_id": "a", "points": POINTS, "intensity_max": 255.0, "labels": labels, "instances": None}
    return SimpleNamespace(select_columns=lambda columns: [frame | camera])


def one_voxel_per_point(points, intensity_max, return_tensors):
    coords = torch.arange(3, dtype=torch.int32)[:, None].repeat(1, 4)
    voxels = {"voxel_coords": coords, "voxel_features": torch.ones(3, 1)}
    return voxels | {"point_to_voxel": torch.tensor([0, 1, 2, -1])}


one_voxel_per_point.voxel_size = [1.0, 1.0, 1.0]


def answers_by(classes):
    """A segmenter that gives voxel v the class `classes[v]`, and 255 to a point without a voxel."""
    return lambda scan: np.array([*classes, 255])[scan.voxels["point_to_voxel"]]


TEACHER = SimpleNamespace(
    read=lambda frame_id, columns: {
        "pair_to_point": np.array([0, 1, 1]),  # two cameras saw point 1, none saw 2 and 3
        "labels": np.array([0, 255, 255, 255], dtype=np.uint8),
    }
)


NO_IMAGE = SimpleNamespace(
    read=lambda frame_id, columns: {"pair_to_point": np.array([], int), "labels": np.full(4, 255, np.uint8)}
)


def results_of(classes, labels, **settings):
    scans = LabelledScans(one_frame(np.array(labels, dtype=np.uint8)), one_voxel_per_point, **settings)
    matrices = new_matrices(num_labels=2, with_teacher="point_labels" in settings)
    count(matrices, answers_by(classes)(scans[0]), scans[0])
    return to_results(matrices)


def test_a_segmenter_is_scored_on_all_scans():
    scans = LabelledScans(one_frame(np.array([0, 1, 1, 1], dtype=np.uint8)), one_voxel_per_point)
    matrices = score_segmenter(answers_by([0, 0, 1]), [scans[0], scans[0]], num_labels=2)
    assert matrices["all_points"].counts.sum() == 8 and np.diag(matrices["all_points"].counts).sum() == 4


def test_points_without_voxels_are_named_by_their_frame(monkeypatch):
    monkeypatch.setitem(globals(), "POINTS", POINTS * 1e4)
    scans = LabelledScans(one_frame(np.array([0, 1, 1, 1], dtype=np.uint8)), UOVFeatureExtractor())
    with pytest.raises(ValueError, match=r"^Frame a: .* got one at \(70000, 0, 0\) m"):
        scans[0]


def test_seen_and_unseen_points_are_scored_apart_and_the_teacher_on_those_it_saw():
    results = results_of([0, 0, 1], labels=[0, 1, 1, 1], point_labels=TEACHER)
    assert results["all_points"]["num_points"] == 4
    assert results["seen_points"]["per_category_iou"] == [0.5, 0.0]  # class 0 right once, wrong once
    assert results["unseen_points"]["per_category_iou"] == [None, 0.5]  # one right, one point without a voxel
    assert results["teacher_seen_points"]["per_category_iou"] == [1.0, 0.0]  # it has no label for point 1


@pytest.mark.parametrize(
    "kinds", [["camera"], ["none"], ["camera", "none"], ["label set", "no image"], ["none", "camera", "none"]]
)
def test_seen_unseen_and_no_camera_points_add_up_to_all(kinds):
    settings = {
        "camera": {"camera": CAMERA},
        "none": {},
        "label set": {"point_labels": TEACHER, "camera": CAMERA},
        "no image": {"point_labels": NO_IMAGE, "camera": CAMERA},  # its cameras have no image in the label set
    }
    matrices = new_matrices(num_labels=2, with_teacher="label set" in kinds)
    for kind in kinds:
        point_labels, camera = settings[kind].get("point_labels"), settings[kind].get("camera", NO_CAMERA)
        frames = one_frame(np.array([0, 1, 1, 255], dtype=np.uint8), camera)
        scan = LabelledScans(frames, one_voxel_per_point, point_labels)[0]
        count(matrices, answers_by([0, 0, 1])(scan), scan)
    parts = [matrices[name].counts for name in ("seen_points", "unseen_points", "no_camera_points")]
    assert np.array_equal(sum(parts), matrices["all_points"].counts)
    assert parts[2].sum() == 3 * sum(kind in ("none", "no image") for kind in kinds)
    assert parts[0].sum() == 2 * sum(kind in ("camera", "label set") for kind in kinds)


def test_points_in_view_of_a_given_camera_are_seen_where_a_scan_has_none():
    half = Camera(CAMERA["lidar2cam"][0], CAMERA["intrinsics"][0], (5, 10))  # its image ends above the points

    def seen(camera, cameras):
        scans = LabelledScans(one_frame(np.zeros(4, np.uint8), camera), one_voxel_per_point, cameras=cameras)
        return scans[0].regions["seen_points"].tolist()

    (own,) = map(Camera, *CAMERA.values())
    assert seen(NO_CAMERA, [own]) == seen(CAMERA, []) == [False, True, True, True]
    assert seen(CAMERA, [half]) == [False, True, True, True] and seen(NO_CAMERA, [half]) == [False] * 4


def test_points_within_min_range_are_not_scored():
    results = results_of([1, 0, 1], labels=[0, 0, 1, 255], min_range=2.0)
    assert results["all_points"]["num_points"] == 2
    assert results["all_points"]["per_category_iou"] == [1.0, 1.0]


def test_a_scan_without_ground_truth_is_refused_by_name():
    with pytest.raises(ValueError, match="Frame a has no labels"):
        LabelledScans(one_frame(None), one_voxel_per_point)[0]


def test_the_table_shows_percent_and_a_dash_for_an_absent_class(tmp_path):
    results = {"all_points": results_of([0, 0, 0], labels=[0, 0, 255, 255])["all_points"]}
    assert results_table(results, ["car", "other_flat"]).splitlines() == [
        "| IoU in % | all points |",
        "|---|---:|",
        "| car | 100.0 |",
        "| other flat | – |",
        "| **mean of the classes with truth** | **100.0** |",
    ]
    write_results(tmp_path / "new" / "metrics.json", results)
    assert "NaN" not in (tmp_path / "new" / "metrics.json").read_text()
