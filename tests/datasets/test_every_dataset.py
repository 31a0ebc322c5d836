"""What holds for every dataset: typed columns, files read when needed, Parquet with the same frames, named errors."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import small_bags
import small_car
from same_frames import assert_same_frame
from tiny_roots import (
    IMAGE_SIZE,
    write_argoverse2,
    write_kitti_object,
    write_nuscenes,
    write_pandaset,
    write_semantic_kitti,
)

from uov_hf.data import FRAME_FEATURES, decode_image, load_frames
from uov_hf.data.loading import find_builder


def write_rosbag(root):
    """One bag of the kind that any platform reads, with an image for every scan."""
    root.mkdir()
    with small_bags.open_bag(root, "mcap") as bag:
        for number in range(2):
            time = 1_700_000_000_000_000 + 100_000 * number
            points = np.random.default_rng(number).normal(0, 20, (50, 4)).astype(np.float32)
            points[:, 3] = np.abs(points[:, 3])
            cloud = points.view([(name, np.float32) for name in ("x", "y", "z", "intensity")])[:, 0]
            bag.cloud("/points", time, "lidar", cloud)
            bag.compressed("/cam/image/compressed", time, "cam", small_bags.jpeg_of(np.zeros((12, 16, 3), np.uint8)))
            bag.camera_info("/cam/camera_info", time, "cam", (12, 16), np.array([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]]))
            bag.transforms("/tf", time, ("odom", "lidar", np.eye(4) + number * np.eye(4, k=3)))
        bag.transforms("/tf_static", time, ("lidar", "cam", np.eye(4)))
    return root


SCRIPTS = Path(__file__).parents[2] / "dataset_scripts"
WRITE_ROOT = {
    "nuscenes": lambda root: write_nuscenes(root, {"scene-1077": 1, "scene-0103": 1}),
    "semantic_kitti": lambda root: write_semantic_kitti(root, {"00": 1, "08": 1}),
    "kitti_object": write_kitti_object,
    "pandaset": write_pandaset,
    "point_cloud_folder": lambda root: small_car.write_car(root, num_frames=2).parent,
    "argoverse2": write_argoverse2,
    "rosbag": write_rosbag,
}
# Their points and images are in files of another form; tests of their own read those.
PLAIN_FILES = [name for name in WRITE_ROOT if name not in ("argoverse2", "rosbag")]
SAMPLES = {name: name for name in ("nuscenes", "kitti_object", "pandaset")}  # real ones, where they are at hand
SAMPLES["semantic_kitti"] = "semantickitti/dataset"
ROOTS = [(name, "tiny") for name in WRITE_ROOT] + [(name, "real") for name in SAMPLES]


@pytest.fixture
def root(name, tmp_path):
    return WRITE_ROOT[name](tmp_path / "root")


@pytest.mark.parametrize("name", PLAIN_FILES)
def test_points_are_those_of_the_file_and_images_stay_encoded_in_theirs(name, root):
    frame = load_frames(name, data_dir=root)[0]
    assert list(frame) == list(FRAME_FEATURES)
    files = {path.read_bytes() for path in root.rglob("*.bin") if len(path.read_bytes()) > 200}
    num_columns = 5 if name == "nuscenes" else 4  # nuScenes has the ring, too
    scans = [np.frombuffer(content, np.float32).reshape(-1, num_columns)[:, :4].tobytes() for content in files]
    assert frame["points"].tobytes() in scans
    for image, size in zip(frame["images"], frame["image_sizes"], strict=True):
        assert image["bytes"] is None and root in Path(image["path"]).parents
        height, width = small_car.IMAGE_SIZE if name == "point_cloud_folder" else IMAGE_SIZE
        assert decode_image(image).size == (width, height) and size.tolist() == [height, width]


@pytest.mark.parametrize("name", [*PLAIN_FILES, "argoverse2"])
def test_a_column_that_is_not_selected_opens_no_file(name, root):
    frames = load_frames(name, data_dir=root)
    for path in root.rglob("*"):
        if path.suffix in (".jpg", ".png"):
            path.unlink()
    assert len(frames.select_columns(["frame_id", "points", "labels", "intrinsics", "lidar2cam"])[0]["points"]) == 50
    with pytest.raises(ValueError, match=f"{root}/.*g: expected "):
        frames.select_columns(["images"])[0]


@pytest.mark.parametrize(("name", "kind"), ROOTS)
def test_streams_and_the_parquet_of_its_program_have_the_same_frames(name, kind, request, tmp_path, monkeypatch):
    root = (
        request.getfixturevalue("shared_data") / SAMPLES[name]
        if kind == "real"
        else WRITE_ROOT[name](tmp_path / "root")
    )
    monkeypatch.setattr(sys, "argv", [name, "--data_dir", str(root), "--output_dir", str(tmp_path / "parquet")])
    runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
    for split in find_builder(name)(data_dir=str(root)).default_splits():
        raw, written = load_frames(name, split, data_dir=root), load_frames(str(tmp_path / "parquet"), split)
        assert written.taxonomy == raw.taxonomy and written.frame_ids == raw.frame_ids
        streamed = load_frames(name, split, data_dir=root, streaming=True)
        for expected, frame, of_stream in zip(raw, written, streamed, strict=True):
            assert_same_frame(frame, expected)
            assert_same_frame(of_stream, expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nuscenes", "expected one folder v1.0-… with the tables, got none"),
        ("semantic_kitti", "expected scans (sequences/00/velodyne/000000.bin, …), got none"),
        ("kitti_object", "expected scans (training/velodyne/000000.bin, …), got none"),
        ("pandaset", "expected scans (001/lidar/00.bin, …), got none"),
        ("point_cloud_folder", "expected a folder for every sequence, with a folder `points` in it"),
        ("argoverse2", "expected logs (train/<log>/sensors/lidar/<time>.feather, …), got none"),
        ("rosbag", "expected a ROS bag (.bag, .mcap, .db3, or a folder with metadata.yaml), or a folder with bags"),
    ],
)
def test_a_folder_of_something_else_is_named_with_the_expected_layout(name, expected, tmp_path):
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}: {expected}")):
        load_frames(name, data_dir=tmp_path)


NOT_WHOLE = "expected a whole number of points of {} float32, got {} bytes"
LIDAR_FILE = "samples/LIDAR_TOP/scene-1077-0-LIDAR_TOP.pcd.bin"
LIDARSEG_FILE = "lidarseg/v1.0-mini/scene-1077-0-LIDAR_TOP_lidarseg.bin"
NO_POINT = "expected a scan with finite points, got 0 points"
BROKEN = {  # dataset: file, its new content (None: no file), the column that reads it, the message
    "nuscenes": [
        (LIDAR_FILE, b"\0" * 992, "points", NOT_WHOLE.format(5, 992)),
        (LIDAR_FILE, b"", "points", NO_POINT),
        (LIDAR_FILE, None, "points", "expected files with the points of each sequence, got none of scene-1077"),
        (LIDARSEG_FILE, b"\0" * 49, "labels", "expected 50 labels of 1 byte"),
        (LIDARSEG_FILE, b" " * 50, "labels", r"does not have: \[32\]"),
        (LIDARSEG_FILE, None, "labels", "expected the labels of .*pcd.bin"),
        (
            "samples/CAM_BACK/scene-1077-0-CAM_BACK.jpg",
            None,
            "images",
            "expected the CAM_BACK image of key frame .*",
        ),
    ],
    "semantic_kitti": [
        ("sequences/00/velodyne/000000.bin", b"\0" * 790, "points", NOT_WHOLE.format(4, 790)),
        ("sequences/00/velodyne/000000.bin", b"", "points", NO_POINT),
        ("sequences/00/labels/000000.label", b"\0" * 199, "labels", "expected 50 labels of 4 bytes.* got 199 bytes"),
        ("sequences/00/labels/000000.label", b"\2\0\0\0" * 50, "labels", r"The labels contain ids that .*: \[2\]"),
        ("sequences/00/labels/000000.label", None, "instances", "expected the labels of .*000000.bin, got no file"),
        ("sequences/00/image_2/000000.png", b"", "image_sizes", "expected a whole image file, got: cannot identify"),
        ("sequences/00/image_2/000000.png", None, "images", "expected the image of scan 00/000000, got no file"),
        ("sequences/00/calib.txt", b"Tr: 1 2 3\n", "lidar2cam", "expected lines.*P0, P2, Tr, got none for P0, P2, Tr"),
        ("sequences/00/calib.txt", None, "intrinsics", "expected a text file of KITTI, got: .*No such file"),
        ("sequences/00/poses.txt", b"1 0 0\n", "lidar2global", "expected 12 numbers in every line, got.*line 1"),
        ("sequences/00/poses.txt", b"", "lidar2global", "expected a line for every scan, got 0 lines and scan 000000"),
        ("sequences/00/times.txt", b"noon\n", "timestamp", "expected numbers, got: could not convert string to float"),
        ("sequences/00/times.txt", None, "timestamp", "expected a text file of KITTI, got: .*No such file"),
    ],
    "kitti_object": [
        ("training/velodyne/000007.bin", b"\0" * 20, "points", NOT_WHOLE.format(4, 20)),
        ("training/calib/000007.txt", b"P2: 1 2\n", "lidar2cam", "expected lines of a name and 12 numbers"),
        ("training/calib/000007.txt", None, "intrinsics", "expected a text file of KITTI, got: .*No such file"),
        ("training/image_2/000007.png", None, "images", "expected the image of scan training/000007, got no file"),
        ("training/image_2/000007.png", b"", "image_sizes", "expected a whole image file, got: cannot identify"),
    ],
    "pandaset": [
        ("001/lidar/00.bin", b"\0" * 20, "points", NOT_WHOLE.format(4, 20)),
        ("001/lidar/00.bin", b"", "points", NO_POINT),
        ("001/labels/00.label", b"\0" * 4, "labels", "expected 50 labels of 4 bytes.*of 00.bin, got 4 bytes"),
        ("001/labels/00.label", b"\x2b\0\0\0" * 50, "labels", r"The labels contain ids that .*: \[43\]"),
        ("001/labels/00.label", None, "labels", "expected the labels of .*00.bin, got no file"),
        ("001/camera/front_camera/00.jpg", None, "images", "expected the image of scan 001/00, got no file"),
        ("001/calib.json", b"{", "frame_id", "expected JSON, got: Expecting"),
        ("001/calib.json", b"{}", "frame_id", "expected the keys .*, got none of the name camera, width, height"),
        ("001/calib.json", None, "frame_id", "expected JSON, got: .*No such file"),
    ],
    "point_cloud_folder": [
        ("drive/points/0.bin", b"\0" * 797, "points", "expected a whole number of points"),
        ("drive/points/0.bin", b"", "points", NO_POINT),
        ("drive/points/0.bin", np.full((9, 4), np.nan, np.float32).tobytes(), "points", "got 9 points, none finite"),
        ("drive/labels/0.label", bytes(4 * 49), "labels", r"expected 50 .* of 0.bin, got .*\(49,\)"),
        ("drive/labels/0.label", b"\7\0\0\0" * 50, "labels", r"ids that .* does not have: \[7\]"),
        ("drive/labels/0.label", bytes(4 * 50 + 3), "instances", "expected a whole .label file"),
        ("drive/images/left/0.png", b"", "images", "expected a whole image file"),
        ("drive/images/left/0.png", None, "images", "expected a whole image file"),
    ],
}


@pytest.mark.parametrize(
    ("name", "file", "content", "column", "message"),
    [(name, *case) for name, cases in BROKEN.items() for case in cases],
)
def test_a_broken_file_is_named(name, root, file, content, column, message):
    if column != "frame_id":  # the folder opens, because this file is read with its column
        frames = load_frames(name, data_dir=root)
    (root / file).unlink() if content is None else (root / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"{file}.*: .*{message}"):
        (load_frames(name, data_dir=root) if column == "frame_id" else frames).select_columns([column])[0]
