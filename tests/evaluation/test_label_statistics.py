"""What the label card counts, against scenes of four points counted by hand."""

import numpy as np
import pytest

from uov_hf.data import Frames
from uov_hf.evaluation.label_statistics import (
    NUM_EARLIER_SCANS,
    LabelStatistics,
    Share,
    find_range_bins,
    gather_statistics,
    global_voxels,
    most_frequent_labels,
)
from uov_hf.labels import LabelSet, PointLabels, label_points


CAR, ROAD, TREE, NONE = 3, 10, 15, 255


@pytest.fixture
def gather(tmp_path, frames, teacher, vocabulary):
    """Statistics of frames that the teacher has labelled by the paper's rule."""

    def gather(rows) -> dict:
        source = type(frames.source)(rows)
        label_set = LabelSet.create(tmp_path / "labels", teacher, vocabulary, {})
        label_set.write(Frames(source), teacher)
        label_points(label_set, Frames(source))
        return gather_statistics(Frames(source), label_set, PointLabels(label_set.folder)).compute()

    return gather


def test_coverage_counts_labelled_points_of_all_and_of_those_seen(gather, frames):
    """Of left, right, behind and right-up only the one behind is not seen; the last camera decides."""
    numbers = gather([frames[0]])
    assert numbers["coverage_of_all"]["share"] == 3 / 4 and numbers["coverage_of_seen"]["share"] == 1
    assert numbers["coverage_of_seen"]["by_camera"] == {"CAM_A": 1, "CAM_B": 1}
    counts = {row["name"]: row["num_points"] for row in numbers["classes"] if row["num_points"]}
    assert counts == {"car": 1, "driveable_surface": 2}
    assert (numbers["num_frames"], numbers["num_segments"]) == (1, 3)


def test_cameras_are_compared_where_both_have_a_segment(gather, frames):
    """Right and right-up are tree in CAM_A and road in CAM_B; at the left one CAM_B has no segment."""
    agreement = gather([frames[0]])["camera_agreement"]
    assert (agreement["share"], agreement["num_trials"]) == (0, 2)
    assert agreement["by_camera"] == {"CAM_A": 0, "CAM_B": 0}


def test_cameras_that_both_say_background_are_not_counted(gather, frames, teacher, vocabulary, monkeypatch):
    background = int(np.flatnonzero(vocabulary.prompt_to_class == NONE)[0])
    monkeypatch.setattr(teacher, "TREE", background)
    agreement = gather([frames[0]])["camera_agreement"]
    assert (agreement["share"], agreement["num_trials"]) == (0, 2)  # background against road
    monkeypatch.setattr(teacher, "ROAD", background)
    assert gather([frames[0] | {"frame_id": "9", "sequence_id": "nine"}])["camera_agreement"]["num_trials"] == 0


def drive(frames, num_frames, sequence_id="one", start=0.0):
    """The same points in the world, from a lidar that moves 1 m a frame along x."""
    rows = []
    for number in range(num_frames):
        lidar2global, moved = np.eye(4), frames[0]["points"].copy()
        lidar2global[:3, 3] = [1000 + start + number, -70, 2]
        moved[:, :3] += [0.1 - number, 0.1, 0.1]  # to the middle of a voxel
        ids = {"frame_id": f"{sequence_id}/{number}", "sequence_id": sequence_id}
        rows.append(frames[0] | ids | {"points": moved, "lidar2global": lidar2global})
    return rows


def test_scans_are_compared_where_they_meet_in_the_world(gather, frames, teacher, monkeypatch):
    """In the second scan CAM_B takes its road for a tree, so right and right-up change; left stays a car."""
    road = teacher.ROAD

    def segment(frame):
        monkeypatch.setattr(teacher, "ROAD", teacher.TREE if frame["frame_id"] == "one/1" else road)
        return [teacher.CAM_A(), teacher.CAM_B()]

    monkeypatch.setattr(teacher, "segment", segment)
    agreement = gather(drive(frames, 2))["time_agreement"]
    assert (agreement["share"], agreement["num_trials"]) == (1 / 3, 3)
    assert agreement["by_camera"] == {"CAM_A": 1 / 3, "CAM_B": 1 / 3}


def test_scans_are_compared_with_the_few_before_them_in_their_own_sequence(gather, frames):
    """Three points have a label in every scan; three scans of `one` make three pairs, two of `two` make one."""
    one, two = drive(frames, 3, "one"), drive(frames, 2, "two")
    agreement = gather([*one, *two])["time_agreement"]
    assert agreement["num_trials"] == 3 * (3 + 1) and agreement["share"] == 1


def test_only_the_last_scans_are_kept(tmp_path, frames, teacher, vocabulary, gather):
    rows = drive(frames, 1)
    gather(rows)
    statistics = LabelStatistics(LabelSet(tmp_path / "labels"), PointLabels(tmp_path / "labels"), False)
    for _ in range(2 * NUM_EARLIER_SCANS):
        statistics.update(rows[0])
    assert len(statistics._earlier) == NUM_EARLIER_SCANS
    statistics.start_sequence()
    assert not statistics._earlier


