"""The times at which a turning lidar measured the points of a scan, whatever their unit and their clock."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uov_hf.pcd_files import read_pcd_fields
from uov_hf.point_fields import find_field


# As drivers name it (Ouster, Velodyne, Hesai and RoboSense, Livox), and as `plain_name` returns it.
TIME_NAMES = ("t", "time", "timestamp", "time_stamp", "offset_time", "time_offset", "point_time", "time_offset_ns")
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


def read_point_times(path: Path) -> NDArray[np.float64] | None:
    """The field with the times of the points of a .pcd or .ply file, as stored; None if the file has none.

    Raises:
        ValueError: The file is broken.
        ImportError: The library that reads this format is not installed.
    """
    reader = READERS.get(path.suffix.lower())
    return None if reader is None else reader(path)


def time_field(names: list[str]) -> str | None:
    """The name of the field with times, or None."""
    return find_field(names, TIME_NAMES)


def _read_pcd(path: Path) -> NDArray[np.float64] | None:
    fields = read_pcd_fields(path)
    name = time_field(list(fields))
    return None if name is None else fields[name].astype(np.float64)


def _read_ply(path: Path) -> NDArray[np.float64] | None:
    library: ModuleType = import_module("plyfile")
    vertices = library.PlyData.read(path)["vertex"]
    name = time_field([field.name for field in vertices.properties])
    return None if name is None else np.asarray(vertices[name], np.float64)


READERS = {".pcd": _read_pcd, ".ply": _read_ply}
