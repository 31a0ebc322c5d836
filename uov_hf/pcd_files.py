"""Read `.pcd` scans in all three encodings, as PCL and its relatives write them."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .point_fields import check_size, check_whole, load_library, stack_fields


PADDING = "_"  # name of the bytes between fields
MAX_HEADER_LINES, MAX_LINE_LENGTH = 100, 1 << 16


class PcdField(NamedTuple):
    """A field of a point: its name (`_` for padding), the type of its numbers, and how many it has."""

    name: str
    dtype: np.dtype
    num_values: int

    @property
    def size(self) -> int:
        return self.dtype.itemsize * self.num_values


@dataclass(frozen=True)
class PcdHeader:
    """The header of a PCD file: fields, number of points, and `"ascii"`, `"binary"` or `"binary_compressed"`."""

    fields: list[PcdField]
    num_points: int
    encoding: str

    @property
    def point_size(self) -> int:
        return sum(field.size for field in self.fields)


def read_pcd(path: Path, max_points: int | None = None) -> NDArray[np.floating]:
    """x, y, z and, if there is one, the intensity: `(num_points, 3 or 4)`.

    Raises:
        ValueError: The header is broken, or declares more points than the file has.
        ImportError: The file is compressed, and the library for that is not installed.
    """
    return stack_fields(path, read_pcd_fields(path, max_points))


def read_pcd_fields(path: Path, max_points: int | None = None) -> dict[str, NDArray[np.generic]]:
    """All fields of one number a point, `(num_points,)` each. Raises as `read_pcd`."""
    read = {"ascii": _read_ascii, "binary": _read_binary, "binary_compressed": _read_compressed}
    with path.open("rb") as file:
        header = read_header(path, file)
        check_size(path, header.num_points, header.point_size, max_points)
        if header.num_points:
            columns = read[header.encoding](path, file, header)
        else:  # NumPy makes no view of a buffer without a byte
            columns = [np.zeros(0, field.dtype) for field in header.fields]
    fields: dict[str, NDArray[np.generic]] = {}
    for field, column in zip(header.fields, columns, strict=True):
        if field.num_values == 1 and field.name != PADDING:
            fields.setdefault(field.name, column)
    return fields


def read_header(path: Path, file: BinaryIO) -> PcdHeader:
    entries: dict[str, list[str]] = {}
    for _ in range(MAX_HEADER_LINES):
        key, *values = file.readline(MAX_LINE_LENGTH).decode("utf-8", "replace").split() or [""]
        entries[key.upper()] = values
        if key.upper() == "DATA":
            return _parse_header(path, entries)
    raise ValueError(f"{path}: expected a PCD file, whose header ends with a line DATA, got none.")


def _parse_header(path: Path, entries: dict[str, list[str]]) -> PcdHeader:
    names = entries.get("FIELDS") or entries.get("COLUMNS") or []  # COLUMNS is the name in PCD v0.5
    try:
        types = [
            np.dtype(f"<{kind.lower()}{size}") for kind, size in zip(entries["TYPE"], entries["SIZE"], strict=True)
        ]
        counts = [int(count) for count in entries.get("COUNT", ["1"] * len(names))]
        fields = [PcdField(*field) for field in zip(names, types, counts, strict=True)]
        width, height = int(entries["WIDTH"][0]), int(entries.get("HEIGHT", ["1"])[0])
        num_points, encoding = int(entries.get("POINTS", [str(width * height)])[0]), entries["DATA"][0].lower()
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected a PCD header with as many entries in SIZE, TYPE and COUNT as in FIELDS, and with WIDTH "
            f"and HEIGHT, got: {type(error).__name__}: {error}."
        ) from error
    is_known = encoding in ("ascii", "binary", "binary_compressed") and min(counts, default=1) > 0
    if not is_known or num_points != width * height or num_points < 0:
        raise ValueError(
            f"{path}: expected DATA ascii, binary or binary_compressed, a COUNT above 0, and as many POINTS as WIDTH "
            f"times HEIGHT, got DATA {encoding}, COUNT {counts}, POINTS {num_points}, WIDTH {width}, HEIGHT {height}."
        )
    return PcdHeader(fields, num_points, encoding)


def _read_ascii(path: Path, file: BinaryIO, header: PcdHeader) -> list[NDArray[np.generic]]:
    """The first number of each field."""
    lines = [line for line in file.read().decode("ascii", "replace").splitlines() if line.strip()]
    check_whole(path, header.num_points, len(lines))
    table = np.loadtxt(lines[: header.num_points], ndmin=2, comments=None)  # spaces and tabs, "nan" in any field
    starts = np.cumsum([0, *(field.num_values for field in header.fields)])
    if table.shape[1] != starts[-1]:
        raise ValueError(f"{path}: expected {starts[-1]} numbers in a line, got {table.shape[1]}.")
    return [table[:, start] for start in starts[:-1]]


def _read_binary(path: Path, file: BinaryIO, header: PcdHeader) -> list[NDArray[np.generic]]:
    content = file.read(header.num_points * header.point_size)
    check_whole(path, header.num_points, len(content) // max(header.point_size, 1))
    starts = np.cumsum([0, *(field.size for field in header.fields)])
    return [
        np.ndarray(header.num_points, field.dtype, content, int(start), (header.point_size,))
        for start, field in zip(starts[:-1], header.fields, strict=True)
    ]


def _read_compressed(path: Path, file: BinaryIO, header: PcdHeader) -> list[NDArray[np.generic]]:
    content = read_planes(path, file, header)
    starts = header.num_points * np.cumsum([0, *(field.size for field in header.fields)])
    return [
        np.ndarray(header.num_points, field.dtype, content, int(start), (field.size,))
        for start, field in zip(starts[:-1], header.fields, strict=True)
    ]


def read_planes(path: Path, file: BinaryIO, header: PcdHeader) -> bytes:
    """The fields of a compressed file one after the other, each of all points; together they are compressed by LZF."""
    num_bytes = header.num_points * header.point_size
    prefix = file.read(8)
    packed, unpacked = struct.unpack("<II", prefix) if len(prefix) == 8 else (0, num_bytes)
    if unpacked != num_bytes:  # before so much memory is allocated
        raise ValueError(f"{path}: expected {num_bytes:,} bytes of points, its header declares {unpacked:,}.")
    content = file.read(packed)
    if len(content) < packed or len(prefix) < 8 <= num_bytes:
        raise ValueError(
            f"{path}: expected {header.num_points:,} points in {packed:,} compressed bytes, got {len(content):,} "
            "bytes: the file is cut short. Copy or download it again."
        )
    if not num_bytes:
        return b""
    # The library that unpacks LZF comes with pypcd4. It returns None if the content is longer.
    planes = load_library(path, "lzf", "pypcd4").decompress(content, num_bytes)
    check_whole(path, header.num_points, len(planes or b"") // header.point_size)
    return planes
