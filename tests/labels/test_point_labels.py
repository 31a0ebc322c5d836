"""Point labels: the segments of the images at the points, by the paper's rule."""

import dataclasses
import hashlib
import json
import shutil
from collections import Counter

import numpy as np
import pytest
from halves_teacher import ListSource, make_frame

from uov_hf.data import Frames
from uov_hf.data.loading import keep_every
from uov_hf.labels import Consolidation, LabelSet, PointLabels, label_points
from uov_hf.labels.description import to_sealed_json
from uov_hf.labels.time_vote import TimeVoteConfig


CAR, ROAD, TREE, NONE = 3, 10, 15, 255  # training classes


@pytest.fixture
def label_set(make_label_set, frames, teacher):
    return make_label_set(frames, teacher)


def read(label_set, frames, frame_id="1/0"):
    label_points(label_set, frames)
    return PointLabels(label_set.folder).read(frame_id)


def test_every_pair_of_a_point_and_a_camera_has_the_segment_at_its_pixel(label_set, frames):
    row = read(label_set, frames)
    assert row["pair_to_point"].tolist() == [0, 1, 3, 0, 1, 3]  # the point behind has none
    assert row["pair_camera"].tolist() == [0, 0, 0, 1, 1, 1]
    assert row["pair_pixel"][:3].tolist() == [[16, 10], [24, 10], [22, 8]]  # column, row; halves to even
    assert row["pair_segment"].tolist() == [1, 2, 2, 0, 3, 3]  # a pair off every segment is kept


def test_the_last_camera_wins_where_it_has_a_segment(label_set, frames):
    row = read(label_set, frames)
    assert row["labels"].tolist() == [CAR, ROAD, NONE, ROAD]
    assert row["confidence"].tolist() == [0.5, 0.25, 0.0, 0.25]


def test_a_segment_of_score_zero_labels_its_points(make_label_set, frames, teacher, monkeypatch):
    for camera in ("CAM_A", "CAM_B"):
        answer = getattr(teacher, camera)()
        silent = dataclasses.replace(answer, scores=np.zeros_like(answer.scores))
        monkeypatch.setattr(teacher, camera, lambda silent=silent: silent)
    row = read(make_label_set(frames, teacher), frames)
    assert row["labels"].tolist() == [CAR, ROAD, NONE, ROAD] and not row["confidence"].any()


def test_a_camera_without_segments_has_no_pairs(make_label_set, frames, teacher):
    row = read(make_label_set(frames, teacher, cameras=["CAM_A"]), frames)
    assert row["pair_camera"].tolist() == [0, 0, 0]
    assert row["labels"].tolist() == [CAR, TREE, NONE, TREE]


def test_a_background_segment_decides_for_no_class(make_label_set, frames, teacher, vocabulary, monkeypatch):
    monkeypatch.setattr(type(teacher), "ROAD", vocabulary.prompts.index("sky"))
    assert read(make_label_set(frames, teacher), frames)["labels"].tolist() == [CAR, NONE, NONE, NONE]


def test_a_scan_without_points_is_named_or_skipped(label_set, frames):
    frames.source.rows[0]["points"] = np.empty((0, 4), np.float32)
    frame_id = frames.source.rows[0]["frame_id"]
    with pytest.raises(ValueError, match=f"Frame {frame_id}: .* got 0 points"):
        label_points(label_set, frames)
    assert list(label_points(label_set, frames, on_error="skip").skipped) == [frame_id]


def test_a_scan_that_broke_after_it_was_labelled_does_not_stop_a_run_that_skips(label_set, frames):
    label_points(label_set, frames)
    frames.source.rows[0]["points"] = np.empty((0, 4), np.float32)
    assert label_points(label_set, frames, on_error="skip").num_done_before == 3


