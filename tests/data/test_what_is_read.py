"""Of Parquet and of label sets only the asked row and the asked columns are read."""

from types import SimpleNamespace

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_frames import Files

from uov_hf.data import Frames, load_frames, parquet
from uov_hf.data.parquet import ParquetFrames, Shards
from uov_hf.data.shards import write_shards
from uov_hf.data.writing import write_parquet


@pytest.fixture
def folder(car, tmp_path):
    write_parquet(car, tmp_path / "out")
    return tmp_path / "out"


class CountingFile:
    """A file that counts the bytes read of all such files."""

    num_bytes = 0

    def __init__(self, path):
        self.file = open(path, "rb")

    def read(self, size=-1):
        content = self.file.read(size)
        CountingFile.num_bytes += len(content)
        return content

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_columns_that_are_not_asked_for_are_not_read(folder, monkeypatch):
    monkeypatch.setattr(
        parquet, "open_parquet_file", lambda file: pq.ParquetFile(pa.PythonFile(CountingFile(file), mode="r"))
    )
    files = sorted(str(path) for path in folder.rglob("*.parquet"))
    frames = Frames(ParquetFrames(files, "nuscenes"))
    index_and_footers, CountingFile.num_bytes = CountingFile.num_bytes, 0
    frames.select_columns(["timestamp"])[4]
    footer, CountingFile.num_bytes = CountingFile.num_bytes, 0
    assert footer < index_and_footers < sum(pq.read_metadata(file).serialized_size for file in files) + 200_000
    frames.select_columns(["timestamp"])[3]
    without_points, CountingFile.num_bytes = CountingFile.num_bytes, 0
    frames.select_columns(["points"])[3]
    assert without_points < 200 and 16_000 < CountingFile.num_bytes < 17_000


def test_only_the_last_files_stay_open(folder, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_OPEN_FILES", 1)
    frames = load_frames(str(folder))
    for index in (0, 4, 1, 3):
        assert frames[index]["frame_id"] == Files.frame_ids[index]
        assert len(frames.source._reader._open_files) == 1


def test_files_that_are_not_here_are_read_where_they_lie(folder):
    store = fsspec.filesystem("memory")
    files = sorted(folder.rglob("*.parquet"))
    for path in files:
        store.pipe(f"/{path.name}", path.read_bytes())
    remote = Frames(ParquetFrames([f"memory://{path.name}" for path in files], "nuscenes"))
    assert remote.frame_ids == Files.frame_ids
    np.testing.assert_array_equal(remote[3]["points"], load_frames(str(folder))[3]["points"])


def test_files_without_our_footer_are_read_too(folder, tmp_path):
    """As `Dataset.push_to_hub` or another program writes them, several frames to a row group."""
    (tmp_path / "other").mkdir()
    tables = [pq.read_table(path) for path in sorted(folder.rglob("*.parquet"))]
    whole = pa.concat_tables([table.replace_schema_metadata(tables[0].schema.metadata) for table in tables])
    pq.write_table(whole, tmp_path / "other/train.parquet", row_group_size=2)
    frames, ours = load_frames(str(tmp_path / "other")), load_frames(str(folder))
    assert frames.frame_ids == ours.frame_ids and frames.sequence_ids == ours.sequence_ids
    for found, expected in zip(frames, ours, strict=True):
        np.testing.assert_array_equal(found["points"], expected["points"])


def test_labels_are_joined_without_loading_their_shard(tmp_path):
    """Twenty frames of a megabyte in a shard, of which one is read."""
    source = SimpleNamespace(frame_ids=[f"{index}" for index in range(20)], sequence_ids=["a"] * 20)

    def open_sequence(sequence):
        return lambda place: {"frame_id": f"{place}", "labels": np.full(10**6, place, np.uint8)}

    schema = pa.schema({"frame_id": pa.string(), "labels": pa.list_(pa.uint8())})
    write_shards(tmp_path, schema, Frames(source), open_sequence)
    shards = Shards(tmp_path)
    assert shards.read("7", ["labels"])["labels"].tolist() == [7] * 10**6
    before = pa.total_allocated_bytes()
    row = shards.read("8")
    one = pa.total_allocated_bytes() - before
    (path,) = tmp_path.glob("*.parquet")
    table = pq.read_table(path)
    whole = pa.total_allocated_bytes() - before - one
    assert (len(row["labels"]), len(table)) == (10**6, 20)
    assert whole > 20e6 and one < whole / 10
