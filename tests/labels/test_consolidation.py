"""The votes together: each switch on a scene one can draw, and what must not matter to any of them."""

import dataclasses
import gc
import weakref

import numpy as np
import pytest
from halves_teacher import ListSource, make_frame
from scipy.spatial import cKDTree

from uov_hf.data import Frames
from uov_hf.geometry.projection import OcclusionConfig
from uov_hf.labels import PRESETS, Consolidation, PointLabels, label_points
from uov_hf.labels.consolidation import VOTES, parse_rule
from uov_hf.labels.labelling import SequenceLabeller
from uov_hf.labels.superpoints import SuperpointConfig
from uov_hf.labels.time_vote import TimeVoteConfig
from uov_hf.teachers import ImageSegments


CAR, ROAD, TREE, NONE = 3, 10, 15, 255  # training classes
SCORES, FULL = Consolidation(camera_vote="all"), PRESETS["consolidated"]


@pytest.fixture
def drive(frames):
    """The frames, a second apart, of a car that stands at the origin; the frames 1/0 and 1/1 are one sequence."""
    for second, row in enumerate(frames.source.rows):
        row["timestamp"], row["lidar2global"] = second * 1_000_000, np.eye(4)
    return frames


def first_row(frames, label_set, rule):
    return SequenceLabeller(frames.by_sequence()[0], label_set, rule).make_row(0)


def test_the_camera_with_the_higher_score_wins(frames, teacher, make_label_set):
    row = first_row(frames, make_label_set(frames, teacher), SCORES)
    assert row["labels"].tolist() == [CAR, TREE, NONE, TREE]  # CAM_A: tree with 0.75, CAM_B: road with 0.25
    assert row["confidence"].tolist() == [0.5, 0.375, 0, 0.375]
    assert row["soft_labels"][1].tolist() == [TREE, ROAD, NONE]
    assert row["soft_scores"][1].tolist() == [0.375, 0.125, 0]


def test_a_pair_keeps_its_segment_only_where_its_point_agrees(frames, teacher, make_label_set):
    label_set = make_label_set(frames, teacher)
    assert first_row(frames, label_set, SCORES)["pair_segment"].tolist() == [1, 2, 2, 0, 3, 3]
    clean = dataclasses.replace(SCORES, clean_pairs=True)
    assert first_row(frames, label_set, clean)["pair_segment"].tolist() == [1, 2, 2, 0, 0, 0]


def test_labels_below_the_least_confidence_are_dropped(frames, teacher, make_label_set):
    strict = dataclasses.replace(SCORES, min_confidence=0.4)
    assert first_row(frames, make_label_set(frames, teacher), strict)["labels"].tolist() == [CAR, NONE, NONE, NONE]


def test_a_hidden_point_does_not_get_the_label_of_the_point_before_it(frames, teacher, make_label_set):
    side = np.arange(-1.5, 1.51, 0.1)
    board = np.array([[5, y, z, 0] for y in side for z in side], np.float32)
    frames.source.rows[0]["points"] = np.concatenate([board, np.float32([[12, 0, 0, 0]])])
    label_set = make_label_set(frames, teacher)
    hidden = len(board)
    assert first_row(frames, label_set, PRESETS["paper"])["labels"][hidden] == ROAD
    row = first_row(frames, label_set, Consolidation(occlusion=OcclusionConfig()))
    assert row["labels"][hidden] == NONE and hidden not in row["pair_to_point"]
    assert (row["labels"][:hidden] != NONE).all()


def test_the_segments_of_augmented_images_are_further_votes(frames, teacher, make_label_set, monkeypatch):
    plain = type(teacher).segment

    def segment(self, frame):
        if frame["augmentation"] is None:
            return plain(self, frame)
        whole = np.ones(tuple(frame["image_sizes"][0]), int)  # flipped, all of both images is a road
        return [ImageSegments(whole, np.array([self.ROAD]), np.array([0.75]), np.eye(4)[3:])] * 2

    monkeypatch.setattr(type(teacher), "segment", segment)
    label_set = make_label_set(frames, teacher, augmentations=["flip"])
    assert first_row(frames, label_set, SCORES)["labels"].tolist() == [CAR, TREE, NONE, TREE]
    row = first_row(frames, label_set, dataclasses.replace(SCORES, augmentation_vote=True))
    assert row["labels"].tolist() == [ROAD, ROAD, NONE, ROAD]
    assert row["confidence"][0] == 0.5  # 0.75 of each camera flipped, and CAM_A's car: two of three votes
    assert row["pair_segment"].tolist() == [1, 2, 2, 0, 3, 3]  # pairs have the segments of the plain images


