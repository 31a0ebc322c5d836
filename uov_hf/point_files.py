"""Read lidar scans from files of many formats, among them .bin, .npy, .pcd, .ply, .las, .laz and text."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .bin_files import read_bin
from .las_files import read_las
from .numpy_files import read_npy, read_npz
from .pcd_files import read_pcd
from .ply_files import read_ply
from .point_fields import check_metres, check_size, errors_of_library
from .text_points import read_text_points


MAP_DISTANCE = 1000.0  # metres: coordinates whose median is farther from 0 are those of a map, not of a sensor


@dataclass(frozen=True)
class PointCloud:
    """The points of a file, near an origin: float32 has no centimetres in map coordinates.

    Args:
        points (`np.ndarray` of shape `(num_points, 3 or 4)`, float32):
            x, y, z in metres from the origin and, if the file has it, the intensity as stored.
        origin (`np.ndarray` of shape `(3,)`, float64):
            In the coordinates of the file. Zero in the frame of a sensor; whole metres in map coordinates.
    """

    points: np.ndarray
    origin: np.ndarray

    @property
    def file_points(self) -> np.ndarray:
        """The points in the coordinates of the file: float64 in map coordinates, and else the points themselves."""
        return self.points + np.pad(self.origin, (0, self.points.shape[1] - 3)) if self.origin.any() else self.points


def read_points(path: str | Path, num_columns: int | None = None, max_points: int | None = None) -> np.ndarray:
    """Read a scan: x, y, z in metres and, if the file has it, the intensity as stored.

    The intensity of a file with named fields has one of the names that sensors and programs use: intensity, i,
    reflectance, remission, reflectivity, refl, signal or amplitude, in any case and with or without `scalar_`. A
    `.bin` file has no header: see [`~uov_hf.bin_files.read_bin`] for its layout.

    Args:
        path (`str` or `Path`): The file; its suffix is its format. Its points are in the frame of the sensor.
        num_columns (`int`, *optional*): Columns of a `.bin` file, if they are not to be measured.
        max_points (`int`, *optional*):
            For foreign files: a file with more points, or with more than 256 bytes a point, is refused. Where the
            header has these numbers, they are checked before memory is allocated for them.

    Returns:
        `np.ndarray` of shape `(num_points, 4)`, float32, or `(num_points, 3)` without intensity. Some points may be
        NaN, and so may the intensity of a point.

    Raises:
        ValueError: The suffix is unknown, or the file is missing, broken, cut short, without x, y and z, not in
            metres, above the limit, or in map coordinates, which [`read_cloud`] reads. The message names the file.
        ImportError: The library that reads this format is not installed.
    """
    cloud = read_cloud(path, num_columns, max_points)
    if cloud.origin.any():
        raise ValueError(
            f"{path}: expected a scan in the frame of its sensor, got map coordinates around "
            f"{', '.join(f'{number:,.0f}' for number in cloud.origin)}. Subtract the position of the sensor, or "
            "segment the file with `uov-hf segment`."
        )
    return cloud.points


def read_cloud(path: str | Path, num_columns: int | None = None, max_points: int | None = None) -> PointCloud:
    """Read a scan, or a cloud in map coordinates. Arguments and errors are those of [`read_points`].

    Coordinates stay float64 until the origin is subtracted: the median of the finite points, if it is more than a
    kilometre from 0 on some axis.
    """
    path = Path(path)
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "there is no such file"
        raise ValueError(f"{path}: expected a file with points, but {found}. Check its path.")
    if path.suffix.lower() not in READERS:
        raise ValueError(f"{path}: expected a file that ends in one of {', '.join(READERS)}.")
    if not path.stat().st_size and path.suffix.lower() != ".bin":  # without a header, it is a scan of no points
        raise ValueError(f"{path}: expected a file with points, got an empty file. Copy or download it again.")
    with errors_of_library(path):
        points = _read(path, num_columns, max_points)
        check_size(path, len(points), 0, max_points)  # of files without a header, or with a wrong one
        check_metres(path, points)
        return _near_origin(points[:, :4])


def _read(path: Path, num_columns: int | None, max_points: int | None) -> NDArray[np.generic]:
    suffix = path.suffix.lower()
    return read_bin(path, num_columns) if suffix == ".bin" else READERS[suffix](path, max_points)


def find_origin(points: np.ndarray, distance: float = MAP_DISTANCE) -> np.ndarray:
    """Where float32 coordinates start: the median of the finite points, in whole metres, if it is far from 0.

    Args:
        points (`np.ndarray` of shape `(num_points, 3 or more)`): In metres.
        distance (`float`, *optional*, defaults to 1000.0): A median is far if it is beyond this on some axis.

    Returns:
        `np.ndarray` of shape `(3,)`, float64: Zero in the frame of a sensor.
    """
    finite = points[np.isfinite(points[:, :3]).all(axis=1), :3]
    middle = np.rint(np.median(finite, axis=0)).astype(np.float64) if len(finite) else np.zeros(3)
    return middle if (np.abs(middle) > distance).any() else np.zeros(3)


def _near_origin(points: np.ndarray) -> PointCloud:
    origin = find_origin(points)
    if origin.any():
        points = points - np.pad(origin, (0, points.shape[1] - 3))
    return PointCloud(points.astype(np.float32, copy=False), origin)


def check_finite(points: np.ndarray, path: Path) -> None:
    """Raise a `ValueError` that names the file if no point is finite."""
    if not any(np.isfinite(xyz).all() for xyz in points[:, :3]):  # usually the first one is: stop there
        raise ValueError(
            f"{path}: expected a scan with finite points, got {len(points)} points, none finite. "
            "Leave this file out, or write it again."
        )


READERS: dict[str, Callable[..., NDArray[np.generic]]] = {
    ".bin": read_bin,
    ".npy": read_npy,
    ".npz": read_npz,
    ".pcd": read_pcd,
    ".ply": read_ply,
    ".las": read_las,
    ".laz": read_las,
    ".xyz": read_text_points,
    ".asc": read_text_points,
    ".pts": read_text_points,
    ".csv": read_text_points,
    ".txt": read_text_points,
}
# Of these formats, any file in a folder is a scan. Text has its scans named one by one: folders have notes and tables.
SCAN_SUFFIXES = tuple(suffix for suffix in READERS if suffix not in (".csv", ".txt"))
