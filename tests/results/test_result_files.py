"""Results as point files: every original field keeps its bytes, and class and score are added."""

import logging
import struct

import numpy as np
import pytest

from uov_hf.pcd_files import read_pcd_fields
from uov_hf.point_files import read_cloud, read_points
from uov_hf.results import FORMATS, SegmentedScan, check_libraries, write_result
from uov_hf.results.pcd_results import read_content


laspy = pytest.importorskip("laspy")
plyfile = pytest.importorskip("plyfile")
pytest.importorskip("pypcd4")

NUM_POINTS, NAMES = 60, ["car", "road", "tree"]
RNG = np.random.default_rng(0)
LABELS = RNG.choice([0, 1, 2, 255], NUM_POINTS).astype(np.uint8)
SCORES = RNG.random(NUM_POINTS).astype(np.float32)
POINTS = np.column_stack([RNG.uniform(-20, 20, (NUM_POINTS, 3)), np.arange(NUM_POINTS)]).astype(np.float32)
UTM = np.array([512_345.0, 5_412_345.0, 210.0])


def result_of(scan, points=POINTS, origin=(0, 0, 0)):
    return SegmentedScan(scan, scan.parent, points, np.array(origin, np.float64), LABELS, SCORES, NAMES)


def segmented(scan, suffix=None, **values):
    """The path of the result of a scan, in a folder of its own."""
    path = scan.parent / "out" / f"scan{suffix or scan.suffix}"
    write_result(path, result_of(scan, **values))
    return path


# LAS and LAZ


def write_random_las(path, point_format):
    """Every dimension is random, also the extra ones and those that share a byte."""
    version = "1.4" if point_format > 5 else "1.3" if point_format > 3 else "1.2"
    header = laspy.LasHeader(point_format=point_format, version=version)
    header.offsets, header.scales = UTM, [0.001, 0.002, 0.01]
    header.add_extra_dims(
        [
            laspy.ExtraBytesParams("ring", "u2", "which beam"),
            laspy.ExtraBytesParams("normal", "3f4"),
            laspy.ExtraBytesParams("range", "i4", offsets=np.array([5.0]), scales=np.array([0.5])),
        ]
    )
    header.system_identifier, header.file_source_id = "a scanner", 77
    header.vlrs.append(laspy.VLR("LASF_Projection", 2112, "OGC WKT", b'PROJCS["WGS 84 / UTM zone 32N"]\0'))
    header.vlrs.append(laspy.VLR("LASF_Projection", 34735, "keys", np.array([1, 1, 0, 0], "<u2").tobytes()))
    header.vlrs.append(laspy.VLR("somebody", 7, "their own", b"\1\2\3"))
    cloud = laspy.LasData(header)
    raw = np.random.default_rng(1).integers(0, 256, (NUM_POINTS, header.point_format.size), dtype=np.uint8)
    for start, size in ((header.point_format.size - 16, 12),):  # the normals are numbers
        raw[:, start : start + size] = np.random.default_rng(2).random((NUM_POINTS, 3), np.float32).view(np.uint8)
    records = raw.reshape(-1).view(header.point_format.dtype())
    cloud.points = laspy.ScaleAwarePointRecord(
        records, header.point_format, scales=header.scales, offsets=header.offsets
    )
    if version == "1.4":
        cloud.evlrs = laspy.vlrs.vlrlist.VLRList([laspy.VLR("somebody", 8, "at the end", b"\4" * 70_000)])
    cloud.write(path)
    return laspy.read(path)