def test_another_scan_labels_a_point_that_no_camera_sees(drive, teacher, make_label_set):
    """The car has turned around: the point behind it stands where the first scan saw a car."""
    drive.source.rows[1]["lidar2global"] = np.diag([-1.0, -1, 1, 1])
    drive.source.rows[1]["points"] = np.float32([[-5, -2, 0, 7]])
    label_set = make_label_set(drive, teacher)
    sequence, alone, together = drive.by_sequence()[0], SCORES, dataclasses.replace(SCORES, time_vote=TimeVoteConfig())
    assert SequenceLabeller(sequence, label_set, alone).make_row(1)["labels"].tolist() == [NONE]
    assert SequenceLabeller(sequence, label_set, together).make_row(1)["labels"].tolist() == [CAR]


def test_a_superpoint_labels_points_that_no_segment_covers(frames, teacher, make_label_set, monkeypatch):
    """A board whose middle is a hole in the car's segment."""
    side = np.arange(0.3, 1.5, 0.1)
    frames.source.rows[0]["points"] = np.array([[5, y, z, 0] for y in side for z in side], np.float32)
    answer = teacher.CAM_A()
    answer.segmentation[8:10, 18:20] = 0
    monkeypatch.setattr(teacher, "CAM_A", lambda: answer)
    label_set = make_label_set(frames, teacher)
    assert set(first_row(frames, label_set, SCORES)["labels"]) == {CAR, NONE}
    rule = dataclasses.replace(SCORES, superpoint_vote=SuperpointConfig())
    assert set(first_row(frames, label_set, rule)["labels"]) == {CAR}


def test_the_order_of_cameras_does_not_matter_to_the_votes(drive, teacher, make_label_set):
    label_set = make_label_set(drive, teacher)
    before = first_row(drive, label_set, PRESETS["consolidated"])
    for row in drive.source.rows:
        row["camera_names"] = row["camera_names"][::-1]
    after = first_row(drive, make_label_set(drive, teacher, "turned"), PRESETS["consolidated"])
    assert np.array_equal(before["labels"], after["labels"])
    assert np.array_equal(before["confidence"], after["confidence"])


def test_the_order_of_frames_does_not_matter_to_the_votes(drive, teacher, make_label_set):
    drive.source.rows[1]["points"] = drive.source.rows[1]["points"] + np.float32([0.2, 0, 0, 0])
    label_set, rule = make_label_set(drive, teacher), PRESETS["consolidated"]
    orders = [drive.select([0, 1]), drive.select([1, 0])]
    labellers = [SequenceLabeller(order, label_set, rule) for order in orders]
    forwards, backwards = ([labeller.make_row(index) for index in range(2)] for labeller in labellers)
    backwards.reverse()
    for one, other in zip(forwards, backwards, strict=True):
        assert one["frame_id"] == other["frame_id"]
        assert np.array_equal(one["labels"], other["labels"])
        assert np.array_equal(one["confidence"], other["confidence"])


def test_points_that_are_not_finite_have_no_label(drive, teacher, make_label_set):
    points = drive.source.rows[0]["points"].copy()
    points[1], points[2] = np.nan, np.inf
    drive.source.rows[0]["points"] = points
    row = first_row(drive, make_label_set(drive, teacher), PRESETS["consolidated"])
    assert (row["labels"] != NONE).tolist() == [True, False, False, True]


