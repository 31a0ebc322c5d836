"""Read arrays from `.npy` and `.npz` files, and the points in them."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .point_fields import (
    AXES,
    MAX_POINT_SIZE,
    array_to_points,
    check_size,
    check_whole,
    errors_of_library,
    stack_fields,
)


def load_npy(path: Path) -> NDArray[Any]:
    """The array of a `.npy` file, which stays in the file: its header may declare more than memory holds.

    Raises:
        ValueError: The file is missing or broken, or has Python objects.
    """
    with errors_of_library(path):
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:
            _check_npy_size(path)
            raise


def load_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file by name.

    Raises:
        ValueError: The file is missing or broken, or has anything but arrays of numbers and text.
    """
    with errors_of_library(path):
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no archive")  # numpy would advise to read it as Python objects
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if others := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{others[0]!r} is no array")
        return arrays


def load_npz_array(path: Path, name: str, max_bytes: int) -> NDArray[Any]:
    """One array of an `.npz` file; the others are not read.

    Raises:
        ValueError: The file is missing or broken, has no such array, or one of more bytes with its header.
    """
    with errors_of_library(path):
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no archive")  # numpy would advise to read it as Python objects
        with np.load(path, allow_pickle=False) as file:
            members = [one for one in file.zip.infolist() if one.filename.removesuffix(".npy") == name]
            if not members:
                found = ", ".join(file.files) or "none"
                raise ValueError(f"{path}: expected an .npz file with the array `{name}`, got {found}.")
            num_bytes = max(one.file_size for one in members)
            if num_bytes > max_bytes:
                raise ValueError(f"{path}: expected `{name}` of at most {max_bytes:,} bytes, got {num_bytes:,}.")
            # Python's `zipfile` limits what it unpacks at once for these only; NumPy writes no others.
            if any(one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for one in members):
                raise ValueError(f"`{name}` is compressed by another method than those of np.savez_compressed")
            array = file[name]
            if not isinstance(array, np.ndarray):
                raise ValueError(f"{name!r} is no array")
            return array


def read_npy(path: Path, max_points: int | None) -> NDArray[np.generic]:
    """The points of a `.npy` file, `(num_points, columns)`."""
    array = load_npy(path)
    check_size(path, array.size if array.dtype.names else len(np.atleast_1d(array)), 0, max_points)
    return array_to_points(array, path)


def read_npz(path: Path, max_points: int | None) -> NDArray[np.generic]:
    """Points of arrays by name (x, y, z, intensity), or of the only array that can be a scan."""
    with zipfile.ZipFile(path) as file:
        num_bytes = sum(member.file_size for member in file.infolist())
    if max_points is not None and num_bytes > max_points * MAX_POINT_SIZE:
        raise ValueError(f"{path}: expected at most {max_points * MAX_POINT_SIZE:,} bytes, got {num_bytes:,}.")
    arrays = load_npz(path)
    tables = [array for array in arrays.values() if array.dtype.names or (array.ndim == 2 and array.shape[1] >= 3)]
    columns = {name: array for name, array in arrays.items() if array.ndim == 1}
    if len(tables) == 1 and tables[0].shape[1:] == (3,):  # the intensity may be an array of its own
        xyz = array_to_points(tables[0], path)
        beside = {name: array for name, array in columns.items() if len(array) == len(xyz)}
        return stack_fields(path, dict(zip(AXES, xyz.T, strict=True)) | beside)
    if len(tables) == 1:
        return array_to_points(tables[0], path)
    if not {*AXES} <= {*columns}:
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(
            f"{path}: expected one array of shape (num_points, 3 or more), or arrays x, y and z, got {found}. "
            "Save the points alone, as .npy."
        )
    return stack_fields(path, columns)


def _check_npy_size(path: Path) -> None:
    """Compare the size of the file with the shape in its header."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.hasobject:
            raise ValueError(
                f"{path}: expected numbers, got an array of Python objects. Save it as numbers: "
                "`np.save(path, points.astype(np.float32))`."
            )
        num_bytes = path.stat().st_size - file.tell()
    point_size = dtype.itemsize * int(np.prod(shape[1:], dtype=object))
    if shape and point_size:
        check_whole(path, shape[0], num_bytes // point_size)
