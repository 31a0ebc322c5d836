"""Files that belong together: written to a temporary folder, and moved when all of them are complete."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import IO

from safetensors import SafetensorError


try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows
    flock = None  # type: ignore[assignment]  # the system has no such function

PREFIX, LOCK = ".saving-", ".lock"
AS_BEFORE = " The results in it are as before."


@contextmanager
def written_together(folder: Path, last: str | Path, replaces: Iterable[str] = ()) -> Iterator[Path]:
    """A temporary folder, whose files are moved into `folder` when the context ends without an error.

    `last` is moved as the last one. If `folder` has a file of this name, it is removed before the others are moved.
    So all files are of one run wherever `last` exists, even if a run was killed while it moved them. If `last` is the
    only change, it replaces the earlier file at once. What killed runs have left is removed.

    Args:
        folder (`Path`): Created if missing.
        last (`str` or `Path`): A file that is always written, by its path in `folder`.
        replaces (`Iterable[str]`, *optional*):
            Patterns (of `Path.glob`) of files of earlier runs that are deleted if they are not written again. Other
            files in `folder` stay.

    Raises:
        OSError: A file cannot be written, as on a full disk. The message names the folder, whose files are as before
            unless the files could not be moved.
    """
    with _errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        temporary, lock = _make_temporary(folder)
    try:
        with _errors_named(folder, temporary):
            yield temporary
        with _errors_named(folder, state=""):
            _move_files(temporary, folder, Path(last), replaces)
    finally:
        lock.close()
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder of results. The lock of a killed run keeps none out.

    Raises:
        BlockingIOError: Another run writes into it.
        OSError: It cannot be written.
    """
    with _errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = _open_held(folder / LOCK)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"{folder} is being written by another run. Wait until it has finished, or give another --output_dir."
            ) from error
    try:
        yield
    finally:
        if flock is None:
            lock.close()  # Windows does not remove an open file
        # Elsewhere the file is removed while it is held, so that it is not that of the next run.
        (folder / LOCK).unlink(missing_ok=True)
        lock.close()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders that killed runs have left; those of runs that work stay."""
    for path in folder.glob(f"{PREFIX}*"):
        with suppress(OSError):  # its run works, or it was removed meanwhile
            if not (path / LOCK).exists():
                path.rmdir()  # killed before there was anything in it
                continue
            with open(path / LOCK, "r+") as lock:
                if _hold(lock):
                    shutil.rmtree(path)


@contextmanager
def _errors_named(folder: Path, temporary: Path | None = None, state: str = AS_BEFORE) -> Iterator[None]:
    """Name the folder in an error of the disk; with `temporary`, only in one that may come from a file in it."""
    try:
        yield
    except BlockingIOError:
        raise
    except (OSError, SafetensorError) as error:
        reason = str(error)
        if temporary is not None:
            name = getattr(error, "filename", None)
            # A file elsewhere was read, such as a scan. An error while writing often has no name, or a descriptor.
            if isinstance(name, (str, bytes, os.PathLike)) and temporary not in Path(os.fsdecode(name)).parents:
                raise
            reason = reason.replace(str(temporary), str(folder))
        raise OSError(
            f"{folder}: could not be written: {reason}.{state} Free some space or fix the cause, then run the same "
            "command again."
        ) from error


def _move_files(temporary: Path, folder: Path, last: Path, replaces: Iterable[str]) -> None:
    files = {path.relative_to(temporary) for path in temporary.rglob("*") if path.is_file()}
    others = sorted(files - {last, Path(LOCK)})
    stale = {path for pattern in replaces for path in folder.glob(pattern)} - {folder / file for file in files}
    if others or stale:  # a single file is never absent: it may be the only copy of what a user wrote
        (folder / last).unlink(missing_ok=True)
    for path in stale:
        path.unlink()
    for file in [*others, last]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary / file, folder / file)


def _make_temporary(folder: Path) -> tuple[Path, IO[str]]:
    """A new temporary folder, and the lock in it that this process holds."""
    while True:
        temporary = Path(mkdtemp(dir=folder, prefix=PREFIX))
        # Until the lock is held, another run may take the folder for a leftover, and remove it.
        with suppress(FileNotFoundError, BlockingIOError):
            return temporary, _open_held(temporary / LOCK)


def _open_held(path: Path) -> IO[str]:
    """A new or present file of a lock, which this process holds until it closes the file or ends.

    Raises:
        BlockingIOError: Another process holds it.
    """
    while True:
        lock = open(path, "a")  # noqa: SIM115  the caller closes it
        try:
            _hold(lock)
            # The run that held it before may have removed the file after it was opened here.
            if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        except BaseException:
            lock.close()
            raise
        lock.close()


def _hold(lock: IO[str]) -> bool:
    """Hold a lock until the file is closed; False on systems and file systems without locks.

    Raises:
        BlockingIOError: Another process holds it.
    """
    if flock is None:
        return False
    try:
        flock(lock, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # such as ENOLCK of a network file system
        return False
    return True
