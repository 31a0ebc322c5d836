"""KITTI's object benchmark becomes frames: the camera, the splits, no labels, no poses."""

import numpy as np
import pytest
from tiny_roots import text_of, write_kitti_object

from uov_hf.data import decode_image, load_frames
from uov_hf.geometry.projection import Camera, project_points


@pytest.fixture
def root(tmp_path):
    return write_kitti_object(tmp_path)


def load(root, split=None):
    return load_frames("kitti_object", split, data_dir=root)


def test_labels_poses_and_times_are_unknown(root):
    frame = load(root)[0]
    assert frame["labels"] is frame["instances"] is frame["lidar2global"] is None
    assert (frame["timestamp"], frame["intensity_max"]) == (0, 1.0)


def test_splits_are_the_folders_and_a_hundred_scans_are_a_sequence(root):
    assert load(root).frame_ids == ["training/000007", "training/000099", "training/000100"]
    assert load(root, "testing").frame_ids == ["testing/000000"] and len(load(root, "all")) == 4
    assert load(root).sequence_ids == ["training/000000", "training/000000", "training/000100"]
    half = load_frames("kitti_object", data_dir=root, data_fraction=0.5)
    assert half.frame_ids == ["training/000007", "training/000100"]


def test_the_camera_sits_where_the_calibration_puts_it(root):
    """The colour camera is 0.25 m ahead of the lidar, 0.75 m to its right, 0.5 m below; then 0.125 m back."""
    frame = load(root)[0]
    where = np.linalg.inv(frame["lidar2cam"][0])[:3, 3]
    np.testing.assert_allclose(where, [0.125, -0.75, -0.5], atol=1e-9)
    camera = Camera(frame["lidar2cam"][0], frame["intrinsics"][0], frame["image_sizes"][0])
    pixel_coords, _ = project_points((where + [10, -1, 0])[None], camera)  # ten metres ahead, one to the right
    np.testing.assert_allclose(pixel_coords, [[8 + 20 / 10, 6]], atol=1e-9)


def test_the_odometry_layout_puts_the_genuine_camera_in_the_same_place(shared_data, tmp_path):
    """SemanticKITTI's reader on this benchmark's genuine frame, laid out as odometry is: `Tr` is both matrices."""
    source, folder = shared_data / "kitti_object/training", tmp_path / "sequences/00"
    expected = load(shared_data / "kitti_object")[0]
    for name, extension in (("velodyne", "bin"), ("image_2", "png")):
        (folder / name).mkdir(parents=True)
        (folder / name / f"000000.{extension}").symlink_to(source / name / f"000002.{extension}")
    lines = dict(line.split(": ") for line in (source / "calib/000002.txt").read_text().splitlines() if line)
    matrices = {name: np.array(lines[name].split(), float).reshape(3, -1) for name in ("R0_rect", "Tr_velo_to_cam")}
    together = matrices["R0_rect"] @ matrices["Tr_velo_to_cam"]
    (folder / "calib.txt").write_text(
        "".join(f"{name}: {lines[name]}\n" for name in ("P0", "P2")) + f"Tr: {text_of(together)}\n"
    )
    frames = load_frames("semantic_kitti", "all", data_dir=tmp_path)
    frame = frames.select_columns(["points", "lidar2cam", "intrinsics", "image_sizes", "images"])[0]
    np.testing.assert_allclose(frame["lidar2cam"], expected["lidar2cam"], atol=1e-11)
    np.testing.assert_array_equal(frame["intrinsics"], expected["intrinsics"])
    assert frame["points"].tobytes() == expected["points"].tobytes()
    assert decode_image(frame["images"][0]).size == tuple(expected["image_sizes"][0][::-1])
