"""`uov-hf inspect` names the sensors of a bag, what is missing for which stage, and the next command."""

import sqlite3

import drives
import numpy as np
import pytest
import small_bags
from test_bag_choices import AHEAD, START, place, write_camera, write_two_lidars

from uov_hf.bags.inspection import inspect_bag
from uov_hf_cli.__main__ import main


def stages_of(report):
    return {stage.name.split(" (")[0].split(",")[0]: stage.missing for stage in report.stages}


def test_a_whole_drive_is_ready_for_every_stage_that_needs_no_labels(mcap, capsys):
    assert main(["inspect", str(mcap.parent)]) == 0
    printed = capsys.readouterr().out
    assert f"{mcap}: ROS 2, 0.3 s, 33 messages" in printed
    assert "/lidar/points (frame lidar): 10.0 Hz, longest gap 0.10 s, intensity `intensity`, a time" in printed
    assert "camera left (/left/image_raw/compressed): 10.0 Hz" in printed and "64 x 36, lens opencv" in printed
    assert "image +20 ms from the scan (+20 to +20)" in printed
    assert "/odom, 17 at 50.0 Hz" in printed and "OTHER CLOCK" not in printed
    assert "frames: 3, 3 with an image of front, 3 with an image of left; intensity_max 255" in printed
    assert f"next: python dataset_scripts/rosbag.py --data_dir {mcap} --check" in printed
    assert f"to segment: uov-hf segment {mcap} --format bag --model_name_or_path CHECKPOINT" in printed
    assert f"to train: uov-hf train --data_dir {mcap} --teacher clip" in printed
    assert list(filter(None, stages_of(inspect_bag(mcap)).values())) == ["labels of points, which a bag does not have"]


@pytest.mark.parametrize(
    ("write", "missing"),
    [
        (lambda bag: write_two_lidars(bag), {"segment scans": "expected one topic with scans, got /first, /second"}),
        (lambda bag: write_camera(bag, False, True), {"label set": "calibration of cam", "vote over time": "poses"}),
        (lambda bag: write_camera(bag, True, True), {"label set": "", "motion compensation": "poses"}),
        (lambda bag: bag.cloud("/points", START, "lidar", AHEAD), {"segment scans": "", "label set": "images"}),
        (
            lambda bag: bag.odometry("/odom", START, "odom", "base", place()),
            {"segment scans": "expected scans of the type"},
        ),
    ],
)
def test_what_is_missing_is_named_by_stage(tmp_path, write, missing):
    with small_bags.open_bag(tmp_path, "bag") as bag:
        write(bag)
    report = inspect_bag(tmp_path / "drive.bag")
    found = stages_of(report)
    for stage, expected in missing.items():
        assert expected in found[stage] and bool(found[stage]) == bool(expected), found
    is_usable = not found["segment scans"] and "calibration" not in found["label set"]
    assert ("rosbag.yaml" in report.next_command) == (not is_usable)
    printed = "\n".join(report.lines())
    assert printed.count("uov-hf segment") == (not found["segment scans"])


def test_a_lidar_without_a_known_intensity_lists_its_fields(tmp_path):
    power = AHEAD.astype([(name.replace("intensity", "power"), kind) for name, kind in AHEAD.dtype.descr])
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        bag.cloud("/points", START, "lidar", power)
    assert "no intensity among x, y, z, power, no times of points" in inspect_bag(tmp_path / "drive").sensors[0]


def test_a_sensor_with_another_clock_is_named(tmp_path):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        for number in range(3):
            bag.cloud("/points", START + number * 100_000, "lidar", AHEAD)
            image = bag.make(
                "sensor_msgs/msg/CompressedImage",
                header=bag.header(37_000_000 + number * 100_000, "cam"),  # since the camera was switched on
                format="jpeg",
                data=np.frombuffer(drives.jpeg_of(np.zeros((4, 6, 3), np.uint8)), np.uint8),
            )
            bag.write("/cam/image_raw/compressed", image, START + number * 100_000)
    lines = "\n".join(inspect_bag(tmp_path / "drive").lines())
    assert "camera cam" in lines and lines.count("OTHER CLOCK") == 1


def test_a_bag_with_other_messages_than_a_drive_is_named(tmp_path):
    """The bag defines the type of calibrations itself, without a matrix."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    with small_bags.open_bag(tmp_path, "mcap") as bag:
        bag.cloud("/points", START, "lidar", AHEAD)
        bag.image("/front/image_raw", START, "front", np.zeros((4, 6, 3), np.uint8), "rgb8")
        bag.store = get_typestore(Stores.EMPTY)
        bag.store.register(get_types_from_msg("uint32 seq", "sensor_msgs/msg/CameraInfo"))
        bag.write("/front/camera_info", bag.make("sensor_msgs/msg/CameraInfo", seq=1), START)
    with pytest.raises(ValueError, match="drive: expected"):
        inspect_bag(tmp_path / "drive")


def test_messages_that_the_metadata_counts_and_the_bag_lacks_are_no_scans(tmp_path):
    with small_bags.open_bag(tmp_path, "db3") as bag:
        bag.cloud("/points", START, "lidar", AHEAD)
    (path,) = (tmp_path / "drive").glob("*.db3")
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM messages")
    report = inspect_bag(tmp_path / "drive")
    assert "expected scans" in stages_of(report)["segment scans"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("message_count: 1", "message_count: one"),
        ("message_count: 1", "message_count: 1.5"),
        ("message_count: 1", "message_count: .nan"),
        ("message_count: 1", "message_count: -1"),
        ("message_count: 1", f"message_count: 0x{'F' * 5000}"),
        ("nanoseconds: 0", "nanoseconds: .nan"),
        ("nanoseconds: 0", f"nanoseconds: 0x{'F' * 5000}"),
        ("type: sensor_msgs/msg/PointCloud2", "type: 7"),
        ("name: /points", "name: 7"),
    ],
)
def test_a_bag_whose_metadata_has_values_of_another_type_is_named(tmp_path, before, after):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        bag.cloud("/points", START, "lidar", AHEAD)
    metadata = tmp_path / "drive" / "metadata.yaml"
    assert before in metadata.read_text()
    metadata.write_text(metadata.read_text().replace(before, after))
    with pytest.raises(ValueError, match="drive: expected a whole ROS bag, got: (Type|Value|Overflow)Error"):
        list(inspect_bag(tmp_path / "drive").lines())