def stored(cloud, name):
    """A dimension as the file has it, without scale."""
    array = cloud.points.array
    return (array[name] if name in array.dtype.names else np.asarray(cloud[name])).tobytes()


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("point_format", range(11))
def test_las_keeps_every_dimension_the_coordinate_system_and_the_offset(point_format, suffix, tmp_path):
    scan = tmp_path / f"scan{suffix}"
    before = write_random_las(scan, point_format)
    if suffix == ".laz" and point_format in (9, 10):  # lazrs itself does not keep their wave packets
        with pytest.raises(ValueError, match="scan.laz: expected a scan whose fields LAZ keeps, got the wave packets"):
            segmented(scan)
        return
    after = laspy.read(segmented(scan))
    kept = [name for name in before.point_format.dimension_names if name != "classification"]
    assert [name for name in kept if stored(before, name) != stored(after, name)] == []
    assert np.array_equal(after["original_classification"], before.classification)
    np.testing.assert_array_equal(after["class"], LABELS)
    np.testing.assert_array_equal(after["score"], SCORES)
    np.testing.assert_array_equal(after.classification, np.array([1, 11, 5, 1])[np.minimum(LABELS, 3)])
    for name in ("offsets", "scales"):
        np.testing.assert_array_equal(getattr(after.header, name), getattr(before.header, name))
    for name in ("point_format", "version", "system_identifier", "file_source_id", "creation_date", "uuid"):
        if name != "point_format":
            assert getattr(after.header, name) == getattr(before.header, name)
    assert after.header.point_format.id == point_format
    assert others(after.vlrs) == others(before.vlrs) and others(after.evlrs or []) == others(before.evlrs or [])
    ring, _, scaled = (own for own in after.point_format.extra_dimensions if own.name in ("ring", "normal", "range"))
    assert ring.description == "which beam" and scaled.scales == [0.5] and scaled.offsets == [5]


def others(records):
    """The records of a file but the one that lists the extra dimensions."""
    found = [(own.user_id, own.record_id, own.description, own.record_data_bytes()) for own in records]
    return sorted(own for own in found if own[:2] != ("LASF_Spec", 4))


@pytest.mark.parametrize(("source", "target"), [(".las", ".laz"), (".laz", ".las")])
def test_las_and_laz_are_one_format(source, target, tmp_path):
    before = write_random_las(tmp_path / f"scan{source}", 6)
    after = laspy.read(segmented(tmp_path / f"scan{source}", target))
    assert stored(before, "ring") == stored(after, "ring") and np.array_equal(after["class"], LABELS)


def test_a_las_that_was_never_classified_gets_no_original_classification(tmp_path):
    cloud = laspy.LasData(laspy.LasHeader(point_format=6, version="1.4"))
    cloud.x, cloud.y, cloud.z = POINTS[:, :3].T
    cloud.write(tmp_path / "scan.las")
    assert "original_classification" not in laspy.read(segmented(tmp_path / "scan.las")).point_format.dimension_names


# PLY


def native_bytes(values):
    """The bytes of each value in the order of this machine; that of an array in memory is plyfile's choice."""
    arrays = [np.asarray(value) for value in values]
    return [array.astype(array.dtype.newbyteorder("=")).tobytes() for array in arrays]


@pytest.mark.parametrize("text, byte_order", [(True, "="), (False, "<")])
def test_ply_keeps_lists_other_elements_and_comments(text, byte_order, tmp_path):
    vertices = np.zeros(
        NUM_POINTS, [("x", "f8"), ("y", "f8"), ("z", "f8"), ("red", "u1"), ("t", "f4"), ("seen_by", "O")]
    )
    for name, values in zip("xyz", (POINTS[:, :3] + UTM).T, strict=True):
        vertices[name] = values
    vertices["red"], vertices["t"] = RNG.integers(0, 256, NUM_POINTS), RNG.random(NUM_POINTS)
    for row in range(NUM_POINTS):
        vertices["seen_by"][row] = np.arange(row % 4, dtype="i4")
    faces = np.zeros(2, [("vertex_indices", "i4", (3,)), ("quality", "f4")])
    faces["vertex_indices"], faces["quality"] = [[0, 1, 2], [2, 3, 4]], [0.5, 0.1]
    cameras = np.array([(1.5, 2)], [("focal", "f8"), ("id", "i2")])
    elements = [
        plyfile.PlyElement.describe(cameras, "camera"),
        plyfile.PlyElement.describe(vertices, "vertex", val_types={"seen_by": "i4"}, comments=["the points"]),
        plyfile.PlyElement.describe(faces, "face"),
    ]
    written = plyfile.PlyData(
        elements, text=text, byte_order=byte_order, comments=["of a scanner"], obj_info=["epsg 25832"]
    )
    written.write(tmp_path / "scan.ply")
    before, after = (plyfile.PlyData.read(path) for path in (tmp_path / "scan.ply", segmented(tmp_path / "scan.ply")))
    assert (after.text, after.byte_order, after.comments, after.obj_info) == (
        before.text, before.byte_order, before.comments, before.obj_info
    )  # fmt: skip
    assert [own.name for own in after.elements] == ["camera", "vertex", "face"]
    for element in before.elements:
        for own in element.properties:
            one, other = element.data[own.name], after[element.name].data[own.name]
            assert native_bytes(one) == native_bytes(other), own
    np.testing.assert_array_equal(after["vertex"]["class"], LABELS)
    np.testing.assert_array_equal(after["vertex"]["score"], SCORES)