def test_points_that_are_not_finite_reach_no_search_and_change_no_label(drive, teacher, make_label_set, monkeypatch):
    """A k-d tree of thousands of points at one place compares each of them with all."""
    alone = first_row(drive, make_label_set(drive, teacher), PRESETS["consolidated"])
    searched = []

    def find(positions):
        searched.append(len(positions))
        return cKDTree(positions)

    for module in ("superpoints", "time_vote"):
        monkeypatch.setattr(f"uov_hf.labels.{module}.cKDTree", find)
    for row in drive.source.rows:
        row["points"] = np.concatenate([row["points"], np.full((500, 4), np.nan, np.float32)])
    row = first_row(drive, make_label_set(drive, teacher, "padded"), PRESETS["consolidated"])
    assert searched and max(searched) < 20
    assert np.array_equal(row["labels"][:4], alone["labels"]) and (row["labels"][4:] == NONE).all()
    assert np.array_equal(row["confidence"][:4], alone["confidence"]) and not row["confidence"][4:].any()
    assert (row["soft_labels"][4:] == NONE).all() and not row["soft_scores"][4:].any()


@pytest.mark.parametrize(
    "lack", [{"lidar2global": None}, {"timestamp": None}, {"lidar2global": np.full((4, 4), np.nan)}]
)
def test_without_poses_or_times_every_other_vote_counts_and_one_warning_reports_it(
    drive, teacher, make_label_set, lack, caplog
):
    for row in drive.source.rows:
        row |= lack
    label_set = make_label_set(drive, teacher)
    assert label_points(label_set, drive, "consolidated").num_frames == 3
    assert [record.levelname for record in caplog.records if "vote over time" in record.message] == ["WARNING"]
    timeless = dataclasses.replace(PRESETS["consolidated"], time_vote=None)
    label_points(label_set, drive, timeless)
    for frame_id in drive.frame_ids:
        row, expected = (PointLabels(label_set.folder, rule).read(frame_id) for rule in ("consolidated", timeless))
        assert (row["labels"] != NONE).any()
        assert all(np.array_equal(row[name], expected[name]) for name in ("labels", "confidence", "pair_segment"))


def test_a_single_frame_without_a_pose_has_no_vote_on_its_neighbours(drive, teacher, make_label_set):
    """The car has turned around in the second scan, which sees a car behind the first one."""
    first, second = drive.source.rows[:2]
    first["points"] = np.concatenate([first["points"], np.float32([[-5, -2, 0, 7]])])
    label_set, rule = make_label_set(drive, teacher), PRESETS["consolidated"]

    def labels(indices, rule=rule):
        labeller = SequenceLabeller(drive.select(indices), label_set, rule)
        return [labeller.make_row(place)["labels"].tolist() for place in range(len(indices))]

    second["lidar2global"] = np.diag([-1.0, -1, 1, 1])
    assert labels([0, 1, 2])[0][-1] == CAR
    second["lidar2global"] = None
    before, after = labels([0, 2])
    assert labels([0, 1, 2]) == [before, *labels([1], dataclasses.replace(rule, time_vote=None)), after]
    assert before[-1] == NONE


@pytest.fixture
def long_drive(frames):
    """Eight frames of one sequence, and the frames of which the points were read."""
    rows = [make_frame(f"1/{second}", "one") for second in range(8)]
    for second, row in enumerate(rows):
        row["timestamp"], row["lidar2global"] = second * 1_000_000, np.eye(4)
    source, reads = ListSource(rows), []

    def read(index, columns):
        reads.extend([index] * ("points" in columns))
        return ListSource.read(source, index, columns)

    source.read = read
    return Frames(source), reads


def test_each_scan_is_read_once_wherever_the_rows_begin(long_drive, teacher, make_label_set):
    frames, reads = long_drive
    label_set, rule = make_label_set(frames, teacher), dataclasses.replace(SCORES, time_vote=TimeVoteConfig(window=1))
    reads.clear()
    labeller = SequenceLabeller(frames, label_set, rule)
    for index in range(3, 8):
        labeller.make_row(index)
    assert sorted(reads) == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_finished_sequence_leaves_the_memory_at_once(drive, teacher, make_label_set, is_broken):
    label_set = make_label_set(drive, teacher)
    if is_broken:
        drive.source.rows[1]["camera_names"] = ["CAM_B", "CAM_A"]
    gc.disable()
    try:
        labeller = SequenceLabeller(drive.by_sequence()[0], label_set, PRESETS["consolidated"])
        labeller.make_row(0)
        finished = weakref.ref(labeller)
        del labeller
        assert finished() is None
    finally:
        gc.enable()


