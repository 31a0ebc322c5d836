"""One writer per folder: a lock file that names the process that writes."""

import errno
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from threading import Event, Thread
from typing import TypedDict
from uuid import uuid4

import psutil

from uov_hf.data.shard_file import errors_named


logger = logging.getLogger(__name__)

UNFINISHED = ".unfinished"  # folder of the lock and of the rows that are in no shard yet
HEARTBEAT = 30.0  # seconds between two updates of the lock's time
# The lock of a process on another machine is stale after this time without an update.
STALE_AFTER = 120.0
POLL = 5.0  # seconds between two looks at such a lock
# Of file systems on which a file has one name, such as exFAT. There a killed process may leave an empty lock, which
# is stale after `STALE_AFTER`.
WITHOUT_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class Owner(TypedDict):
    """The process that holds a lock."""

    host: str
    pid: int
    process_started: float  # of `_start_of`: a later process may have the same id
    since: str  # local time, for the message


@contextmanager
def writer_lock(folder: Path, removes_temporary: bool = True) -> Iterator[None]:
    """
    Hold the lock of a folder, and remove the temporary files that a killed writer left there.

    `removes_temporary=False` keeps them, where processes without a lock may be writing.

    A lock is stale, and is replaced, if its process has ended. If that ran on another machine, it is stale when it
    was not updated for `STALE_AFTER` seconds. This is waited for: a job that was killed may be requeued at once.

    Raises:
        RuntimeError: another process writes into the folder; the message names it.
        OSError: the lock cannot be written.
    """
    unfinished = folder / UNFINISHED
    lock = unfinished / "lock.json"
    with errors_named(lock):
        unfinished.mkdir(parents=True, exist_ok=True)
    own = _this_process()
    _acquire(lock, own, folder)
    stop = Event()
    thread = Thread(target=_keep_fresh, args=(lock, stop), daemon=True)
    thread.start()
    try:
        patterns = [
            (unfinished, "lock-*.tmp"),
            *([(folder, "*.tmp"), (unfinished, "*.tmp")] if removes_temporary else []),
        ]
        for temporary in [path for place, pattern in patterns for path in place.glob(pattern)]:
            temporary.unlink(missing_ok=True)
        yield
    finally:
        stop.set()
        thread.join()
        if _read(lock) == own:
            lock.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: rows of an interrupted run
            unfinished.rmdir()


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed writer on this machine left in a folder in which there is nothing more to write."""
    unfinished = folder / UNFINISHED
    owner = _read(unfinished / "lock.json")
    if owner is not None and owner["host"] == socket.gethostname() and _is_stale(unfinished / "lock.json", owner):
        with suppress(RuntimeError), writer_lock(folder, removes_temporary=False):  # another run may have it by now
            return
    with suppress(OSError):  # a run works there, or there is none, or the folder cannot be changed
        unfinished.rmdir()


def _acquire(lock: Path, own: Owner, folder: Path) -> None:
    for _ in range(3):  # a lock may vanish between the steps
        with errors_named(lock):
            if _create(lock, own):
                return
        owner = _read(lock)
        if not _is_stale(lock, owner):
            raise RuntimeError(
                f"{folder} is being written by {_name_of(owner)}: expected one run at a time. Wait until it has "
                f"finished, or stop it. If that process no longer exists, delete {lock}."
            )
        if _read(lock) == owner:
            lock.unlink(missing_ok=True)
    raise RuntimeError(f"{lock}: other processes replace this lock all the time. Start one run at a time.")


def _create(lock: Path, own: Owner) -> bool:
    """Create the lock; returns False if there is one."""
    # A second name of a complete file: a process that is killed while it writes leaves no lock without an owner.
    complete = lock.with_name(f"lock-{uuid4().hex[:12]}.tmp")
    try:
        complete.write_text(json.dumps(own), encoding="utf-8")
        os.link(complete, lock)  # fails if it exists: one of two processes wins
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        return _create_without_link(lock, own)
    finally:
        complete.unlink(missing_ok=True)
    return True


def _create_without_link(lock: Path, own: Owner) -> bool:
    try:
        with open(lock, "x", encoding="utf-8") as file:
            file.write(json.dumps(own))
    except FileExistsError:
        return False
    return True


def _this_process() -> Owner:
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "pid": process.pid,
        "process_started": _start_of(process),
        "since": datetime.now().isoformat(sep=" ", timespec="seconds"),
    }


def _read(lock: Path) -> Owner | None:
    """The owner; None where the file is gone, or not written yet."""
    try:
        return json.loads(lock.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _is_stale(lock: Path, owner: Owner | None) -> bool:
    if owner is None:
        return _seconds_since_update(lock) > STALE_AFTER
    if owner["host"] != socket.gethostname():
        return _becomes_stale(lock, owner)
    try:
        process = psutil.Process(owner["pid"])
        is_another = abs(_start_of(process) - owner["process_started"]) > 1
        return is_another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _becomes_stale(lock: Path, owner: Owner) -> bool:
    """Wait until the process on another machine updates its lock or releases it, or the lock is stale."""
    age = _seconds_since_update(lock)
    if age <= STALE_AFTER:
        logger.warning(f"{lock} is of {_name_of(owner)}: waiting up to {STALE_AFTER:.0f} s for its next update.")
    while age <= STALE_AFTER:
        time.sleep(POLL)
        previous, age = age, _seconds_since_update(lock)
        if age <= previous:
            return _read(lock) != owner  # released
    return True


def _name_of(owner: Owner | None) -> str:
    return f"process {owner['pid']} on {owner['host']}, started {owner['since']}" if owner else "a process"


def _start_of(process: psutil.Process) -> float:
    """Seconds from the start of the machine to that of a process; on other systems than Linux, since 1970."""
    # Linux adds the start of the machine, which moves when the clock is set. It must be read first: psutil keeps it.
    machine_started = psutil.boot_time() if psutil.LINUX else 0.0
    return process.create_time() - machine_started


def _seconds_since_update(lock: Path) -> float:
    """By the clock of the file system, which all machines share."""
    clock = lock.with_name(f"clock-{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        clock.touch()
        return clock.stat().st_mtime - lock.stat().st_mtime
    except FileNotFoundError:
        return 0.0  # the lock was released a moment ago
    finally:
        clock.unlink(missing_ok=True)


def _keep_fresh(lock: Path, stop: Event) -> None:
    while not stop.wait(HEARTBEAT):
        with suppress(OSError):
            os.utime(lock)
