"""The store under odd conditions: long names, ids that are not unique, a full disk, a clock that is set."""

from types import SimpleNamespace

import psutil
import pyarrow as pa
import pytest
from full_disk import room_for
from tiny_frames import Files, OwnCar

from uov_hf.data import Frames, load_frames
from uov_hf.data.parquet import Shards
from uov_hf.data.shards import write_shards
from uov_hf.data.writer_lock import writer_lock
from uov_hf.data.writing import write_parquet


LONG_NAMES = ["x" * 300, "日本" * 60, "a/../b c\n", "..", "~a", "__MACOSX", "#a#"]


def write_ids(folder, frame_ids, sequence_ids):
    frames = Frames(SimpleNamespace(frame_ids=frame_ids, sequence_ids=sequence_ids, taxonomy=None))
    schema = pa.schema({"frame_id": pa.string()})
    return write_shards(folder, schema, frames, lambda sequence: lambda i: {"frame_id": sequence.frame_ids[i]})


def test_a_sequence_may_have_any_name(tmp_path):
    names = [*LONG_NAMES, "x" * 301]
    frame_ids = [f"{name}/0" for name in names]
    write_ids(tmp_path / "shards", frame_ids, names)
    assert {*Shards(tmp_path / "shards").frame_ids} == {*frame_ids}
    assert all(path.is_file() for path in (tmp_path / "shards").iterdir())


def test_a_sequence_of_a_long_name_becomes_parquet(car, tmp_path, monkeypatch):
    long, other = "ä" * 300, "ä" * 301
    monkeypatch.setattr(Files, "sequence_ids", [long, long, long, other, other])
    monkeypatch.setattr(OwnCar, "split_members", lambda self: {"train": [long, other]})
    write_parquet(car, tmp_path / "out")
    assert load_frames(str(tmp_path / "out")).frame_ids == Files.frame_ids


def test_a_lock_that_could_not_be_written_does_not_keep_the_next_run_out(tmp_path):
    """As on a full disk."""
    with room_for(0), pytest.raises(OSError, match=r"lock\.json: could not be written: .*run the same command again"):
        write_ids(tmp_path / "shards", ["0"], ["a"])
    assert write_ids(tmp_path / "shards", ["0"], ["a"]).num_frames == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/shards/\.unfinished/lock\.json: could not be written"):
        write_ids(tmp_path / "file/shards", ["0"], ["a"])


@pytest.mark.skipif(not psutil.LINUX, reason="other systems store the time at which a process started")
def test_a_lock_stays_valid_when_the_clock_is_set(tmp_path, monkeypatch):
    with writer_lock(tmp_path):
        started = psutil.boot_time()
        monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: started + 3600)
        with pytest.raises(RuntimeError, match="is being written by process"), writer_lock(tmp_path):
            pass
