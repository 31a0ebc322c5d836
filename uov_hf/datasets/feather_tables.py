"""Tables in feather files: numbers by column, read only if the file is whole and of a size that its bytes allow."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


MAGIC = b"ARROW1\0\0"
MAX_GROWTH = 64  # of a file when it is decompressed; columns of coordinates or times compress far less
OLD_COMPRESSION = b"ARROW:experimental_compression"  # its buffers have no place in the fields of a batch
PLAIN = (pa.types.is_integer, pa.types.is_floating, pa.types.is_string, pa.types.is_large_string)
BUFFER = struct.Struct("<qq")  # place and size in the body of a message


def read_columns(
    path: Path, key: str | None, key_type: pa.DataType | None, names: Sequence[str]
) -> tuple[list[Any], NDArray[np.float64]]:
    """A column of keys, and columns of numbers.

    Args:
        path (`Path`): A feather file (version 2, which is Arrow's file format).
        key (`str`, *optional*): The column of the keys; None for none.
        key_type (`pyarrow.DataType`, *optional*): Their type.
        names (sequence of `str`): The other columns.

    Returns:
        The keys, and an array of shape `(num_rows, len(names))`.

    Raises:
        ValueError: The file is missing or damaged, or has no such columns of these types.
    """
    wanted = [*([key] if key else []), *names]
    try:
        table = _read_table(path.read_bytes(), wanted)
        if any(table[name].null_count for name in wanted):
            raise ValueError("empty cells")
        # NumPy converts, as older versions of Arrow do not convert float16, the type of the points.
        columns = [table[name].to_numpy().astype(np.float64) for name in names]
        keys = table[key].cast(key_type).to_pylist() if key else []
        return keys, np.stack(columns, axis=1)
    except (OSError, ValueError, KeyError, TypeError, MemoryError, struct.error, pa.ArrowException) as error:
        message = f"{path}: expected a feather file of Argoverse 2 with the columns {', '.join(wanted)}, got: {error}"
        raise ValueError(message) from error


def _read_table(content: bytes, wanted: Sequence[str]) -> pa.Table:
    """The table of a file. Its messages are read in their order: the footer, which repeats their places, is not read.

    Arrow allocates what a compressed buffer states as its size; each is compared with the file first. Columns of
    other kinds are refused: a run of equal values, or an index of a long text, takes more memory than its file.
    """
    if not content.startswith(MAGIC):
        raise ValueError(f"{content[:8]!r} at its start")
    stream = pa.py_buffer(content).slice(len(MAGIC))
    sizes = [size for message in pa.ipc.MessageReader.open_stream(stream) for size in _decompressed_sizes(message)]
    if any(size < -1 for size in sizes) or sum(sizes) > MAX_GROWTH * len(content):
        raise ValueError(f"{sum(sizes):,} bytes when {len(content):,} are decompressed")
    reader = pa.ipc.open_stream(stream)
    for field in map(reader.schema.field, wanted):
        if not any(is_kind(field.type) for is_kind in PLAIN):
            raise ValueError(f"the column {field.name} of type {field.type}")
    table = reader.read_all()
    table.validate(full=True)  # otherwise wrong offsets are read from any memory
    return table


def _decompressed_sizes(message: pa.Message) -> list[int]:
    """The sizes that the compressed buffers of a record batch state; -1: this one is stored as it is.

    https://arrow.apache.org/docs/format/Columnar.html#recordbatch-message: the fields of the message, and of the
    batch in it, have the numbers of their order.
    """
    metadata = message.metadata.to_pybytes()
    if OLD_COMPRESSION in metadata:
        raise ValueError("buffers that are compressed as in Arrow 0.17: write it anew with a later version")
    batch = _field(metadata, _offset(metadata, 0), 2)
    if message.type == "dictionary":
        batch = _field(metadata, batch, 1)
    elif message.type != "record batch":
        return []
    buffers, is_compressed = _field(metadata, batch, 2), _field(metadata, batch, 3) is not None
    if buffers is None or not is_compressed:
        return []
    body = message.body.to_pybytes()
    (count,) = struct.unpack_from("<I", metadata, buffers)
    places = list(BUFFER.iter_unpack(metadata[buffers + 4 : buffers + 4 + BUFFER.size * count]))
    return [struct.unpack_from("<q", body, place)[0] for place, size in places if size]


def _offset(metadata: bytes, place: int) -> int:
    """Where a reference of a flatbuffer leads."""
    return place + struct.unpack_from("<I", metadata, place)[0]


def _field(metadata: bytes, table: int | None, number: int) -> int | None:
    """Where a field of a table, which is a reference, leads; None if the table does not have it."""
    if table is None:
        raise ValueError("a message without content")
    fields = table - struct.unpack_from("<i", metadata, table)[0]
    (size,) = struct.unpack_from("<H", metadata, fields)
    place = struct.unpack_from("<H", metadata, fields + 4 + 2 * number)[0] if 4 + 2 * number < size else 0
    return _offset(metadata, table + place) if place else None
