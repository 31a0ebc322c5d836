"""Read LAS and LAZ files, after a check of their headers and tables against the size of the file.

The libraries loop over the numbers in a file and allocate as much. If memory is short, lazrs ends the process.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .point_fields import AXES, check_size, check_whole, errors_of_library, load_library, stack_fields


SPARE_MEMORY = 1 << 26  # bytes of points that lazrs may decompress after the last one: it fills the last chunk
# The parts of a compressed point, by the number of their type (https://laszip.org), and the bytes of each.
PART_SIZES = {6: 20, 7: 8, 8: 6, 9: 29, 10: 30, 11: 6, 12: 8, 13: 29}
EXTRA_BYTES = (0, 14)  # parts of any size
# Parts of LAS 1.4 are compressed in layers. A chunk declares the size of each layer, before the layers.
NUM_LAYERS = {10: 9, 11: 1, 12: 2, 13: 1}


def read_las(path: Path, max_points: int | None) -> NDArray[np.generic]:
    """LAS has an intensity in each point. If all are 0 it is not set, and an extra dimension may have it."""
    cloud = read_las_records(path, max_points)
    names = [*(["intensity"] if np.any(cloud.intensity) else []), *cloud.point_format.extra_dimension_names]
    fields = {name: np.asarray(getattr(cloud, axis)) for name, axis in zip(AXES, AXES, strict=True)}
    return stack_fields(path, fields | {name: np.asarray(cloud[name]) for name in names})


def read_las_records(path: Path, max_points: int | None = None) -> Any:
    """The points as laspy's `ScaleAwarePointRecord`: all dimensions by name, and `point_format`.

    Raises:
        ValueError: The file is damaged, or has more than `max_points`.
    """
    num_points, is_compressed = _check_header(path, max_points)
    with _opened(path, is_compressed, num_points) as reader:
        cloud = reader.read_points(-1)  # `reader.read()` also reads the records after the points
    check_whole(path, num_points, len(cloud))
    return cloud


def read_las_file(path: Path) -> Any:
    """The whole file as laspy's `LasData`: points, header and all records. Raises as `read_las_records`."""
    num_points, is_compressed = _check_header(path, None)
    with _opened(path, is_compressed, num_points) as reader:
        _check_evlrs(path, reader.header)
        content = reader.read()
    check_whole(path, num_points, len(content.points))
    return content


def las_field_names(path: Path) -> list[str]:
    """The names of the dimensions of a file, without its points. Raises as `read_las_records`."""
    with _opened(path, *_check_header(path, None)[::-1]) as reader:
        return list(reader.header.point_format.dimension_names)


@contextmanager
def _opened(path: Path, is_compressed: bool, num_points: int) -> Iterator[Any]:
    """laspy's reader of a file whose header is checked; errors of laspy and lazrs name the file."""
    library = load_library(path, "laspy", "laspy[lazrs]")
    expected = f"{num_points:,} points, as its header declares"
    with errors_of_library(path, expected), library.open(path, read_evlrs=False) as reader:
        if is_compressed and num_points:
            _check_chunks(path, reader.header)
        yield reader


def _check_evlrs(path: Path, header: Any) -> None:
    """Check that the records after the points are inside the file, because the library allocates their sizes."""
    place, size = header.start_of_first_evlr, path.stat().st_size
    with path.open("rb") as file:
        for _ in range(header.number_of_evlrs):
            file.seek(place + 20)
            length = int.from_bytes(file.read(8), "little")
            place += 60 + length
            if place > size:
                raise _damaged(path, f"records within {size:,} bytes", f"one that ends at byte {place:,}")


