"""Topics are found by type; where there are several, or something is missing, the message has the line to write."""

import multiprocessing
import pickle
import shutil

import drives
import numpy as np
import pytest
import small_bags

from uov_hf.bags.reading import Bag
from uov_hf.data import load_frames


CLOUD = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "u1")])
AHEAD = np.array([(10, 0, 0, 200), (20, 1, 0, 7)], CLOUD)
START = drives.START


def place(x=0.0, y=0.0, yaw=0.0):
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    pose[:2, 3] = x, y
    return pose


def write_two_lidars(bag, odometry=("/odom",)):
    """The second lidar is 2 m ahead of the first, looks to the left, and scans 40 ms later. The car drives 10 m/s."""
    bag.transforms("/tf_static", START, ("base", "first", place()), ("base", "second", place(2, 0, np.pi / 2)))
    for number in range(4):
        time = START + number * 100_000
        bag.cloud("/first", time, "first", AHEAD)
        bag.cloud("/second", time + 40_000, "second", AHEAD)
        for topic in odometry:
            bag.odometry(topic, time, "odom", "base", place(1.0 * number))


@pytest.fixture
def two_lidars(tmp_path):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        write_two_lidars(bag)
    return tmp_path / "drive"


def settle(bag, text):
    (bag.parent / "rosbag.yaml").write_text("intensity_max: 200\n" + text)


def test_of_several_lidars_some_must_be_chosen(two_lidars):
    with pytest.raises(ValueError, match=r"expected one topic with scans, got /first, /second.*`lidars: \[/first\]`"):
        load_frames("rosbag", data_dir=two_lidars)
    settle(two_lidars, "lidars: [/nowhere]")
    with pytest.raises(ValueError, match=r"rosbag.yaml: .* has no scans on /nowhere, only on /first, /second"):
        load_frames("rosbag", data_dir=two_lidars)


def test_lidars_are_merged_in_the_frame_of_the_first_at_its_time(two_lidars):
    """(10, 0) of the second is (2, 10) in the first's frame, and 0.4 m farther ahead 40 ms later."""
    settle(two_lidars, "lidars: [/first, /second]")
    frame = load_frames("rosbag", data_dir=two_lidars)[1]
    np.testing.assert_allclose(frame["points"], [[10, 0, 0, 200], [20, 1, 0, 7], [2.4, 10, 0, 200], [1.4, 20, 0, 7]])
    assert frame["intensity_max"] == 200 and frame["camera_names"] == []


@pytest.mark.parametrize("wrong", [300, 1e8])
def test_a_wrong_intensity_does_not_change_the_full_scale_of_a_drive(tmp_path, wrong):
    cloud = np.ones(1000, [*CLOUD.descr[:3], ("intensity", "<f4")])
    cloud["intensity"] = np.arange(1000) % 256
    cloud["intensity"][7] = wrong
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        bag.cloud("/points", START, "base", cloud)
    assert load_frames("rosbag", data_dir=tmp_path)[0]["intensity_max"] == 255


def test_a_full_scale_that_cannot_be_guessed_is_refused_with_the_line_to_write(tmp_path):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        bag.cloud("/points", START, "base", np.full(20, 1e6, [(name, "<f4") for name in CLOUD.names]))
    with pytest.raises(ValueError, match=r"/points: .*from 1000000 to .*Give it in .*rosbag.yaml: `intensity_max: "):
        load_frames("rosbag", data_dir=tmp_path)
    settle(tmp_path / "drive", "")
    assert load_frames("rosbag", data_dir=tmp_path)[0]["intensity_max"] == 200


def test_without_poses_lidars_are_merged_by_tf_alone(tmp_path):
    with small_bags.open_bag(tmp_path, "bag") as bag:
        write_two_lidars(bag, odometry=())
    settle(tmp_path / "drive.bag", "lidars: [/first, /second]")
    frame = load_frames("rosbag", data_dir=tmp_path / "drive.bag")[1]
    np.testing.assert_allclose(frame["points"][2:], [[2, 10, 0, 200], [1, 20, 0, 7]], atol=1e-6)
    assert frame["lidar2global"] is None


