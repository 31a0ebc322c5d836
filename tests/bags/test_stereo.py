"""The second camera of a stereo pair is in its place, whether its images have a frame of their own or the first's."""

import numpy as np
import pytest
import small_bags
from scipy.spatial.transform import Rotation
from test_bag_choices import AHEAD, START

from uov_hf.data import load_frames


SIZE, FOCAL_LENGTH, BASELINE = (48, 64), 40.0, 0.5
INTRINSICS = np.array([[FOCAL_LENGTH, 0, 32], [0, FOCAL_LENGTH, 24], [0, 0, 1]])
# Both cameras look a little inwards; rectification turns them to parallel axes.
TURNS = {"left": Rotation.from_rotvec([0.01, 0.05, 0.02]), "right": Rotation.from_rotvec([-0.01, -0.04, 0.01])}
OPTICAL = Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # x right, y down, z ahead


def motion(rotation=None, translation=(0, 0, 0)):
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) if rotation is None else rotation.as_matrix()
    matrix[:3, 3] = translation
    return matrix


def poses_of(rig):
    """The cameras in the frame of the lidar: rectified ones beside each other, and as they are mounted."""
    rectified = {"left": rig @ motion(OPTICAL, [2, 0.25, 1])}
    rectified["right"] = rectified["left"] @ motion(None, [BASELINE, 0, 0])
    return rectified, {name: rectified[name] @ motion(TURNS[name]) for name in TURNS}


def write_pair(bag, rig, name, one_frame, images, infos=("left", "right")):
    _, mounted = poses_of(rig)
    for side in ("left", "right"):
        frame = f"{name}_left" if one_frame else f"{name}_{side}"
        projection = np.column_stack([INTRINSICS, [-FOCAL_LENGTH * BASELINE * (side == "right"), 0, 0]])
        if side == "left" or not one_frame:
            bag.transforms("/tf_static", START, ("lidar", frame, mounted[side]))
        rotation = TURNS[side].as_matrix()
        if side in infos:
            bag.camera_info(f"/{name}/{side}/camera_info", START, frame, SIZE, INTRINSICS, r=rotation, p=projection)
            bag.image(f"/{name}/{side}/{images}", START, frame, np.zeros((*SIZE, 3), np.uint8), "rgb8")


FRONT, REAR = np.eye(4), motion(Rotation.from_rotvec([0, 0, np.pi]))


@pytest.mark.parametrize("images", ["image_rect", "image_raw"])
@pytest.mark.parametrize("one_frame", [True, False])
def test_both_cameras_of_a_pair_are_in_their_places(tmp_path, caplog, one_frame, images):
    """A second pair of the same cameras looks to the rear."""
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        bag.cloud("/points", START, "lidar", AHEAD)
        write_pair(bag, REAR, "rear", one_frame, images)
        write_pair(bag, FRONT, "front", one_frame, images)
    (frame,) = load_frames("rosbag", data_dir=tmp_path)
    found = dict(zip(frame["camera_names"], frame["lidar2cam"], strict=True))
    for name, rig in (("front", FRONT), ("rear", REAR)):
        rectified, mounted = poses_of(rig)
        for side in ("left", "right"):
            camera = rectified[side] if images == "image_rect" else mounted[side]
            np.testing.assert_allclose(found[f"{name}_{side}"], np.linalg.inv(camera), atol=1e-9)
    assert not caplog.text


def test_a_second_camera_without_the_first_is_announced(tmp_path, caplog):
    with small_bags.open_bag(tmp_path, "bag") as bag:
        bag.cloud("/points", START, "lidar", AHEAD)
        write_pair(bag, FRONT, "front", False, "image_rect", infos=("right",))
    (frame,) = load_frames("rosbag", data_dir=tmp_path)
    np.testing.assert_allclose(frame["lidar2cam"][0], np.linalg.inv(poses_of(FRONT)[0]["right"]), atol=1e-9)
    assert "second camera of a stereo pair, 0.500 m from the first" in caplog.text
    assert "The frame 'front_right' is taken as that of the second camera." in caplog.text


def test_a_driver_without_projection_matrices_has_no_pair(tmp_path, caplog):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        bag.cloud("/points", START, "lidar", AHEAD)
        bag.transforms("/tf_static", START, ("lidar", "cam", motion(OPTICAL)))
        zeros = {"r": np.zeros((3, 3)), "p": np.zeros((3, 4))}
        bag.camera_info("/cam/camera_info", START, "cam", SIZE, INTRINSICS, **zeros)
        bag.image("/cam/image_raw", START, "cam", np.zeros((*SIZE, 3), np.uint8), "rgb8")
    (frame,) = load_frames("rosbag", data_dir=tmp_path)
    np.testing.assert_allclose(frame["lidar2cam"][0], np.linalg.inv(motion(OPTICAL)), atol=1e-9)
    assert not caplog.text
