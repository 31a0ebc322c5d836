"""`load_frames` finds scripts, Parquet folders and splits, and keeps a fraction as the paper does."""

import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from same_frames import assert_same_frame
from tiny_frames import Files, OwnCar

from uov_hf.data import FRAME_FEATURES, Frames, decode_image, load_frames
from uov_hf.data.loading import keep_every, keep_fraction, script_names
from uov_hf.data.writing import write_parquet


@pytest.fixture
def script(car, tmp_path):
    path = tmp_path / "own_car.py"
    path.write_text("from tiny_frames import OwnCar\n")
    return {"dataset": str(path), "data_dir": tmp_path / "car"}


@pytest.fixture
def folder(car, tmp_path):
    """The same dataset, as Parquet."""
    write_parquet(OwnCar(data_dir=car.config.data_dir, config_name="v1", splits=("train", "val")), tmp_path / "out")
    return str(tmp_path / "out")


def test_a_script_of_ones_own_is_loaded_by_its_path(script):
    assert load_frames(**script).frame_ids == Files.frame_ids


@pytest.mark.parametrize("source", ["raw", "parquet"])
def test_parts_of_splits_are_chosen_as_datasets_writes_them(script, folder, source):
    """`train` has the frames a 1/0 … b/1, and `val` b/0 and b/1."""
    arguments = script if source == "raw" else {"dataset": folder}

    def ids(split, **options):
        return [frame["frame_id"] for frame in load_frames(split=split, **arguments, **options)]

    assert ids("train[:2]") == ids("train[:2]", streaming=True) == ["a 1/0", "a 1/1"]
    assert ids("train[60%:]") == ids("train[-2:]") == ids("val") == ["b/0", "b/1"]
    assert ids("val+train[1:3]") == ["b/0", "b/1", "a 1/1", "a 1/2"]
    assert ids("train[:2]+train[1:3]") == ["a 1/0", "a 1/1", "a 1/2"]  # a frame comes once
    assert ids(None) == ids("train+val") == ids("all") == Files.frame_ids and ids("train[3:3]") == []


class Scenes:
    taxonomy = None
    frame_ids = sequence_ids = list("gfedcba")


def test_a_fraction_keeps_every_sth_sequence():
    def kept(fraction):
        return keep_fraction(Frames(Scenes()), fraction).sequence_ids

    assert kept(1.0) == list("gfedcba")
    assert kept(0.5) == list("fdb")  # the 2nd, 4th and 6th
    assert kept(1 / 3) == list("eb")
    with pytest.raises(ValueError, match="needs at least 10 sequences, got 7"):
        kept(0.1)
    for wrong in (0.0, 0.3, 1.5, -1.0):
        with pytest.raises(ValueError, match=f"1 / s.*got {wrong}"):
            kept(wrong)


class Drives:
    """Two sequences of five and three frames, which do not lie together."""

    taxonomy = None
    frame_ids = ["a0", "a1", "b0", "a2", "a3", "a4", "b1", "b2"]
    sequence_ids = [name[0] for name in frame_ids]


def test_a_stride_keeps_every_nth_frame_of_each_sequence_from_its_first():
    frames = Frames(Drives())
    assert keep_every(frames, 1).frame_ids == Drives.frame_ids
    assert keep_every(frames, 2).frame_ids == ["a0", "b0", "a2", "a4", "b2"]
    assert keep_every(frames, 9).frame_ids == ["a0", "b0"]
    assert keep_every(frames.select([1, 2, 3, 4]), 2).frame_ids == ["a1", "b0", "a3"]  # counted within the selection
    with pytest.raises(ValueError, match="`frame_stride` must be a whole number of at least 1, got 0"):
        keep_every(frames, 0)


@pytest.mark.parametrize("source", ["raw", "parquet"])
def test_a_stride_holds_before_the_fraction_and_is_of_the_split(script, folder, source):
    """The fraction of this dataset counts frames."""
    arguments = script if source == "raw" else {"dataset": folder}
    strided = load_frames(split="train", frame_stride=2, **arguments)
    assert strided.frame_ids == ["a 1/0", "a 1/2", "b/0"] and strided[1]["frame_id"] == "a 1/2"
    assert load_frames(split="train[1:]", frame_stride=2, **arguments).frame_ids == ["a 1/1", "b/0"]
    assert load_frames(split="train", frame_stride=2, data_fraction=0.5, **arguments).frame_ids == ["a 1/0", "b/0"]