def test_a_frame_that_does_not_fit_the_label_set_is_refused(label_set, frames):
    original = frames.source.rows[0]
    frames.source.rows[0] = {**original, "camera_names": ["CAM_B", "CAM_A"]}
    with pytest.raises(ValueError, match="is not the frame of this id"):
        label_points(label_set, frames)
    frames.source.rows[0] = original
    frames.source.frame_ids[2] = frames.source.rows[2]["frame_id"] = "9/9"
    with pytest.raises(KeyError, match="Frame 9/9 is not in"):
        label_points(label_set, frames.select([2]))


def test_labelling_again_writes_nothing_and_reads_a_frame_of_each_sequence_once(label_set, frames, monkeypatch):
    """Every start of a training does this, perhaps from the Hub."""
    assert label_points(label_set, frames).num_frames == 3
    description = label_set.folder / "points" / "paper" / "point_labels.json"
    inode, read, num_read = description.stat().st_ino, ListSource.read, Counter()

    def count_and_read(self, index, columns):
        num_read[index] += 1
        return read(self, index, columns)

    monkeypatch.setattr(ListSource, "read", count_and_read)
    report = label_points(label_set, frames)
    assert (report.num_frames, report.num_done_before) == (0, 3)
    assert num_read == {0: 1, 2: 1}
    assert description.stat().st_ino == inode  # else it was written again


def test_point_labels_of_another_label_set_are_refused(label_set, frames):
    label_points(label_set, frames)
    path = label_set.folder / "label_set.json"
    path.write_bytes(to_sealed_json(json.loads(path.read_text()) | {"settings": {"cameras": ["CAM_B"]}}))
    with pytest.raises(ValueError, match=r"make them again"):
        PointLabels(label_set.folder)


def test_missing_point_labels_and_unknown_presets_are_named(label_set):
    with pytest.raises(FileNotFoundError, match=r"label_points\.py --label_set"):
        PointLabels(label_set.folder)
    with pytest.raises(ValueError, match="no preset .best.; there are: paper, consolidated"):
        PointLabels(label_set.folder, preset="best")


def drive(num_frames):
    """A car drives past its first position: each frame sees the place of every other."""
    rows = [make_frame(f"1/{number}", "one") for number in range(num_frames)]
    for number, row in enumerate(rows):
        pose = np.eye(4)
        pose[0, 3] = 0.1 * number
        row |= {"timestamp": 100_000 * number, "lidar2global": pose}
    return Frames(ListSource(rows))


def labels_of(label_set, frames, rule="consolidated"):
    point_labels = PointLabels(label_set.folder, rule)
    columns = ["labels", "confidence", "soft_labels", "soft_scores"]
    return {name: [point_labels.read(name, columns)[c].tolist() for c in columns] for name in frames.frame_ids}


@pytest.fixture
def scores_of_their_own(teacher, monkeypatch):
    """The teacher gives the segments of frame n the score 0.1 n, so that a confidence depends on who has voted."""
    segment = teacher.segment

    def segment_and_score(frame):
        score = 0.1 * int(frame["frame_id"][2:])
        return [dataclasses.replace(found, scores=np.full_like(found.scores, score)) for found in segment(frame)]

    monkeypatch.setattr(teacher, "segment", segment_and_score)


def test_a_selection_of_frames_does_not_change_the_label_of_a_point(make_label_set, teacher, scores_of_their_own):
    """The vote over time counts all frames that the label set has, not only the selected ones."""
    frames = drive(7)
    half = keep_every(frames, 2)
    first, second = make_label_set(frames, teacher, "first"), make_label_set(frames, teacher, "second")
    label_points(first, half, "consolidated")
    label_points(second, frames, "consolidated")
    assert labels_of(first, half) == labels_of(second, half)
    assert label_points(first, frames, "consolidated").num_frames == 3
    assert labels_of(first, frames) == labels_of(second, frames)


