"""Label sets: what is read is what the teacher predicted; tests/data/test_shards.py tests how it is written."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from halves_teacher import INTRINSICS, LIDAR2CAM, ListSource, make_frame

from uov_hf.data import Frames
from uov_hf.labels import LabelSet, PointLabels, decode_segmentation, identify_dataset, identity, label_points
from uov_hf.labels import label_set as label_set_module
from uov_hf.labels.segments import encode_segmentation


@pytest.fixture
def label_set(tmp_path, teacher, vocabulary):
    return LabelSet.create(tmp_path / "labels", teacher, vocabulary, settings={"cameras": None})


def test_what_is_read_is_what_the_teacher_said(label_set, frames, teacher, vocabulary):
    label_set.write(frames, teacher)
    again = LabelSet(label_set.folder)
    assert again.frame_ids == ["1/0", "1/1", "2/0"]
    assert again.prompts == vocabulary.prompts and again.class_names == vocabulary.class_names
    assert np.array_equal(again.prompt_to_class, vocabulary.prompt_to_class)
    assert np.array_equal(again.prompt_embeds, teacher.encode_prompts(vocabulary.prompts))
    assert again.teacher["name"] == "halves"

    row = again.read("2/0")
    assert row["camera_names"] == ["CAM_A", "CAM_B"]
    assert row["segment_camera"].tolist() == [0, 0, 1]
    assert row["segment_labels"].tolist() == [teacher.CAR, teacher.TREE, teacher.ROAD]
    assert row["segment_scores"].tolist() == [0.5, 0.75, 0.25]
    assert row["segment_embeds"].dtype == np.float16
    assert np.array_equal(row["segment_embeds"], np.eye(4)[:3])


def test_segment_ids_are_unique_within_the_frame(label_set, frames, teacher):
    label_set.write(frames, teacher)
    first, second = (decode_segmentation(png) for png in label_set.read("1/0")["segmentation"])
    assert first[0, [0, 40]].tolist() == [1, 2]
    assert second[0, [0, 40]].tolist() == [0, 3]


def test_embeddings_are_read_as_a_view_of_the_file(label_set, frames, teacher):
    label_set.write(frames, teacher)
    row = label_set.read("1/0", columns=["segment_embeds"])
    assert list(row) == ["segment_embeds"] and not row["segment_embeds"].flags.owndata


@pytest.mark.parametrize(("largest", "dtype"), [(0, np.uint8), (255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_segmentations_take_16_bits_where_8_do_not_suffice(largest, dtype):
    segmentation = np.array([[0, largest]])
    decoded = decode_segmentation(encode_segmentation(segmentation))
    assert decoded.dtype == dtype and np.array_equal(decoded, segmentation)


def test_a_camera_that_was_left_out_has_no_segments(make_label_set, frames, teacher):
    row = make_label_set(frames, teacher, cameras=["CAM_B"], augmentations=["flip"]).read("1/0")
    assert row["segment_camera"].tolist() == [1, 1]
    for column, segment in (("segmentation", 1), ("augmented_segmentation", 2)):
        first, second = row[column]
        assert first is None and decode_segmentation(second)[0, 40] == segment


def test_augmented_images_are_kept_beside_the_plain_ones(make_label_set, frames, teacher):
    """CAM_A's left half is a car: in the mirrored image it is on the right, and in the label set on the left again."""
    label_set = make_label_set(frames, teacher, augmentations=["flip", "scale=2"])
    row = LabelSet(label_set.folder).read("1/0")
    assert label_set.augmentations == ["flip", "scale=2"]
    plain = [decode_segmentation(png) for png in row["segmentation"]]
    augmented = [decode_segmentation(png) for png in row["augmented_segmentation"]]  # A flip, A scale, B flip, B scale
    assert [ids[0, [0, 40]].tolist() for ids in plain] == [[1, 2], [0, 3]]
    assert [ids[0, [0, 40]].tolist() for ids in augmented] == [[4, 5], [7, 8], [0, 6], [0, 9]]
    assert {ids.shape for ids in augmented} == {plain[0].shape}
    assert row["segment_camera"].tolist() == [0, 0, 1] * 3
    assert row["segment_labels"].tolist() == [teacher.CAR, teacher.TREE, teacher.ROAD] * 3


