"""Shards are whole or absent, an interrupted run continues, and nothing that was written is lost or changed."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from id_rows import SCHEMA, Writer, contents, rows, sequences

from uov_hf.data import Frames, estimate, shard_file, shards, write_report
from uov_hf.data.parquet import SHARD_INDEX, Shards, read_index
from uov_hf.data.shard_file import write_atomically
from uov_hf.data.write_report import TooManyBrokenFrames, WriteReport


def test_the_footer_has_the_index_and_no_path_of_this_machine(write, frames):
    write.broken = {"1/1"}
    write(frames, on_error="skip")
    (path,) = write.folder.glob("one-*.parquet")
    assert read_index(path) == {
        "sequence_id": "one",
        "frame_ids": ["1/0"],
        "skipped": {"1/1": "OSError"},
        "sequence_length": 2,
        "made_from": 0,
    }
    assert str(write.folder).encode() not in path.read_bytes()


def test_a_shard_has_a_bounded_number_of_frames_of_one_sequence(write, monkeypatch):
    monkeypatch.setattr(shards, "MAX_FRAMES", 4)
    write(sequences(a=10, b=3))
    indexes = [read_index(path) for path in sorted(write.folder.glob("*.parquet"))]
    assert [(index["sequence_id"], len(index["frame_ids"])) for index in indexes] == [
        ("a", 4), ("a", 4), ("a", 2), ("b", 3)
    ]  # fmt: skip


def test_pages_are_indexed_and_chunked_by_their_content(write, frames):
    """As `datasets` writes Parquet: a changed row changes only the chunks around it."""
    write(frames)
    (path,) = write.folder.glob("one-*.parquet")
    metadata = pq.read_metadata(path)
    chunks = [metadata.row_group(group).column(column) for group in range(2) for column in range(2)]
    assert all(chunk.has_offset_index for chunk in chunks) and chunks[0].has_column_index
    assert b"min_chunk_size" in metadata.metadata[b"content_defined_chunking"]


def test_shards_without_our_footer_are_read_by_their_frame_ids(write, frames):
    write.folder.mkdir()
    pq.write_table(pa.table({"frame_id": ["1/0"], "data": [[1.0]]}, schema=SCHEMA), write.folder / "one.parquet")
    assert Shards(write.folder).read("1/0")["data"].tolist() == [1]
    write(frames)
    assert write.made == ["1/1", "2/0"] and Shards(write.folder).read("1/0")["data"].tolist() == [1]


def test_processes_write_what_one_does_and_share_what_is_missing(tmp_path, monkeypatch):
    """Five processes and two sequences, of which an earlier run has written a part."""
    monkeypatch.setattr(shards, "MAX_FRAMES", 8)
    context, num_processes, frames = multiprocessing.get_context("fork"), 5, sequences(a=40, b=7)
    alone, folder = Writer(tmp_path / "alone"), tmp_path / "together"
    alone(frames)
    Writer(folder)(frames.select(range(16)))
    barrier, queue = context.Barrier(num_processes), context.Queue()

    def run(rank):
        writer = Writer(folder)
        report = writer(frames, process_index=rank, num_processes=num_processes, wait=barrier.wait)
        queue.put((rank, writer.made, report, len(Shards(folder).frame_ids)))

    processes = [context.Process(target=run, args=(rank,)) for rank in range(num_processes)]
    for process in processes:
        process.start()
    _, made, reports, num_seen = zip(*sorted(queue.get(timeout=60) for _ in processes), strict=True)
    for process in processes:
        process.join()
    assert sum(made, []) == frames.frame_ids[16:] and sorted(map(len, made)) == [6, 6, 6, 6, 7]
    assert set(num_seen) == {47}  # all see all frames when they return
    report = sum(reports, WriteReport())
    assert (report.num_frames, report.num_done_before) == (31, 16)
    assert contents(folder) == contents(alone.folder)


def test_jobs_that_do_not_wait_for_each_other_share_all_frames(tmp_path):
    """As an array of jobs: five, one sequence, one after another in any order; each writes a fifth."""
    frames, alone, together = sequences(a=103), Writer(tmp_path / "alone"), Writer(tmp_path / "together")
    alone(frames)
    together.folder.mkdir()
    (together.folder / "a.parquet.0123.tmp").touch()  # of a job that is writing
    for rank in (3, 0, 4, 2, 1):
        together(frames, process_index=rank, num_processes=5)
        assert together.made == frames.frame_ids[103 * rank // 5 : 103 * (rank + 1) // 5]
    (together.folder / "a.parquet.0123.tmp").unlink()
    assert contents(alone.folder) == contents(together.folder)


def test_a_run_that_ended_a_moment_ago_is_continued(write, monkeypatch):
    """Another run, of every third frame, ends after this one has read the index and before it has the lock."""
    frames, other, lock = sequences(a=12), Writer(write.folder), shards.writer_lock

    def end_and_lock(folder, removes_temporary):
        monkeypatch.setattr(shards, "writer_lock", lock)
        other(frames.select(range(0, 12, 3)))
        return lock(folder)

    monkeypatch.setattr(shards, "writer_lock", end_and_lock)
    report = write(frames)
    assert (report.num_frames, report.num_done_before) == (8, 4) and not {*write.made} & {*other.made}
    assert len(rows(write.folder)) == 12


def test_frames_of_one_id_are_refused(write):
    """As of a foreign dataset that numbers the frames of each sequence from 0."""
    source = SimpleNamespace(frame_ids=["0", "1", "0"], sequence_ids=["a", "a", "b"], taxonomy=None)
    with pytest.raises(ValueError, match="Frame 0 of sequence b has the id of a frame of sequence a: expected"):
        write(Frames(source))
    assert write.made == [] and not write.folder.exists()
    assert write(Frames(source, [0, 1, 0])).num_frames == 2  # a frame that is selected twice is one frame


def test_the_name_of_a_sequence_may_be_long(write):
    assert write(sequences(**{"記錄" * 40: 2})).num_frames == 2 and len(rows(write.folder)) == 2


def test_a_file_is_closed_before_it_gets_its_name(write, frames, monkeypatch):
    """Windows does not rename an open file."""
    opened, replace = [], os.replace
    monkeypatch.setattr(shard_file, "open", lambda *args: opened.append(open(*args)) or opened[-1], raising=False)

    def replace_closed(source, target):
        assert opened[-1].name == str(source) and opened[-1].closed
        replace(source, target)

    monkeypatch.setattr(shard_file.os, "replace", replace_closed)
    assert write(frames).num_frames == 3


def test_an_interrupted_run_loses_one_frame_and_continues_to_the_same_bytes(tmp_path):
    """One bad image, Ctrl-C and a kill, at frames 3, 60 and 119 of 120."""
    frames = sequences(a=120)
    whole, write = Writer(tmp_path / "whole"), Writer(tmp_path / "shards")
    whole(frames)
    num_made = 0
    for place, error in ((3, OSError), (60, KeyboardInterrupt), (119, None)):
        write.broken, write.error = {f"a/{place}"}, error
        if error is None:
            write.error = lambda text: os.kill(os.getpid(), signal.SIGKILL)
            process = multiprocessing.get_context("fork").Process(target=write, args=(frames,))
            process.start()
            process.join(60)
            assert process.exitcode == -signal.SIGKILL
            continue
        with pytest.raises(error):
            write(frames)
        num_made += len(write.made)
    write.broken = set()
    report = write(frames)
    assert (report.num_frames, report.num_done_before, write.made) == (1, 119, ["a/119"])
    assert num_made == 4 + 58  # frames 0…3, then 3…60
    assert contents(write.folder) == contents(whole.folder)


def test_a_row_that_is_not_whole_is_made_again(write, frames):
    """The machine lost its power: the file has its name, and not its content."""
    write.broken = {"1/1"}
    with pytest.raises(OSError, match="broken"):
        write(frames)
    (row,) = (write.folder / ".unfinished").iterdir()
    row.write_bytes(row.read_bytes()[:50])
    write.broken = set()
    assert write(frames).num_frames == 3 and len(rows(write.folder)) == 3


def test_finished_shards_stay_and_nothing_is_made_twice(write, frames):
    assert write(frames.select([0])).num_frames == 1
    before = contents(write.folder)
    report = write(frames)
    assert (report.num_done_before, report.num_frames, write.made) == (1, 2, ["1/1", "2/0"])
    assert before.items() <= contents(write.folder).items()
    before = contents(write.folder)
    assert str(write(frames)).endswith("3 were there already") and write.made == []
    assert contents(write.folder) == before


def test_a_reader_that_is_open_keeps_reading_what_it_opened(write):
    """As a training whose label set another run extends, by another fraction of SemanticKITTI's frames."""
    frames = sequences(a=12)
    write(frames.select(range(0, 12, 3)))
    reader = Shards(write.folder)
    before = {frame_id: reader.read(frame_id)["data"].tolist() for frame_id in reader.frame_ids}
    write(frames.select(range(0, 12, 2)))
    assert write.made == ["a/2", "a/4", "a/8", "a/10"]
    assert {frame_id: reader.read(frame_id)["data"].tolist() for frame_id in reader.frame_ids} == before
    assert rows(write.folder).keys() == before.keys() | {*write.made}


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_a_reader_never_returns_the_row_of_another_frame(write, frames, change):
    write(frames)
    reader = Shards(write.folder)
    assert reader.frame_ids
    one, two = sorted(write.folder.glob("*.parquet"))
    two.replace(one) if change == "replaced" else one.unlink()
    expected = "expected frame 1/0 .*, got 2/0" if change == "replaced" else "is gone: the folder was written anew"
    with pytest.raises(ValueError, match=expected):
        reader.read("1/0", ["data"])


