"""Fields by name, arrays of a wrong form, and units that are not metres, in every format."""

import logging

import numpy as np
import pytest

from uov_hf.point_files import read_cloud, read_points


XYZ = np.array([[1.5, -2, 0.25], [4, 5, 6], [-8, 9, 10]])
VALUES = np.array([3, 7, 11])


def write_fields(path, fields):
    """Named columns in the format of the suffix."""
    if path.suffix == ".npz":
        np.savez(path, **fields)
        return
    rows = np.zeros(len(XYZ), [(name, values.dtype) for name, values in fields.items()])
    for name, values in fields.items():
        rows[name] = values
    if path.suffix == ".npy":
        np.save(path, rows)
    elif path.suffix == ".ply":
        plyfile = pytest.importorskip("plyfile")
        plyfile.PlyData([plyfile.PlyElement.describe(rows, "vertex")]).write(path)
    else:
        pypcd4 = pytest.importorskip("pypcd4")
        types = [values.dtype for values in fields.values()]
        pypcd4.PointCloud.from_points([*fields.values()], [*fields], types).save(path)


def named(*names, values=VALUES):
    coordinates = dict(zip("xyz", XYZ.T.astype(np.float32), strict=True))
    return coordinates | {name: values.astype(np.float32) for name in names}


FORMATS = [".npy", ".npz", ".ply", ".pcd"]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    "name",
    ["intensity", "Intensity", "i", "refl", "reflectance", "scalar_Reflectivity", "SIGNAL", "scalar_intensity_"],
)
def test_the_intensity_has_many_names(tmp_path, suffix, name):
    write_fields(tmp_path / f"scan{suffix}", named(name))
    np.testing.assert_array_equal(read_points(tmp_path / f"scan{suffix}"), np.column_stack([XYZ, VALUES]))


def test_of_several_names_the_intensity_comes_first(tmp_path):
    fields = named("signal", "reflectivity") | {"Intensity": VALUES * 2.0}
    write_fields(tmp_path / "scan.npy", fields)
    np.testing.assert_array_equal(read_points(tmp_path / "scan.npy")[:, 3], VALUES * 2)


@pytest.mark.parametrize("suffix", FORMATS)
def test_fields_that_are_not_used_are_named_once_for_a_folder(tmp_path, suffix, caplog):
    for name in ("a", "b"):
        write_fields(tmp_path / f"{name}{suffix}", named("echo_width", "ring"))
        with caplog.at_level(logging.WARNING):
            assert read_points(tmp_path / f"{name}{suffix}").shape == (3, 3)
    (record,) = caplog.records
    assert f"*{suffix}: no intensity" in record.getMessage() and "echo_width, ring" in record.getMessage()


def test_an_extra_dimension_of_las_is_the_intensity_where_the_own_one_is_not_set(tmp_path):
    laspy = pytest.importorskip("laspy")
    cloud = laspy.create()
    cloud.header.scales = [0.01] * 3
    cloud.add_extra_dim(laspy.ExtraBytesParams("Reflectance", np.float32))
    cloud.x, cloud.y, cloud.z = XYZ.T
    cloud["Reflectance"] = VALUES + 0.5
    cloud.write(tmp_path / "scan.las")
    np.testing.assert_allclose(read_points(tmp_path / "scan.las")[:, 3], VALUES + 0.5)
    cloud.intensity = VALUES
    cloud.write(tmp_path / "scan.las")
    np.testing.assert_allclose(read_points(tmp_path / "scan.las")[:, 3], VALUES)


def test_the_intensity_of_an_npz_may_be_an_array_beside_the_coordinates(tmp_path):
    np.savez(tmp_path / "scan.npz", xyz=XYZ, reflectance=VALUES, pose=np.eye(4).ravel())
    np.testing.assert_array_equal(read_points(tmp_path / "scan.npz"), np.column_stack([XYZ, VALUES]))


def test_an_npz_with_several_tables_is_refused_with_their_shapes(tmp_path):
    np.savez(tmp_path / "scan.npz", points=XYZ, pose=np.eye(4))
    with pytest.raises(ValueError, match=r"scan.npz: expected one array .*got points \(\d+, 3\), pose \(4, 4\)"):
        read_points(tmp_path / "scan.npz")


def test_the_only_table_of_an_npz_is_the_scan(tmp_path):
    np.savez(tmp_path / "scan.npz", points=XYZ, labels=VALUES)
    np.testing.assert_array_equal(read_points(tmp_path / "scan.npz"), XYZ)


def scan(num_beams=32, num_directions=360):
    """Range, azimuth and elevation in degrees of a lidar over flat ground with walls."""
    azimuth = np.repeat(np.arange(num_directions) * 360 / num_directions, num_beams)
    elevation = np.tile(np.linspace(-25, 10, num_beams), num_directions)
    distance = np.minimum(30 + 9 * np.sin(azimuth / 9), 1.8 / np.maximum(1e-3, -np.sin(np.radians(elevation))))
    return distance, azimuth, elevation


def metres():
    distance, azimuth, elevation = scan()
    azimuth, elevation = np.radians(azimuth), np.radians(elevation)
    flat = distance * np.cos(elevation)
    return np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), distance * np.sin(elevation)], axis=1)


WRONG = {
    "millimetres": (metres() * 1000, "in millimetres. Divide them by 1000"),
    "whole millimetres": ((metres() * 1000).round(), "in millimetres"),
    "longitude and latitude": (metres() * [1e-5, 1e-5, 1] + [8.4, 49, 110], "longitude and latitude in degrees"),
    "angles": (np.stack(scan(), axis=1), "a range, an azimuth and an elevation in degrees"),
    "angles first": (np.stack(scan()[::-1], axis=1) - [0, 180, 0], "a range, an azimuth and an elevation"),
    "transposed": (metres().T, "looks transposed. Use its transpose"),
    "integers": (metres().astype(np.int16), "got whole numbers .int16., which are probably millimetres"),
    "text": (metres().astype(str), "expected numbers, got an array of <U"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_an_array_that_cannot_be_metres_around_a_sensor_is_refused(tmp_path, kind):
    points, message = WRONG[kind]
    np.save(tmp_path / "scan.npy", points)
    with pytest.raises(ValueError, match=f"scan.npy: .*{message}"):
        read_points(tmp_path / "scan.npy")


@pytest.mark.parametrize("move", [(0, 0, 0), (512345.25, 5412345.5, 210)])
def test_metres_are_read_around_the_sensor_and_on_a_map(tmp_path, move):
    np.save(tmp_path / "scan.npy", metres() + move)
    assert len(read_cloud(tmp_path / "scan.npy").points) == len(metres())


def test_genuine_scans_are_metres(shared_data):
    paths = [*shared_data.glob("real/kitti_car/*/points/*.bin"), *shared_data.glob("real/pandaset/*/lidar/*.bin")]
    assert all(len(read_points(path)) > 10_000 for path in paths[::4])


def test_an_array_of_objects_is_refused_with_the_way_out(tmp_path):
    np.save(tmp_path / "scan.npy", np.array([[1.0, 2, None]], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"scan.npy: expected numbers, got an array of Python objects.*astype"):
        read_points(tmp_path / "scan.npy")