def test_unknown_cameras_augmentations_and_frames_are_refused(label_set, frames, teacher, tmp_path, vocabulary):
    with pytest.raises(ValueError, match="has no camera CAM_C; it has CAM_A, CAM_B"):
        label_set.write(frames, teacher, cameras=["CAM_C"])
    with pytest.raises(ValueError, match="got 'sharpen'"):
        LabelSet.create(tmp_path / "new", teacher, vocabulary, {"augmentations": ["sharpen"]})
    assert not (tmp_path / "new").exists()
    with pytest.raises(KeyError, match="Frame 3/0 is not in"):
        label_set.read("3/0")


def test_a_folder_without_a_fitting_label_set_is_refused(label_set, teacher, vocabulary, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"generate_label_set\.py"):
        LabelSet(tmp_path)
    with pytest.raises(ValueError, match="cannot continue it"):
        LabelSet.create(label_set.folder, teacher, vocabulary, settings={"cameras": ["CAM_A"]})
    path = label_set.folder / "label_set.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    with pytest.raises(ValueError, match="format version 99"):
        LabelSet(label_set.folder)


def test_segments_of_the_wrong_size_are_refused(label_set, frames, teacher, monkeypatch):
    answer = teacher.CAM_A()
    cut = dataclasses.replace(answer, segmentation=answer.segmentation[:5])
    monkeypatch.setattr(teacher, "CAM_A", lambda: cut)
    with pytest.raises(ValueError, match=r"expected a segmentation of \(21, 41\) .*, got \(5, 41\)"):
        label_set.write(frames, teacher)


@pytest.mark.parametrize(
    ("model_name_or_path", "revision", "teacher_id"),
    [
        (None, None, "halves"),
        ("someone/clip", "0123abc", "someone/clip@0123abc"),
        ("someone/clip", None, "someone/clip"),
        ("/data/models/clip", None, "clip"),
        ("../models/clip/", "ignored", "clip"),
        ("out/clip", None, "clip"),  # a folder that looks like an id
    ],
)
def test_the_teacher_is_named_without_the_path_of_a_folder(
    tmp_path, teacher, vocabulary, model_name_or_path, revision, teacher_id, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "clip").mkdir(parents=True)
    teacher.model_name_or_path, teacher.revision = model_name_or_path, revision
    assert LabelSet.create(tmp_path, teacher, vocabulary, {}).teacher_id == teacher_id


def frames_of(rows) -> Frames:
    return Frames(ListSource(rows))


def test_format_and_fingerprints_are_those_of_label_sets_that_are_there(label_set, frames):
    """With others, frames would no longer fit labels that were made before."""
    assert label_set.description["format_version"] == 4
    assert identity.identify(frames[0])["fingerprint"] == "8e0adec8fc509844"
    assert identify_dataset(frames, "", None)["fingerprint"] == "c6385d57c8470d60"


def test_the_first_frames_of_a_few_sequences_are_read_evenly_spaced(monkeypatch):
    monkeypatch.setattr(identity, "NUM_CHECKED", 2)
    rows = [make_frame(f"{number}/0", str(number)) for number in range(5)]
    labelled = {"1/0", "2/0", "3/0", "4/0"}.__contains__
    assert [frame["frame_id"] for frame in identity.read_first_frames(frames_of(rows), labelled)] == ["1/0", "3/0"]
    del rows[1]["timestamp"]  # broken: the others are read all the same
    assert [frame["frame_id"] for frame in identity.read_first_frames(frames_of(rows), labelled)] == ["3/0"]


def shifted(lidar2cam, distance) -> np.ndarray:
    """The cameras at another place."""
    moved = np.array(lidar2cam, float)
    moved[:, 0, 3] += distance
    return moved