def test_of_several_odometries_one_must_be_chosen(tmp_path):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        write_two_lidars(bag, odometry=("/gps", "/wheels"))
    settle(tmp_path / "drive", "lidars: [/first]")
    with pytest.raises(ValueError, match="one topic with odometry, got /gps, /wheels.*`odometry: /gps`"):
        load_frames("rosbag", data_dir=tmp_path)
    settle(tmp_path / "drive", "lidars: [/first]\nodometry: /wheels")
    assert load_frames("rosbag", data_dir=tmp_path)[3]["lidar2global"][0, 3] == 3


def test_poses_may_be_those_in_a_frame_of_tf(tmp_path):
    """map → odom → base: by default the poses are in odom, which does not jump when a map is corrected."""
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        for number in range(3):
            time = START + number * 100_000
            edges = ("odom", "base", place(1.0 * number)), ("map", "odom", place(0, 5.0 + number))
            bag.transforms("/tf", time, *edges)
            bag.cloud("/points", time, "base", AHEAD)
    assert load_frames("rosbag", data_dir=tmp_path)[2]["lidar2global"][:2, 3].tolist() == [2, 0]
    settle(tmp_path / "drive", "odometry: map")
    assert load_frames("rosbag", data_dir=tmp_path)[2]["lidar2global"][:2, 3].tolist() == [2, 7]


def test_scans_without_a_pose_are_left_out_with_a_warning(tmp_path, caplog):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        for number in range(12):
            bag.cloud("/points", START + number * 100_000, "base", AHEAD)
            if number >= 5:
                bag.transforms("/tf", START + number * 100_000, ("odom", "base", place(number)))
    frames = load_frames("rosbag", data_dir=tmp_path)
    assert len(frames) == 8 and frames[0]["timestamp"] == START + 400_000
    assert "4 of 12 scans are left out" in caplog.text


def write_camera(bag, with_info, with_place, images=(0, 1, 2), focal_length=5.0):
    pixels = np.zeros((4, 6, 3), np.uint8)
    for number in range(3):
        time = START + number * 100_000
        bag.cloud("/points", time, "lidar", AHEAD)
        if number in images:
            bag.image("/cam/image_raw", time + 10_000, "cam", pixels, "rgb8")
        if with_info:
            bag.camera_info("/cam/camera_info", time, "cam", (4, 6), np.diag([focal_length, focal_length, 1]))
    if with_place:
        bag.transforms("/tf_static", START, ("base", "lidar", place()), ("base", "cam", place(1)))


@pytest.mark.parametrize(
    ("with_info", "with_place", "expected"),
    [
        (False, True, r"camera 'cam' \(/cam/image_raw\): expected a calibration .*`topic: /cam/image_raw`"),
        (True, False, r"camera 'cam' .*place on the car is unknown.*from 'lidar' to 'cam', got lidar and cam"),
    ],
)
def test_a_camera_without_calibration_is_named_with_the_lines_to_write(tmp_path, with_info, with_place, expected):
    with small_bags.open_bag(tmp_path, "db3") as bag:
        write_camera(bag, with_info, with_place)
    with pytest.raises(ValueError, match=expected):
        load_frames("rosbag", data_dir=tmp_path)
    lines = "cameras:\n  front:\n    topic: /cam/image_raw\n    time_offset: -4000\n"
    lines += "    image_size: [4, 6]\n    intrinsics: [[7, 0, 3], [0, 7, 2], [0, 0, 1]]\n"
    settle(tmp_path / "drive", lines + f"    lidar2cam: {place(3).tolist()}\n")
    frame = load_frames("rosbag", data_dir=tmp_path)[0]
    assert frame["camera_names"] == ["front"] and frame["camera_timestamps"].tolist() == [START + 6000]
    assert frame["lidar2cam"][0, 0, 3] == 3 and frame["intrinsics"][0, 0, 0] == 7
    settle(tmp_path / "drive", "cameras: {}")
    assert load_frames("rosbag", data_dir=tmp_path)[0]["camera_names"] == []


