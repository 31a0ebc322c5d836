"""Argoverse 2's logs: points in the upper lidar's frame, images nearest in time, motion between both exposures."""

import numpy as np
import pyarrow
import pyarrow.compute
import pytest
from pyarrow import feather
from scipy.spatial.transform import Rotation
from tiny_roots import write_argoverse2

from uov_hf.data import load_frames
from uov_hf.datasets.feather_tables import read_columns


@pytest.fixture
def root(tmp_path):
    return write_argoverse2(tmp_path / "av2")


def pose_of(path, **wanted):
    ((key, value),) = wanted.items()
    (row,) = [row for row in feather.read_table(path).to_pylist() if row[key] == value]
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_quat([row["qx"], row["qy"], row["qz"], row["qw"]]).as_matrix()
    motion[:3, 3] = row["tx_m"], row["ty_m"], row["tz_m"]
    return motion


def test_a_frame_is_what_the_official_layout_describes(root):
    frames = load_frames("argoverse2", data_dir=root)
    assert frames.sequence_ids == ["aaaa", "aaaa", "bbbb", "bbbb"] and len(load_frames("argoverse2", "val", root)) == 2
    frame, log = frames[1], root / "train/aaaa"
    sweep, image = 315966000_100000000, 315966000_107000000
    assert frame["frame_id"] == f"aaaa/{sweep}" and frame["timestamp"] == sweep // 1000
    assert frame["camera_names"] == ["ring_front_center", "ring_side_left"]
    assert frame["image_ids"][0] == f"aaaa/ring_front_center/{image}" and frame["labels"] is None
    assert frame["camera_timestamps"].tolist() == [image // 1000] * 2
    assert frame["intrinsics"][0].tolist() == [[20, 0, 8], [0, 21, 6], [0, 0, 1]]

    places, city = log / "calibration/egovehicle_SE3_sensor.feather", log / "city_SE3_egovehicle.feather"
    lidar, camera = pose_of(places, sensor_name="up_lidar"), pose_of(places, sensor_name="ring_front_center")
    here, there = pose_of(city, timestamp_ns=sweep), pose_of(city, timestamp_ns=image)
    np.testing.assert_allclose(frame["lidar2global"], here @ lidar, atol=1e-9)
    np.testing.assert_allclose(frame["lidar2cam"][0], np.linalg.inv(there @ camera) @ here @ lidar, atol=1e-6)
    table = feather.read_table(log / f"sensors/lidar/{sweep}.feather")
    in_vehicle = np.stack([table[name].to_numpy() for name in "xyz"], axis=1).astype(float)
    back = frame["points"][:, :3] @ lidar[:3, :3].T + lidar[:3, 3]
    np.testing.assert_allclose(back, in_vehicle, atol=1e-4)
    np.testing.assert_array_equal(frame["points"][:, 3], table["intensity"].to_numpy())


def test_an_image_that_is_too_far_in_time_is_left_out(root):
    (root / "train/aaaa/sensors/cameras/ring_side_left/315966000007000000.jpg").unlink()
    (root / "train/aaaa/sensors/cameras/ring_side_left/315966000057000000.jpg").unlink()
    frames = load_frames("argoverse2", data_dir=root)
    assert [frame["camera_names"] for frame in frames[:2]] == [
        ["ring_front_center"],
        ["ring_front_center", "ring_side_left"],
    ]


def test_a_folder_of_logs_without_splits_is_all(root):
    assert load_frames("argoverse2", data_dir=root / "train").sequence_ids[0] == "aaaa"
    assert load_frames("argoverse2", data_dir=root / "train/aaaa").sequence_ids == ["aaaa"] * 2


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("calibration/intrinsics.feather", b"", "expected a feather file of Argoverse 2"),
        ("city_SE3_egovehicle.feather", None, "expected a feather file of Argoverse 2"),
        ("sensors/lidar/315966000000000000.feather", b"ARROW1", "expected a feather file of Argoverse 2"),
    ],
)
def test_a_broken_log_is_named(root, file, content, expected):
    path = root / "train/aaaa" / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file}: {expected}"):
        load_frames("argoverse2", data_dir=root)[0]


CITY, OPTICS, PLACES = (
    "city_SE3_egovehicle.feather",
    "calibration/intrinsics.feather",
    "calibration/egovehicle_SE3_sensor.feather",
)