def _check_header(path: Path, max_points: int | None) -> tuple[int, bool]:
    """Check the numbers in the header; return the number of points, and whether they are compressed."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(375)
        if len(header) < 227:
            raise _damaged(path, "a header of at least 227 bytes", f"{len(header)}")
        header = header.ljust(375, b"\0")  # as the library reads a shorter one
        header_size, offset, num_vlrs, kind, point_size, num_points = struct.unpack_from("<HIIBHI", header, 94)
        is_compressed = kind >= 64
        # Of each kind: the number of records, the bytes of one, and the bytes that the file has for them.
        records = [(num_vlrs, 54, offset - header_size)]
        if header[25] >= 4:  # LAS 1.4
            start, num_evlrs, num_points = struct.unpack_from("<QIQ", header, 235)
            records.append((num_evlrs, 60, size - start))
        if is_compressed:  # the first point of every chunk is not
            records.append((_num_chunks(file, offset, size), max(point_size, 20), size))
    if offset > size or any(number * num_bytes > max(room, 0) for number, num_bytes, room in records):
        raise ValueError(f"{path}: expected a whole file, got one of {size:,} bytes whose header declares more.")
    check_size(path, num_points, point_size, max_points)
    if not is_compressed and point_size:
        check_whole(path, num_points, (size - offset) // point_size)
    return num_points, is_compressed


def _num_chunks(file: BinaryIO, offset: int, size: int) -> int:
    """Number of chunks in the table of a LAZ file; 0 where the library refuses the table's place."""
    file.seek(offset)
    place = int.from_bytes(file.read(8), "little", signed=True)
    if place <= offset:  # written as a stream: the place is at the end
        file.seek(size - 8)
        place = int.from_bytes(file.read(8), "little", signed=True)
    if not offset < place <= size - 8:
        return 0
    file.seek(place + 4)
    return int.from_bytes(file.read(4), "little")


def _check_chunks(path: Path, header: Any) -> None:
    """Check what lazrs allocates for: the parts of a point, the chunks and their layers."""
    record = header.vlrs.get("LasZipVlr")[0].record_data
    compressor, num_parts = struct.unpack_from("<H", record)[0], struct.unpack_from("<H", record, 32)[0]
    parts = [struct.unpack_from("<HH", record, 34 + 6 * part) for part in range(num_parts)]
    sizes_fit = all(kind in EXTRA_BYTES or PART_SIZES.get(kind) == size for kind, size in parts)
    if not sizes_fit or sum(size for _, size in parts) != header.point_format.size:
        raise _damaged(path, f"parts of {header.point_format.size} bytes a point", parts)
    num_layers = sum(size if kind == 14 else NUM_LAYERS.get(kind, 0) for kind, size in parts)
    if compressor in (2, 3):
        _check_chunk_table(path, header, record, num_layers)
    elif compressor != 1 or num_layers:  # 1: a single chunk, without a table and without layers
        raise _damaged(path, "points compressed in a known way", compressor)


def _check_chunk_table(path: Path, header: Any, record: bytes, num_layers: int) -> None:
    lazrs = load_library(path, "lazrs", "laspy[lazrs]")
    point_size, num_points = header.point_format.size, header.point_count
    with path.open("rb") as file:
        file.seek(header.offset_to_point_data)
        chunks = lazrs.read_chunk_table(file, lazrs.LazVlr(record))  # (points, bytes) of each
        start = file.tell()
        room, declared = path.stat().st_size - start, sum(num_bytes for _, num_bytes in chunks)
        if declared > room:
            raise _damaged(path, f"at most {room:,} bytes of compressed points", f"{declared:,}")
        # Except for the last one, all chunks of one size are full.
        num_spare = sum(number for number, _ in chunks) - num_points
        if not 0 <= num_spare * point_size <= SPARE_MEMORY:
            raise _damaged(path, f"chunks with {num_points:,} points", f"{num_points + num_spare:,}")
        for _, num_bytes in chunks if num_layers else ():
            file.seek(start + point_size + 4)  # the first point, and the number of points
            layers = sum(struct.unpack(f"<{num_layers}I", file.read(4 * num_layers)))
            if point_size + 4 + 4 * num_layers + layers > num_bytes:
                raise _damaged(path, f"layers within a chunk of {num_bytes:,} bytes", f"{layers:,} bytes")
            start += num_bytes


def _damaged(path: Path, expected: str, found: object) -> ValueError:
    return ValueError(f"{path}: expected {expected}, got {found}: the file is damaged. Copy or download it again.")
