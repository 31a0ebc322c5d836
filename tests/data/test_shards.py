"""Shards are whole or absent, an interrupted run continues, and nothing that was written is lost."""

import logging
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uov_hf.data import Frames, estimate, shards
from uov_hf.data.parquet import Shards, read_index
from uov_hf.data.shards import WriteReport, write_atomically, write_shards


SCHEMA = pa.schema({"frame_id": pa.string(), "data": pa.list_(pa.float32())})


class Writer:
    """Writes the ids of frames; the ids in `broken` raise, and `made` lists the rows that were made."""

    def __init__(self, folder, size=3):
        self.folder, self.size, self.broken, self.made = folder, size, set(), []

    def __call__(self, frames, **options) -> WriteReport:
        self.made.clear()
        return write_shards(self.folder, SCHEMA, frames, self.open_sequence, **options)

    def open_sequence(self, sequence):
        return lambda place: self.make_row(sequence.frame_ids[place])

    def make_row(self, frame_id):
        self.made.append(frame_id)
        if frame_id in self.broken:
            raise RuntimeError(f"{self.folder / frame_id} is broken")
        return {"frame_id": frame_id, "data": np.zeros(self.size, np.float32)}


@pytest.fixture
def write(tmp_path):
    return Writer(tmp_path / "shards")


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_footer_has_the_index_and_no_path_of_this_machine(write, frames):
    write.broken = {"1/1"}
    write(frames, on_error="skip")
    path = write.folder / "one.parquet"
    assert read_index(path) == {
        "sequence_id": "one",
        "frame_ids": ["1/0"],
        "skipped": {"1/1": "RuntimeError"},
        "may_be_published": None,
    }
    assert str(write.folder).encode() not in path.read_bytes()


def test_pages_are_indexed_and_chunked_by_their_content(write, frames):
    """As `datasets` writes Parquet: a changed row changes only the chunks around it."""
    write(frames)
    metadata = pq.read_metadata(write.folder / "one.parquet")
    chunks = [metadata.row_group(group).column(column) for group in range(2) for column in range(2)]
    assert all(chunk.has_offset_index for chunk in chunks) and chunks[0].has_column_index
    assert b"min_chunk_size" in metadata.metadata[b"content_defined_chunking"]


def test_shards_without_our_footer_are_read_by_their_frame_ids(write, frames):
    write.folder.mkdir()
    pq.write_table(pa.table({"frame_id": ["1/0"], "data": [[1.0]]}, schema=SCHEMA), write.folder / "one.parquet")
    assert Shards(write.folder).read("1/0")["data"].tolist() == [1]
    write(frames)
    assert write.made == ["1/1", "2/0"] and Shards(write.folder).read("1/0")["data"].tolist() == [1]


def test_two_processes_write_what_one_does(tmp_path, frames):
    alone, together = Writer(tmp_path / "alone"), Writer(tmp_path / "together")
    whole = alone(frames)
    parts = [together(frames, process_index=rank, num_processes=2) for rank in (0, 1)]
    assert contents(alone.folder) == contents(together.folder)
    assert sum(parts, WriteReport()).num_frames == whole.num_frames == 3


def test_finished_shards_stay_and_rows_of_unfinished_ones_are_kept(write, frames):
    assert write(frames.select([0])).num_frames == 1
    report = write(frames)
    assert (report.num_done_before, report.num_frames, write.made) == (1, 2, ["1/1", "2/0"])
    before = contents(write.folder)
    assert str(write(frames)).endswith("3 were there already") and write.made == []
    assert contents(write.folder) == before


def test_a_run_on_other_frames_of_a_sequence_keeps_those_that_are_there(write, frames):
    """As two fractions of the frames of SemanticKITTI."""
    write(frames.select([0]))
    write(frames.select([1]))
    assert write.made == ["1/1"] and Shards(write.folder).frame_ids == ["1/1", "1/0"]


def test_rows_that_depend_on_each_other_are_made_again(write, frames):
    write(frames.select([0]))
    report = write_shards(write.folder, SCHEMA, frames, write.open_sequence, keeps_rows=False)
    assert report.num_frames == 3 and write.made == ["1/0", "1/0", "1/1", "2/0"]
    shutil.rmtree(write.folder)
    write(frames.select([0]))
    write.broken = {"1/0"}
    with pytest.raises(RuntimeError, match="1/0 is broken"):  # not replaced by less
        write_shards(write.folder, SCHEMA, frames, write.open_sequence, keeps_rows=False, on_error="skip")
    assert Shards(write.folder).frame_ids == ["1/0"]


