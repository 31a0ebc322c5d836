"""Read lidar scans from .bin, .npy, .pcd, .ply, .las and .laz files."""

import re
import struct
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np


# Names of the intensity in the files of other programs, in lower case.
INTENSITY_NAMES = ("intensity", "scalar_intensity", "reflectance", "remission", "reflectivity")
MAX_POINT_SIZE = 256  # bytes of a point with all its fields; those of lidars have 12 to 70


def read_points(path: str | Path, num_columns: int | None = None, max_points: int | None = None) -> np.ndarray:
    """Read a scan: x, y, z in metres and, if the file has it, the intensity as stored.

    A `.bin` file is float32 without a header. By default it has 5 columns (nuScenes: x, y, z, intensity, ring) if its
    name ends in `.pcd.bin`; otherwise 4 (KITTI) or 5, whichever divides its size. If both do, it has 5 if the fifth
    column contains only whole numbers from 0, as a ring does.

    Args:
        path (`str` or `Path`): The file; its suffix is its format.
        num_columns (`int`, *optional*): Columns of a `.bin` file.
        max_points (`int`, *optional*):
            For foreign files: a file with more points, or with more than 256 bytes a point, is refused. Where the
            header has these numbers, they are checked before memory is allocated for them.

    Returns:
        `np.ndarray` of shape `(num_points, 4)`, float32, or `(num_points, 3)` without intensity.

    Raises:
        ValueError: The suffix is unknown, or the file is missing, broken, without x, y and z, or above the limit.
        ImportError: The library that reads this format is not installed.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if not path.is_file():
        raise ValueError(f"{path}: expected a file with points, got none.")
    if reader is None:
        raise ValueError(f"{path}: expected a file that ends in one of {', '.join(READERS)}.")
    try:
        points = _read_bin(path, num_columns) if reader is _read_bin else reader(path, max_points)
        _check_size(path, len(points), 0, max_points)  # of files without a header, or with a wrong one
        return points
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


def _read_npy(path: Path, max_points: int | None) -> np.ndarray:
    points = np.load(path, mmap_mode="r", allow_pickle=False)  # a map: the header may declare more than memory holds
    if points.ndim != 2 or points.shape[1] < 3:
        raise ValueError(f"{path}: expected an array of shape (num_points, 3 or more), got {points.shape}.")
    _check_size(path, len(points), 0, max_points)
    return points[:, :4].astype(np.float32)


def _read_pcd(path: Path, max_points: int | None) -> np.ndarray:
    library = _library(path, "pypcd4")
    _check_pcd_header(path, library, max_points)
    cloud = library.PointCloud.from_path(path)
    return _stack(path, {name: cloud.pc_data[name] for name in cloud.fields})


def _read_ply(path: Path, max_points: int | None) -> np.ndarray:
    library = _library(path, "plyfile")
    _check_ply_header(path, max_points)
    vertices = library.PlyData.read(path)["vertex"]
    return _stack(path, {field.name: vertices[field.name] for field in vertices.properties})


def _read_las(path: Path, max_points: int | None) -> np.ndarray:
    library = _library(path, "laspy", "laspy[lazrs]")
    _check_las_header(path, max_points)
    cloud = library.read(path)
    return _stack(path, {name: np.asarray(getattr(cloud, name)) for name in ("x", "y", "z", "intensity")})


def _check_ply_header(path: Path, max_points: int | None) -> None:
    """Check the count of each element of a PLY file, in the lines that the library reads as its header."""
    with path.open("rb") as file:
        content = file.read(1 << 16).decode("ascii", "replace")
    if max_points is None or not (newline := re.match("ply(\r\n|\r|\n)", content)):
        return  # without such a line, the library refuses it
    lines = content.split(newline[1])
    if "end_header" not in lines:
        raise ValueError(f"{path}: expected a header of at most 65,536 bytes, got a longer one.")
    for fields in map(str.split, lines[: lines.index("end_header")]):
        if fields[:1] == ["element"] and len(fields) == 3:
            _check_size(path, int(fields[2]), 0, max_points)


def _check_pcd_header(path: Path, library: ModuleType, max_points: int | None) -> None:
    """Check the numbers in the header of a PCD file. Compressed points may need far more memory than the file has."""
    lines: list[str] = []
    with path.open("rb") as file:
        while not lines or not lines[-1].startswith("DATA") and len(lines) < 100:
            lines.append(file.readline().decode().strip())
        header = library.MetaData.parse_header([line for line in lines if line and not line.startswith("#")])
        point_size = sum(size * count for size, count in zip(header.size, header.count, strict=True))
        num_bytes = header.points * point_size
        _check_size(path, header.points, point_size, max_points)
        if header.data == library.Encoding.BINARY_COMPRESSED and header.points:
            _, unpacked = struct.unpack("<II", file.read(8))
            if unpacked != num_bytes:
                raise ValueError(f"{path}: expected {num_bytes:,} bytes of points, its header declares {unpacked:,}.")


def _check_las_header(path: Path, max_points: int | None) -> None:
    """Check the numbers in the header of a LAS or LAZ file. The libraries loop over them and allocate as much."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(375)
        if len(header) < 227:
            return  # the library refuses it
        header = header.ljust(375, b"\0")  # as the library reads a shorter one
        header_size, offset, num_vlrs, kind, point_size, num_points = struct.unpack_from("<HIIBHI", header, 94)
        # Of each kind: the number of records, the bytes of one, and the bytes that the file has for them.
        records = [(num_vlrs, 54, offset - header_size)]
        if header[25] >= 4:  # LAS 1.4
            start, num_evlrs, num_points = struct.unpack_from("<QIQ", header, 235)
            records.append((num_evlrs, 60, size - start))
        if kind >= 64:  # compressed: the first point of every chunk is not
            records.append((_num_chunks(file, offset, size), max(point_size, 20), size))
    if offset > size or any(number * num_bytes > max(room, 0) for number, num_bytes, room in records):
        raise ValueError(f"{path}: expected a whole file, got one of {size:,} bytes whose header declares more.")
    _check_size(path, num_points, point_size, max_points)


def _num_chunks(file: BinaryIO, offset: int, size: int) -> int:
    """Number of chunks in the table of a LAZ file; 0 where the library refuses the table's place."""
    file.seek(offset)
    place = int.from_bytes(file.read(8), "little", signed=True)
    if place == -1:  # written as a stream: the place is at the end
        file.seek(size - 8)
        place = int.from_bytes(file.read(8), "little", signed=True)
    if not 0 <= place <= size - 8:
        return 0
    file.seek(place + 4)
    return int.from_bytes(file.read(4), "little")


def _check_size(path: Path, num_points: int, point_size: int, max_points: int | None) -> None:
    """Check the number of points, and the bytes of each where the header has them."""
    if max_points is not None and num_points > max_points:
        raise ValueError(f"{path}: expected at most {max_points:,} points, got {num_points:,}.")
    if max_points is not None and point_size > MAX_POINT_SIZE:
        raise ValueError(f"{path}: expected at most {MAX_POINT_SIZE} bytes a point, got {point_size:,}.")


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


READERS: dict[str, Callable[..., np.ndarray]] = {
    ".bin": _read_bin,
    ".npy": _read_npy,
    ".pcd": _read_pcd,
    ".ply": _read_ply,
    ".las": _read_las,
    ".laz": _read_las,
}
