"""A scan with a time for every point is corrected for the motion of the car, whatever the unit and the clock."""

import numpy as np
import plyfile
import pytest
import small_car
import yaml
from pypcd4 import PointCloud

from uov_hf.data import load_frames
from uov_hf.own_car.point_times import read_point_times, times_of_points


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


def write_rolling_scans(drive, suffix, seconds=SECONDS):
    """The scans of the car, with a time for every point."""
    for path in (drive / "points").glob("*.bin"):
        points = np.fromfile(path, np.float32).reshape(-1, 4)
        path.unlink()
        WRITERS[suffix](path.with_suffix(suffix), points, seconds)


def write_pcd(path, points, seconds):
    columns = [*points.T, (1e9 * seconds).astype(np.uint32)]
    types = (np.float32,) * 4 + (np.uint32,)
    PointCloud.from_points(columns, ("x", "y", "z", "intensity", "t"), types).save(path)


def structured(points, seconds):
    dtype = [(name, "<f4") for name in ("x", "y", "z", "intensity", "scalar_Time")]
    return np.array([(*row, time) for row, time in zip(points, seconds, strict=True)], dtype)


def write_ply(path, points, seconds):
    plyfile.PlyData([plyfile.PlyElement.describe(structured(points, seconds), "vertex")]).write(path)


def write_las(path, points, seconds):
    laspy = pytest.importorskip("laspy")
    cloud = laspy.LasData(laspy.LasHeader(point_format=1))  # with gps_time
    cloud.header.scales = [1e-6] * 3
    cloud.x, cloud.y, cloud.z = points[:, :3].T
    cloud.intensity, cloud.gps_time = points[:, 3], seconds
    cloud.write(path)


def write_text(path, points, seconds):
    table = np.column_stack([points, seconds])
    np.savetxt(path, table, fmt="%.9g", header="x y z intensity time")


WRITERS = {
    ".pcd": write_pcd,
    ".ply": write_ply,
    ".npy": lambda path, points, seconds: np.save(path, structured(points, seconds)),
    ".npz": lambda path, points, seconds: np.savez(path, points=points, timestamp=seconds),
    ".las": write_las,
    ".laz": write_las,
    ".xyz": write_text,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_folder_of_rolling_scans_is_corrected_unless_it_is_so_already(tmp_path, suffix):
    """The car moves 10 m/s along −y: what is at y = 0 after 0.1 s was at y = −1 m when the scan began."""
    drive = small_car.write_car(tmp_path / "car")
    write_rolling_scans(drive, suffix)
    expected = small_car.points_of(1)
    expected[:, 1] -= small_car.SPEED * SECONDS
    np.testing.assert_allclose(points_of(drive), expected, atol=1e-5)
    path = drive.parent / "calibration.yaml"
    path.write_text(yaml.safe_dump(small_car.calibration() | {"motion_compensation": False}))
    np.testing.assert_allclose(points_of(drive), small_car.points_of(1), atol=1e-6)  # LAS rounds


def test_the_time_of_a_survey_is_refused_with_the_way_out(tmp_path):
    """GPS time is on no clock of a scan: its seconds are counted from 1980, or from the start of the week."""
    drive = small_car.write_car(tmp_path / "car")
    write_rolling_scans(drive, ".las", 372_000 + SECONDS)
    with pytest.raises(ValueError, match=r"1.las: expected a time of every point.*`motion_compensation: false`"):
        points_of(drive)


def test_another_number_of_times_than_points_is_named(tmp_path):
    drive = small_car.write_car(tmp_path / "car")
    write_rolling_scans(drive, ".npz", SECONDS[:-1])
    with pytest.raises(
        ValueError, match="1.npz: expected 50 times in 'timestamp', one for each point, got 49.*`motion_"
    ):
        points_of(drive)


@pytest.mark.parametrize("time", [[1.7e9], 1.7e9])
def test_the_time_of_the_whole_scan_is_no_time_of_its_points(tmp_path, time):
    drive = small_car.write_car(tmp_path / "car")
    write_rolling_scans(drive, ".npz", np.array(time))
    np.testing.assert_array_equal(points_of(drive), small_car.points_of(1))
    for path in (drive / "points").glob("*.npz"):
        np.savez(path, points=np.load(path)["points"], t=np.array(time), timestamp=SECONDS)
    assert np.abs(points_of(drive) - small_car.points_of(1)).max() > 0.5


@pytest.mark.parametrize("suffix", [".bin", ".npy"])
def test_scans_without_times_are_announced_once(tmp_path, caplog, suffix):
    drive = small_car.write_car(tmp_path / "car")
    if suffix == ".npy":
        for path in (drive / "points").glob("*.bin"):
            np.save(path.with_suffix(".npy"), np.fromfile(path, np.float32).reshape(-1, 4))
            path.unlink()
    for _ in range(2):
        np.testing.assert_array_equal(points_of(drive), small_car.points_of(1))
    assert caplog.text.count(f"the {suffix} scans have no field with a time of every point") == 1
    assert "`motion_compensation: false`" in caplog.text


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


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".ply", ".pcd", ".las"])
@pytest.mark.parametrize("place", [3, 90, -3])
def test_a_damaged_file_of_times_is_named(suffix, place, tmp_path):
    path = tmp_path / f"scan{suffix}"
    WRITERS[suffix](path, small_car.points_of(0), SECONDS)
    path.write_bytes(path.read_bytes()[:place])
    with pytest.raises(ValueError, match=f"scan{suffix}: expected"):
        read_point_times(path, 50)