def test_frames_that_are_added_never_replace_others(label_set, frames, teacher):
    for index in (2, 0, 1):
        label_set.write(frames.select([index]), teacher)
    assert {*label_set.frame_ids} == {*LabelSet(label_set.folder).frame_ids} == {*frames.frame_ids}


CHANGES = {
    "timestamp": 5,
    "camera_names": ["CAM_A", "CAM_C"],
    "image_ids": ["x", "y"],
    "image_sizes": np.array([[21, 41], [21, 42]]),
    "lidar2cam": shifted([LIDAR2CAM, LIDAR2CAM], 0.01),
    "intrinsics": np.stack([INTRINSICS, INTRINSICS * 1.001]),
}


@pytest.mark.parametrize("column", CHANGES)
def test_other_frames_of_the_same_ids_are_refused(label_set, frames, teacher, column):
    """Two recordings whose files have the same names, for one label set."""
    label_set.write(frames, teacher)
    other = frames_of([{**row, column: CHANGES[column]} for row in frames.source.rows])
    expected = "has another calibration" if column in ("lidar2cam", "intrinsics") else "is not the frame of this id"
    for join in (lambda: label_set.write(other, teacher), lambda: label_points(label_set, other)):
        with pytest.raises(ValueError, match=f"Frame 1/0 {expected}"):
            join()


def test_a_run_that_was_stopped_is_not_continued_with_other_frames(label_set, frames, teacher, monkeypatch):
    """No shard is complete yet: there is only the row of the first frame."""
    segment = teacher.segment

    def stop(frame):
        if frame["frame_id"] == "1/1":
            raise KeyboardInterrupt
        return segment(frame)

    monkeypatch.setattr(teacher, "segment", stop)
    with pytest.raises(KeyboardInterrupt):
        label_set.write(frames, teacher)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="Frame 1/0 is not the frame of this id"):
        label_set.write(frames_of([{**row, "timestamp": 1} for row in frames.source.rows]), teacher)
    report = label_set.write(frames, teacher)
    assert (report.num_frames, report.num_done_before) == (2, 1)


def test_a_calibration_computed_on_another_machine_is_the_same(label_set, frames, teacher):
    label_set.write(frames, teacher)
    other = frames_of([{**row, "lidar2cam": shifted(row["lidar2cam"], 1e-9)} for row in frames.source.rows])
    assert label_set.write(other, teacher).num_done_before == label_points(label_set, other).num_frames == 3


def test_a_calibration_may_differ_by_a_ten_thousandth_of_a_metre_or_of_a_number(frames, tmp_path):
    own, allowed = identity.identify(frames[0]), identity.TOLERANCE / 2
    matrices = own["calibration"]
    for near, far in ((matrices + allowed, matrices + 0.01), (matrices * (1 + allowed), matrices * 1.01)):
        identity.check_identity(frames[0], {**own, "calibration": near}, tmp_path)
        with pytest.raises(ValueError, match="another calibration"):
            identity.check_identity(frames[0], {**own, "calibration": far}, tmp_path)


def test_the_segments_stay_when_the_calibration_is_corrected(label_set, frames, teacher):
    label_set.write(frames, teacher)
    other = frames_of([{**row, "lidar2cam": shifted(row["lidar2cam"], 0.01)} for row in frames.source.rows])
    with pytest.raises(ValueError, match="run this again with --calibration_changed"):
        label_set.write(other, teacher)
    assert label_set.write(other, teacher, calibration_changed=True).num_done_before == 3
    label_points(label_set, other, calibration_changed=True)
    assert len(PointLabels(label_set.folder).frame_ids) == 3
    with pytest.raises(ValueError, match=r"Frame 1/0 has another calibration than when .*points/paper was made"):
        label_points(label_set, frames)


def test_a_scan_of_another_size_is_refused(label_set, frames, teacher):
    label_set.write(frames, teacher)
    label_points(label_set, frames)
    other = frames_of([{**row, "points": row["points"][:3]} for row in frames.source.rows])
    with pytest.raises(ValueError, match="Frame 1/0 has 3 points, but 4 point labels in"):
        label_points(label_set, other)


