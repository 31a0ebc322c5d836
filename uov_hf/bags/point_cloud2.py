"""PointCloud2 of any layout as arrays: offsets, types, byte order, padding of points and rows."""

from collections.abc import Callable, Collection, Iterable, Mapping
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uov_hf.bags.messages import POINT_CLOUD, POINT_FIELD, PointCloud2, PointField
from uov_hf.own_car.point_times import time_field
from uov_hf.point_fields import AXES, INTENSITY_NAMES, find_field


# PointField's datatypes 1 to 8.
DATATYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")


def fields_of(message: PointCloud2, source: str) -> NDArray[np.void]:
    """The points of a message as a structured array `(num_points,)`, without a copy where rows have no padding.

    Args:
        message (`PointCloud2`): The message.
        source (`str`): The bag and topic, for messages.

    Raises:
        ValueError: The data is shorter than the message declares, or a field is not inside a point.
    """
    order = ">" if message.is_bigendian else "<"
    # Some drivers fill the gaps of a point with fields without a name, or declare a field twice.
    fields: dict[str, PointField] = {}
    for field in message.fields:
        if field.name:
            fields.setdefault(field.name, field)
    if wrong := [name for name, field in fields.items() if not 1 <= field.datatype <= len(DATATYPES)]:
        datatype = fields[wrong[0]].datatype
        raise ValueError(f"{source}: expected field {wrong[0]!r} to have a datatype from 1 to 8, got {datatype}.")
    formats = [
        (f"{order}{DATATYPES[field.datatype - 1]}", (field.count,))
        if field.count > 1
        else f"{order}{DATATYPES[field.datatype - 1]}"
        for field in fields.values()
    ]
    height, width = index(message.height), index(message.width)  # a bag may define them as texts
    row_step, point_step = index(message.row_step), index(message.point_step)
    num_bytes = (height - 1) * row_step + width * point_step
    ends = [field.offset + np.dtype(form).itemsize for field, form in zip(fields.values(), formats, strict=True)]
    row_is_short = height > 1 and row_step < width * point_step
    if max(ends, default=0) > point_step or row_is_short or len(message.data) < num_bytes:
        raise ValueError(
            f"{source}: expected {height} rows of {width} points of {point_step} bytes, {row_step} bytes a row, "
            f"with fields that end at byte {max(ends, default=0)}; got {len(message.data)} bytes."
        )
    dtype = np.dtype(
        {
            "names": list(fields),
            "formats": formats,
            "offsets": [field.offset for field in fields.values()],
            "itemsize": point_step,
        }
    )
    if not height or not width:
        return np.empty(0, dtype)
    data = np.ascontiguousarray(message.data)
    return np.ndarray((height, width), dtype, data, 0, (row_step, point_step)).reshape(-1)


def scalar_fields(fields: NDArray[np.void]) -> list[str]:
    """The names of the fields with one number a point."""
    return [name for name in fields.dtype.names or () if not fields.dtype[name].shape]


def points_of(fields: NDArray[np.void], source: str) -> NDArray[np.float32]:
    """x, y, z and intensity (0 without one), `(num_points, 4)`.

    Points at x = y = z = 0 become NaN: drivers put firings without an echo there.

    Raises:
        ValueError: The cloud has no x, y or z.
    """
    names = scalar_fields(fields)
    points = np.zeros((len(fields), 4), np.float32)
    for column, axis in enumerate(AXES):
        if (name := find_field(names, [axis])) is None:
            known = ", ".join(names) or "none"
            raise ValueError(f"{source}: expected the fields x, y and z with one number a point, got {known}.")
        points[:, column] = fields[name]
    points[~points[:, :3].any(axis=1), :3] = np.nan
    if (intensity := find_field(names, INTENSITY_NAMES)) is not None:
        points[:, 3] = fields[intensity]
    return points


def times_in(fields: NDArray[np.void]) -> NDArray[np.float64] | None:
    """The times of the points as the driver stores them; None without such a field."""
    name = time_field(scalar_fields(fields))
    return None if name is None else fields[name].astype(np.float64)


def with_labels(
    message: PointCloud2,
    labels: NDArray[np.uint8],
    scores: NDArray[np.float32],
    colours: NDArray[np.uint8],
    types: Mapping[str, Callable[..., Any]],
    source: str,
) -> PointCloud2:
    """A message with the fields `rgb`, `score` and `label` after those of every point, whose bytes stay.

    An original field with one of these names is `original_rgb`, `original_score` or `original_label` in the result.

    Args:
        message (`PointCloud2`): The scan.
        labels (`np.ndarray` of shape `(num_points,)`): uint8.
        scores (`np.ndarray` of shape `(num_points,)`): float32.
        colours (`np.ndarray` of shape `(num_points, 3)`): uint8, red, green and blue.
        types (mapping of `str` to type): The message types of the bag.
        source (`str`): The bag and topic, for messages.
    """
    before, order = fields_of(message, source), ">" if message.is_bigendian else "<"
    step = message.point_step
    # RViz and Foxglove read a colour from the bits 0x00RRGGBB of a float32.
    added = {"rgb": (f"{order}u4", 0), "score": (f"{order}f4", 4), "label": ("u1", 8)}
    own = np.dtype(
        {
            "names": list(added),
            "formats": [form for form, _ in added.values()],
            "offsets": [step + offset for _, offset in added.values()],
            "itemsize": step + 12,
        }
    )
    points = np.zeros(len(before), own)
    points.view(np.uint8).reshape(-1, own.itemsize)[:, :step] = before.view(np.uint8).reshape(-1, step)
    red, green, blue = colours.astype(np.uint32).T
    points["rgb"], points["score"], points["label"] = red << 16 | green << 8 | blue, scores, labels
    fields = _renamed(message.fields, added, types)
    for (name, (_, offset)), datatype in zip(added.items(), (7, 7, 2), strict=True):
        fields.append(types[POINT_FIELD](name=name, offset=step + offset, datatype=datatype, count=1))
    cloud: PointCloud2 = types[POINT_CLOUD](
        header=message.header,
        height=message.height,
        width=message.width,
        fields=fields,
        is_bigendian=message.is_bigendian,
        point_step=own.itemsize,
        row_step=message.width * own.itemsize,
        data=np.frombuffer(points.tobytes(), np.uint8),
        is_dense=message.is_dense,
    )
    return cloud


def _renamed(
    fields: Iterable[PointField], added: Collection[str], types: Mapping[str, Callable[..., Any]]
) -> list[PointField]:
    """The fields, those of the added names under another one: viewers find a colour by the name `rgb` alone."""
    fields = list(fields)
    taken, renamed = {*added, *(field.name for field in fields)}, []
    for field in fields:
        name = field.name
        if name in added:
            while name in taken:
                name = f"original_{name}"
            taken.add(name)
        kept = {"offset": field.offset, "datatype": field.datatype, "count": field.count}
        renamed.append(types[POINT_FIELD](name=name, **kept))
    return renamed