@pytest.mark.parametrize("with_lists", [True, False])
def test_big_endian_ply_keeps_its_values(with_lists, tmp_path):
    """Packed by hand: plyfile itself writes such files wrongly where there are lists."""
    lists = "element face 1\nproperty list uchar int vertex_indices\nproperty float quality\n" if with_lists else ""
    axes = "".join(f"property double {axis}\n" for axis in "xyz")
    header = f"ply\nformat binary_big_endian 1.0\nelement vertex {NUM_POINTS}\n{axes}{lists}end_header\n"
    xyz, face = POINTS[:, :3].astype(">f8") + UTM, struct.pack(">Biiif", 3, 0, 1, 2, 0.5) if with_lists else b""
    (tmp_path / "scan.ply").write_bytes(header.encode() + xyz.astype(">f8").tobytes() + face)
    content = plyfile.PlyData.read(segmented(tmp_path / "scan.ply"))
    np.testing.assert_array_equal(np.stack([content["vertex"][axis] for axis in "xyz"], axis=1), xyz)
    np.testing.assert_array_equal(content["vertex"]["score"], SCORES)
    if with_lists:
        assert content["face"]["quality"] == 0.5 and content["face"]["vertex_indices"][0].tolist() == [0, 1, 2]


# PCD

PCD_HEADER = """# .PCD v0.7 - a comment
VERSION 0.7
FIELDS x y z _ intensity ring descriptor stamp
SIZE 4 4 4 1 4 2 4 8
TYPE F F F U F U F F
COUNT 1 1 1 4 1 1 3 1
WIDTH 20
HEIGHT 3
VIEWPOINT 1 2 3 1 0 0 0
POINTS 60
DATA {}
"""
PCD_TYPE = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("_", "u1", 4), ("intensity", "<f4"), ("ring", "<u2"),
     ("descriptor", "<f4", 3), ("stamp", "<f8")]
)  # fmt: skip


def write_pcd(path, encoding):
    """An organised cloud with padding, a field of three numbers and a point that is not finite."""
    rows = np.zeros(NUM_POINTS, PCD_TYPE)
    for column, name in enumerate(("x", "y", "z", "intensity")):
        rows[name] = POINTS[:, column]
    rows["ring"], rows["stamp"], rows["descriptor"] = np.arange(60) % 16, RNG.random(60), RNG.random((60, 3))
    rows["x"][5] = np.nan
    planes = b"".join(rows[name].tobytes() for name in PCD_TYPE.names)
    if encoding == "ascii":
        lines = [" ".join(f"{number:.9g}" for field in row for number in np.atleast_1d(field)) for row in rows]
        body = ("\r\n".join(lines) + "\r\n").encode()
    elif encoding == "binary":
        body = rows.tobytes()
    else:
        import lzf

        packed = lzf.compress(planes)
        body = np.array([len(packed), len(planes)], "<u4").tobytes() + packed
    path.write_bytes(PCD_HEADER.format(encoding).encode() + body)
    return rows


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_pcd_keeps_every_byte_of_every_point_and_its_header(encoding, tmp_path):
    rows = write_pcd(tmp_path / "scan.pcd", encoding)
    path = segmented(tmp_path / "scan.pcd")
    content = read_content(path)
    if encoding == "ascii":
        before = read_content(tmp_path / "scan.pcd").rows
        assert [line.rsplit(" ", 2)[0] for line in content.rows] == before
    else:
        assert content.rows[:, : PCD_TYPE.itemsize].tobytes() == rows.tobytes()
    for line in ("# .PCD v0.7 - a comment", "WIDTH 20", "HEIGHT 3", "VIEWPOINT 1 2 3 1 0 0 0"):
        assert line in content.lines
    fields = read_pcd_fields(path)
    np.testing.assert_array_equal(fields["class"], LABELS)
    np.testing.assert_allclose(fields["score"], SCORES, rtol=1e-7)
    np.testing.assert_array_equal(read_points(path), read_points(tmp_path / "scan.pcd"))


