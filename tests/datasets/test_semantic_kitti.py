"""A SemanticKITTI root comes back as frames: points to the bit, labels, instances, cameras, poses, splits, errors."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from same_frames import assert_same_frame
from tiny_kitti import IMAGE_SIZE, NUM_POINTS, write_root

from uov_hf.data import FRAME_FEATURES, decode_image, load_frames
from uov_hf.datasets.semantic_kitti import SemanticKitti, merge_scans
from uov_hf.evaluation.panoptic import PanopticQuality
from uov_hf.geometry.projection import Camera, project_points
from uov_hf.vocabulary import load_vocabulary


SCRIPT = Path(__file__).parents[2] / "dataset_scripts" / "semantic_kitti.py"


@pytest.fixture
def root(tmp_path):
    return write_root(tmp_path / "kitti", {"08": 1, "00": 3, "11": 1})


def load(root, split="all", **kwargs):
    return load_frames("semantic_kitti", split, data_dir=root, **kwargs)


def test_columns_have_the_types_they_promise(root):
    frame = load(root)[0]
    assert list(frame) == list(FRAME_FEATURES)
    for column in ("points", "lidar2cam", "intrinsics", "image_sizes", "lidar2global"):
        assert frame[column].dtype == FRAME_FEATURES[column].dtype, column
    dtypes = [frame[column].dtype for column in ("labels", "instances", "camera_timestamps")]
    assert dtypes == [np.uint8, np.int32, np.int64]
    assert frame["intensity_max"] == 1.0 and frame["image_sizes"].tolist() == [list(IMAGE_SIZE)]


def test_frames_come_sequence_by_sequence_in_the_order_of_time(root):
    frames = load(root)
    assert frames.frame_ids == ["00/000000", "00/000001", "00/000002", "08/000000", "11/000000"]
    assert frames.sequence_ids == ["00", "00", "00", "08", "11"]
    assert [frame["timestamp"] for frame in frames] == [0, 100_000, 200_000, 0, 0]


def test_splits_are_the_official_ones_as_far_as_they_are_here(root, tmp_path):
    assert SemanticKitti(data_dir=root).default_splits() == ("train", "val", "test")
    assert load(root, None).sequence_ids == load(root, "train").sequence_ids == ["00"] * 3
    assert load(root, "val").sequence_ids == ["08"] and load(root, "test").sequence_ids == ["11"]
    own = write_root(tmp_path / "own", {"30": 1})
    assert SemanticKitti(data_dir=own).split_sequences() == {"all": ["30"]} and len(load(own, None)) == 1
    with pytest.raises(ValueError, match=r"split 'train' has no sequence here; there are all \(1 sequences\)"):
        load(own, "train")


def test_points_are_those_of_the_file_to_the_bit(root):
    path = root / "sequences/00/velodyne/000001.bin"
    assert load(root)[1]["points"].tobytes() == path.read_bytes()


def write_words(root, words):
    """The words, and vegetation without an instance for the other points, as labels of the first scan."""
    words = np.array([*words, *[70] * (NUM_POINTS - len(words))], np.uint32)
    words.tofile(root / "sequences/00/labels/000000.label")


def test_the_lower_half_of_a_label_is_the_class_and_the_whole_of_it_the_instance(root):
    words = [0, 252 + (7 << 16), 10 + (65535 << 16)]
    write_words(root, words)
    frame, names = load(root)[0], load_vocabulary("semantic_kitti").class_names
    assert frame["labels"][:4].tolist() == [255, names.index("car"), names.index("car"), names.index("vegetation")]
    assert frame["instances"].view(np.uint32)[:4].tolist() == [0, *words[1:], 0]


@pytest.mark.parametrize("number", [7, 65535])  # the second one makes the int32 of the column negative
def test_two_raw_classes_of_one_class_may_use_a_number_each(root, tmp_path, monkeypatch, number):
    """A parked car and a moving one, both of this number, are two cars; read in place and from Parquet."""
    write_words(root, [10 + (number << 16)] * 4 + [252 + (number << 16)] * 3)
    is_thing = load_vocabulary("semantic_kitti").is_thing
    for frame in (load(root)[0], write_parquet(root, tmp_path / "parquet", monkeypatch)("train")[0]):
        quality = PanopticQuality(is_thing, min_points=1)
        quality.update(frame["labels"], frame["instances"], frame["labels"], frame["instances"])
        hits = dict(zip(load_vocabulary("semantic_kitti").class_names, quality.counts[0], strict=True))
        assert hits["car"] == 2 and hits["vegetation"] == 1


def test_without_a_folder_of_labels_there_are_none(tmp_path):
    frame = load(write_root(tmp_path, {"11": 1}, labels=False))[0]
    assert frame["labels"] is None and frame["instances"] is None


@pytest.mark.parametrize(
    ("folder", "center", "focal_length"), [("image_2", (0.125, -0.75, -0.5), 20), ("image_0", (0.25, 0, -0.5), 10)]
)
def test_the_camera_sits_where_the_calibration_puts_it(tmp_path, folder, center, focal_length):
    """The colour camera is 0.75 m to the right of the grey one and 0.125 m behind it."""
    frame = load(write_root(tmp_path, {"00": 1}, camera=folder))[0]
    assert frame["camera_names"] == [folder] and frame["image_ids"] == ["00/000000"]
    where = np.linalg.inv(frame["lidar2cam"][0])[:3, 3]
    np.testing.assert_allclose(where, center, atol=1e-9)
    camera = Camera(frame["lidar2cam"][0], frame["intrinsics"][0], frame["image_sizes"][0])
    straight_ahead = where + [10, 0, 0]
    pixel_coords, _ = project_points(straight_ahead[None], camera)
    np.testing.assert_allclose(pixel_coords, [[8, 6]], atol=1e-9)
    pixel_coords, _ = project_points((straight_ahead + [0, -1, 0])[None], camera)  # a metre to the right
    np.testing.assert_allclose(pixel_coords, [[8 + focal_length / 10, 6]], atol=1e-9)


def test_a_root_without_images_has_no_camera(tmp_path):
    frame = load(write_root(tmp_path, {"00": 1}, camera=None))[0]
    assert frame["camera_names"] == frame["images"] == []
    assert frame["lidar2cam"].shape == (0, 4, 4) and frame["image_sizes"].shape == (0, 2)


def test_images_stay_encoded_in_their_files(root):
    image = load(root)[2]["images"][0]
    assert image == {"bytes": None, "path": str(root / "sequences/00/image_2/000002.png")}
    assert decode_image(image).size == IMAGE_SIZE[::-1]


def test_poses_lead_from_the_lidar_to_the_first_lidar(root):
    """The grey camera moves along its z; the lidar's x looks there."""
    motions = [frame["lidar2global"] for frame in load(root, "train")]
    for index, motion in enumerate(motions):
        expected = np.eye(4)
        expected[0, 3] = index
        np.testing.assert_allclose(motion, expected, atol=1e-12)


