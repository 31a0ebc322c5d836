"""PandaSet in plain files comes back as frames: points to the bit, labels, the moving camera, poses, errors."""

import json

import numpy as np
import pytest
from PIL import Image

from uov_hf.data import FRAME_FEATURES, decode_image, load_frames
from uov_hf.vocabulary import load_vocabulary


NUM_POINTS = 30


@pytest.fixture
def root(tmp_path):
    """A labelled sequence of two scans and one of one scan without labels; the car moves 2 m between the scans."""
    rng = np.random.default_rng(0)
    for sequence, num_scans in (("001", 2), ("002", 1)):
        folder = tmp_path / sequence
        for name in ("lidar", "camera/front_camera", *(["labels"] if sequence == "001" else [])):
            (folder / name).mkdir(parents=True)
        moments = {f"{index:02d}": moment_of(index) for index in range(num_scans)}
        calibration = {"camera": "front_camera", "width": 16, "height": 12, "frames": moments}
        calibration["cam_intrinsic"] = [[20.0, 0, 8], [0, 20.0, 6], [0, 0, 1]]
        (folder / "calib.json").write_text(json.dumps(calibration))
        for stem in moments:
            rng.normal(0, 20, (NUM_POINTS, 4)).astype(np.float32).tofile(folder / f"lidar/{stem}.bin")
            pixels = rng.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"camera/front_camera/{stem}.jpg")
            if sequence == "001":
                rng.integers(0, 43, NUM_POINTS).astype(np.uint32).tofile(folder / f"labels/{stem}.label")
    return tmp_path


def moment_of(index):
    motion = np.eye(4)
    motion[1, 3] = 2 * index
    camera = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0.1 * index], [0, 0, 0, 1]])
    return {
        "lidar_timestamp": 1557539924.5 + 0.1 * index,
        "camera_timestamp": 1557539924.25 + 0.1 * index,
        "lidar2world": motion.tolist(),
        "lidar2cam": camera.tolist(),
    }


def load(root):
    return load_frames("pandaset", data_dir=root)


def test_frames_have_points_labels_a_camera_of_their_own_and_a_pose(root):
    frames = load(root)
    assert frames.frame_ids == ["001/00", "001/01", "002/00"] and frames.sequence_ids == ["001", "001", "002"]
    frame = frames[1]
    assert list(frame) == list(FRAME_FEATURES)
    assert frame["points"].tobytes() == (root / "001/lidar/01.bin").read_bytes() and frame["intensity_max"] == 255
    raw_labels = np.fromfile(root / "001/labels/01.label", np.uint32)
    np.testing.assert_array_equal(frame["labels"], load_vocabulary("pandaset").raw_to_class[raw_labels])
    assert (frame["timestamp"], frame["camera_timestamps"].tolist()) == (1557539924600000, [1557539924350000])
    assert frame["lidar2cam"][0, 2, 3] == 0.1 and frame["lidar2global"][1, 3] == 2
    assert frame["camera_names"] == ["front_camera"] and decode_image(frame["images"][0]).size == (16, 12)
    for column in ("lidar2cam", "intrinsics", "image_sizes", "lidar2global"):
        assert frame[column].dtype == FRAME_FEATURES[column].dtype, column


def test_a_sequence_that_nobody_labelled_has_no_labels(root):
    assert load(root)[2]["labels"] is None


@pytest.mark.parametrize(
    ("file", "content", "column", "message"),
    [
        ("lidar/00.bin", b"\0" * 20, "points", "00.bin: expected a whole number of points of 4 float32, got 20 bytes"),
        ("lidar/00.bin", b"", "points", "00.bin: expected a scan with finite points, got 0 points"),
        ("labels/00.label", b"\0" * 4, "labels", "00.label: expected 30 labels of 4 bytes.*of 00.bin, got 4 bytes"),
        ("labels/00.label", b"\x2b\0\0\0" * 30, "labels", r"00.label: The labels hold ids that .*: \[43\]"),
        ("labels/00.label", None, "labels", "00.label: expected the labels of .*00.bin, got no file"),
        ("camera/front_camera/00.jpg", None, "images", "00.jpg: expected the image of scan 001/00, got none"),
        ("calib.json", b"{", "frame_id", "calib.json: expected the calibration of the sequence, got: Expecting"),
        ("calib.json", b"{}", "frame_id", "calib.json: expected the keys .* without camera, width, height"),
        ("calib.json", None, "frame_id", "calib.json: expected the calibration of the sequence, got: .*No such file"),
    ],
)
def test_a_broken_file_is_named(root, file, content, column, message):
    path = root / "001" / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(root).select_columns([column])[0]


def test_a_scan_without_calibration_is_named(root):
    path = root / "001/calib.json"
    calibration = json.loads(path.read_text())
    del calibration["frames"]["01"]
    path.write_text(json.dumps(calibration))
    with pytest.raises(ValueError, match="calib.json: expected scan 01 under `frames`, got none"):
        load(root)[1]


def test_a_moment_without_a_pose_or_a_time_is_named(root):
    path = root / "001/calib.json"
    calibration = json.loads(path.read_text())
    del calibration["frames"]["01"]["lidar2cam"]
    path.write_text(json.dumps(calibration))
    with pytest.raises(ValueError, match="calib.json: expected lidar_timestamp, .* of scan 01, got none .*lidar2cam"):
        load(root)[1]


def test_pickles_are_told_to_be_converted(tmp_path):
    (tmp_path / "001/lidar").mkdir(parents=True)
    (tmp_path / "001/lidar/00.pkl.gz").touch()
    with pytest.raises(ValueError, match="got none; .* PandaSet's own pickles are to be converted first"):
        load(tmp_path)