def test_parquet_gives_the_same_frames(car, folder):
    written, streamed, raw = load_frames(folder), load_frames(folder, streaming=True), car.as_frames()
    assert written.taxonomy == "nuscenes" and streamed.num_shards == 2
    assert car.as_streaming_dataset("train").num_shards == 2
    for frame, of_stream, expected in zip(written, streamed, raw, strict=True):
        assert_same_frame(frame, expected)
        assert_same_frame(of_stream, expected)
        assert all(value.flags.writeable for value in frame.values() if isinstance(value, np.ndarray))


def test_datasets_reads_the_parquet_folder_too(folder):
    loaded = datasets.load_dataset(folder, "v1")
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 5, "val": 2}
    assert loaded["train"].features == FRAME_FEATURES
    (image,) = loaded["train"][0]["images"]
    assert image["path"] == "0.jpg" and decode_image(image).size == (8, 6)
    for row, expected in zip(loaded["train"].with_format("numpy", dtype="float64"), load_frames(folder), strict=True):
        for column in ("points", "lidar2cam", "intrinsics"):
            assert np.array_equal(row[column], expected[column])
    streamed = datasets.load_dataset(folder, "v1", streaming=True)["train"]
    assert streamed.num_shards == 2 and [row["frame_id"] for row in streamed] == Files.frame_ids


def test_a_second_config_is_added_to_the_card(car, folder):
    write_parquet(OwnCar(data_dir=car.config.data_dir, config_name="v2", splits=["val"]), folder)
    assert [len(load_frames(folder, dataset_config=name)) for name in ("v1", "v2")] == [5, 2]


def test_what_is_not_there_is_named(script, folder, tmp_path):
    with pytest.raises(ValueError, match="'nuscenes' reads a raw folder: expected it as `data_dir`"):
        load_frames("nuscenes")
    with pytest.raises(ValueError, match="none.py: expected a dataset script, got no file.*nuscenes"):
        load_frames(str(tmp_path / "none.py"), data_dir=tmp_path)
    (tmp_path / "empty.py").touch()
    with pytest.raises(ValueError, match="empty.py: expected one subclass of FrameBuilder in it, got 0"):
        load_frames(str(tmp_path / "empty.py"), data_dir=tmp_path)
    for arguments in (script, {"dataset": folder}):
        for split in ("test", "train+test", "train[:2", "train[:200%]"):
            with pytest.raises(ValueError) as error:
                load_frames(split=split, **arguments)
            assert "expected one of the splits train, val, all, or parts of them" in str(error.value)
            assert f"got {split!r}" in str(error.value)


def test_a_parquet_file_of_something_else_is_named(tmp_path):
    (tmp_path / "other").mkdir()
    datasets.Dataset.from_dict({"frame_id": ["a"], "text": ["b"]}).to_parquet(tmp_path / "other" / "train.parquet")
    with pytest.raises(
        ValueError, match="train.parquet: expected the columns of frames, got a file without camera_names"
    ):
        load_frames(str(tmp_path / "other"))


@pytest.mark.slow
def test_the_types_of_frames_reach_the_code_of_a_user(tmp_path):
    """mypy reads the whole package."""
    script = "from uov_hf.data import load_frames\n\nreveal_type(load_frames('nuscenes')[0]['points'].shape)\n"
    script += "load_frames('nuscenes')[0]['pionts']\n"
    (tmp_path / "use.py").write_text(script)
    command = [sys.executable, "-m", "mypy", "--follow-imports", "silent", str(tmp_path / "use.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert "use.py:3: note: Revealed type is" in done.stdout and "tuple[" in done.stdout, done.stdout
    assert len(errors) == 1 and 'has no key "pionts"' in errors[0]


def test_nuscenes_is_a_short_name():
    assert "nuscenes" in script_names() and "nuscenes_tables" not in script_names()