def test_a_comment_of_another_encoding_is_kept(tmp_path):
    write_pcd(tmp_path / "scan.pcd", "binary")
    content = (tmp_path / "scan.pcd").read_bytes()
    (tmp_path / "scan.pcd").write_bytes(content.replace(b"a comment", b"gr\xfc\xdfe", 1))
    assert b"gr\xfc\xdfe" in segmented(tmp_path / "scan.pcd").read_bytes()


# Other formats


@pytest.mark.parametrize("suffix", [".ply", ".pcd", ".las", ".laz"])
@pytest.mark.parametrize("origin", [(0, 0, 0), tuple(UTM)])
def test_a_scan_in_another_format_is_converted_in_its_own_coordinates(suffix, origin, tmp_path):
    (tmp_path / "scan.bin").write_bytes(b"read before")
    path = segmented(tmp_path / "scan.bin", suffix, origin=origin)
    cloud = read_cloud(path)
    assert np.abs(cloud.file_points[:, :3] - POINTS[:, :3] - origin).max() < 0.0006
    np.testing.assert_array_equal(cloud.points[:, 3], POINTS[:, 3])
    if suffix in (".ply", ".pcd") and not any(origin):
        np.testing.assert_array_equal(cloud.points, POINTS)


def test_las_scales_reflectances_and_leaves_out_what_it_cannot_have(tmp_path, caplog):
    (tmp_path / "scan.bin").write_bytes(b"read before")
    points = POINTS.copy()
    points[:, 3] /= 100
    points[9, 1], points[3, 3] = np.nan, np.nan
    with caplog.at_level(logging.WARNING):
        path = segmented(tmp_path / "scan.bin", ".las", points=points)
    cloud = laspy.read(path)
    assert "without 1 points that are not finite" in caplog.text and len(cloud) == NUM_POINTS - 1
    np.testing.assert_array_equal(cloud["class"], np.delete(LABELS, 9))
    expected = np.rint(np.nan_to_num(np.delete(points[:, 3], 9)) * 65535)
    np.testing.assert_array_equal(cloud.intensity, expected)


def test_fields_of_an_earlier_result_are_kept(tmp_path):
    for suffix, start in ((".ply", ".bin"), (".pcd", ".bin"), (".las", ".bin")):
        folder = tmp_path / suffix[1:]
        folder.mkdir()
        (folder / f"scan{start}").write_bytes(b"read before")
        first = segmented(folder / f"scan{start}", suffix)
        second = result_of(first)
        write_result(folder / f"again{suffix}", SegmentedScan(**{**vars(second), "labels": LABELS[::-1].copy()}))
        if suffix == ".las":
            cloud = laspy.read(folder / "again.las")
            fields = {name: cloud[name] for name in ("class", "predicted_class", "predicted_score")}
        elif suffix == ".ply":
            vertex = plyfile.PlyData.read(folder / "again.ply")["vertex"]
            fields = {name: vertex[name] for name in ("class", "predicted_class", "predicted_score")}
        else:
            fields = read_pcd_fields(folder / "again.pcd")
        np.testing.assert_array_equal(fields["class"], LABELS)
        np.testing.assert_array_equal(fields["predicted_class"], LABELS[::-1])
        np.testing.assert_array_equal(fields["predicted_score"], SCORES)


def test_a_scan_is_never_overwritten_by_its_result(tmp_path):
    write_pcd(tmp_path / "scan.pcd", "binary")
    before = (tmp_path / "scan.pcd").read_bytes()
    with pytest.raises(ValueError, match="scan.pcd: the result would overwrite the scan"):
        write_result(tmp_path / "scan.pcd", result_of(tmp_path / "scan.pcd"))
    assert (tmp_path / "scan.pcd").read_bytes() == before