def test_a_broken_frame_stops_the_run_or_is_skipped_reported_and_tried_again(write, frames):
    write.broken = {"1/1"}
    with pytest.raises(RuntimeError, match="broken"):
        write(frames)
    assert contents(write.folder) == {}
    report = write(frames, on_error="skip")
    assert list(report.skipped) == ["1/1"] and "1 broken and skipped:\n  1/1: RuntimeError: " in str(report)
    assert Shards(write.folder).frame_ids == ["1/0", "2/0"]
    again = write(frames, on_error="skip")
    assert (again.num_frames, again.num_done_before, again.skipped, write.made) == (0, 2, report.skipped, ["1/1"])
    write.broken = {"1/0"}  # broken now, but written
    assert write(frames).num_frames == 1 and Shards(write.folder).frame_ids == ["1/0", "1/1", "2/0"]


def test_a_frame_that_is_still_broken_stops_a_run_that_does_not_skip(write, frames):
    write.broken = {"1/0", "1/1"}
    write(frames, on_error="skip")
    for write.broken in ({"1/0", "1/1"}, {"1/1"}):  # as before, and with one frame mended
        with pytest.raises(ValueError, match="was skipped by an earlier run and is still broken: RuntimeError"):
            write(frames)
    assert write(frames, on_error="skip").skipped.keys() == {"1/1"}
    assert Shards(write.folder).frame_ids == ["1/0", "2/0"]


def test_rows_that_are_kept_neither_break_a_run_of_broken_frames_nor_cost_anything(write, monkeypatch):
    monkeypatch.setattr(shards, "MAX_BROKEN_IN_A_ROW", 2)
    monkeypatch.setattr(estimate, "NUM_MEASURED", 2)
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda folder: SimpleNamespace(free=6_000))
    ids = [f"a/{number}" for number in range(9)]
    frames = Frames(SimpleNamespace(frame_ids=ids, sequence_ids=["a"] * 9, taxonomy=None))
    write.size, write.broken = 1000, {"a/1", "a/3", "a/5", "a/7"}
    assert len(write(frames.select(range(8)), on_error="skip").skipped) == 4
    write.broken -= {"a/1", "a/7"}
    report = write(frames, on_error="skip")  # three new rows of 4 kB; the kept ones have 16 kB
    assert (report.num_frames, report.num_done_before, list(report.skipped)) == (3, 4, ["a/3", "a/5"])


def test_many_broken_frames_in_a_row_stop_the_run(write, frames, monkeypatch):
    monkeypatch.setattr(shards, "MAX_BROKEN_IN_A_ROW", 2)
    write.broken = {"1/0", "1/1"}
    with pytest.raises(RuntimeError, match="1/1 is broken"):
        write(frames, on_error="skip")


@pytest.mark.parametrize("frame_ids", [None, ["same", "same"]])
def test_a_damaged_shard_and_a_frame_in_two_places_are_named(write, frame_ids):
    write.folder.mkdir()
    if frame_ids is None:
        (write.folder / "one.parquet").write_bytes(b"PAR1 but no more")
    else:
        pq.write_table(pa.table({"frame_id": frame_ids}), write.folder / "one.parquet")
    expected = r"one\.parquet: expected a shard" if frame_ids is None else "Frame same is in .* delete one of them"
    with pytest.raises(ValueError, match=expected):
        Shards(write.folder).read("same")


def test_a_run_logs_its_cost_and_counts_what_is_there(write, frames, caplog, monkeypatch):
    """Two frames of sequence `one` are missing, that of `t/wo` is there; the estimate comes after the first."""
    monkeypatch.setattr(estimate, "NUM_MEASURED", 2)
    write.size = 250_000
    frames = frames.select([0, 1, 0, 1, 2])
    assert write(frames.select([4])).num_frames == 1
    with caplog.at_level(logging.INFO, logger="uov_hf"):
        report = write(frames, show_progress=True)
    assert (report.num_frames, report.num_done_before) == (4, 1)
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("4 frames: about 1 s on 1 process, ")


def test_a_run_that_will_not_fit_stops_after_the_first_frames(write, frames, monkeypatch):
    monkeypatch.setattr(estimate, "NUM_MEASURED", 2)
    write.size = 10_000
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**10, 10**10, 100))
    with pytest.raises(OSError, match=r"shards has 100 B free, and .* more are needed \(3 frames: about"):
        write(frames)
    assert contents(write.folder) == {}


def test_a_file_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path):
    write_atomically(tmp_path / "new" / "a.json", b"old")
    assert (tmp_path / "new" / "a.json").read_bytes() == b"old"
    (tmp_path / "new" / "b.json").mkdir()
    with pytest.raises(OSError, match=r"b\.json: could not be written: .*run the same command again"):
        write_atomically(tmp_path / "new" / "b.json", b"new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.json", "b.json"]