def test_the_dataset_is_named(tmp_path, frames, teacher, vocabulary):
    dataset = identify_dataset(frames, "nuscenes", "v1.0-mini")
    made = LabelSet.create(tmp_path / "labels", teacher, vocabulary, {}, dataset)
    found = made.description["dataset"]
    assert (found["name"], found["config"], found["num_frames"]) == ("nuscenes", "v1.0-mini", 3)
    moved = frames_of([{**row, "lidar2cam": shifted(row["lidar2cam"], 0.1)} for row in frames.source.rows])
    fingerprints = {identify_dataset(part, "", None)["fingerprint"] for part in (frames, frames.select([0]), moved)}
    assert found["fingerprint"] in fingerprints and len(fingerprints) == 3
    again = LabelSet.create(
        made.folder, teacher, vocabulary, {}, identify_dataset(frames.select([0]), "nuscenes", None)
    )
    assert again.description == made.description  # a later run may add other frames


def test_missing_frames_are_counted(tmp_path, label_set, frames, teacher, vocabulary):
    label_set.write(frames.select([0]), teacher)
    assert label_set.num_missing == 1  # the other frame of the sequence
    whole = LabelSet.create(tmp_path / "whole", teacher, vocabulary, {}, identify_dataset(frames, "halves", None))
    whole.write(frames.select([0, 1]), teacher)
    assert whole.num_missing == 1  # the other sequence
    whole.write(frames, teacher)
    assert whole.num_missing == 0


def test_the_cache_of_the_hub_is_not_written_to(tmp_path, label_set, frames, teacher):
    label_set.write(frames.select([0]), teacher)
    label_points(label_set, frames.select([0]))
    cached = LabelSet(shutil.copytree(label_set.folder, tmp_path / "hub/datasets--me--labels/snapshots/0123"))
    before = sorted(cached.folder.rglob("*"))
    assert label_points(cached, frames.select([0])).num_done_before == 1
    for write in (
        lambda: cached.write(frames, teacher),
        lambda: label_points(cached, frames),
        lambda: label_points(cached, frames.select([0]), "consolidated"),
    ):
        with pytest.raises(PermissionError, match="is in the cache of the Hub, which must not be written to: "):
            write()
    assert sorted(cached.folder.rglob("*")) == before


def test_of_two_runs_that_create_a_label_set_the_second_keeps_that_of_the_first(
    tmp_path, teacher, vocabulary, monkeypatch
):
    """The first ends after the second has found the folder empty and before it has the lock."""
    folder, lock = tmp_path / "labels", label_set_module.writer_lock

    def create_and_lock(path):
        monkeypatch.setattr(label_set_module, "writer_lock", lock)
        LabelSet.create(folder, teacher, vocabulary, {"cameras": ["CAM_A"]})
        return lock(path)

    monkeypatch.setattr(label_set_module, "writer_lock", create_and_lock)
    with pytest.raises(ValueError, match="holds a label set of another teacher, vocabulary or settings"):
        LabelSet.create(folder, teacher, vocabulary, {"cameras": ["CAM_B"]})
    assert LabelSet(folder).settings == {"cameras": ["CAM_A"]}


def test_a_teacher_of_other_prompts_is_refused(tmp_path, teacher, vocabulary):
    teacher.prompts = [*vocabulary.prompts[1:], vocabulary.prompts[0]]
    with pytest.raises(ValueError, match="'halves' predicts 175 prompts that are not those of the vocabulary"):
        LabelSet.create(tmp_path / "labels", teacher, vocabulary, {})
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize("segmentation", [np.array([[0, -1]]), np.array([[0, 65536]]), np.zeros((0, 3), int)])
def test_a_segment_map_with_other_ids_is_refused(segmentation):
    """The id -1 was stored as 255."""
    with pytest.raises(ValueError, match="`segmentation` must"):
        encode_segmentation(segmentation)