def test_a_broken_neighbour_has_no_vote_and_is_reported_once(drive, teacher, make_label_set):
    label_set = make_label_set(drive, teacher)
    alone = first_row(drive.select([0]), label_set, PRESETS["consolidated"])
    drive.source.rows[1]["camera_names"] = ["CAM_B", "CAM_A"]
    report = label_points(label_set, drive, "consolidated", on_error="skip")
    assert list(report.skipped) == ["1/1"] and report.num_frames == 2
    labels = PointLabels(label_set.folder, "consolidated").read("1/0")["labels"]
    assert np.array_equal(labels, alone["labels"])


def test_a_rule_of_ones_own_has_a_folder_of_its_own(frames, teacher, make_label_set):
    label_set = make_label_set(frames, teacher)
    label_points(label_set, frames, SCORES)
    label_points(label_set, frames, PRESETS["paper"])
    assert PointLabels(label_set.folder, SCORES).read("1/0")["labels"].tolist() == [CAR, TREE, NONE, TREE]
    folders = sorted(path.name for path in (label_set.folder / "points").iterdir())
    assert folders[0].startswith("custom-") and folders[1:] == ["paper"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Consolidation(camera_vote="first"), '`camera_vote` must be "last" or "all", got \'first\''),
        (lambda: Consolidation(min_confidence=2), "`min_confidence` must be between 0 and 1, got 2"),
        (lambda: TimeVoteConfig(voxel_size=0), "`voxel_size` must be more than 0"),
        (lambda: TimeVoteConfig(window=-1), "`window` must be at least 0"),
        (lambda: SuperpointConfig(cell_size=0), "`cell_size` must be more than 0, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({}, "paper"),
        ({"preset": "consolidated"}, "consolidated"),
        ({"preset": "consolidated", "min_confidence": 0.4}, dataclasses.replace(FULL, min_confidence=0.4)),
        ({"min_confidence": 0.4}, Consolidation(min_confidence=0.4)),
        ({"rules": "occlusion"}, Consolidation(occlusion=FULL.occlusion)),
        ({"rules": "cameras"}, Consolidation(camera_vote="all")),
        ({"rules": "augmentations"}, Consolidation(augmentation_vote=True)),
        ({"rules": "time"}, Consolidation(time_vote=FULL.time_vote)),
        ({"rules": "superpoints"}, Consolidation(superpoint_vote=FULL.superpoint_vote)),
        ({"rules": "clean_pairs"}, Consolidation(clean_pairs=True)),
        (
            {"rules": "time, cameras", "min_confidence": 0.2},
            Consolidation(camera_vote="all", time_vote=FULL.time_vote, min_confidence=0.2),
        ),
        ({"rules": ",".join(VOTES)}, "consolidated"),
    ],
)
def test_a_rule_is_a_preset_or_a_list_of_votes(arguments, rule):
    assert parse_rule(**arguments) == rule


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "paper", "rules": "time"}, "exclude each other, got the preset 'paper' and the votes 'time'"),
        ({"preset": "best"}, "no preset 'best'; there are: paper, consolidated"),
        (
            {"rules": "time,fog"},
            "no vote 'fog'; there are: occlusion, cameras, augmentations, time, superp",
        ),
        ({"rules": ""}, "no vote ''; there are: occlusion"),
        ({"min_confidence": 1.5}, "`min_confidence` must be between 0 and 1, got 1.5"),
        ({"rules": "time", "min_confidence": float("nan")}, "`min_confidence` must be between 0 and 1, got nan"),
    ],
)
def test_a_rule_that_does_not_exist_is_refused_with_those_that_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse_rule(**arguments)
