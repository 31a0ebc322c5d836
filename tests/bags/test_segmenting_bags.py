"""A bag in, a bag out: every message of the original, and beside each scan the same scan with labels and colours."""

import json
import logging
import re

import numpy as np
import pytest
import small_bags
from test_bag_choices import AHEAD, START, place, settle, write_camera, write_two_lidars

from uov_hf.bags.inspection import inspect_bag
from uov_hf.bags.point_cloud2 import fields_of
from uov_hf.bags.reading import Bag
from uov_hf.data import load_frames
from uov_hf.segmenting import class_colors, load_segmenter
from uov_hf.segmenting_bags import segment_bags
from uov_hf_cli.__main__ import main


@pytest.fixture(scope="module")
def segmenter(tiny_segmenter):
    return load_segmenter(tiny_segmenter, device="cpu")


@pytest.mark.parametrize("option", [("--on_error", "skip"), ("--tile_radius", "20"), ("--num_columns", "4")])
def test_options_for_scan_files_are_refused(mcap, tiny_segmenter, tmp_path, capsys, option):
    program = ["segment", str(mcap), "--format", "bag", "--model_name_or_path", str(tiny_segmenter), "--device", "cpu"]
    assert main([*program, *option, "--output_dir", str(tmp_path)]) == 1
    assert f"--format bag does not take {option[0]}: " in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["drive.bag", "drive.mcap", "drive.db3", "drive", "week"])
def test_a_bag_without_the_format_of_bags_is_refused_with_the_option_to_add(tmp_path, tiny_segmenter, capsys, kind):
    """A file, the folder of a ROS 2 bag, and a folder of bags."""
    (tmp_path / "drive").mkdir()
    (tmp_path / "week").mkdir()
    for name in ("drive.bag", "drive.mcap", "drive.db3", "drive/metadata.yaml", "week/monday.mcap"):
        (tmp_path / name).touch()
    program = ["segment", str(tmp_path / kind), "--model_name_or_path", str(tiny_segmenter), "--device", "cpu"]
    assert main([*program, "--output_dir", str(tmp_path / "out")]) == 1
    assert f"{kind}: expected scans, got a ROS bag. Segment it with `--format bag`" in capsys.readouterr().err
    assert main([*program, "--format", "ply,bag"]) == 1
    assert "--format bag is for ROS bags, and has no other formats beside it" in capsys.readouterr().err


def test_scans_in_a_folder_with_other_metadata_are_scans(tmp_path, tiny_segmenter):
    np.save(tmp_path / "0.npy", np.random.default_rng(0).uniform(-5, 5, (50, 4)).astype(np.float32))
    (tmp_path / "metadata.yaml").write_text("sensor: roof")
    program = ["segment", str(tmp_path), "--model_name_or_path", str(tiny_segmenter), "--device", "cpu"]
    assert main([*program, "--candidate_labels", "car", "--output_dir", str(tmp_path / "out")]) == 0


def stored(path, topics):
    bag = Bag(path)
    messages = [(raw.connection.topic, raw.log_time, bytes(raw.data)) for raw in bag.raw_messages(topics)]
    return sorted(messages)


def test_the_command_writes_a_bag_that_is_read_back(mcap, segmenter, tiny_segmenter, tmp_path, capsys):
    program = ["segment", str(mcap), "--format", "bag", "--model_name_or_path", str(tiny_segmenter), "--device", "cpu"]
    for _ in range(2):  # the second run replaces the result of the first
        assert main([*program, "--candidate_labels", "tree, car", "--output_dir", str(tmp_path)]) == 0
    assert f"{mcap}: 3 scans, points: " in capsys.readouterr().out
    result, original = Bag(tmp_path / "drive_segmented"), Bag(mcap)
    assert set(result.topics) == {*original.topics, "/lidar/points/segmented"}
    assert stored(result.path, original.topics) == stored(mcap, original.topics)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "drive_segmented",
        "drive_segmented.json",
        "drive_segmented.png",
    ]

    frames, colors = load_frames("rosbag", data_dir=mcap), class_colors(["tree", "car"]).astype(np.uint32)
    clouds = list(result.messages(["/lidar/points/segmented"]))
    scans = list(original.messages(["/lidar/points"]))
    counts = np.zeros(2, int)
    for frame, (moment, cloud), (before, scan) in zip(frames, clouds, scans, strict=True):
        assert (moment.time, moment.frame, moment.log_time) == (before.time, "lidar", before.log_time)
        points, expected = fields_of(cloud, "result"), fields_of(scan, "original")
        for name in expected.dtype.names:
            assert points[name].tobytes() == expected[name].tobytes()
        predicted = segmenter({"points": frame["points"], "candidate_labels": "tree, car", "intensity_max": 255})
        np.testing.assert_array_equal(points["label"], predicted["segmentation"])
        np.testing.assert_allclose(points["score"], predicted["scores"], atol=1e-6)
        seen = points["label"] < 2
        red, green, blue = colors[points["label"][seen]].T
        assert (points["rgb"][seen].view(np.uint32) == red << 16 | green << 8 | blue).all()
        counts += np.bincount(points["label"], minlength=256)[:2]
    about = json.loads((tmp_path / "drive_segmented.json").read_text())
    assert [(own["name"], own["num_points"]) for own in about["classes"]] == list(
        zip(["tree", "car"], counts.tolist(), strict=True)
    )


