"""A bag defines the types of its fields itself: a text or a fraction in place of a whole number is named."""

import numpy as np
import pytest
import small_bags
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_typestore
from test_bag_choices import AHEAD, START, write_camera

from uov_hf.bags.inspection import inspect_bag
from uov_hf.data import load_frames


def redefine(bag, msgtype, field, kind):
    """Another type of a field in the messages of a bag to write. Headers have a time of their own type."""
    types = dict(get_typestore(Stores.LATEST).fielddefs)
    types["own/msg/Time"] = types["builtin_interfaces/msg/Time"]
    changes = {("std_msgs/msg/Header", "stamp"): (Nodetype.NAME, "own/msg/Time")}
    for (name, changed), content in {**changes, (msgtype, field): (Nodetype.BASE, (kind, 0))}.items():
        constants, fields = types[name]
        types[name] = constants, [(one, content if one == changed else kept) for one, kept in fields]
    bag.store = get_typestore(Stores.EMPTY)
    bag.store.register(types)


def stamped(bag, time, **changes):
    header = bag.header(time, "lidar")
    for name, value in changes.items():
        setattr(header.stamp, name, value)
    return header


@pytest.mark.parametrize(
    ("field", "kind", "value", "expected"),
    [
        ("sec", "string", "5" * 300, "TypeError: 'str' object"),
        ("nanosec", "string", "5", "TypeError: 'str' object"),
        ("sec", "float64", float("nan"), "TypeError: 'float' object"),
        ("sec", "int64", 2**62, "seconds and nanoseconds in 32 bits, got 4611686018427387904 s"),
        ("nanosec", "int64", -1, "seconds and nanoseconds in 32 bits"),
    ],
)
def test_a_time_that_is_none_is_named(tmp_path, field, kind, value, expected):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        redefine(bag, "own/msg/Time", field, kind)
        bag.cloud("/points", START, "lidar", AHEAD, header=stamped(bag, START, **{field: value}))
    for read in (inspect_bag, lambda path: load_frames("rosbag", data_dir=path.parent)):
        with pytest.raises(ValueError, match=f"drive: expected the messages of a drive, got others: .*{expected}"):
            read(tmp_path / "drive")


@pytest.mark.parametrize(
    ("field", "kind", "value"),
    [
        ("width", "string", "ab"),
        ("height", "string", "1"),
        ("point_step", "string", "ab"),
        ("row_step", "float64", 26.0),
    ],
)
def test_a_scan_whose_size_is_no_whole_number_is_named(tmp_path, field, kind, value):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        redefine(bag, "sensor_msgs/msg/PointCloud2", field, kind)
        bag.cloud("/points", START, "lidar", AHEAD, **{field: value})
    with pytest.raises(ValueError, match=r"drive: expected the messages .*TypeError: '(str|float)' object"):
        inspect_bag(tmp_path / "drive")


@pytest.mark.parametrize("field", ["height", "width", "step"])
def test_an_image_whose_size_is_no_whole_number_is_named(tmp_path, field):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        redefine(bag, "sensor_msgs/msg/Image", field, "string")
        write_camera(bag, True, True, images=())
        content = {"header": bag.header(START + 10_000, "cam"), "height": 4, "width": 6, "step": 18} | {field: "4"}
        content |= {"encoding": "rgb8", "is_bigendian": 0, "data": np.zeros(72, np.uint8)}
        bag.write("/cam/image_raw", bag.make("sensor_msgs/msg/Image", **content), START + 10_000)
    with pytest.raises(ValueError, match=r"drive: expected the messages .*TypeError: 'str' object"):
        load_frames("rosbag", data_dir=tmp_path)[0]["images"]


@pytest.mark.parametrize("height", [2**31, 2**32 - 1])
def test_a_calibration_of_more_pixels_than_an_image_can_have_is_named(tmp_path, height):
    with small_bags.open_bag(tmp_path, "mcap") as bag:
        write_camera(bag, False, True)
        bag.camera_info("/cam/camera_info", START, "cam", (height, 6), np.diag([5.0, 5, 1]))
    with pytest.raises(ValueError, match=f"drive, /cam/camera_info: expected the calibration .* and {height} x 6 pix"):
        load_frames("rosbag", data_dir=tmp_path).select_columns(["image_sizes"])[0]
