"""PointCloud2 of any layout: offsets, types, byte order, padding, several rows."""

from types import SimpleNamespace

import numpy as np
import pytest
import small_bags

from uov_hf.bags.messages import POINT_CLOUD, POINT_FIELD
from uov_hf.bags.point_cloud2 import fields_of, points_of, times_in, with_labels


XYZ = np.array([[1.5, -2, 3], [4, 5.25, -6], [0, 0, 0], [np.nan, np.nan, np.nan], [7, 8, 9], [-1, -2, -3]])
INTENSITY = np.array([10, 20, 30, 40, 50, 200])


def message_of(points, height=1, row_padding=0, **changes):
    """A message with `height` rows, each followed by `row_padding` bytes."""
    names = points.dtype.names
    fields = [
        SimpleNamespace(
            name=name,
            offset=points.dtype.fields[name][1],
            datatype=small_bags.NUMBERS[points.dtype[name].base.newbyteorder("=")],
            count=int(np.prod(points.dtype[name].shape)),
        )
        for name in names
    ]
    width, step = len(points) // height, points.dtype.itemsize
    rows = points.reshape(height, width).view(np.uint8).reshape(height, width * step)
    content = {
        "height": height,
        "width": width,
        "fields": fields,
        "is_bigendian": points.dtype[names[0]].base.str.startswith(">"),
        "point_step": step,
        "row_step": width * step + row_padding,
        "data": np.pad(rows, ((0, 0), (0, row_padding)), constant_values=255).reshape(-1),
    }
    return SimpleNamespace(**(content | changes))


def cloud_of(names, formats, offsets=None, itemsize=None):
    layout = {"names": names, "formats": formats}
    if offsets:
        layout |= {"offsets": offsets, "itemsize": itemsize}
    cloud = np.zeros(len(XYZ), np.dtype(layout))
    for column, name in enumerate(names[:3]):
        cloud[name] = XYZ[:, column]
    if len(names) > 3:
        cloud[names[3]] = INTENSITY.reshape(-1, *([1] * len(cloud.dtype[names[3]].shape)))
    return cloud


FLOATS = ["<f4"] * 3
LAYOUTS = {
    "Velodyne": cloud_of(["x", "y", "z", "intensity"], [*FLOATS, "<f4"], [0, 4, 8, 16], 32),
    "Ouster": cloud_of(["x", "y", "z", "reflectivity"], [*FLOATS, "<u2"], [0, 4, 8, 20], 48),
    "float64, bytes": cloud_of(["x", "y", "z", "intensity"], ["<f8"] * 3 + ["u1"]),
    "big endian": cloud_of(["x", "y", "z", "intensity"], [">f4"] * 3 + [">u2"]),
    "unaligned, z first": cloud_of(["x", "y", "z", "intensity"], [*FLOATS, "<f4"], [9, 13, 1, 5], 17),
    "upper case": cloud_of(["X", "Y", "Z", "Intensity"], [*FLOATS, "<f4"]),
    "CloudCompare": cloud_of(["x", "y", "z", "scalar_Intensity"], [*FLOATS, "<f4"]),
    "a unit": cloud_of(["x", "y", "z", "Reflectivity [%]"], [*FLOATS, "<u2"]),
}


@pytest.mark.parametrize("height", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_points(layout, height):
    message = message_of(LAYOUTS[layout], height, row_padding=7 * (height - 1))
    expected = np.column_stack([np.where(np.arange(6)[:, None] == 2, np.nan, XYZ), INTENSITY])  # 0, 0, 0 is no echo
    np.testing.assert_array_equal(points_of(fields_of(message, "bag"), "bag"), expected)


def test_fields_without_a_name_or_with_many_values_are_no_obstacle():
    cloud = cloud_of(["x", "y", "z", "intensity"], [*FLOATS, ("<f4", (3,))])
    message = message_of(cloud_of(["x", "y", "z"], FLOATS))
    message.fields.append(SimpleNamespace(name="", offset=0, datatype=2, count=1))
    np.testing.assert_array_equal(points_of(fields_of(message, "bag"), "bag")[:, 3], np.zeros(6))
    fields = fields_of(message_of(cloud), "bag")
    assert fields["intensity"].shape == (6, 3)
    np.testing.assert_array_equal(points_of(fields, "bag")[:, 3], np.zeros(6))


def test_an_empty_scan_has_no_points():
    message = message_of(LAYOUTS["Velodyne"], width=0, row_step=0, data=np.zeros(0, np.uint8))
    assert points_of(fields_of(message, "bag"), "bag").shape == (0, 4)


@pytest.mark.parametrize(("name", "form"), [("t", "<u4"), ("time", "<f4"), ("scalar_Timestamp", "<f8")])
def test_times_are_those_of_the_driver(name, form):
    cloud = cloud_of(["x", "y", "z", name], [*FLOATS, form])
    np.testing.assert_array_equal(times_in(fields_of(message_of(cloud), "bag")), INTENSITY)
    assert times_in(fields_of(message_of(LAYOUTS["Velodyne"]), "bag")) is None


def test_fields_with_the_names_of_the_new_ones_are_kept_as_originals():
    """A cloud of a lidar with a camera, segmented twice: viewers colour by the field `rgb`, which is ours."""
    names, labels = ["x", "y", "z", "rgb", "score", "label"], np.arange(6, dtype=np.uint8)
    before = cloud_of(names, [*FLOATS, "<u4", "<f4", "<u2"])
    before["score"], before["label"] = 0.25, 100 + labels
    message = message_of(before, header=None, is_dense=True)
    types = dict.fromkeys((POINT_CLOUD, POINT_FIELD), SimpleNamespace)
    for _ in range(2):
        message = with_labels(message, labels, np.full(6, 0.5, np.float32), np.zeros((6, 3), np.uint8), types, "bag")
    result = fields_of(message, "bag")
    assert result["label"].tolist() == [0, 1, 2, 3, 4, 5] and result["score"].tolist() == [0.5] * 6
    for name in ("rgb", "score", "label"):
        assert result[f"original_{name}"].tobytes() == before[name].tobytes()
        assert result[f"original_original_{name}"].tobytes() == result[name].tobytes()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data": np.zeros(191, np.uint8)}, "expected 1 rows of 6 points of 32 bytes.*got 191 bytes"),
        ({"point_step": 16}, "with fields that end at byte 20"),
        ({"height": 2, "row_step": 64}, "expected 2 rows of 3 points of 32 bytes, 64 bytes a row"),
        ({"fields": [SimpleNamespace(name="x", offset=0, datatype=9, count=1)]}, "datatype from 1 to 8, got 9"),
        (
            {"fields": [SimpleNamespace(name="range", offset=0, datatype=7, count=1)]},
            "the fields x, y and z with one number a point, got range",
        ),
    ],
)
def test_a_message_that_contradicts_itself_is_named(changes, expected):
    message = message_of(LAYOUTS["Velodyne"], **changes)
    with pytest.raises(ValueError, match=f"drive.bag, /points: .*{expected}"):
        points_of(fields_of(message, "drive.bag, /points"), "drive.bag, /points")