@pytest.mark.parametrize("kind", small_bags.KINDS)
def test_each_of_several_lidars_gets_its_labels_in_any_kind_of_bag(kind, segmenter, tmp_path):
    with small_bags.open_bag(tmp_path, kind) as bag:
        write_two_lidars(bag)
    path = small_bags.path_of(tmp_path, kind)
    settle(path, "lidars: [/first, /second]")
    (segmented,) = segment_bags(segmenter, [path], tmp_path / "out", candidate_labels=["tree", "car"])
    assert segmented.result.name == ("drive_segmented.bag" if kind == "bag" else "drive_segmented")
    assert sum(segmented.num_points.values()) == 16 and segmented.num_scans == 8
    result, frames = Bag(segmented.result), load_frames("rosbag", data_dir=path)
    topics = ["/first/segmented", "/second/segmented"]
    labels = {(moment.topic, moment.time): fields_of(cloud, "")["label"] for moment, cloud in result.messages(topics)}
    for frame in frames:
        time = frame["timestamp"]
        expected = segmenter({"points": frame["points"], "candidate_labels": ["tree", "car"], "intensity_max": 200})
        here = np.concatenate([labels["/first/segmented", time], labels["/second/segmented", time + 40_000]])
        np.testing.assert_array_equal(here, expected["segmentation"])


def write_scans(bag, frame="lidar", interval=100_000):
    for number in range(3):
        bag.cloud("/points", START + number * interval, frame, AHEAD)


def write_zero_rotations(bag):
    """As publishers send them before they know the pose."""
    write_camera(bag, True, True)
    bag.quaternion = lambda pose: bag.make("geometry_msgs/msg/Quaternion", **dict.fromkeys("xyzw", 0.0))
    bag.transforms("/tf_static", START, ("base", "other", place()))
    bag.odometry("/odom", START, "odom", "base", place())


def write_odometry(bag, start=START, topics=("/odom",), body="base"):
    write_scans(bag, "base")
    for topic in topics:
        for number in range(3):
            bag.odometry(topic, start + number * 100_000, "odom", body, place(number))


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (write_scans, ""),
        (lambda bag: write_scans(bag, interval=0), ""),
        (lambda bag: write_camera(bag, False, False), ""),
        (lambda bag: write_camera(bag, True, True, focal_length=0.0), ""),
        (write_zero_rotations, "1 poses are left out.*1 transforms of frame 'other' are left out"),
        (lambda bag: write_odometry(bag, body="wheel"), "not corrected .*from 'base' to 'wheel'"),
        (lambda bag: write_odometry(bag, topics=("/gps", "/odom")), "not corrected .*got /gps, /odom"),
        (lambda bag: write_odometry(bag, start=37_000_000), "3 of 3 scans are not corrected for the car's motion"),
    ],
)
def test_scans_are_segmented_without_cameras_and_poses(segmenter, tmp_path, caplog, write, expected):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        write(bag)
    (segmented,) = segment_bags(segmenter, [tmp_path / "drive"], tmp_path / "out", candidate_labels=["tree", "car"])
    warned = " ".join(one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING)
    assert re.search(expected, " ".join(warned.split())) and bool(warned) == bool(expected)
    assert segmented.num_scans == 3 and sum(segmented.num_points.values()) == 6
    clouds = [fields_of(cloud, "") for _, cloud in Bag(segmented.result).messages(["/points/segmented"])]
    assert [cloud["x"].tolist() for cloud in clouds] == [[10, 20]] * 3
    assert inspect_bag(tmp_path / "drive").stages[0].missing == ""


def test_a_frame_that_cannot_be_segmented_is_named_and_no_half_bag_is_left(mcap, segmenter, tmp_path):
    with pytest.raises(ValueError, match=r"drive, frame drive/000000: .*threshold"):
        list(segment_bags(segmenter, [mcap], tmp_path, candidate_labels=["car"], threshold=7))
    assert not list(tmp_path.iterdir())


def test_bags_of_one_name_are_refused(mcap, segmenter, tmp_path):
    with pytest.raises(ValueError, match="expected bags of different names, as results have them, got .*, .*"):
        list(segment_bags(segmenter, [mcap, mcap], tmp_path, candidate_labels=["car"]))