def test_rows_that_were_made_from_less_are_made_again(write):
    frames = sequences(a=3, b=2)

    def voters(number):
        return lambda sequence: number if sequence.sequence_ids[0] == "a" else 2

    write(frames, made_from=voters(1))
    reader = Shards(write.folder)
    assert reader.frame_ids
    report = write(frames, made_from=voters(2))
    assert (report.num_frames, report.num_done_before, write.made) == (3, 2, ["a/0", "a/1", "a/2"])
    assert len(Shards(write.folder).frame_ids) == 5
    with pytest.raises(ValueError, match="is gone: the folder was written anew after it was opened. Open it again"):
        reader.read("a/0")
    write.broken = {"a/1"}
    with pytest.raises(OSError, match="broken"):
        write(frames, made_from=voters(3))  # the row of a/0 is made from three voters now
    write.broken = set()
    assert write(frames, made_from=voters(4)).num_frames == 3
    assert write(frames, made_from=voters(1)).num_frames == 0  # nothing is replaced by less


def test_a_broken_frame_is_skipped_reported_and_not_tried_again(write, frames):
    write.broken = {"1/1"}
    with pytest.raises(OSError, match="broken"):
        write(frames)
    report = write(frames, on_error="skip")
    assert list(report.skipped) == ["1/1"] and "1 broken and skipped:\n  1/1: OSError: " in str(report)
    assert Shards(write.folder).frame_ids == ["1/0", "2/0"]
    for _ in range(2):
        again = write(frames, on_error="skip")
        assert (again.num_frames, again.num_done_before, again.skipped) == (0, 2, {"1/1": "OSError"})
        assert write.made == []
    with pytest.raises(KeyError, match="Frame 1/1 was broken and was skipped: OSError"):
        Shards(write.folder).read("1/1")