def test_scans_are_merged_where_things_stood(root):
    """The pole is seen three times, while the car comes nearer to it by a metre a scan."""
    for index in range(3):
        scan = np.array([[10 - index, 2, 0, 0.5], [5, 5, index, 1]], np.float32)
        scan.tofile(root / f"sequences/00/velodyne/00000{index}.bin")
    points, scans_back = merge_scans(load(root), 2)
    assert scans_back.tolist() == [0, 0, 1, 1, 2, 2] and points.dtype == np.float32
    np.testing.assert_array_equal(points[:2], scan)
    np.testing.assert_allclose(points[::2], [[8, 2, 0, 0.5]] * 3, atol=1e-6)
    assert merge_scans(load(root), 2, num_before=1)[1].tolist() == [0, 0, 1, 1]
    assert set(merge_scans(load(root), 3)[1]) == {0}  # the first of its sequence


def test_without_poses_there_is_no_place_in_the_world(root):
    (root / "sequences/00/poses.txt").unlink()
    frames = load(root)
    assert frames[0]["lidar2global"] is None
    with pytest.raises(ValueError, match="Frame 00/000001 has no pose"):
        merge_scans(frames, 1)


def test_what_is_not_asked_for_is_not_read(root):
    for path in [*root.glob("sequences/00/[ct]*.txt"), *root.glob("sequences/00/image_2/*")]:
        path.unlink()
    frames = load(root)
    frame = frames.select_columns(["frame_id", "points", "labels", "camera_names"])[0]
    assert len(frame["points"]) == len(frame["labels"]) == NUM_POINTS
    for column, name in [
        ("timestamp", "times.txt"),
        ("lidar2global", "calib.txt"),
        ("images", "000000.png"),
    ]:
        with pytest.raises(ValueError, match=f"({name}): expected "):
            frames.select_columns([column])[0]


