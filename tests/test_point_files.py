"""Files written by other libraries come back as points."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from uov_hf import point_files
from uov_hf.point_files import read_cloud, read_points


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
    """A .pcd needs one only if it is compressed."""
    for suffix in (".pcd", ".ply", ".laz"):
        write_cloud(tmp_path / f"scan{suffix}", np.full((99, 4), 0.5, np.float32))
    for name in ("lzf", "plyfile", "laspy"):
        monkeypatch.setitem(sys.modules, name, None)
    for suffix, library in [(".pcd", "pypcd4"), (".ply", "plyfile"), (".laz", r"laspy\[lazrs\]")]:
        with pytest.raises(ImportError, match=f"scan{suffix}.*pip install '{library}'"):
            read_points(tmp_path / f"scan{suffix}")


def test_files_that_cannot_be_scans_are_named(tmp_path):
    (tmp_path / "cut.pcd.bin").write_bytes(bytes(4 * 5 * 7 - 3))
    (tmp_path / "cut.bin").write_bytes(bytes(4 * 7))
    (tmp_path / "scan.doc").write_text("1 2 3")
    np.save(tmp_path / "flat.npy", np.ones(4))
    (tmp_path / "cut.laz").write_bytes(b"LASF" + bytes(196))
    for name, message in [
        ("cut.pcd.bin", "5 float32, got 137 bytes"),
        ("cut.bin", "got 28 bytes"),
        ("cut.laz", "expected a header of at least 227 bytes, got 200: the file is damaged"),
        ("flat.npy", r"got \(4,\)"),
        ("none.bin", "there is no such file"),
        (".", "it is a folder"),
        ("scan.doc", "ends in one of .bin"),
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
    with pytest.raises(ValueError, match=f"^{path}: expected "):
        read_points(path)


def write_cloud(path: Path, points: np.ndarray, **las: str | int) -> Path:
    """Points with x, y, z and intensity, in the format of the suffix; `las` is for `laspy.create`."""
    names, suffix = ("x", "y", "z", "intensity"), path.suffix
    if suffix == ".npy":
        np.save(path, points)
    elif suffix == ".bin":
        points.tofile(path)
    elif suffix == ".pcd":
        pypcd4 = pytest.importorskip("pypcd4")
        pypcd4.PointCloud.from_points(points, names, (np.float32,) * 4).save(path, pypcd4.Encoding.BINARY_COMPRESSED)
    elif suffix == ".ply":
        plyfile = pytest.importorskip("plyfile")
        vertices = np.array(list(map(tuple, points)), dtype=[(name, "f4") for name in names])
        plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")]).write(path)
    else:
        laspy = pytest.importorskip("laspy")
        default = {"file_version": "1.4", "point_format": 6} if suffix == ".laz" else {"file_version": "1.2"}
        cloud = laspy.create(**(default | las))
        cloud.x, cloud.y, cloud.z, cloud.intensity = points.T
        cloud.write(path)
    return path


@pytest.mark.parametrize("suffix", [".bin", ".npy", ".pcd", ".ply", ".las", ".laz"])
def test_a_file_with_more_points_than_the_limit_is_refused(tmp_path, suffix):
    path = write_cloud(tmp_path / f"scan{suffix}", np.full((1200, 4), 0.5, np.float32))
    assert len(read_points(path, max_points=1200)) == len(read_points(path)) == 1200
    with pytest.raises(ValueError, match=f"scan{suffix}: expected at most 1,000 points, got 1,200"):
        read_points(path, max_points=1000)


@pytest.mark.parametrize("suffix", [".npy", ".pcd", ".ply", ".las", ".laz"])
@pytest.mark.parametrize("share", [0.7, 0.99])
def test_a_file_with_fewer_points_than_its_header_declares_is_refused(tmp_path, suffix, share):
    points = np.random.default_rng(0).uniform(0, 9, (1200, 4)).astype(np.float32)
    path = write_cloud(tmp_path / f"scan{suffix}", points)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=f"scan{suffix}: expected 1,200 points, as its header declares, "):
        read_points(path)


NUM_DECLARED = 300_000_000
PCD = "VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH {n}\nHEIGHT 1\nPOINTS {n}\nDATA {kind}\n"
PLY = (
    "ply\nformat binary_little_endian 1.0\nelement vertex {n}\nproperty float x\nproperty float y\nproperty float z\n"
)


def declare(path: Path) -> Path:
    """A small file whose header declares hundreds of millions of points."""
    suffix = path.suffix
    if suffix == ".pcd":
        return write_bytes(
            path, PCD.format(n=NUM_DECLARED, kind="binary_compressed"), struct.pack("<II", 20, 2**32 - 96)
        )
    if suffix == ".ply":
        return write_bytes(path, PLY.format(n=NUM_DECLARED) + "end_header\n", b"")
    write_cloud(path, POINTS)
    content = bytearray(path.read_bytes())
    place, kind = (247, "<Q") if content[25] == 4 else (107, "<I")
    struct.pack_into(kind, content, place, NUM_DECLARED)
    path.write_bytes(content)
    return path


def write_bytes(path: Path, header: str, content: bytes) -> Path:
    path.write_bytes(header.encode() + content + bytes(120))
    return path


WITH_LITTLE_MEMORY = """
import importlib, resource, sys, types
sys.modules["uov_hf"] = package = types.ModuleType("uov_hf")  # without its __init__, which imports torch
package.__path__ = [sys.argv[1]]
module = importlib.import_module("uov_hf.point_files")
for library in ("laspy", "lazrs", "plyfile", "lzf"):
    __import__(library)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