def test_a_run_that_does_not_skip_tries_skipped_frames_again(write, frames):
    write.broken = {"1/0", "1/1"}
    write(frames, on_error="skip")
    with pytest.raises(ValueError, match="1/0 was skipped by an earlier run and is still broken: OSError"):
        write(frames)
    write.broken = {"1/1"}
    with pytest.raises(ValueError, match="1/1 was skipped by an earlier run and is still broken: OSError"):
        write(frames)
    write.broken = set()
    assert write(frames).num_frames == 1 and Shards(write.folder).skipped == {}
    assert {*Shards(write.folder).frame_ids} == {"1/0", "1/1", "2/0"}


@pytest.mark.parametrize("error", [TypeError, RuntimeError, MemoryError])
def test_a_fault_of_the_program_is_never_skipped(write, frames, error):
    write.broken, write.error = {"1/1"}, error
    with pytest.raises(error, match="broken"):
        write(frames, on_error="skip")


def test_many_broken_frames_in_a_row_stop_the_run_and_are_not_remembered(write, monkeypatch):
    """The disk was gone for the frames from 5 on, over the ends of two shards."""
    monkeypatch.setattr(write_report, "MAX_BROKEN_IN_A_ROW", 6)
    monkeypatch.setattr(shards, "MAX_FRAMES", 3)
    frames = sequences(a=20)
    write.broken = {"a/1", *(f"a/{number}" for number in range(5, 20))}
    with pytest.raises(TooManyBrokenFrames, match="6 frames in a row are broken, from a/5 to a/10: is the disk gone"):
        write(frames, on_error="skip")
    write.broken = {"a/1"}
    report = write(frames, on_error="skip")
    assert (list(report.skipped), report.num_frames, report.num_done_before) == (["a/1"], 15, 4)


