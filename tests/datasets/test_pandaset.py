"""PandaSet in plain files becomes frames: labels, the moving camera, poses, errors of `calib.json`."""

import json

import numpy as np
import pytest
from tiny_roots import write_pandaset

from uov_hf.data import load_frames
from uov_hf.vocabulary import load_vocabulary


@pytest.fixture
def root(tmp_path):
    return write_pandaset(tmp_path)


def load(root):
    return load_frames("pandaset", data_dir=root)


def test_frames_have_points_labels_a_camera_of_their_own_and_a_pose(root):
    frames = load(root)
    assert frames.frame_ids == ["001/00", "001/01", "002/00"] and frames.sequence_ids == ["001", "001", "002"]
    frame = frames[1]
    assert frame["points"].tobytes() == (root / "001/lidar/01.bin").read_bytes() and frame["intensity_max"] == 255
    raw_labels = np.fromfile(root / "001/labels/01.label", np.uint32)
    np.testing.assert_array_equal(frame["labels"], load_vocabulary("pandaset").raw_to_class[raw_labels])
    assert (frame["timestamp"], frame["camera_timestamps"].tolist()) == (1557539924600000, [1557539924350000])
    assert frame["lidar2cam"][0, 2, 3] == 0.1 and frame["lidar2global"][1, 3] == 2
    assert frame["camera_names"] == ["front_camera"] and frames[2]["labels"] is None


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (["01"], "calib.json: expected scan 01 under `frames`, got none"),
        (["01", "lidar2cam"], "calib.json, scan 01: expected the keys lidar_timestamp, .* got none .*lidar2cam"),
    ],
)
def test_a_scan_without_calibration_is_named(root, path, message):
    calibration = json.loads((root / "001/calib.json").read_text())
    *parents, key = path
    del (calibration["frames"][parents[0]] if parents else calibration["frames"])[key]
    (root / "001/calib.json").write_text(json.dumps(calibration))
    with pytest.raises(ValueError, match=message):
        load(root)[1]


def change(root, content):
    path = root / "001/calib.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("cam_intrinsic", [[1, 2], [3]], "expected 3 x 3 finite numbers as `cam_intrinsic`, got"),
        ("cam_intrinsic", [[20.0, 0, 8], [0, float("nan"), 6], [0, 0, 1]], "expected 3 x 3 finite numbers"),
        ("width", 10**400, "expected a number of pixels as `width`, got 1000"),
        ("height", 12.5, "expected a number of pixels as `height`, got 12.5"),
        ("camera", ["front_camera"], "expected the name of a camera as `camera`"),
        ("camera", "../../other", r"expected the name of a file in .*camera, got '\.\./\.\./other'"),
        ("frames", 1.5, "expected .* and an object as `frames`, got 'front_camera' and 1.5"),
    ],
)
def test_a_calibration_of_other_values_is_named(root, key, value, expected):
    change(root, json.loads((root / "001/calib.json").read_text()) | {key: value})
    with pytest.raises(ValueError, match=f"001/calib.json: {expected}"):
        load(root)[0]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("lidar_timestamp", "now", "expected a finite number as `lidar_timestamp`, got 'now'"),
        ("camera_timestamp", 1e300, "expected times in seconds, got"),
        ("lidar_timestamp", 1e305, "expected times in seconds, got"),
        ("lidar2world", {}, "expected 4 x 4 finite numbers as `lidar2world`, got {}"),
        ("lidar2cam", [[10**400] * 4] * 4, "expected 4 x 4 finite numbers as `lidar2cam`"),
        ("lidar2cam", np.diag([2.0, 2, 2, 1]).tolist(), "expected a rotation and a translation as `lidar2cam`"),
        ("lidar2world", np.diag([1.001, 1, 1, 1]).tolist(), "expected a rotation and a translation as `lidar2world`"),
    ],
)
def test_a_moment_of_other_values_is_named(root, key, value, expected):
    calibration = json.loads((root / "001/calib.json").read_text())
    calibration["frames"]["01"][key] = value
    change(root, calibration)
    assert load(root)[0]["frame_id"] == "001/00"
    with pytest.raises(ValueError, match=f"001/calib.json, scan 01: {expected}"):
        load(root)[1]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"[" * 100_000])
def test_a_calibration_that_is_no_json_object_is_named(root, content):
    change(root, content)
    with pytest.raises(ValueError, match="001/calib.json: expected"):
        load(root)[0]


def test_pickles_are_told_to_be_converted(tmp_path):
    (tmp_path / "001/lidar").mkdir(parents=True)
    (tmp_path / "001/lidar/00.pkl.gz").touch()
    with pytest.raises(ValueError, match="got none; .* PandaSet's own pickles must be converted first"):
        load(tmp_path)
