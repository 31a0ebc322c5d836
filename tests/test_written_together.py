"""Files of one run that are moved together: all of one run or none, whatever ends the program."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest

from uov_hf import written_together as module
from uov_hf.written_together import only_writer, written_together


NAMES = ("a.txt", "below/b.txt", "last.txt")


def write(folder: Path, text: str, names=NAMES, replaces=()) -> None:
    with written_together(folder, "last.txt", replaces) as temporary:
        for name in names:
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_files_are_replaced_and_others_stay_unless_they_are_of_an_earlier_run(tmp_path):
    write(tmp_path, "first")
    (tmp_path / "mine.txt").write_text("mine")
    write(tmp_path, "second", names=("a.txt", "last.txt"), replaces=["below/*.txt", "a.txt"])
    assert contents(tmp_path) == {"a.txt": "second", "last.txt": "second", "mine.txt": "mine"}


def test_after_an_error_the_files_are_as_before(tmp_path):
    write(tmp_path, "first")
    with pytest.raises(OSError, match="no space"), written_together(tmp_path, "last.txt") as temporary:
        (temporary / "a.txt").write_text("second")
        raise OSError("no space")
    assert contents(tmp_path) == dict.fromkeys(NAMES, "first")


def fail(*arguments):
    raise OSError("no space")


def test_a_single_file_is_replaced_at_once(tmp_path, monkeypatch):
    """Its earlier content may be the only copy of what a user wrote."""
    (tmp_path / "last.txt").write_text("first")
    monkeypatch.setattr("uov_hf.written_together.os.replace", fail)
    with pytest.raises(OSError):
        write(tmp_path, "second", names=["last.txt"])
    assert contents(tmp_path) == {"last.txt": "first"}


def test_an_error_while_files_are_moved_names_the_folder_and_does_not_promise_the_earlier_files(tmp_path, monkeypatch):
    write(tmp_path, "first")
    monkeypatch.setattr("uov_hf.written_together.os.replace", fail)
    with pytest.raises(OSError, match=rf"^{tmp_path}: could not be written: no space\. Free some space"):
        write(tmp_path, "second")


def test_an_error_of_a_file_elsewhere_stays_as_it_is_and_one_of_a_result_has_its_final_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"directory: '{tmp_path}/scan\.pcd'$"):
        with written_together(tmp_path / "out", "last.txt"):
            (tmp_path / "scan.pcd").read_bytes()
    with pytest.raises(
        OSError, match=rf"^{tmp_path}/out: could not be written: .*'{tmp_path}/out/below/b\.txt'\. The"
    ):
        with written_together(tmp_path / "out", "last.txt") as temporary:
            (temporary / "below" / "b.txt").write_text("its folder is missing")


def test_without_locks_the_file_of_the_lock_is_closed_before_it_is_removed(tmp_path, monkeypatch):
    """Windows does not remove an open file."""
    opened, closed_at_removal = [], []
    open_held = module._open_held
    monkeypatch.setattr(module, "flock", None)
    monkeypatch.setattr(module, "_open_held", lambda path: opened.append(open_held(path)) or opened[-1])
    with only_writer(tmp_path):
        monkeypatch.setattr(Path, "unlink", lambda path, missing_ok: closed_at_removal.append(opened[0].closed))
    assert closed_at_removal == [True]


def write_and_be_killed(folder: Path, kill_at: int) -> None:
    """Be killed before the rename or removal of this number."""
    count = 0

    def kill(event, arguments):
        nonlocal count
        is_change = event in ("os.rename", "os.remove", "os.mkdir")
        count += is_change
        if is_change and count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    write(folder, "second")


@pytest.mark.parametrize("kill_at", range(1, 11))
def test_where_the_last_file_exists_all_are_of_one_run_and_the_next_run_removes_what_a_killed_one_left(
    tmp_path, kill_at
):
    write(tmp_path, "first")
    process = multiprocessing.get_context("fork").Process(target=write_and_be_killed, args=(tmp_path, kill_at))
    process.start()
    process.join()
    found = {name: text for name, text in contents(tmp_path).items() if not name.startswith(".saving-")}
    if "last.txt" in found:
        assert found in [dict.fromkeys(NAMES, text) for text in ("first", "second")]
    else:
        assert process.exitcode == -signal.SIGKILL
    write(tmp_path, "third")
    assert contents(tmp_path) == dict.fromkeys(NAMES, "third") and not list(tmp_path.glob(".saving-*"))


def test_the_temporary_folder_of_a_run_that_works_is_not_removed(tmp_path):
    with written_together(tmp_path, "last.txt") as temporary:
        write(tmp_path, "of another run")
        (temporary / "last.txt").write_text("of this run")
    assert contents(tmp_path)["last.txt"] == "of this run"


def hold(folder: Path, is_held) -> None:
    with only_writer(folder):
        is_held.set()
        signal.pause()


def test_a_folder_has_one_writer_and_a_killed_one_keeps_none_out(tmp_path):
    context = multiprocessing.get_context("fork")
    is_held = context.Event()
    process = context.Process(target=hold, args=(tmp_path, is_held))
    process.start()
    assert is_held.wait(60)
    with pytest.raises(BlockingIOError, match=r"is being written by another run. .* --output_dir"):
        with only_writer(tmp_path):
            pass
    process.kill()
    process.join()
    with only_writer(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
