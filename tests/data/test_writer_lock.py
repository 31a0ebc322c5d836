"""One run at a time writes into a folder, and a run that has ended keeps none out."""

import multiprocessing
import os
import signal

import pytest
from id_rows import Writer, rows

from uov_hf.data import writer_lock


def run_until_killed(folder, frames, started):
    writer = Writer(folder)
    writer.error = lambda text: (started.set(), signal.pause())
    writer.broken = {"1/1"}
    writer(frames)


@pytest.fixture
def other_run(write, frames):
    """A process that writes into the folder, at its second frame."""
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=run_until_killed, args=(write.folder, frames, started))
    process.start()
    assert started.wait(60)
    yield process
    process.kill()
    process.join(60)


def test_a_second_writer_is_refused_and_the_first_is_named(write, frames, other_run):
    with pytest.raises(RuntimeError, match=rf"is being written by process {other_run.pid} on .*, started 2\d\d\d-"):
        write(frames)
    assert write.made == []
    other_run.kill()
    other_run.join(60)
    assert write(frames).num_frames == 2  # the lock of a process that is gone is stale
    assert len(rows(write.folder)) == 3


def test_the_lock_of_another_machine_is_stale_when_it_is_no_longer_updated(write, frames, monkeypatch):
    lock = write.folder / ".unfinished" / "lock.json"
    lock.parent.mkdir(parents=True)
    lock.write_text('{"host": "node-7", "pid": 1, "process_started": 1.0, "since": "2026-11-29 08:00:00"}')
    with pytest.raises(RuntimeError, match=r"process 1 on node-7, started 2026-11-29 08:00:00: .*delete .*lock\.json"):
        write(frames)
    long_ago = lock.stat().st_mtime - writer_lock.STALE_AFTER - 10
    os.utime(lock, (long_ago, long_ago))
    assert write(frames).num_frames == 3 and not lock.parent.exists()


def test_a_lock_is_updated_while_its_process_works(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_lock, "HEARTBEAT", 0.01)
    updated = multiprocessing.Event()
    monkeypatch.setattr(writer_lock.os, "utime", lambda path: updated.set())
    with writer_lock.writer_lock(tmp_path):
        assert updated.wait(60)


def test_what_a_killed_writer_left_is_removed(write, frames):
    write.folder.mkdir()
    left = [write.folder / "one-00000-abc.parquet.123.tmp", write.folder / ".unfinished" / "abc.parquet.456.tmp"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    write(frames)
    assert not any(path.exists() for path in left)
