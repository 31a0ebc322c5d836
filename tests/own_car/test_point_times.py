"""A scan with a time for every point is corrected for the motion of the car, whatever the unit and the clock."""

import numpy as np
import plyfile
import pytest
import small_car
import yaml
from pypcd4 import PointCloud

from uov_hf.data import load_frames
from uov_hf.own_car.point_times import times_of_points


STAMP = 1_700_000_000_000_000  # µs
SECONDS = np.linspace(0, 0.1, 50)
AFTER = (1e6 * SECONDS).tolist()
ALL = np.ones(50, bool)


@pytest.mark.parametrize(
    ("values", "start"),
    [
        (SECONDS.astype(np.float32), 0),  # Velodyne
        (SECONDS - 0.1, -100_000),  # stamped at the end of the turn
        ((1e9 * SECONDS).astype(np.uint32), 0),  # Ouster
        (1e6 * SECONDS, 0),
        (1e3 * SECONDS, 0),
        (1e-6 * STAMP + SECONDS, 0),  # Hesai, RoboSense
        (1e3 * STAMP + 1e9 * SECONDS, 0),  # Livox
    ],
)
def test_unit_and_clock_follow_from_the_length_of_a_scan(values, start):
    np.testing.assert_allclose(times_of_points(values, ALL, STAMP, "scan") - STAMP, np.array(AFTER) + start, atol=0.5)


def test_one_time_for_all_points_is_no_rolling_scan():
    assert times_of_points(np.full(50, 7.0), ALL, STAMP, "scan") is None
    no_echo = np.where(np.arange(50) == 3, 0, 7.0)  # the time of a firing without an echo is often 0
    assert times_of_points(no_echo, no_echo > 0, STAMP, "scan") is None


@pytest.mark.parametrize("values", [1e-4 * SECONDS, 10 * 1e9 * 100 * SECONDS, 2000 + SECONDS])  # too short, long; GPS
def test_what_is_no_time_of_a_scan_is_refused_with_the_way_out(values):
    with pytest.raises(ValueError, match=r"a.pcd: expected a time of every point.*`motion_compensation: false`"):
        times_of_points(values, ALL, STAMP, "a.pcd")


def write_rolling_scans(drive, suffix):
    """The scans of the car, with a time for every point of up to 0.1 s."""
    for path in (drive / "points").glob("*.bin"):
        points = np.fromfile(path, np.float32).reshape(-1, 4)
        path.unlink()
        if suffix == ".ply":
            rows = np.array([(*row, time) for row, time in zip(points, SECONDS, strict=True)], PLY_FIELDS)
            plyfile.PlyData([plyfile.PlyElement.describe(rows, "vertex")]).write(path.with_suffix(".ply"))
        else:
            columns = [*points.T, (1e9 * SECONDS).astype(np.uint32)]
            cloud = PointCloud.from_points(
                columns, ("x", "y", "z", "intensity", "t"), (np.float32,) * 4 + (np.uint32,)
            )
            cloud.save(path.with_suffix(".pcd"))


PLY_FIELDS = [(name, "<f4") for name in ("x", "y", "z", "intensity", "time")]


@pytest.mark.parametrize("suffix", [".pcd", ".ply"])
def test_a_folder_of_rolling_scans_is_corrected_unless_it_is_so_already(tmp_path, suffix):
    """The car moves 10 m/s along −y: what is at y = 0 after 0.1 s was at y = −1 m when the scan began."""
    drive = small_car.write_car(tmp_path / "car")
    write_rolling_scans(drive, suffix)
    expected = small_car.points_of(1)
    expected[:, 1] -= small_car.SPEED * SECONDS
    np.testing.assert_allclose(points_of(drive), expected, atol=1e-5)
    path = drive.parent / "calibration.yaml"
    path.write_text(yaml.safe_dump(small_car.calibration() | {"motion_compensation": False}))
    np.testing.assert_array_equal(points_of(drive), small_car.points_of(1))


def test_firings_without_an_echo_have_no_time_and_move_nothing(tmp_path):
    """They lie at x = y = z = 0, with a time of 0, which is 54 years before the others."""
    drive = small_car.write_car(tmp_path / "car")
    expected = small_car.points_of(1)
    expected[:, 1] -= small_car.SPEED * SECONDS
    expected[:5, :3] = 0
    header, *rows = (drive / "timestamps.csv").read_text().splitlines()
    stamps = [[int(value) + STAMP for value in row.split(",")[1:]] for row in rows]
    lines = [",".join(map(str, (frame, *times))) for frame, times in enumerate(stamps)]
    (drive / "timestamps.csv").write_text("\n".join([header, *lines]))
    for path in (drive / "points").glob("*.bin"):
        points = np.fromfile(path, np.float32).reshape(-1, 4)
        points[:5, :3] = 0
        times = np.where(np.arange(50) < 5, 0, 1e-6 * stamps[int(path.stem)][0] + SECONDS)
        path.unlink()
        cloud = PointCloud.from_points(
            [*points.T, times], ("x", "y", "z", "intensity", "timestamp"), (np.float32,) * 4 + (np.float64,)
        )
        cloud.save(path.with_suffix(".pcd"))
    np.testing.assert_allclose(points_of(drive), expected, atol=1e-4)


def test_without_poses_or_times_points_stay_as_they_are(tmp_path):
    drive = small_car.write_car(tmp_path / "car")
    write_rolling_scans(drive, ".pcd")
    (drive / "timestamps.csv").unlink()
    np.testing.assert_array_equal(points_of(drive), small_car.points_of(1))
    (drive / "poses.txt").unlink()
    np.testing.assert_array_equal(points_of(drive), small_car.points_of(1))


def points_of(drive):
    return load_frames("point_cloud_folder", data_dir=drive.parent)[1]["points"]
