"""A known wrong rotation or time offset is found back, and parallax is not taken for either."""

from dataclasses import replace

import numpy as np
import pytest

from uov_hf.data import load_frames
from uov_hf.geometry.projection import Camera
from uov_hf.geometry.trajectory import travel, velocity_between
from uov_hf.own_car.calibration_check import TOLERANCE, check_calibration, views_of_cameras
from uov_hf.own_car.correction import Correction
from uov_hf.own_car.outlines import View


HEIGHT, WIDTH = 160, 280
INTRINSICS = np.array([[240.0, 0, WIDTH / 2], [0, 240, HEIGHT / 2], [0, 0, 1]])
# The lidar looks along x, with y to the left and z up; the camera sits 0.8 m to the right of it and 0.4 m lower.
LIDAR2CAM = np.array([[0.0, -1, 0, -0.8], [0, 0, -1, -0.4], [1, 0, 0, 0], [0, 0, 0, 1]])
BESIDE_THE_ROAD = np.array([0, 8.0, 0, 0, 0, 0])  # m/s: the camera looks to the right of the car, which drives along y


class Boards:
    """Painted boards in front of a far wall, on grey ground 1.8 m below the lidar."""

    def __init__(self, seed: int, num_boards: int = 14):
        rng = np.random.default_rng(seed)
        self.distance = np.append(rng.uniform(6, 22, num_boards), 40)
        self.left = np.append(rng.uniform(-0.5, 0.5, num_boards) * self.distance[:-1] * 1.2, -60)
        self.width = np.append(rng.uniform(0.6, 2, num_boards), 120)
        self.top = np.append(rng.uniform(-1, 1.5, num_boards), 20)
        self.color = np.vstack([rng.integers(0, 255, (num_boards + 1, 3)), [120, 120, 120]])  # the last is the ground

    def cast(self, origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far along each direction (num_rays, 3) something is met, and what: the number of its colour."""
        far = (self.distance - origin[0]) / directions[:, :1]  # (num_rays, num_boards)
        y, z = (origin[axis] + far * directions[:, axis : axis + 1] for axis in (1, 2))
        far = np.where((y > self.left) & (y < self.left + self.width) & (z < self.top), far, np.inf)
        ground = np.where(directions[:, 2] < 0, (-1.8 - origin[2]) / np.minimum(directions[:, 2], -1e-9), np.inf)
        far = np.column_stack([far, ground])
        met = far.argmin(axis=1)
        return far[np.arange(len(far)), met], met

    def scan(self) -> np.ndarray:
        elevation, azimuth = np.radians(np.meshgrid(np.linspace(-20, 10, 40), np.arange(-40, 40, 0.35)))
        rays = np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
        rays = rays.reshape(3, -1).T
        return self.cast(np.zeros(3), rays)[0][:, None] * rays

    def photograph(self, lidar2cam: np.ndarray) -> np.ndarray:
        column, row = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
        rays = np.stack([column, row, np.ones_like(row)], axis=-1).reshape(-1, 3) @ np.linalg.inv(INTRINSICS).T
        cam2lidar = np.linalg.inv(lidar2cam)
        _, met = self.cast(cam2lidar[:3, 3], rays @ cam2lidar[:3, :3].T)
        noise = np.random.default_rng(0).normal(0, 6, (len(met), 3))
        return (self.color[met] + noise).clip(0, 255).astype(np.uint8).reshape(HEIGHT, WIDTH, 3)


def views(rotation=(0, 0, 0), time_offset=0.0, velocity=None, num_views=4, num_boards=14):
    """Views whose calibration is off by this: the correction to be found."""
    truth = Camera(LIDAR2CAM, INTRINSICS, (HEIGHT, WIDTH))
    moved = truth if velocity is None else Correction(np.zeros(3), time_offset).apply(truth, velocity)
    doubted = Correction(-np.array(rotation, float)).apply(truth)
    scenes = [Boards(seed, num_boards) for seed in range(num_views)]
    return [View(scene.scan(), scene.photograph(moved.lidar2cam), doubted, velocity) for scene in scenes]


def test_a_right_calibration_is_called_right_and_its_mismatches_parallax():
    report = check_calibration(views())
    assert report.verdict == "right" and not report.wrong
    assert report.parallax > 0.02
    np.testing.assert_allclose(report.correction.rotation, 0, atol=0.3)
    assert np.isnan(report.errors[3]) and "time unknown" in str(report)


@pytest.mark.parametrize("rotation", [(0, -1.6, 0), (0.9, 0.8, -1.6)])
def test_a_wrong_rotation_is_found_back(rotation):
    report = check_calibration(views(rotation))
    assert report.verdict == "wrong" and str(report).startswith("wrong (")
    assert (np.abs(report.correction.rotation - rotation) < [0.2, 0.2, 0.5]).all()
    found_wrong = {name for name, angle in zip(("pitch", "yaw", "roll"), rotation, strict=True) if angle}
    assert set(report.wrong) == found_wrong


def test_a_wrong_time_is_found_back_and_not_taken_for_a_rotation():
    """8 m/s and 60 ms move a board 10 m away by 2.7 degrees, one 20 m away by half of that."""
    report = check_calibration(views(time_offset=0.06, velocity=BESIDE_THE_ROAD))
    assert report.wrong == ["time"]
    assert report.correction.time_offset == pytest.approx(0.06, abs=0.01)
    assert "time +" in str(report)


@pytest.mark.parametrize(
    ("rotation", "time_offset"),
    [((0, 0, 0), 0.0), ((0, 1.2, 0), 0.06), pytest.param((1.1, -0.9, 0), -0.07, marks=pytest.mark.slow)],
)
def test_a_wrong_rotation_and_a_wrong_time_are_told_apart(rotation, time_offset):
    """Each alone looks like the other: the best rotation beside the wrong time is a third one."""
    report = check_calibration(views(rotation, time_offset, velocity=BESIDE_THE_ROAD))
    assert {"yaw", "time"} <= set(report.wrong) if time_offset else report.verdict == "right"
    assert (np.abs(report.correction.rotation - rotation) < TOLERANCE[:3]).all()
    assert report.correction.time_offset == pytest.approx(time_offset, abs=0.01)


def test_without_outlines_nothing_is_decided():
    report = check_calibration(views(num_views=1, num_boards=0))
    assert report.verdict == "undecided" and report.num_jumps < 100
    with pytest.raises(ValueError, match="Expected views of a camera, got none"):
        check_calibration([])


def test_a_standing_car_tells_no_time():
    report = check_calibration(views(velocity=np.zeros(6), num_views=2))
    assert np.isnan(report.errors[3]) and report.correction.time_offset == 0


def test_the_corrected_camera_is_the_true_one():
    """The correction that was built into the views leads back, rotation and time together."""
    velocity = np.array([3.0, -2, 0.1, 0, 0.1, 0.4])
    wrong = Correction(np.array([-0.3, 0.2, 0.1])).turn @ LIDAR2CAM @ travel(velocity, 0.05)
    corrected = Correction(np.array([0.3, -0.2, -0.1]), 0.05).correct(wrong, velocity)
    np.testing.assert_allclose(corrected, LIDAR2CAM, atol=1e-12)


def test_a_velocity_brings_one_pose_to_the_other():
    velocity = np.array([9.0, -1, 0.2, 0.1, 0, 0.6])
    pose = travel(np.array([1.0, 2, 3, 0.4, 0.5, 0.6]), 1.0)
    np.testing.assert_allclose(velocity_between(pose, pose @ travel(velocity, 0.5), 0.5), velocity, atol=1e-12)


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Twelve frames of two synthetic streets, with 32 beams and cameras of 225 x 400 pixels."""
    from uov_hf.synthetic import generate_street

    folder = tmp_path_factory.mktemp("street")
    return generate_street(folder, num_scenes=2, frames_per_scene=6, seed=100, azimuth_steps=1084, splits={"all_": 2})


def street_views(street, camera, rotation=(0, 0, 0), time_offset=0.0):
    frames = load_frames("nuscenes", "all", data_dir=street)
    wrong = Correction(-np.array(rotation, float), -time_offset)
    views = dict(views_of_cameras(frames, len(frames)))[camera]
    return [replace(view, camera=wrong.apply(view.camera, view.velocity)) for view in views]


@pytest.mark.slow
def test_on_the_synthetic_street(street):
    """A right camera is not called wrong; a wrong yaw and a wrong time are found back."""
    assert check_calibration(street_views(street, "CAM_BACK_RIGHT")).verdict == "right"
    turned = check_calibration(street_views(street, "CAM_BACK", rotation=(0.8, -1.2, 0.5)))
    assert "yaw" in turned.wrong and turned.correction.rotation[1] == pytest.approx(-1.2, abs=0.2)
    late = check_calibration(street_views(street, "CAM_BACK_LEFT", time_offset=-0.06))
    assert "time" in late.wrong and late.correction.time_offset == pytest.approx(-0.06, abs=0.015)