def test_a_map_in_rerun_is_relative_to_its_origin_which_is_in_the_file(tmp_path):
    pytest.importorskip("rerun", reason="rerun is not installed: pip install 'uov-hf[rerun]'")
    from rerun.chunk import RrdReader

    path = segmented(tmp_path / "map.las", ".rrd", points=POINTS[:, :3] - POINTS[:, :3].mean(0).round(), origin=UTM)
    chunks = [chunk for chunk in RrdReader(path).stream().to_chunks() if chunk.entity_path == "/origin"]
    texts = [text for chunk in chunks for text in chunk.to_record_batch().column("TextDocument:text").to_pylist()]
    assert len(texts) == 1 and "x 51234" in texts[0][0] and "y 541234" in texts[0][0]


def test_an_unknown_format_and_a_missing_library_are_named_before_the_run(monkeypatch):
    check_libraries(FORMATS[:-1])
    with pytest.raises(ValueError, match="`formats` must be among npy, label, ply, pcd, las, laz, rrd, got e57"):
        check_libraries(["npy", "e57"])
    monkeypatch.setattr("uov_hf.results.writers.find_spec", lambda name: None)
    for name, extra in (("las", "clouds"), ("rrd", "rerun")):
        with pytest.raises(ImportError, match=rf"The format {name} needs .* pip install 'uov-hf\[{extra}\]'"):
            check_libraries([name])


def damage_las(content):
    (start,) = struct.unpack_from("<Q", content, 235)  # of the record after the points
    return content[: start + 20] + struct.pack("<Q", 2**62) + content[start + 28 :]


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".las", damage_las),
        (".las", lambda content: content[:24] + b"\xff\2" + content[26:]),  # a version that cannot be written
        (".ply", lambda content: content.replace(b"\nproperty", b"\nprop", 1)),
        (".ply", lambda content: content[:-3]),
        (".pcd", lambda content: content[:-3]),
    ],
    ids=["record of 4 EB", "version", "header", "cut ply", "cut pcd"],
)
def test_a_scan_that_is_damaged_after_it_was_read_is_named(suffix, damage, tmp_path):
    scan = tmp_path / f"scan{suffix}"
    if suffix == ".las":
        write_random_las(scan, 7)
    else:
        (tmp_path / "scan.bin").write_bytes(b"read before")
        segmented(tmp_path / "scan.bin", suffix).rename(scan)
    scan.write_bytes(damage(scan.read_bytes()))
    with pytest.raises(ValueError, match=f"scan{suffix}"):
        segmented(scan)


@pytest.mark.parametrize("labels", [[0, -1], [0, 3], [0.0, 1.0], [0]])
def test_a_result_with_other_labels_than_its_classes_is_refused(tmp_path, labels):
    """A `.label` file had the id of another class for -1."""
    points, scores = np.ones((2, 3), np.float32), np.ones(2, np.float32)
    with pytest.raises(ValueError, match="`labels` must"):
        SegmentedScan(tmp_path / "a.bin", tmp_path, points, np.zeros(3), np.array(labels), scores, ["car", "road"])


def test_a_point_that_las_cannot_store_is_named(tmp_path):
    points = np.array([[0, 0, 0], [3e6, 0, 0]], np.float32)
    labels, scores = np.zeros(2, np.uint8), np.ones(2, np.float32)
    result = SegmentedScan(tmp_path / "a.bin", tmp_path, points, np.zeros(3), labels, scores, ["car"])
    with pytest.raises(ValueError, match=r"a\.las: `points` must lie within 2,000,000 m .* got one at 3e\+06 m"):
        write_result(tmp_path / "a.las", result)


def test_scores_of_16_bits_are_written_to_las(tmp_path):
    points, scores = np.zeros((2, 3), np.float32), np.array([0.25, 1], np.float16)
    result = SegmentedScan(tmp_path / "a.bin", tmp_path, points, np.zeros(3), np.zeros(2, np.uint8), scores, ["car"])
    write_result(tmp_path / "a.las", result)
    assert np.array(laspy.read(tmp_path / "a.las")["score"]).tolist() == [0.25, 1]