def test_truth_is_compared_on_camera_seen_points_and_no_label_is_an_error(gather, frames, teacher, monkeypatch):
    """Left is a car, right a road, right-up in truth a tree; behind does not count. Then CAM_A's car is overlooked."""
    truth = {"labels": np.array([CAR, ROAD, CAR, TREE], np.uint8)}
    numbers = gather([frames[0] | truth])
    assert numbers["accuracy"]["share"] == numbers["precision"] == 2 / 3
    rows = {row["name"]: row for row in numbers["classes"]}
    assert (rows["driveable_surface"]["precision"], rows["driveable_surface"]["recall"]) == (1 / 2, 1)
    assert (rows["car"]["iou"], rows["driveable_surface"]["iou"], rows["vegetation"]["iou"]) == (1, 1 / 2, 0)
    assert rows["bus"]["iou"] is None and numbers["mean_iou"] == 1 / 2

    monkeypatch.setattr(teacher, "CAR", teacher.prompts.index("sky"))
    numbers = gather([frames[0] | truth | {"frame_id": "9", "sequence_id": "nine"}])
    assert numbers["accuracy"]["share"] == 1 / 3 and numbers["precision"] == 1 / 2


def test_a_class_without_truth_is_in_no_mean(gather, frames):
    """Left is labelled car, right and right-up road; in truth all are road."""
    numbers = gather([frames[0] | {"labels": np.full(4, ROAD, np.uint8)}])
    rows = {row["name"]: row for row in numbers["classes"]}
    assert rows["car"]["num_points"] == 1 and rows["car"]["iou"] is rows["car"]["recall"] is None
    assert numbers["mean_iou"] == rows["driveable_surface"]["iou"] == 2 / 3 and numbers["num_classes"] == 1


def test_withholding_labels_costs_coverage(gather, frames):
    """Left is a car with score 0.5, and right; right and right-up are road with 0.25, and wrong."""
    truth = {"labels": np.array([CAR, CAR, CAR, CAR], np.uint8)}
    rows = {row["min_confidence"]: row for row in gather([frames[0] | truth])["by_min_confidence"]}
    assert (rows[0.0]["coverage"], rows[0.0]["precision"]) == (rows[0.25]["coverage"], rows[0.25]["precision"])
    assert (rows[0.25]["coverage"], rows[0.25]["precision"]) == (1, 1 / 3)
    assert (rows[0.3]["coverage"], rows[0.3]["precision"]) == (1 / 3, 1)
    assert (rows[0.55]["coverage"], rows[0.55]["precision"]) == (0, None)


def test_without_truth_nothing_is_claimed_about_it(gather, frames):
    numbers = gather([frames[0]])
    assert numbers["mean_iou"] is numbers["accuracy"]["share"] is numbers["precision"] is None
    assert numbers["by_min_confidence"] is None
    assert all(row["recall"] is row["iou"] is None for row in numbers["classes"])


def test_shares_are_counted_by_range_and_by_camera():
    """Two hits near, a miss far away; the first point is seen by both cameras, the second by none."""
    share = Share()
    seen_by = {"A": np.array([True, False, True]), "B": np.array([True, False, False])}
    share.update(np.array([True, True, False]), np.array([0, 0, 4]), np.array([True, True, True]), seen_by)
    numbers = share.compute()
    assert numbers["share"] == 2 / 3
    assert list(numbers["by_range"].values()) == [1, None, None, None, 0]
    assert numbers["by_camera"] == {"A": 1 / 2, "B": 1}


def test_ranges_begin_at_two_metres_and_know_no_end():
    x = np.array([1.9, 2.0, 9.9, 10.0, 39.0, 40.0, 500.0, np.nan])
    points = np.stack([np.zeros_like(x), x, np.full_like(x, 50.0)], axis=1)  # height does not count
    assert find_range_bins(points).tolist() == [-1, 0, 0, 1, 3, 4, 4, -1]


def test_voxels_lie_in_the_world_and_do_not_collide():
    points = np.array([[0.05, 0.05, 0.05], [0.15, 0.15, 0.15], [0.25, 0.05, 0.05], [-0.05, 0.05, 0.05]])
    one, same, right, left = global_voxels(points, np.eye(4))
    assert one == same and len({one, right, left}) == 3
    far = np.eye(4)
    far[:3, 3] = [2000, -3000, 100]
    assert len(set(global_voxels(points, far))) == 3 and not {one, right, left} & set(global_voxels(points, far))


def test_a_voxel_has_its_commonest_label():
    voxels, labels = most_frequent_labels(np.array([7, 7, 7, 5]), np.array([1, 2, 2, 0]), num_classes=3)
    assert voxels.tolist() == [5, 7] and labels.tolist() == [0, 2]
