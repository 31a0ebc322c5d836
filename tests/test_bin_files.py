"""Headerless scans: the number of columns and the type of the numbers are measured."""

import numpy as np
import pytest

from uov_hf.point_files import read_points


GENUINE = [
    ("semantickitti/dataset/sequences/08/velodyne/000000.bin", 4),
    ("kitti_object/training/velodyne/000002.bin", 4),
    ("pandaset/001/lidar/00.bin", 4),
    ("real/pandaset/002/lidar/03.bin", 4),
    ("real/kitti_car/drive8/points/000040.bin", 4),
    ("real/kitti_car/object_1/points/000009.bin", 4),
    ("nuscenes/samples/LIDAR_TOP/n015-2018-07-24-11-22-45+0800__LIDAR_TOP__1532402927647951.pcd.bin", 5),
]


def turning_scan(num_directions=60, num_beams=16):
    """Points in the order of time, with intensity, ring, time, a constant, azimuth, and eight further columns."""
    azimuth = np.repeat(np.linspace(-3, 3, num_directions), num_beams)
    elevation = np.tile(np.linspace(-0.3, 0.1, num_beams), num_directions)
    distance = 15 + 5 * np.sin(3 * azimuth)
    xyz = np.stack([distance * np.cos(azimuth), distance * np.sin(azimuth), distance * np.tan(elevation)])
    ring = np.tile(np.arange(num_beams), num_directions)
    rest = np.stack([40 + 9 * np.sin(azimuth), ring, azimuth / 60, np.full(len(azimuth), 3), azimuth])
    more = np.stack([distance * scale for scale in (1, 3, -1, 0, 0.5, 2, -4, 7)])
    return np.concatenate([xyz, rest, more]).T


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num_columns", [*range(3, 9), 12, 13, 16])
@pytest.mark.parametrize("num_points", [960, 957])
def test_any_layout_is_measured(tmp_path, num_columns, dtype, num_points):
    points = turning_scan()[:num_points, :num_columns].astype(dtype)
    points.tofile(tmp_path / "scan.bin")
    expected = points[:, :4].astype(np.float32)
    np.testing.assert_array_equal(read_points(tmp_path / "scan.bin"), expected)
    if dtype == np.float32:
        np.testing.assert_array_equal(read_points(tmp_path / "scan.bin", num_columns), expected)


@pytest.mark.parametrize("name, num_columns", GENUINE)
def test_the_layout_of_genuine_files_is_measured(shared_data, tmp_path, name, num_columns):
    """As they are, and with columns taken away or added."""
    points = np.fromfile(shared_data / name, np.float32).reshape(-1, num_columns)
    np.testing.assert_array_equal(read_points(shared_data / name), points[:, :4])
    more = np.linspace(0, 0.1, len(points))[:, None] * [1, 0, 3]
    for layout in (points[:, :3], np.hstack([points, more[:, :1]]), np.hstack([points, more])):
        layout.astype(np.float32).tofile(tmp_path / "scan.bin")
        np.testing.assert_array_equal(read_points(tmp_path / "scan.bin"), layout[:, :4].astype(np.float32))


def test_a_beam_without_an_echo_may_be_nan(tmp_path):
    points = turning_scan()[:, :4].astype(np.float32)
    points[::7, :3] = np.nan
    points.tofile(tmp_path / "scan.bin")
    np.testing.assert_array_equal(read_points(tmp_path / "scan.bin"), points)


@pytest.mark.parametrize("column, value", [(0, np.nan), (1, np.inf), (2, 2e7), (0, -3e38)])
def test_coordinates_that_cannot_be_metres_are_refused(tmp_path, column, value):
    points = turning_scan()[:, :4].astype(np.float32)
    points[5, column] = value
    points.tofile(tmp_path / "scan.bin")
    with pytest.raises(ValueError, match=r"scan.bin: expected float32 x, y, z in metres, .*pass `num_columns`"):
        read_points(tmp_path / "scan.bin")


def test_numbers_of_another_type_are_refused(tmp_path):
    (turning_scan()[:, :4] * 1000).astype(">i4").tofile(tmp_path / "scan.bin")
    with pytest.raises(ValueError, match="scan.bin: expected"):
        read_points(tmp_path / "scan.bin")


@pytest.mark.parametrize("num_columns, num_bytes", [(4, 8), (6, 4), (4, 3), (5, 16)])
def test_a_file_that_is_cut_short_is_refused_with_the_points_that_it_has(tmp_path, num_columns, num_bytes):
    content = turning_scan()[:, :num_columns].astype(np.float32).tobytes()
    (tmp_path / "scan.bin").write_bytes(content[:-num_bytes])
    message = f"scan.bin: expected a whole number of points of {num_columns} float32, got .*: 959 points and "
    with pytest.raises(ValueError, match=message):
        read_points(tmp_path / "scan.bin")


def test_a_number_of_columns_without_x_y_and_z_is_refused(tmp_path):
    turning_scan().astype(np.float32).tofile(tmp_path / "scan.bin")
    with pytest.raises(ValueError, match="scan.bin.*`num_columns` must be 3 or more, .* got 2"):
        read_points(tmp_path / "scan.bin", num_columns=2)
