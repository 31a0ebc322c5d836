"""The dialects of PCD that PCL and its relatives write."""

import numpy as np
import pytest

from uov_hf.point_files import read_points


POINTS = np.array([[1.5, -2, 0.25, 3], [np.nan, np.nan, np.nan, 0], [-8, 9, 10, 11], [4, 5, 6, 7]], np.float32)

PLAIN = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS x y z intensity
SIZE 4 4 4 4
TYPE F F F F
COUNT 1 1 1 1
WIDTH 4
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS 4
DATA binary
"""
PADDED = {"FIELDS x y z intensity": "FIELDS x y z _ intensity _ normal", "SIZE 4 4 4 4": "SIZE 4 4 4 1 4 1 4"} | {
    "TYPE F F F F": "TYPE F F F U F U F",
    "COUNT 1 1 1 1": "COUNT 1 1 1 4 1 12 3",
}
HEADERS = {
    "plain": {},
    "version .7": {"VERSION 0.7": "VERSION .7"},
    "version .5": {"VERSION 0.7": "VERSION .5", "FIELDS": "COLUMNS"},
    "organised": {"WIDTH 4\nHEIGHT 1": "WIDTH 2\nHEIGHT 2"},
    "without optional lines": {"COUNT 1 1 1 1\n": "", "VIEWPOINT 0 0 0 1 0 0 0\n": "", "POINTS 4\n": ""},
    "windows": {"\n": "\r\n"},
    "tabs and odd comments": {"FIELDS x y": "FIELDS\tx  y", "# .PCD v0.7": "# gr\xfc\xdfe \xb5"},
}


def header(changes: dict[str, str], data="binary") -> bytes:
    text = PLAIN.replace("DATA binary", f"DATA {data}")
    for old, new in changes.items():
        text = text.replace(old, new)
    return text.encode("latin-1")


@pytest.mark.parametrize("dialect", HEADERS)
def test_a_header_of_any_writer(tmp_path, dialect):
    path = tmp_path / "scan.pcd"
    path.write_bytes(header(HEADERS[dialect]) + POINTS.tobytes())
    np.testing.assert_array_equal(read_points(path), POINTS)
    lines = "\n".join(" ".join(map(str, row)) for row in POINTS.tolist())
    path.write_bytes(header(HEADERS[dialect], "ascii") + lines.replace(" ", "\t", 2).encode())
    np.testing.assert_array_equal(read_points(path), POINTS)


def test_padding_and_fields_of_several_numbers(tmp_path):
    """As `pcl::PointXYZINormal` lies in memory."""
    names, formats = ["x", "y", "z", "p", "i", "q", "n"], ["f4", "f4", "f4", "4u1", "f4", "12u1", "3f4"]
    rows = np.zeros(4, {"names": names, "formats": formats})
    for name, column in zip("xyzi", POINTS.T, strict=True):
        rows[name] = column
    path = tmp_path / "scan.pcd"
    path.write_bytes(header(PADDED) + rows.tobytes())
    np.testing.assert_array_equal(read_points(path), POINTS)
    lines = [" ".join(map(str, (*row[:3], 0, 0, 0, 0, row[3], *[0] * 12, 1, 0, 0))) for row in POINTS]
    path.write_bytes(header(PADDED, "ascii") + "\n".join(lines).encode())
    np.testing.assert_array_equal(read_points(path), POINTS)


def test_float64_fields_in_any_order(tmp_path):
    changes = {"x y z intensity": "intensity Z y X", "SIZE 4 4 4 4": "SIZE 2 8 8 8", "TYPE F": "TYPE U"}
    rows = np.zeros(4, [("i", "u2"), ("z", "f8"), ("y", "f8"), ("x", "f8")])
    for name, column in zip("xyzi", POINTS.T, strict=True):
        rows[name] = column
    (tmp_path / "scan.pcd").write_bytes(header(changes) + rows.tobytes())
    np.testing.assert_array_equal(read_points(tmp_path / "scan.pcd"), POINTS)


@pytest.mark.parametrize("num_points", [1, 300])
@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_what_another_library_writes(tmp_path, encoding, num_points):
    pypcd4 = pytest.importorskip("pypcd4")
    points = np.round(np.random.default_rng(0).normal(size=(num_points, 4)), 1).astype(np.float32)
    cloud = pypcd4.PointCloud.from_points(points, ("x", "y", "z", "intensity"), (np.float32,) * 4)
    cloud.save(tmp_path / "scan.pcd", pypcd4.Encoding(encoding))
    np.testing.assert_allclose(read_points(tmp_path / "scan.pcd"), points, atol=1e-6)


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_a_file_that_is_cut_short_is_refused(tmp_path, encoding):
    pypcd4 = pytest.importorskip("pypcd4")
    points = np.full((500, 4), 0.5, np.float32)
    cloud = pypcd4.PointCloud.from_points(points, ("x", "y", "z", "intensity"), (np.float32,) * 4)
    cloud.save(tmp_path / "scan.pcd", pypcd4.Encoding(encoding))
    content = (tmp_path / "scan.pcd").read_bytes()
    for part in (0.5, 0.9):
        (tmp_path / "scan.pcd").write_bytes(content[: content.index(b"DATA") + 30 + int(part * 90)])
        with pytest.raises(ValueError, match=r"scan.pcd: expected 500 points.*, got [\d,]+.*: the file is cut short"):
            read_points(tmp_path / "scan.pcd")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"POINTS 4": "POINTS 5"}, "as many POINTS as WIDTH times HEIGHT, got .* POINTS 5, WIDTH 4, HEIGHT 1"),
        ({"COUNT 1 1 1 1": "COUNT 1 1 1"}, "as many entries in SIZE, TYPE and COUNT as in FIELDS"),
        ({"COUNT 1 1 1 1": "COUNT 1 1 1 0"}, r"a COUNT above 0.* got .*COUNT \[1, 1, 1, 0\]"),
        ({"TYPE F": "TYPE Q"}, "expected a PCD header"),
        ({"WIDTH 4": "WIDTH four"}, "expected a PCD header"),
        ({"DATA binary": "DATA zipped"}, "DATA zipped"),
        ({"DATA binary": "DAT"}, "whose header ends with a line DATA, got none"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(tmp_path, changes, message):
    (tmp_path / "scan.pcd").write_bytes(header(changes) + POINTS.tobytes())
    with pytest.raises(ValueError, match=f"scan.pcd: .*{message}"):
        read_points(tmp_path / "scan.pcd")


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_a_scan_without_points_is_read(tmp_path, encoding):
    path = tmp_path / "scan.pcd"
    sizes = bytes(8) if encoding == "binary_compressed" else b""
    path.write_bytes(header({"WIDTH 4": "WIDTH 0", "POINTS 4": "POINTS 0"}, encoding) + sizes)
    assert read_points(path).shape == (0, 4)
