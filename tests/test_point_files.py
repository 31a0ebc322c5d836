"""Files written by other libraries come back as points."""

import sys

import numpy as np
import pytest

from uov_hf.point_files import read_points


POINTS = np.array([[1.5, -2, 0.25, 3], [4, 5, 6, 7], [-8, 9, 10, 11]], dtype=np.float32)


@pytest.fixture
def with_ring():
    """20 points with 5 columns: as many numbers as 25 points with 4."""
    points = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    points[:, 4] = np.arange(20) % 3
    return points


def test_bin_with_four_columns(tmp_path):
    for points in (POINTS, POINTS[:0]):
        points.tofile(tmp_path / "scan.bin")
        np.testing.assert_array_equal(read_points(tmp_path / "scan.bin"), points)


def test_bin_has_a_ring_by_its_name_its_size_or_its_whole_numbers(tmp_path, with_ring):
    for name, rows in [("a.pcd.bin", 20), ("b.bin", 19), ("c.bin", 20)]:
        with_ring[:rows].tofile(tmp_path / name)
        np.testing.assert_array_equal(read_points(tmp_path / name), with_ring[:rows, :4])
    assert read_points(tmp_path / "c.bin", num_columns=4).shape == (25, 4)
    with_ring[:, 4] += 0.5
    with_ring.tofile(tmp_path / "scan.bin")
    np.testing.assert_array_equal(read_points(tmp_path / "scan.bin"), with_ring.reshape(25, 4))


def test_npy_with_and_without_intensity(tmp_path):
    for columns in (3, 4):
        np.save(tmp_path / "scan.npy", POINTS[:, :columns].astype(np.float64))
        points = read_points(tmp_path / "scan.npy")
        assert points.dtype == np.float32
        np.testing.assert_array_equal(points, POINTS[:, :columns])


@pytest.mark.parametrize("intensity", [["intensity"], []])
def test_pcd(tmp_path, intensity):
    pypcd4 = pytest.importorskip("pypcd4")
    fields = ("x", "y", "z", *intensity)
    cloud = pypcd4.PointCloud.from_points(POINTS[:, : len(fields)], fields, (np.float32,) * len(fields))
    cloud.save(tmp_path / "scan.pcd")
    np.testing.assert_array_equal(read_points(tmp_path / "scan.pcd"), POINTS[:, : len(fields)])


@pytest.mark.parametrize("intensity", [["scalar_Intensity"], []])
def test_ply(tmp_path, intensity):
    plyfile = pytest.importorskip("plyfile")
    fields = ["x", "y", "z", *intensity]
    vertices = np.array([tuple(row[: len(fields)]) for row in POINTS], dtype=[(field, "f4") for field in fields])
    plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")]).write(tmp_path / "scan.ply")
    np.testing.assert_array_equal(read_points(tmp_path / "scan.ply"), POINTS[:, : len(fields)])


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_las_and_laz(tmp_path, suffix):
    laspy = pytest.importorskip("laspy")
    cloud = laspy.create()
    cloud.header.scales = [0.01] * 3
    cloud.x, cloud.y, cloud.z, cloud.intensity = POINTS.T
    cloud.write(tmp_path / f"scan{suffix}")
    np.testing.assert_allclose(read_points(tmp_path / f"scan{suffix}"), POINTS, atol=0.005)


def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch):
    for name in ("pypcd4", "plyfile", "laspy"):
        monkeypatch.setitem(sys.modules, name, None)
    for suffix, library in [(".pcd", "pypcd4"), (".ply", "plyfile"), (".laz", r"laspy\[lazrs\]")]:
        (tmp_path / f"scan{suffix}").touch()
        with pytest.raises(ImportError, match=f"scan{suffix}.*pip install '{library}'"):
            read_points(tmp_path / f"scan{suffix}")


def test_files_that_cannot_be_scans_are_named(tmp_path):
    (tmp_path / "cut.pcd.bin").write_bytes(bytes(4 * 5 * 7 - 3))
    (tmp_path / "cut.bin").write_bytes(bytes(4 * 7))
    (tmp_path / "scan.txt").write_text("1 2 3")
    np.save(tmp_path / "flat.npy", np.ones(4))
    for name, message in [
        ("cut.pcd.bin", "5 float32, got 137 bytes"),
        ("cut.bin", "got 28 bytes"),
        ("flat.npy", r"got \(4,\)"),
        ("none.bin", "got none"),
        ("scan.txt", "ends in one of .bin"),
    ]:
        with pytest.raises(ValueError, match=f"{name}: .*{message}"):
            read_points(tmp_path / name)
    pypcd4 = pytest.importorskip("pypcd4")
    pypcd4.PointCloud.from_points(POINTS[:, :2], ("a", "b"), (np.float32,) * 2).save(tmp_path / "ab.pcd")
    with pytest.raises(ValueError, match="ab.pcd: expected the fields x, y and z, got a, b"):
        read_points(tmp_path / "ab.pcd")


@pytest.mark.parametrize("content", [b"", b"nothing that a scan begins with"], ids=["empty", "broken"])
@pytest.mark.parametrize(
    "suffix, library",
    [(".npy", None), (".pcd", "pypcd4"), (".ply", "plyfile"), (".las", "laspy"), (".laz", "laspy")],
)
def test_a_broken_file_is_named(tmp_path, suffix, library, content):
    if library:
        pytest.importorskip(library)
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path}: expected a scan, and it cannot be read: "):
        read_points(path)
