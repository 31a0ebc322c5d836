"""Parquet is written whole: interrupted, out of room, killed or given broken frames, no half file is ever read."""

import hashlib
import multiprocessing
import os
import re
import resource
import signal
import sys
from pathlib import Path

import datasets
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from broken_images import png_with_a_hole
from PIL import Image
from tiny_frames import Files, OwnCar

from uov_hf.data import load_frames, split_writer, write_report
from uov_hf.data.write_report import TooManyBrokenFrames
from uov_hf.data.writer_lock import writer_lock
from uov_hf.data.writing import write_from_command_line, write_parquet


TWO_FRAMES = 20_000  # bytes: the second frame reaches it


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def in_a_child(function, *args) -> int:
    """The exit code of a function in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=function, args=args)
    process.start()
    process.join(60)
    return process.exitcode


def test_a_row_group_is_a_frame_and_shards_are_bounded(car, tmp_path):
    report = write_parquet(car, tmp_path / "out", max_shard_bytes=TWO_FRAMES)
    assert (report.num_frames, report.num_done_before, report.skipped) == (5, 0, {})
    files = sorted((tmp_path / "out/default/train").iterdir())
    assert [file.name for file in files] == [
        "00000_a-1_000000.parquet",
        "00000_a-1_000002.parquet",
        "00001_b_000000.parquet",
    ]
    assert [pq.read_metadata(file).num_row_groups for file in files] == [2, 1, 2]
    assert load_frames(str(tmp_path / "out")).frame_ids == Files.frame_ids


def test_two_processes_write_the_same_files(car, tmp_path):
    write_parquet(car, tmp_path / "one")
    write_parquet(car, tmp_path / "two", num_proc=2)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


def test_processes_share_a_long_sequence(car, tmp_path, monkeypatch):
    """A recording of one sequence is many files, each of which a process writes."""
    monkeypatch.setattr(split_writer, "MAX_FRAMES", 2)
    write_parquet(car, tmp_path / "out", num_proc=2)
    files = sorted((tmp_path / "out/default/train").iterdir())
    assert [file.stem for file in files] == ["00000_a-1_000000", "00000_a-1_000002", "00001_b_000000"]
    assert load_frames(str(tmp_path / "out")).frame_ids == Files.frame_ids


def test_a_second_writer_is_refused(car, tmp_path):
    (tmp_path / "out").mkdir()
    with writer_lock(tmp_path / "out/default"):
        with pytest.raises(RuntimeError, match=rf"default is being written by process {os.getpid()} on"):
            write_parquet(car, tmp_path / "out")
        assert not list((tmp_path / "out").rglob("*.parquet"))
    assert write_parquet(car, tmp_path / "out").num_frames == 5


def test_many_broken_frames_in_a_row_stop_the_conversion_and_are_not_remembered(car, tmp_path, monkeypatch):
    """Over the ends of sequences and of files: the disk was gone for a while."""
    monkeypatch.setattr(write_report, "MAX_BROKEN_IN_A_ROW", 3)
    monkeypatch.setattr(split_writer, "MAX_FRAMES", 2)
    scans = [tmp_path / f"car/{name}.npy" for name in ("a 1/1", "a 1/2", "b/0")]
    for scan in scans:
        scan.rename(scan.with_suffix(".gone"))
    with pytest.raises(TooManyBrokenFrames, match="3 frames in a row are broken, from a 1/1 to b/0"):
        write_parquet(car, tmp_path / "out", on_error="skip")
    for scan in scans:
        scan.with_suffix(".gone").rename(scan)
    report = write_parquet(car, tmp_path / "out", on_error="skip")
    assert (report.num_frames, report.skipped) == (5, {})


def test_missing_poses_and_fractions_of_frames_survive(car, tmp_path):
    write_parquet(car, tmp_path / "out")
    frames = load_frames(str(tmp_path / "out"))
    assert frames[0]["lidar2global"] is None and frames[1]["lidar2global"].shape == (4, 4)
    half = load_frames(str(tmp_path / "out"), data_fraction=0.5, streaming=True)
    assert [frame["frame_id"] for frame in half] == ["a 1/0", "a 1/2", "b/1"]


def die_at_the_fourth_frame(car, output_dir):
    read = Files.read

    def read_or_die(self, index, columns):
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, index, columns)

    Files.read = read_or_die
    write_parquet(car, output_dir, max_shard_bytes=TWO_FRAMES)


def test_a_killed_conversion_continues_to_the_same_bytes(car, tmp_path):
    write_parquet(car, tmp_path / "whole", max_shard_bytes=TWO_FRAMES)
    assert in_a_child(die_at_the_fourth_frame, car, tmp_path / "out") == -signal.SIGKILL
    left = sorted(path.name for path in (tmp_path / "out/default/.train.partial").iterdir())
    assert left[:2] == ["00000_a-1_000000.parquet", "00000_a-1_000002.parquet"]
    assert len(left) == 3 and re.fullmatch(r"00001_b_000000\.parquet\.\w{12}\.tmp", left[2])
    with pytest.raises(Exception, match="out"):  # nothing of it is taken for a dataset
        load_frames(str(tmp_path / "out"))

    report = write_parquet(car, tmp_path / "out", max_shard_bytes=TWO_FRAMES)
    assert (report.num_frames, report.num_done_before) == (2, 3)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")
    assert str(write_parquet(car, tmp_path / "out")).endswith("5 were there already")


def kill_the_parent_at_the_fourth_frame(car, output_dir):
    read = Files.read

    def read_and_kill(self, index, columns):
        (output_dir / f"{os.getpid()}.worker").touch()
        if index == 3:
            os.kill(os.getppid(), signal.SIGKILL)
        return read(self, index, columns)

    Files.read = read_and_kill
    write_parquet(car, output_dir, num_proc=2)


def test_the_processes_of_a_killed_conversion_end(car, tmp_path):
    (tmp_path / "out").mkdir()
    assert in_a_child(kill_the_parent_at_the_fourth_frame, car, tmp_path / "out") == -signal.SIGKILL
    workers = [int(path.stem) for path in (tmp_path / "out").glob("*.worker")]
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)], timeout=20)
    alive = [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    for process in alive:
        process.kill()
    assert workers and not alive


def write_with_little_room(car, output_dir, num_bytes):
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, most))
    try:
        write_parquet(car, output_dir)
    except OSError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        (output_dir / "message").write_text(str(error))


@pytest.mark.parametrize("num_bytes", [100, 25_000, 52_000])  # the first row, the second one, the footer
def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(car, tmp_path, num_bytes):
    (tmp_path / "out").mkdir()
    assert in_a_child(write_with_little_room, car, tmp_path / "out", num_bytes) == 0
    message = (tmp_path / "out/message").read_text()
    assert "00000_a-1_000000.parquet: could not be written: [Errno 27] File too large" in message
    assert "run the same command again: it continues" in message
    assert list((tmp_path / "out").rglob("*.parquet*")) == []
    assert write_parquet(car, tmp_path / "out").num_frames == 5


def test_a_broken_frame_stops_the_conversion_or_is_counted_and_left_out(car, tmp_path):
    (tmp_path / "car/a 1/1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="a 1/1.jpg: expected a whole image file"):
        write_parquet(car, tmp_path / "out")
    report = write_parquet(car, tmp_path / "out", on_error="skip")
    assert list(report.skipped) == ["a 1/1"] and "1 broken and skipped:\n  a 1/1: ValueError: " in str(report)
    assert load_frames(str(tmp_path / "out")).frame_ids == ["a 1/0", "a 1/2", "b/0", "b/1"]
    assert "| default | train | 2 | 4 | 1 |" in (tmp_path / "out/README.md").read_text()
    assert write_parquet(car, tmp_path / "out").skipped.keys() == {"a 1/1"}  # a later run reports it, too


def test_a_skipped_frame_is_tried_again_and_taken_in_once_it_is_mended(car, tmp_path):
    write_parquet(car, tmp_path / "whole")
    images = [tmp_path / "car/a 1/1.jpg", tmp_path / "car/b/1.jpg"]
    contents = [image.read_bytes() for image in images]
    for image in images:
        image.write_bytes(b"")
    write_parquet(car, tmp_path / "out", on_error="skip")
    images[0].write_bytes(contents[0])
    report = write_parquet(car, tmp_path / "out")
    assert (report.num_frames, report.num_done_before, list(report.skipped)) == (1, 3, ["b/1"])
    assert load_frames(str(tmp_path / "out")).frame_ids == ["a 1/0", "a 1/1", "a 1/2", "b/0"]
    images[1].write_bytes(contents[1])
    assert write_parquet(car, tmp_path / "out").skipped == {}
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


def test_a_mended_frame_does_not_move_the_frames_of_the_files_after_it(car, tmp_path):
    image = tmp_path / "car/a 1/0.jpg"
    content = image.read_bytes()
    image.write_bytes(b"")
    write_parquet(car, tmp_path / "out", on_error="skip", max_shard_bytes=10_000)  # less than a frame
    image.write_bytes(content)
    assert write_parquet(car, tmp_path / "out", max_shard_bytes=10_000).num_frames == 1
    assert load_frames(str(tmp_path / "out")).frame_ids == Files.frame_ids


@pytest.mark.parametrize("broken", ["half a jpeg", "png with a hole", "another size", "no points", "no finite points"])
def test_what_cannot_be_trained_on_is_not_converted(car, tmp_path, broken):
    points, image = tmp_path / "car/b/0.npy", tmp_path / "car/b/0.jpg"
    if broken == "half a jpeg":
        image.write_bytes(image.read_bytes()[:-150])
    if broken == "png with a hole":
        image.write_bytes(png_with_a_hole())
    if broken == "another size":
        Image.new("RGB", (9, 6)).save(image)
    if "points" in broken:
        np.save(points, np.full((0 if broken == "no points" else 3, 4), np.nan, np.float32))
    expected = {
        "half a jpeg": "b/0.jpg: expected a whole image file",
        "png with a hole": "b/0.jpg: expected a whole image file, got: broken PNG file",
        "another size": r"b/0.jpg: expected height and width \(6, 8\).*got \(6, 9\)",
        "no points": "Frame b/0: expected a scan with finite points, got 0 points",
        "no finite points": "Frame b/0: expected a scan with finite points, got 3 points, none finite",
    }
    with pytest.raises(ValueError, match=expected[broken]):
        write_parquet(car, tmp_path / "out")


def test_a_folder_of_other_data_is_not_continued(car, tmp_path, monkeypatch):
    write_parquet(car, tmp_path / "out")
    monkeypatch.setattr(Files, "frame_ids", ["a 1/0", "a 1/2", "a 1/1", "b/0", "b/1"][:4] + ["b/2"])
    with pytest.raises(ValueError, match="b_000000.parquet: expected frames of b from b/0 on, got others"):
        write_parquet(car, tmp_path / "out")


def test_files_of_sequences_that_the_split_no_longer_has_are_not_taken_in(car, tmp_path, monkeypatch):
    assert in_a_child(die_at_the_fourth_frame, car, tmp_path / "out") == -signal.SIGKILL
    monkeypatch.setattr(OwnCar, "split_members", lambda self: {"train": ["b"]})
    with pytest.raises(ValueError, match="00000_a-1_000000.parquet: belongs to no sequence of the present train"):
        write_parquet(car, tmp_path / "out")


def test_all_is_written_as_train_where_there_is_no_other_split(car, tmp_path, monkeypatch):
    monkeypatch.setattr(OwnCar, "default_splits", lambda self: ("all",))
    monkeypatch.setattr(OwnCar, "split_members", lambda self: {"all": ["a 1", "b"]})
    write_parquet(car, tmp_path / "out")
    for split in (None, "train", "all"):
        assert load_frames(str(tmp_path / "out"), split).frame_ids == Files.frame_ids
    assert len(datasets.load_dataset(str(tmp_path / "out"))["train"]) == 5
    both = OwnCar(data_dir=car.config.data_dir, splits=("all", "val"))
    with pytest.raises(ValueError, match="Expected `all` alone, or splits without it, got all, val"):
        write_parquet(both, tmp_path / "out")


def test_asked_for_all_beside_other_splits_the_command_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["own_car.py", "--data_dir", str(tmp_path), "--output_dir", str(tmp_path), "--split", "all"]
    )
    with pytest.raises(ValueError, match=r"--split all: .*\(default: train\); `load_frames"):
        write_from_command_line(OwnCar, "Own car.")


def test_a_split_is_added_and_those_that_are_there_stay(car, tmp_path):
    write_parquet(car, tmp_path / "out")
    val = OwnCar(data_dir=car.config.data_dir, splits=("val",))
    assert write_parquet(val, tmp_path / "out").num_frames == 2
    assert len(load_frames(str(tmp_path / "out"))) == 5 and len(load_frames(str(tmp_path / "out"), "val")) == 2
    assert load_frames(str(tmp_path / "out"), "all").frame_ids == Files.frame_ids  # b is in both splits, and once here
    odd = OwnCar(data_dir=car.config.data_dir, splits=("rainy-day",))
    with pytest.raises(ValueError, match="names of letters, digits, _ and inner dots, got rainy-day"):
        write_parquet(odd, tmp_path / "out")
