"""Read lidar scans from .bin, .npy, .pcd, .ply, .las and .laz files."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np


# Names of the intensity in the files of other programs, in lower case.
INTENSITY_NAMES = ("intensity", "scalar_intensity", "reflectance", "remission", "reflectivity")


def read_points(path: str | Path, num_columns: int | None = None) -> np.ndarray:
    """Read a scan: x, y, z in metres and, if the file has it, the intensity as stored.

    A `.bin` file is float32 without a header. By default it has 5 columns (nuScenes: x, y, z, intensity, ring) if its
    name ends in `.pcd.bin`; otherwise 4 (KITTI) or 5, whichever divides its size. If both do, it has 5 if the fifth
    column contains only whole numbers from 0, as a ring does.

    Args:
        path (`str` or `Path`): The file; its suffix is its format.
        num_columns (`int`, *optional*): Columns of a `.bin` file.

    Returns:
        `np.ndarray` of shape `(num_points, 4)`, float32, or `(num_points, 3)` without intensity.

    Raises:
        ValueError: The suffix is unknown, or the file is missing, broken, or without x, y and z.
        ImportError: The library that reads this format is not installed.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if not path.is_file():
        raise ValueError(f"{path}: expected a file with points, got none.")
    if reader is None:
        raise ValueError(f"{path}: expected a file that ends in one of {', '.join(READERS)}.")
    try:
        return _read_bin(path, num_columns) if reader is _read_bin else reader(path)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # each library raises other errors for broken files
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path}: expected a scan, and it cannot be read: {type(error).__name__}: {error}") from error


def check_finite(points: np.ndarray, path: Path) -> None:
    """Raise a `ValueError` that names the file if no point is finite."""
    if not any(np.isfinite(xyz).all() for xyz in points[:, :3]):  # usually the first one is: stop there
        raise ValueError(f"{path}: expected a scan with finite points, got {len(points)} points, none finite.")


def _read_bin(path: Path, num_columns: int | None = None) -> np.ndarray:
    size = path.stat().st_size
    values = np.fromfile(path, np.float32)
    num_columns = num_columns or _guess_columns(path, values)
    if size % (4 * num_columns):
        raise ValueError(
            f"{path}: expected a whole number of points of {num_columns} float32, got {size} bytes; the file is cut "
            "short, or has other columns (`num_columns`)."
        )
    return values.reshape(-1, num_columns)[:, :4].copy()


def _guess_columns(path: Path, values: np.ndarray) -> int:
    if path.name.endswith(".pcd.bin") or len(values) % 4:
        return 5
    if len(values) % 5:
        return 4
    ring = values[4::5]
    return 5 if len(ring) and ((ring >= 0) & (ring == np.floor(ring))).all() else 4


def _read_npy(path: Path) -> np.ndarray:
    points = np.load(path, allow_pickle=False)
    if points.ndim != 2 or points.shape[1] < 3:
        raise ValueError(f"{path}: expected an array of shape (num_points, 3 or more), got {points.shape}.")
    return points[:, :4].astype(np.float32)


def _read_pcd(path: Path) -> np.ndarray:
    cloud = _library(path, "pypcd4").PointCloud.from_path(path)
    return _stack(path, {name: cloud.pc_data[name] for name in cloud.fields})


def _read_ply(path: Path) -> np.ndarray:
    vertices = _library(path, "plyfile").PlyData.read(path)["vertex"]
    return _stack(path, {field.name: vertices[field.name] for field in vertices.properties})


def _read_las(path: Path) -> np.ndarray:
    cloud = _library(path, "laspy", "laspy[lazrs]").read(path)
    return _stack(path, {name: np.asarray(getattr(cloud, name)) for name in ("x", "y", "z", "intensity")})


def _library(path: Path, name: str, requirement: str = "") -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{path}: {path.suffix} files are read by a library that is not installed: "
            f"pip install '{requirement or name}'."
        ) from error


def _stack(path: Path, fields: dict[str, np.ndarray]) -> np.ndarray:
    fields = {name.lower(): values for name, values in fields.items()}
    if not {"x", "y", "z"} <= set(fields):
        raise ValueError(f"{path}: expected the fields x, y and z, got {', '.join(fields)}.")
    intensity = [name for name in INTENSITY_NAMES if name in fields][:1]
    return np.stack([fields[name].astype(np.float32) for name in ["x", "y", "z", *intensity]], axis=1)


READERS = {
    ".bin": _read_bin,
    ".npy": _read_npy,
    ".pcd": _read_pcd,
    ".ply": _read_ply,
    ".las": _read_las,
    ".laz": _read_las,
}
