"""One run at a time writes into a folder, and a run that has ended keeps none out."""

import errno
import json
import multiprocessing
import os
import signal
import socket
import sys

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


@pytest.fixture
def remote_lock(write):
    """The lock of a process on another machine, which it updated a moment ago."""
    lock = write.folder / ".unfinished" / "lock.json"
    lock.parent.mkdir(parents=True)
    lock.write_text('{"host": "node-7", "pid": 1, "process_started": 1.0, "since": "2026-11-29 08:00:00"}')
    return lock


def age(lock, seconds):
    """Set the last update back, as if so much time had passed."""
    updated = lock.stat().st_mtime - seconds
    os.utime(lock, (updated, updated))


def test_the_process_on_another_machine_that_updates_its_lock_is_named(write, frames, remote_lock, monkeypatch):
    age(remote_lock, 20)
    monkeypatch.setattr(writer_lock.time, "sleep", lambda seconds: os.utime(remote_lock))
    with pytest.raises(RuntimeError, match=r"process 1 on node-7, started 2026-11-29 08:00:00: .*delete .*lock\.json"):
        write(frames)


def test_a_run_waits_until_the_lock_of_a_killed_one_on_another_machine_is_stale(
    write, frames, remote_lock, monkeypatch, caplog
):
    waits = []
    monkeypatch.setattr(writer_lock.time, "sleep", lambda seconds: (waits.append(seconds), age(remote_lock, seconds)))
    assert write(frames).num_frames == 3 and not remote_lock.parent.exists()
    assert writer_lock.STALE_AFTER - 5 < sum(waits) < writer_lock.STALE_AFTER + 10
    assert caplog.text.count("process 1 on node-7") == 1


def test_a_lock_that_another_machine_releases_meanwhile_keeps_no_run_out(write, frames, remote_lock, monkeypatch):
    monkeypatch.setattr(writer_lock.time, "sleep", lambda seconds: remote_lock.unlink())
    assert write(frames).num_frames == 3


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


def take_lock_and_be_killed(folder, change):
    """Be killed before this number of changes of the folder: in the course of taking the lock."""
    count = 0

    def kill(event, arguments):
        nonlocal count
        is_change = event in ("open", "os.link", "os.remove", "os.mkdir", "os.rename") and str(folder) in str(
            arguments[0]
        )
        count += is_change
        if is_change and count == change:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    with writer_lock.writer_lock(folder):
        signal.pause()


@pytest.mark.parametrize("change", range(1, 5))
def test_a_process_that_is_killed_while_it_takes_the_lock_keeps_none_out(tmp_path, change):
    process = multiprocessing.get_context("fork").Process(target=take_lock_and_be_killed, args=(tmp_path, change))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with writer_lock.writer_lock(tmp_path, removes_temporary=False):
        assert [path.name for path in (tmp_path / ".unfinished").iterdir()] == ["lock.json"]
    assert not (tmp_path / ".unfinished").exists()


def test_on_a_file_system_without_links_a_lock_works_too(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    with writer_lock.writer_lock(tmp_path):
        with pytest.raises(RuntimeError, match="is being written by process"), writer_lock.writer_lock(tmp_path):
            pass
        assert [path.name for path in (tmp_path / ".unfinished").iterdir()] == ["lock.json"]


def test_what_a_run_left_that_was_killed_after_its_last_row_is_removed_by_a_run_with_nothing_to_do(write, frames):
    write(frames)
    process = multiprocessing.get_context("fork").Process(target=os.getpid)
    process.start()
    lock = write.folder / ".unfinished" / "lock.json"
    lock.parent.mkdir()
    lock.write_text(
        json.dumps(writer_lock.Owner(host=socket.gethostname(), pid=process.pid, process_started=0, since=""))
    )
    process.join()
    assert write(frames).num_frames == 0
    assert not lock.parent.exists()