@pytest.mark.parametrize(
    ("file", "changes", "expected"),
    [
        (CITY, {"qw": 0.0, "qx": 0.0, "qy": 0.0, "qz": 0.0}, "expected finite poses with quaternions of length 1"),
        (CITY, {"qw": 1e300, "qx": 0.0, "qy": 0.0, "qz": 0.0}, "expected finite poses with quaternions of length 1"),
        (CITY, {"qw": 1e-300, "qx": 0.0, "qy": 0.0, "qz": 0.0}, "expected finite poses with quaternions of length 1"),
        (CITY, {"tx_m": float("inf")}, "expected finite poses"),
        (
            CITY,
            {"tx_m": "far"},
            "expected a feather file .* columns timestamp_ns, qx, .* got: could not convert string",
        ),
        (OPTICS, {"height_px": 0}, "expected a number of pixels, got 0.0 x 16"),
        (OPTICS, {"width_px": 1 << 40}, "expected a number of pixels"),
        (OPTICS, {"fx_px": float("nan")}, "`intrinsics` must be .* finite numbers"),
        (PLACES, {"sensor_name": "lidar"}, "expected the sensor up_lidar, got lidar, lidar"),
    ],
)
def test_a_table_of_other_values_is_named(root, file, changes, expected):
    path = root / "train/aaaa" / file
    rows = [row | changes for row in feather.read_table(path).to_pylist()]
    feather.write_feather(pyarrow.Table.from_pylist(rows), path)
    with pytest.raises(ValueError, match=f"{file}: {expected}"):
        load_frames("argoverse2", data_dir=root)[0]


def test_a_camera_without_a_place_is_named(root):
    path = root / "train/aaaa" / PLACES
    feather.write_feather(feather.read_table(path).filter(pyarrow.compute.field("sensor_name") == "up_lidar"), path)
    with pytest.raises(ValueError, match=f"{OPTICS}: expected cameras with a pose .*, got ring_front_center"):
        load_frames("argoverse2", data_dir=root)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_table_takes_no_more_memory_than_its_file_allows(tmp_path, compression, monkeypatch):
    """Arrow allocates the size that a compressed buffer states, before it decompresses."""
    numbers, path = np.zeros(1 << 20), tmp_path / "a.feather"
    feather.write_feather(pyarrow.table({"x": numbers}), path, compression=compression)
    assert path.stat().st_size < numbers.nbytes / 64
    with monkeypatch.context() as patched:
        patched.setattr(pyarrow.ipc, "open_stream", None)  # what reads, and allocates
        with pytest.raises(ValueError, match="a.feather: expected .* got: [0-9,]+ bytes when [0-9,]+ are decompress"):
            read_columns(path, None, None, ["x"])
    feather.write_feather(pyarrow.table({"x": numbers}), path, compression="uncompressed")
    assert read_columns(path, None, None, ["x"])[1].shape == (1 << 20, 1)


@pytest.mark.parametrize(
    "column",
    [
        pyarrow.RunEndEncodedArray.from_arrays(pyarrow.array([1000], pyarrow.int32()), [1.0]),
        pyarrow.array(["a" * 100] * 1000).dictionary_encode(),
        pyarrow.array([True] * 1000),
        pyarrow.nulls(1000),
    ],
    ids=["runs", "dictionary", "bool", "null"],
)
def test_a_column_that_repeats_values_is_refused_by_its_type(tmp_path, column):
    """A run of 60,000,000 equal numbers in 794 bytes took 1.4 GB."""
    feather.write_feather(pyarrow.table({"x": column}), tmp_path / "a.feather")
    with pytest.raises(ValueError, match="a.feather: expected .* got: the column x of type "):
        read_columns(tmp_path / "a.feather", None, None, ["x"])


def test_empty_cells_are_refused(tmp_path):
    feather.write_feather(pyarrow.table({"x": [1.0, None]}), tmp_path / "a.feather")
    with pytest.raises(ValueError, match="a.feather: expected .* got: empty cells"):
        read_columns(tmp_path / "a.feather", None, None, ["x"])


def test_compression_of_which_the_batch_states_nothing_is_refused(tmp_path):
    """Arrow 0.17 wrote a key into the messages instead of a field; later versions read it."""
    schema = pyarrow.schema([("x", pyarrow.float64())], {"ARROW:experimental_compression": "lz4"})
    feather.write_feather(pyarrow.table({"x": [1.0]}, schema=schema), tmp_path / "a.feather")
    with pytest.raises(ValueError, match="a.feather: .* compressed as in Arrow 0.17: write it anew"):
        read_columns(tmp_path / "a.feather", None, None, ["x"])