def test_a_frame_has_no_image_where_none_is_near(tmp_path):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        write_camera(bag, True, True, images=(0, 2))
    frames = load_frames("rosbag", data_dir=tmp_path)
    assert [frame["camera_names"] for frame in frames] == [["cam"], [], ["cam"]]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("lidar: [/points]", "line 2: the settings of bags has `intensity_max` and may have `lidars`.*got 'lidar'"),
        ("cameras:\n  a: {topic: /nowhere}", "camera 'a' has the topic /nowhere, .* It has them on: /cam/image_raw"),
        ("cameras:\n  a: {topic: /b, image_size: [4, 6]}", "line 3: .*`intrinsics` together, got image_size only"),
        ("odometry: /nowhere", "has no odometry /nowhere; its odometry topics: none"),
    ],
)
def test_mistakes_in_the_settings_are_named(tmp_path, lines, expected):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        write_camera(bag, True, True)
    settle(tmp_path / "drive", lines)
    with pytest.raises(ValueError, match=f"rosbag.yaml.*{expected}"):
        load_frames("rosbag", data_dir=tmp_path)


def test_a_bag_without_scans_names_what_it_has(tmp_path):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        bag.odometry("/odom", START, "odom", "base", place())
    with pytest.raises(ValueError, match=r"expected scans .*PointCloud2, got /odom \(nav_msgs/msg/Odometry"):
        load_frames("rosbag", data_dir=tmp_path)


def test_each_bag_of_a_folder_is_a_sequence(mcap, tmp_path):
    shutil.copytree(mcap, tmp_path / "monday")
    shutil.copy(mcap / "drive.mcap", tmp_path / "tuesday.mcap")  # a file alone, without metadata.yaml
    (tmp_path / "splits.json").write_text('{"train": ["monday"], "val": ["tuesday/000001"]}')
    assert load_frames("rosbag", data_dir=tmp_path).sequence_ids == ["monday"] * 3
    assert load_frames("rosbag", "val", data_dir=tmp_path).frame_ids == ["tuesday/000001"]
    shutil.copytree(mcap, tmp_path / "tuesday")
    with pytest.raises(ValueError, match="bags with different names, got .*tuesday, .*tuesday.mcap"):
        load_frames("rosbag", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("drive.bag", b"#ROSBAG V2.0\n", "drive.bag: expected a whole ROS bag, got: .*rosbag reindex"),
        ("drive.mcap", b"\x89MCAP0\r\n", "drive.mcap: expected a whole ROS bag, got: .*mcap recover"),
        ("drive.db3", b"no table", "drive.db3: expected a whole ROS bag, got: .*file is not a database.*`.recover`"),
        ("drive.mcap", b"", "drive.mcap: expected a ROS bag, got an empty file"),
        ("drive.txt", b"", "expected a ROS bag .*, or a folder with bags, got none in it"),
    ],
)
def test_what_is_no_bag_is_named(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=expected):
        load_frames("rosbag", data_dir=tmp_path)


def test_a_bag_is_read_in_other_processes(mcap):
    """A forked process opens the file anew: the position in it would be shared. A spawned one gets no open file."""
    frames = load_frames("rosbag", data_dir=mcap)
    expected = frames[1]["points"].tobytes()
    assert pickle.loads(pickle.dumps(frames))[1]["points"].tobytes() == expected
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_points_of, [(frames, 1)] * 4) == [expected] * 4


def _points_of(job):
    frames, index = job
    return frames[index]["points"].tobytes()


def test_messages_of_one_moment_are_told_apart(tmp_path):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        for frame in ("one", "two"):
            bag.cloud("/points", START, frame, AHEAD)
    bag = Bag(tmp_path / "drive")
    moments = [moment for moment, _ in bag.messages(["/points"])]
    assert [bag.read(moment).header.frame_id for moment in moments] == ["one", "two"]