def test_a_frame_without_segments_takes_no_place_in_the_window(make_label_set, teacher, scores_of_their_own):
    """Also where it is among the frames to label, and is skipped there."""
    frames = drive(7)
    rule, others = Consolidation(time_vote=TimeVoteConfig(window=1)), frames.select([0, 1, 2, 4, 5, 6])
    first, second = make_label_set(others, teacher, "first"), make_label_set(others, teacher, "second")
    assert list(label_points(first, frames, rule, on_error="skip").skipped) == ["1/3"]
    label_points(second, others, rule)
    assert labels_of(first, others, rule) == labels_of(second, others, rule)


def test_point_labels_are_made_again_when_more_frames_can_vote(make_label_set, teacher):
    frames = drive(5)
    growing, whole = (
        make_label_set(frames.select([0, 1]), teacher, "growing"),
        make_label_set(frames, teacher, "whole"),
    )
    for rule in ("paper", "consolidated"):
        assert label_points(growing, frames.select([0, 1]), rule).num_frames == 2
    growing.write(frames, teacher)
    report = label_points(growing, frames, "consolidated")
    assert (report.num_frames, report.num_done_before) == (5, 0)
    report = label_points(growing, frames)  # by the paper's rule, no other frame votes
    assert (report.num_frames, report.num_done_before) == (3, 2)
    label_points(whole, frames, "consolidated")
    assert labels_of(growing, frames) == labels_of(whole, frames)
    assert label_points(growing, frames.select([0]), "consolidated").num_frames == 0


def test_points_are_labelled_by_a_corrected_calibration_if_it_is_expected(label_set, frames):
    for row in frames.source.rows:
        row["lidar2cam"] = row["lidar2cam"] + 0.01 * np.eye(4, k=3)[None]
    with pytest.raises(ValueError, match=f"another calibration than when {label_set.folder} was made"):
        label_points(label_set, frames)
    assert label_points(label_set, frames, calibration_changed=True).num_frames == 3


def test_point_labels_have_the_rule_and_the_digest_of_the_label_set_that_made_them(label_set, frames):
    """With other fields, a version would refuse the point labels that an earlier one made."""
    label_points(label_set, frames)
    digest = hashlib.sha256((label_set.folder / "label_set.json").read_bytes()).hexdigest()
    found = json.loads((label_set.folder / "points" / "paper" / "point_labels.json").read_bytes())
    rule = dataclasses.asdict(Consolidation())
    assert found == {"format_version": 4, "rule": rule, "label_set_sha256": digest}


def test_a_frame_that_the_label_set_skipped_is_skipped(make_label_set, frames, teacher, tmp_path, vocabulary):
    segment = teacher.segment

    def fail(frame):
        if frame["frame_id"] == "1/1":
            raise ValueError("truncated JPEG")
        return segment(frame)

    teacher.segment = fail
    label_set = LabelSet.create(tmp_path / "labels", teacher, vocabulary, {})
    label_set.write(frames, teacher, on_error="skip")
    for _ in range(2):
        report = label_points(label_set, frames, on_error="skip")
        assert list(report.skipped) == ["1/1"]
    assert report.num_frames == 0
    cached = tmp_path / "datasets--me--labels" / "snapshots" / "a1b2"
    shutil.copytree(label_set.folder, cached)
    report = label_points(LabelSet(cached), frames, on_error="skip")  # nothing is missing, and nothing is written
    assert (report.num_frames, report.num_done_before, report.skipped) == (0, 2, {"1/1": "KeyError"})
    with pytest.raises(ValueError, match="Frame 1/1 was broken and was skipped: ValueError"):
        label_points(label_set, frames)
    with pytest.raises(PermissionError, match="is in the cache of the Hub"):
        label_points(LabelSet(cached), frames)


@pytest.mark.parametrize(
    "preset, way", [("consolidated", "--preset consolidated"), (Consolidation(min_confidence=0.5), "the same --rules")]
)
def test_point_labels_that_are_missing_are_named_with_the_command_that_makes_them(
    make_label_set, frames, teacher, preset, way
):
    folder = make_label_set(frames, teacher).folder
    with pytest.raises(FileNotFoundError, match=rf"no point labels in .*points.*--label_set {folder} and {way}"):
        PointLabels(folder, preset)
