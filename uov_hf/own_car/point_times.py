"""The times at which a turning lidar measured the points of a scan, whatever their unit and their clock."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uov_hf.las_files import read_las_records
from uov_hf.numpy_files import load_npy, load_npz
from uov_hf.pcd_files import read_pcd_fields
from uov_hf.ply_files import read_ply_fields
from uov_hf.point_fields import errors_of_library, find_field
from uov_hf.text_points import read_text_fields


# As drivers name it (Ouster, Velodyne, Hesai and RoboSense, Livox), and as `plain_name` returns it.
TIME_NAMES = (
    *("t", "time", "timestamp", "time_stamp", "offset_time", "time_offset", "point_time", "time_offset_ns"),
    "gps_time",  # of LAS
)
Fields = Mapping[str, NDArray[Any]]
UNITS = (1e6, 1e3, 1.0, 1e-3)  # microseconds of a second, millisecond, microsecond, nanosecond
# Microseconds. The longest scan takes a thousand times as long as the shortest, so that one unit fits and no other.
SHORTEST_SCAN, LONGEST_SCAN = 2e3, 2e6
WAY_OUT = "If the points are already corrected for the car's motion, set `motion_compensation: false`."


def times_of_points(
    values: ArrayLike, is_echo: NDArray[np.bool_], stamp: int, source: str
) -> NDArray[np.float64] | None:
    """Microseconds of every point, on the clock of the scan's stamp.

    Drivers write seconds, milliseconds, microseconds or nanoseconds. The unit is the one in which the scan takes
    between 2 ms and 2 s. Times are from the stamp, or on its clock.

    Args:
        values (array of shape `(num_points,)`): The field of the scan.
        is_echo (`np.ndarray` of shape `(num_points,)`): bool; the other points need no time.
        stamp (`int`): The scan's time in microseconds.
        source (`str`): The scan, for messages.

    Returns:
        float64 of shape `(num_points,)`; None if all points have one time, as in scans that are not from a turn.

    Raises:
        ValueError: The values are no such times.
    """
    times = np.array(values, np.float64)
    seen = times[is_echo]
    if not len(seen) or (span := np.ptp(seen)) == 0:
        return None
    units = [unit for unit in UNITS if SHORTEST_SCAN <= span * unit < LONGEST_SCAN]
    for start in (0, stamp):
        if units and np.abs(seen * units[0] - start).max() < LONGEST_SCAN:
            return times * units[0] - start + stamp
    raise ValueError(
        f"{source}: expected a time of every point, from the scan's stamp ({stamp} µs) or on its clock, in s, ms, µs "
        f"or ns, got {seen.min():.9g} to {seen.max():.9g}. {WAY_OUT}"
    )


def read_point_times(path: Path, num_points: int) -> NDArray[np.float64] | None:
    """The times of the points of a scan file, as stored, `(num_points,)`; None if no field is named as one.

    Raises:
        ValueError: The file is broken, or has another number of times.
        ImportError: The library that reads this format is not installed.
    """
    reader = READERS.get(path.suffix.lower())
    with errors_of_library(path):
        fields = {} if reader is None else reader(path)
        name = time_field(list(fields))
        if name is None:
            return None
        times = np.asarray(fields[name], np.float64)
    if times.shape != (num_points,):
        raise ValueError(
            f"{path}: expected {num_points} times in {name!r}, one for each point, got {len(times)}. {WAY_OUT}"
        )
    return times


def time_field(names: list[str]) -> str | None:
    """The name of the field with times, or None."""
    return find_field(names, TIME_NAMES)


def _read_las(path: Path) -> Fields:
    cloud = read_las_records(path)
    return {name: cloud[name] for name in cloud.point_format.dimension_names if time_field([name])}


def _read_npy(path: Path) -> Fields:
    return _named_columns(load_npy(path))


def _read_npz(path: Path) -> Fields:
    arrays = load_npz(path)
    columns = {name: array for name, array in arrays.items() if array.ndim == 1 and not array.dtype.names}
    # An array of one value is of the whole scan, such as its stamp.
    fields = {name: array for name, array in columns.items() if len(array) != 1}
    for array in arrays.values():
        fields |= _named_columns(array)
    return fields


def _named_columns(array: NDArray[Any]) -> Fields:
    """The fields of a structured array; other arrays have none."""
    return {name: array[name].reshape(-1) for name in array.dtype.names or () if not array.dtype[name].shape}


READERS: dict[str, Callable[[Path], Fields]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".pcd": read_pcd_fields,
    ".ply": read_ply_fields,
    ".las": _read_las,
    ".laz": _read_las,
    ".xyz": read_text_fields,
    ".asc": read_text_fields,
    ".pts": read_text_fields,
}