def test_a_fraction_is_one_of_scans(root):
    assert load(root, "train").source.fraction_of == "frames"


@pytest.mark.parametrize(
    ("file", "content", "column", "message"),
    [
        (
            "velodyne/000000.bin",
            b"\0" * 790,
            "points",
            "expected a whole number of points of 4 float32, got 790 bytes",
        ),
        (
            "velodyne/000000.bin",
            b"\0" * 784,
            "labels",
            "expected 49 labels of 4 bytes, one for each point of 000000.bin",
        ),
        ("labels/000000.label", b"\0" * 199, "labels", "expected 50 labels of 4 bytes.*got 199 bytes"),
        ("labels/000000.label", b"\2\0\0\0" * 50, "labels", "000000.label: The labels hold ids that .*: \\[2\\]"),
        ("labels/000000.label", None, "instances", "000000.label: expected the labels of .*000000.bin, got no file"),
        ("image_2/000000.png", b"", "image_sizes", "000000.png: expected an image file, got: cannot identify"),
        ("image_2/000000.png", None, "images", "000000.png: expected the file of scan 00/000000, got none"),
        ("calib.txt", b"Tr: 1 2 3\n", "lidar2cam", "calib.txt: expected lines.*P0, P2, Tr, got none for P0, P2, Tr"),
        ("calib.txt", None, "intrinsics", "calib.txt: expected a text file of KITTI, got: .*No such file"),
        ("poses.txt", b"1 0 0\n", "lidar2global", "poses.txt: expected 12 numbers in every line, got another.*line 1"),
        ("poses.txt", b"", "lidar2global", "poses.txt: expected a line for every scan, got 0 lines and scan 000000"),
        ("times.txt", b"noon\n", "timestamp", "times.txt: expected numbers, got: could not convert string to float"),
    ],
)
def test_a_broken_file_is_named(root, file, content, column, message):
    path = root / "sequences/00" / file
    path.unlink() if content is None else path.write_bytes(content)
    frames = load(root).select_columns([column])
    with pytest.raises(ValueError, match=message):
        frames[0]


def test_a_scan_without_points_is_named(root):
    for file in ("velodyne/000000.bin", "labels/000000.label"):
        (root / "sequences/00" / file).write_bytes(b"")
    with pytest.raises(ValueError, match="velodyne/000000.bin: expected a scan with finite points, got 0 points"):
        load(root)[0]


def test_a_folder_without_scans_is_told_what_was_expected(root):
    with pytest.raises(ValueError, match=re.escape(f"{root / 'sequences'}: expected scans (sequences/00/velodyne")):
        load(root / "sequences")


def write_parquet(root, folder, monkeypatch):
    """What loads a split of the Parquet that the program writes."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--data_dir", str(root), "--output_dir", str(folder)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return lambda split: load_frames(str(folder), split)


def test_as_a_program_it_writes_parquet_with_the_same_frames(root, tmp_path, monkeypatch):
    load_written = write_parquet(root, tmp_path / "parquet", monkeypatch)
    for split in ("train", "val", "test"):
        raw, written = load(root, split), load_written(split)
        assert written.taxonomy == "semantic_kitti" and written.frame_ids == raw.frame_ids
        for frame, expected in zip(written, raw, strict=True):
            assert_same_frame(frame, expected)
