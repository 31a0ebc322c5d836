"""The value in a column of one row of a Parquet file."""

from typing import Any

import pyarrow as pa


def read_cell(column: pa.ChunkedArray) -> Any:
    """The value in a column of one row; arrays keep their dtype (the numpy format of `datasets` makes float32)."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    if array.null_count:
        return None
    shape = [-1]
    if isinstance(array, pa.ExtensionArray):
        sizes = getattr(array.type, "shape", [None])  # of arrays of `datasets`; other extensions, as UUIDs, have none
        shape, array = [-1 if size is None else size for size in sizes], array.storage
    if not pa.types.is_list(array.type):
        return array[0].as_py()
    values = array.flatten()
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        if pa.types.is_fixed_size_list(values.type):
            shape = [-1, values.type.list_size]
        values = values.flatten()
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        return array[0].as_py()
    return values.to_numpy(zero_copy_only=True).reshape(shape)