@pytest.mark.parametrize("frame_ids", [None, ["same", "same"]])
def test_a_damaged_shard_and_a_frame_in_two_places_are_named(write, frame_ids):
    write.folder.mkdir()
    if frame_ids is None:
        (write.folder / "one.parquet").write_bytes(b"PAR1 but no more")
    else:
        pq.write_table(pa.table({"frame_id": frame_ids}), write.folder / "one.parquet")
    expected = (
        r"one\.parquet: expected a whole Parquet file"
        if frame_ids is None
        else "Frame same is in .* delete one of them"
    )
    with pytest.raises(ValueError, match=expected):
        Shards(write.folder).read("same")


def test_a_shard_with_frame_ids_of_another_type_or_without_their_column_is_named(write):
    write.folder.mkdir()
    path = write.folder / "one.parquet"
    pq.write_table(pa.table({"frame_id": [["a"], None]}), path)
    with pytest.raises(ValueError, match=r"one\.parquet: .* expected text in its column frame_id"):
        assert Shards(write.folder).frame_ids
    index = {"sequence_id": "1", "frame_ids": ["1/0"], "skipped": {}}
    table = pa.table({"data": [[1.0]]}).replace_schema_metadata({SHARD_INDEX: json.dumps(index)})
    pq.write_table(table, path)
    with pytest.raises(ValueError, match=r"one\.parquet: expected a column frame_id, got data"):
        Shards(write.folder).read("1/0")
    pq.write_table(table.append_column("frame_id", pa.array([[1.0, 2.0]])), path)
    with pytest.raises(ValueError, match=r"one\.parquet: expected frame 1/0 .* got \[1\. 2\.\]"):
        Shards(write.folder).read("1/0")


@pytest.mark.parametrize("row_groups", [(1,), (1, 0)])
def test_a_shard_with_fewer_rows_than_its_index_has_frames_is_named(write, row_groups):
    write.folder.mkdir()
    path = write.folder / "one.parquet"
    index = {"sequence_id": "1", "frame_ids": ["1/0", "1/1"], "skipped": {}}
    schema = SCHEMA.with_metadata({SHARD_INDEX: json.dumps(index)})
    with pq.ParquetWriter(path, schema) as writer:
        for num_rows in row_groups:
            columns = {"frame_id": ["1/0"] * num_rows, "data": [[1.0]] * num_rows}
            writer.write_table(pa.table(columns, schema=schema))
    shards = Shards(write.folder)
    assert shards.read("1/0")["data"].tolist() == [1.0]
    with pytest.raises(ValueError, match=r"one\.parquet: "):
        shards.read("1/1")


def test_a_run_logs_its_cost_and_counts_what_is_there(write, caplog, monkeypatch):
    """Four frames of one sequence are missing, that of the other is there; the estimate comes after the second."""
    monkeypatch.setattr(estimate, "NUM_MEASURED", 2)
    write.size = 250_000
    frames = sequences(one=4, two=1)
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
    assert Shards(write.folder).frame_ids == []


def test_a_file_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path):
    write_atomically(tmp_path / "new" / "a.json", b"old")
    assert (tmp_path / "new" / "a.json").read_bytes() == b"old"
    (tmp_path / "new" / "b.json").mkdir()
    with pytest.raises(OSError, match=r"b\.json: could not be written: .*run the same command again"):
        write_atomically(tmp_path / "new" / "b.json", b"new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.json", "b.json"]
