"""Between poses the car moves steadily, and a scan taken from a moving car becomes one taken from a single pose."""

import numpy as np
import pytest
from rolling_street import TURN, body_pose, make_surfaces, rolling_scan
from scipy.spatial.transform import Rotation

from uov_hf.geometry.rotation import inverse_motion, rigid_motion
from uov_hf.geometry.trajectory import Trajectory, move_points
from uov_hf.synthetic.lidar import LIDAR_TO_EGO
from uov_hf.synthetic.shapes import BOX


STAMP = 1.0  # seconds


def quarter_turn() -> Trajectory:
    """In one second 4 m ahead and a quarter turn to the left."""
    rotations = Rotation.from_euler("z", [[0], [90]], degrees=True).as_matrix()
    return Trajectory("poses", np.array([0, 1_000_000]), rigid_motion(rotations, [[0, 0, 0], [4, 0, 0]]))


def test_between_poses_the_car_turns_and_moves_steadily():
    expected = rigid_motion(Rotation.from_euler("z", 22.5, degrees=True).as_matrix(), [1.0, 0, 0])
    np.testing.assert_allclose(quarter_turn().at(250_000), expected, atol=1e-12)
    times = np.array([0, 123_456, 999_999, 1_000_000])
    one_by_one = [quarter_turn().at(time) for time in times]
    np.testing.assert_array_equal(quarter_turn().at_times(times), one_by_one)


def test_a_given_pose_is_exact():
    for index, time in enumerate((0, 1_000_000)):
        assert quarter_turn().at(time).tobytes() == quarter_turn().poses[index].tobytes()
    single = Trajectory("poses", np.array([5]), np.eye(4)[None])
    assert single.at(5).tobytes() == np.eye(4).tobytes()


@pytest.mark.parametrize("time", [-1_000_001, 2_000_001])
def test_poses_are_extrapolated_by_one_interval_only(time):
    quarter_turn().at(np.clip(time, -1_000_000, 2_000_000))
    with pytest.raises(ValueError, match=f"poses: expected poses around {time} µs"):
        quarter_turn().at(time)


def test_points_that_are_not_finite_stay_and_need_no_time():
    points = np.array([[np.nan, 0, 0, 7], [1, 0, 0, 8]], np.float32)
    args = np.eye(4), np.eye(4)
    moved = move_points(points, np.array([np.nan, 1e6]), quarter_turn(), *args)
    np.testing.assert_allclose(moved, [[np.nan, 0, 0, 7], [4, 1, 0, 8]], atol=1e-6)
    with pytest.raises(ValueError, match="`times` must have a time of every point"):
        move_points(points, np.array([1e6, np.nan]), quarter_turn(), *args)


@pytest.fixture(scope="module")
def street():
    surfaces = make_surfaces()
    return surfaces, rolling_scan(surfaces, STAMP)


def test_with_motion_compensation_the_walls_of_the_street_are_straight(street):
    """Poses as of an odometry of 50 Hz; the lidar turns once in 0.1 s while the car turns at 0.4 rad/s."""
    surfaces, scan = street
    times = np.arange(0.9, 1.2, 0.02)
    poses = np.array([body_pose(surfaces, time) for time in times])
    trajectory = Trajectory("odometry", np.rint(1e6 * times).astype(np.int64), poses)
    world2lidar = inverse_motion(trajectory.at(1e6 * STAMP) @ LIDAR_TO_EGO)
    moved = move_points(scan.points, 1e6 * (STAMP + scan.seconds), trajectory, LIDAR_TO_EGO, world2lidar)
    bends, bends_before = bends_of_walls(surfaces, scan, moved), bends_of_walls(surfaces, scan, scan.points)
    assert TURN > 0 and len(bends) >= 5
    assert max(bends) < 1e-4  # metres; docs/how_to/rosbag.md has these three figures
    assert max(bends_before) == pytest.approx(0.05, abs=0.005)
    displacement = np.linalg.norm(moved[:, :3] - scan.points[:, :3], axis=1)
    assert displacement.max() == pytest.approx(2.2, abs=0.05)  # of far points at the end of the turn
    assert moved[:, 3].tobytes() == scan.points[:, 3].tobytes()


def bends_of_walls(surfaces, scan, points):
    """Metres by which a point on a flat side of a wall is farthest from the plane through its points."""
    bends = []
    for part in np.unique(scan.surface[scan.surface < len(surfaces.shape)]):
        is_wall = surfaces.categories[surfaces.thing[part]].startswith("static") and surfaces.shape[part] == BOX
        on_part = np.flatnonzero(scan.surface == part)
        for axis, side in [(axis, side) for axis in (0, 1, 2) for side in (-1, 1) if is_wall]:
            on_side = on_part[np.abs(scan.at_wall[on_part, axis] - side) < 1e-3]
            xyz = points[on_side, :3].astype(float)
            if len(xyz) >= 30 and np.ptp(xyz[:, :2], axis=0).max() > 4:
                centered = xyz - xyz.mean(axis=0)
                normal = np.linalg.svd(centered, full_matrices=False)[2][2]
                bends.append(float(np.abs(centered @ normal).max()))
    return bends
