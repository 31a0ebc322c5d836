"""One Parquet file, whole or absent: a row group per frame, and an index of the frames in the footer."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.config import DEFAULT_CDC_OPTIONS

from uov_hf.data.parquet import SHARD_INDEX, ShardIndex
from uov_hf.data.parquet_files import FOOTER_SHA256, NO_SHA256, seal_footer


# Frames in a file. A footer of 50 rows is parsed in about a millisecond, a scene of nuScenes (39 to 41 frames) is one
# file, and a long sequence is many, which processes share.
MAX_FRAMES = 50


class ShardFile:
    """
    A Parquet file that gets its name when all its rows are on the disk. Its folder is made where it is missing.

    Raises:
        OSError: it cannot be written, as on a full disk; it names the file.
    """

    def __init__(self, path: Path, schema: pa.Schema):
        self.path = path
        self.schema = schema
        self.temporary = temporary_name(path)

    def __enter__(self) -> "ShardFile":
        with errors_named(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.temporary, "w+b")
        # Page index and content-defined chunks as `datasets` writes them: the Hub's viewer reads single pages, and a
        # changed file uploads only the changed chunks. No dictionaries, and statistics of ids only: for arrays they
        # cost space in every row group and serve no search.
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._file, mode="w"),
            self.schema,
            use_dictionary=False,
            write_statistics=[name for name in ("frame_id", "sequence_id") if name in self.schema.names],
            write_page_index=True,
            write_page_checksum=True,
            use_content_defined_chunking=DEFAULT_CDC_OPTIONS,
        )
        return self

    def add(self, row: pa.Table) -> None:
        with errors_named(self.path):
            self._writer.write_table(row)

    @property
    def num_bytes(self) -> int:
        return self._file.tell()

    def publish(self, index: ShardIndex) -> None:
        """Write the footer, with the index of the frames, and give the file its name."""
        metadata = {
            SHARD_INDEX: json.dumps(index),
            "content_defined_chunking": json.dumps(DEFAULT_CDC_OPTIONS),
            FOOTER_SHA256: NO_SHA256,
        }
        with errors_named(self.path):
            self._writer.add_key_value_metadata(metadata)
            self._writer.close()
            seal_footer(self._file)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()  # Windows does not rename an open file
            os.replace(self.temporary, self.path)

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # the disk is full, and that error is on its way
            self._writer.close()
        with suppress(OSError):
            self._file.close()
        self.temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """
    Write a file that is there whole or, after an error, as it was before.

    Raises:
        OSError: it cannot be written, as on a full disk; it names the file.
    """
    temporary = temporary_name(path)
    with errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other process uses; it does not end in `.parquet`, so that no reader finds it."""
    return path.with_name(f"{path.name}.{uuid4().hex[:12]}.tmp")


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Name the file in an error of the disk."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: could not be written: {error}. Free some space or fix the cause, then run the same command "
            "again: it continues after the last complete file."
        ) from error


def to_table(row: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """A row as a table; lists of numbers are numpy arrays."""
    return pa.table([_to_column(row[column.name], column.type) for column in schema], schema=schema)


def _to_column(value: Any, column_type: pa.DataType) -> pa.Array:
    is_matrix = pa.types.is_list(column_type) and pa.types.is_fixed_size_list(column_type.value_type)
    if value is None or not is_matrix:
        return pa.array([value], type=column_type)
    width, number = column_type.value_type.list_size, column_type.value_type.value_type
    value = np.ascontiguousarray(value, dtype=number.to_pandas_dtype()).reshape(-1, width)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(value.ravel(), type=number), width)
    return pa.ListArray.from_arrays(pa.array([0, len(value)], pa.int32()), rows)