"""
READ_ONE = """
try:
    module.read_points(sys.argv[2], max_points=int(sys.argv[3]))
except ValueError as error:
    print(error)
"""
READ_CHANGED = """
import logging, pathlib, random, warnings
logging.disable()
warnings.simplefilter("ignore")
path, random = pathlib.Path(sys.argv[2]), random.Random(int(sys.argv[3]))
content = path.read_bytes()
for _ in range(int(sys.argv[4])):
    changed, place = bytearray(content), random.randrange(len(content))
    if random.random() < 0.5:
        changed[place] ^= 1 << random.randrange(8)
    else:
        number = random.choice([b"\\xff" * 8, b"\\xff" * 4, b"\\xff\\xff\\xff\\x7f", bytes(4), b"\\0\\0\\0\\x10"])
        changed[place : place + len(number)] = number[: len(content) - place]
    path.write_bytes(changed)
    try:
        module.read_cloud(path)
    except ValueError as error:
        assert str(path) in str(error), error
print("all read or refused")
"""


def run_with_little_memory(script: str, *arguments: object) -> str:
    """The output of a process that has 200 MB for reading."""
    for library in ("laspy", "plyfile", "pypcd4"):
        pytest.importorskip(library)
    package = Path(point_files.__file__).parent
    command = [sys.executable, "-c", WITH_LITTLE_MEMORY + script, *map(str, (package, *arguments))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def read_with_little_memory(path: Path, max_points: int) -> str:
    return run_with_little_memory(READ_ONE, path, max_points)


LAYERED, IN_ONE = {"file_version": "1.4", "point_format": 7}, {"file_version": "1.2", "point_format": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is set by Linux's means")
@pytest.mark.parametrize("las", [LAYERED, IN_ONE, None], ids=["layered", "in one", "not compressed"])
def test_a_damaged_las_file_neither_ends_the_process_nor_fills_memory(tmp_path, las):
    """lazrs ends the process where memory is short, or raises what is no `Exception`."""
    path = tmp_path / ("scan.laz" if las else "scan.las")
    write_cloud(path, np.random.default_rng(0).uniform(-20, 20, (12, 4)), **las or {})
    assert run_with_little_memory(READ_CHANGED, path, 0, 300) == "all read or refused\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is set by Linux's means")
@pytest.mark.parametrize("suffix", [".npy", ".pcd", ".ply"])
def test_a_damaged_scan_is_read_or_refused(tmp_path, suffix):
    path = write_cloud(tmp_path / f"scan{suffix}", np.random.default_rng(0).uniform(-20, 20, (12, 4)).astype("f4"))
    assert run_with_little_memory(READ_CHANGED, path, 0, 200) == "all read or refused\n"


def test_a_laz_file_of_several_chunks_is_read(tmp_path):
    """In layers and in one, and also if its place of the table of chunks is at its end, as written to a pipe."""
    points = np.zeros((60_000, 4))
    points[:, :3] = np.random.default_rng(0).integers(-9, 9, (60_000, 3)) / 100
    for las in (LAYERED, IN_ONE):
        path = write_cloud(tmp_path / "scan.laz", points, **las)
        content = bytearray(path.read_bytes())
        (offset,) = struct.unpack_from("<I", content, 96)
        place = content[offset : offset + 8]
        content[offset : offset + 8] = b"\xff" * 8
        for whole in (path.read_bytes(), content + place):
            path.write_bytes(whole)
            np.testing.assert_allclose(read_points(path)[:, :3], points[:, :3], atol=0.005)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is set by Linux's means")
@pytest.mark.parametrize("suffix", [".pcd", ".ply", ".las", ".laz"])
def test_a_header_is_checked_before_memory_is_allocated(tmp_path, suffix):
    message = read_with_little_memory(declare(tmp_path / f"scan{suffix}"), max_points=1_000_000)
    assert message.endswith(f"scan{suffix}: expected at most 1,000,000 points, got {NUM_DECLARED:,}.\n")


def test_an_array_shorter_than_its_header_is_refused_without_a_limit(tmp_path):
    """Even if its header declares more than any memory holds."""
    with (tmp_path / "scan.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**13, 4)})
        file.write(bytes(64))
    with pytest.raises(ValueError, match="scan.npy: expected 10,000,000,000,000 points, .* got 4: the file is cut"):
        read_points(tmp_path / "scan.npy")


def test_few_points_do_not_hide_many_bytes(tmp_path):
    """Of a compressed file, which can be a thousandth of them."""
    path = tmp_path / "scan.pcd"
    pytest.importorskip("pypcd4")
    wide = PCD.replace("COUNT 1 1 1", "COUNT 1 1 1000000000").format(n=1, kind="binary_compressed")
    write_bytes(path, wide, struct.pack("<II", 20, 4_000_000_008))
    with pytest.raises(ValueError, match="scan.pcd: expected at most 256 bytes a point, got 4,000,000,008"):
        read_points(path, max_points=10)
    write_bytes(path, PCD.format(n=1, kind="binary_compressed"), struct.pack("<II", 20, 2**32 - 96))
    with pytest.raises(ValueError, match="scan.pcd: expected 12 bytes of points, its header declares 4,294,967,200"):
        read_points(path)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is set by Linux's means")
@pytest.mark.parametrize("what", ["records", "late records", "chunks", "offset"])
def test_a_las_header_with_more_records_than_the_file_is_refused(tmp_path, what):
    """The libraries would loop over them for minutes, or end the process without an exception."""
    pytest.importorskip("laspy")
    path = write_cloud(tmp_path / "scan.laz", POINTS)
    content = bytearray(path.read_bytes())
    offset = struct.unpack_from("<I", content, 96)[0]
    chunk_table = struct.unpack_from("<q", content, offset)[0]
    place = {"records": 100, "late records": 243, "chunks": chunk_table + 4, "offset": 96}[what]
    struct.pack_into("<I", content, place, 4_000_000_000)
    path.write_bytes(content)
    assert "scan.laz: expected a whole file, got one of " in read_with_little_memory(path, max_points=10)


UTM = np.array([512_345.0, 5_412_345.0, 210.0])


def write_in_map_coordinates(path, points):
    """Points `(num_points, 4)` around 0, as other programs write them around UTM."""
    xyz = points[:, :3].astype(np.float64) + UTM
    if path.suffix == ".npy":
        np.save(path, np.column_stack([xyz, points[:, 3]]))
    elif path.suffix == ".xyz":
        np.savetxt(path, np.column_stack([xyz, points[:, 3]]), fmt="%.3f")
    elif path.suffix == ".ply":
        plyfile = pytest.importorskip("plyfile")
        rows = np.zeros(len(points), [("x", "f8"), ("y", "f8"), ("z", "f8"), ("intensity", "f4")])
        for name, values in zip(rows.dtype.names, [*xyz.T, points[:, 3]], strict=True):
            rows[name] = values
        plyfile.PlyData([plyfile.PlyElement.describe(rows, "vertex")]).write(path)
    elif path.suffix == ".pcd":
        pypcd4 = pytest.importorskip("pypcd4")
        types = (np.float64, np.float64, np.float64, np.float32)
        columns = [*xyz.T, points[:, 3]]
        pypcd4.PointCloud.from_points(columns, ("x", "y", "z", "intensity"), types).save(path)
    else:
        laspy = pytest.importorskip("laspy")
        cloud = laspy.LasData(laspy.LasHeader(point_format=6, version="1.4"))
        cloud.header.offsets, cloud.header.scales = UTM, [0.001] * 3
        cloud.x, cloud.y, cloud.z = xyz.T
        cloud.intensity = points[:, 3]
        cloud.write(path)


@pytest.mark.parametrize("suffix", [".npy", ".xyz", ".ply", ".pcd", ".las", ".laz"])
def test_map_coordinates_keep_their_millimetres_beside_an_origin(suffix, tmp_path):
    points = np.random.default_rng(0).uniform(-30, 30, (200, 4)).astype(np.float32)
    points[:, 3] = np.arange(200)
    path = tmp_path / f"map{suffix}"
    write_in_map_coordinates(path, points)
    cloud = read_cloud(path)
    assert cloud.points.dtype == np.float32 and np.abs(cloud.origin - UTM).max() < 30
    assert np.array_equal(cloud.origin, np.rint(cloud.origin))
    assert np.abs(cloud.file_points[:, :3] - UTM - points[:, :3]).max() < 0.001
    np.testing.assert_array_equal(cloud.points[:, 3], points[:, 3])
    with pytest.raises(ValueError, match=f"map{suffix}: expected a scan in the frame of its sensor, got map"):
        read_points(path)


def test_a_scan_in_the_frame_of_its_sensor_has_no_origin(tmp_path):
    points = np.random.default_rng(0).uniform(-300, 300, (200, 4)).astype(np.float32)
    points[:9, 0], points[9] = 5e4, np.nan  # stray returns move no median
    points.tofile(tmp_path / "scan.bin")
    cloud = read_cloud(tmp_path / "scan.bin", num_columns=4)
    assert not cloud.origin.any() and cloud.file_points is cloud.points
    np.testing.assert_array_equal(cloud.points, points)
