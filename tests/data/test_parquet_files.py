"""Parquet files whose types and counts are not those of their content are refused by their names."""

import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.features.features import Array2DExtensionType
from id_rows import Writer, sequences

from uov_hf.data.parquet import ParquetFrames, Shards
from uov_hf.data.parquet_files import read_metadata


LARGE = pa.array([2**62])
ARRAY = Array2DExtensionType((None, 4), "float32").extension_name
ROWS = pa.array([[[1.0, 2.0, 3.0, 4.0]]], pa.list_(pa.list_(pa.float32())))


def write(folder, column, **fields):
    """A shard of one frame with a further column."""
    Writer(folder)(sequences(a=1))
    (path,) = folder.glob("*.parquet")
    table = pq.read_table(path).replace_schema_metadata(None)
    path.unlink()
    kind = pa.field("x", column.type, metadata=fields or None)
    pq.write_table(table.append_column(kind, column), path)
    return Shards(folder)


@pytest.mark.parametrize(
    "column",
    [
        LARGE.cast(pa.timestamp("us")),
        LARGE.cast(pa.duration("s")),
        LARGE.cast(pa.time64("us")),
        pa.ListArray.from_arrays([0, 1], LARGE.cast(pa.timestamp("us"))),
        pa.array([2**31 - 1], pa.int32()).cast(pa.date32()),
    ],
    ids=lambda column: str(column.type),
)
def test_a_time_that_python_does_not_have_is_named(tmp_path, column):
    with pytest.raises(ValueError, match=r"a-00000.*\.parquet: expected a whole Parquet file"):
        write(tmp_path, column).read("a/0")


@pytest.mark.parametrize("content", ["5", "[]", "{}", "null", "[5, 6]", '[[null, "4"], "float32"]', "[" * 5000])
def test_a_type_of_datasets_that_is_none_is_named(tmp_path, content):
    fields = {"ARROW:extension:name": ARRAY, "ARROW:extension:metadata": content}
    with pytest.raises(ValueError, match=r"a-00000.*\.parquet: expected a whole Parquet file"):
        write(tmp_path, ROWS, **fields).read("a/0")


def test_types_without_a_shape_are_read(tmp_path):
    storage = pa.array([b"a" * 16], pa.binary(16))
    row = write(tmp_path, pa.ExtensionArray.from_storage(pa.uuid(), storage)).read("a/0")
    assert row["frame_id"] == "a/0" and "61616161" in str(row["x"]) or row["x"] == b"a" * 16


def varint(number):
    number, content = 2 * number, b""
    while number > 127:
        content, number = content + bytes([number & 127 | 128]), number >> 7
    return content + bytes([number])


def test_the_rows_of_a_footer_are_counted_before_they_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr("uov_hf.data.parquet.FRAME_FEATURES", {"frame_id": None, "sequence_id": None})
    path = tmp_path / "frames.parquet"
    ids = pa.array([f"{number:04}" for number in range(1001)])
    index = '{"sequence_id": "a", "frame_ids": ["0"], "skipped": {}}'
    table = pa.table({"frame_id": ids, "sequence_id": ids}).replace_schema_metadata({"uov_hf": index})
    pq.write_table(table, path)
    content = path.read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    footer = content[start:-8].replace(b"\x16" + varint(1001), b"\x16" + varint(3_000_000))
    path.write_bytes(content[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"frames.parquet: its footer lists 1 frames, but it has 3000000 rows"):
        ParquetFrames([str(path)])
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_a_footer_of_many_empty_elements_is_named(tmp_path):
    num = 50_000
    length = bytes([num & 127 | 128, num >> 7 & 127 | 128, num >> 14])
    footer = b"\x15" + varint(1) + b"\x19\xfc" + length + bytes(num + 10)
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with open(path, "rb") as file, pytest.raises(OSError, match="size limit"):
        read_metadata(file)
    with pytest.raises(ValueError, match=r"a\.parquet: expected a whole Parquet file"):
        Shards(tmp_path).frame_ids  # noqa: B018