def test_the_arrays_of_a_vocabulary_come_back_as_they_were(label_set, vocabulary):
    again = LabelSet(label_set.folder)
    for name, dtype in (("prompt_groups", np.int64), ("prompt_to_class", np.int64), ("is_thing", bool)):
        found = getattr(again, name)
        assert found.dtype == dtype and np.array_equal(found, getattr(vocabulary, name))


@pytest.mark.parametrize("only, patterns", [(None, []), ("images", ["images/*"]), ("points", ["points/*"])])
def test_a_part_is_downloaded_with_its_description_its_card_and_its_terms(label_set, monkeypatch, only, patterns):
    calls = []
    monkeypatch.setattr(
        label_set_module, "snapshot_download", lambda *args, **kwargs: calls.append((args, kwargs)) or label_set.folder
    )
    assert LabelSet.from_hub("me/labels", "v1", "here", "token", only).folder == label_set.folder
    described = ["label_set.json", "prompt_embeds.safetensors", "README.md", "LICENSE.md"]
    wanted = {"repo_type": "dataset", "revision": "v1", "local_dir": "here", "token": "token"}
    assert calls == [(("me/labels",), wanted | {"allow_patterns": [*described, *patterns] if only else None})]


@pytest.mark.parametrize(
    ("name", "settings", "teacher_id", "text_model"),
    [
        ("halves", {}, "a/net@1", (None, None)),
        ("clip", {}, "a/net@1", ("a/net", "1")),
        ("files", {"embed_model_name_or_path": None, "embed_revision": None}, "a/net@1", (None, None)),
        ("files", {"embed_model_name_or_path": "b/clip", "embed_revision": "2"}, "a/net@1+b/clip@2", ("b/clip", "2")),
    ],
)
def test_the_model_that_embedded_the_prompts_is_known(
    tmp_path, teacher, vocabulary, name, settings, teacher_id, text_model
):
    teacher.name, teacher.settings, teacher.model_name_or_path, teacher.revision = name, settings, "a/net", "1"
    label_set = LabelSet.create(tmp_path, teacher, vocabulary, {})
    assert (label_set.teacher_id, label_set.text_model) == (teacher_id, text_model)


def test_skipped_frames_are_not_missing(label_set, frames, teacher, monkeypatch):
    segment = teacher.segment

    def fail(frame):
        if frame["frame_id"] == "1/0":
            raise ValueError("it is broken")
        return segment(frame)

    monkeypatch.setattr(teacher, "segment", fail)
    label_set.write(frames, teacher, on_error="skip")
    assert [*label_set.skipped] == ["1/0"] and label_set.num_missing == 0


def test_a_label_set_is_opened_from_its_folder_or_by_its_id(label_set, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    calls = []
    monkeypatch.setattr(LabelSet, "from_hub", lambda *args, **kwargs: calls.append((args, kwargs)) or label_set)
    assert LabelSet.open("labels").folder == label_set.folder.relative_to(tmp_path) and not calls
    assert LabelSet.open("me/labels", local_dir="here", only="points") is label_set
    assert calls == [(("me/labels",), {"local_dir": "here", "only": "points"})]
    for missing in ("other", tmp_path / "other"):
        with pytest.raises(FileNotFoundError, match=r"generate_label_set\.py"):
            LabelSet.open(missing)


def test_a_run_that_was_stopped_continues_with_a_corrected_calibration(label_set, frames, teacher, monkeypatch):
    """No shard is complete yet. A new label set lacks no frame."""
    assert label_set.num_missing == 0
    segment = teacher.segment

    def stop(frame):
        if frame["frame_id"] == "1/1":
            raise KeyboardInterrupt
        return segment(frame)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(teacher, "segment", stop)
        label_set.write(frames, teacher)
    other = frames_of([{**row, "lidar2cam": shifted(row["lidar2cam"], 0.01)} for row in frames.source.rows])
    with pytest.raises(ValueError, match="Frame 1/0 has another calibration"):
        label_set.write(other, teacher)
    assert label_set.write(other, teacher, calibration_changed=True).num_done_before == 1
