"""`load_frames` finds scripts, Parquet folders and splits, and keeps a fraction as the paper does."""

import subprocess
import sys
import textwrap
from pathlib import Path

import datasets
import numpy as np
import pytest

from uov_hf.data import FRAME_FEATURES, decode_image, load_frames
from uov_hf.data.loading import script_names
from uov_hf.data.writing import write_parquet


# A dataset of the user's own: seven sequences of two frames each; odd frames have no camera and no labels.
SCRIPT = textwrap.dedent(
    """
    import io
    import numpy as np
    from PIL import Image
    from uov_hf.data import FrameBuilder

    def picture(shade):
        buffer = io.BytesIO()
        Image.new("L", (2, 1), shade).save(buffer, "PNG")
        return buffer.getvalue()

    class Source:
        taxonomy = "nuscenes"
        frame_ids = [f"{sequence}/{index}" for sequence in "gfedcba" for index in range(2)]
        sequence_ids = [name[0] for name in frame_ids]

        def read(self, index, columns):
            rng, cameras = np.random.default_rng(index), 2 - 2 * (index % 2)
            row = {
                "frame_id": self.frame_ids[index],
                "sequence_id": self.sequence_ids[index],
                "timestamp": index,
                "points": rng.normal(size=(10 + index, 4)).astype(np.float32),
                "intensity_max": 1.0,
                "labels": rng.integers(0, 16, 10 + index).astype(np.uint8) if cameras else None,
                "instances": np.arange(10 + index, dtype=np.int32) if cameras else None,
                "camera_names": ["left", "right"][:cameras],
                "image_ids": ["l", "r"][:cameras],
                "images": [{"bytes": picture(index + camera), "path": f"{camera}.png"} for camera in range(cameras)],
                "camera_timestamps": np.arange(cameras, dtype=np.int64) + 2**40,
                "lidar2cam": rng.normal(size=(cameras, 4, 4)),
                "intrinsics": rng.normal(size=(cameras, 3, 3)),
                "image_sizes": np.tile(np.array([[1, 2]], np.int32), (cameras, 1)),
                "lidar2global": rng.normal(size=(4, 4)),
            }
            return {column: row[column] for column in columns}

    class Own(FrameBuilder):
        def open(self):
            return Source()

        def default_splits(self):
            return ("train", "val")

        def split_sequences(self):
            return {"train": list("fedcba"), "val": ["g"], "all": list("gfedcba")}
    """
)


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "own_car.py"
    path.write_text(SCRIPT)
    return str(path)


@pytest.fixture
def parquet(script, tmp_path):
    """The builder of the same dataset, to write it as Parquet."""
    builder = type(load_frames(script, data_dir=tmp_path).source)  # imports the script
    module = __import__(builder.__module__)
    return module.Own(data_dir=str(tmp_path), config_name="v1", cache_dir=str(tmp_path / "cache"))


def assert_equal(frame, expected):
    assert list(frame) == list(expected)
    for column, value in expected.items():
        assert type(frame[column]) is type(value), column
        if isinstance(value, np.ndarray):
            assert frame[column].dtype == value.dtype and frame[column].flags.writeable
            np.testing.assert_array_equal(frame[column], value)
        else:
            assert frame[column] == value, column


def test_a_script_of_ones_own_is_loaded_by_its_path(script, tmp_path):
    frames = load_frames(script, data_dir=tmp_path)
    assert len(frames) == 12 and frames.frame_ids[0] == "f/0"
    assert list(frames[0]) == list(FRAME_FEATURES)
    assert len(load_frames(script, "all", data_dir=tmp_path)) == 14


@pytest.mark.parametrize("source", ["raw", "parquet"])
def test_parts_of_splits_are_chosen_as_datasets_writes_them(script, parquet, tmp_path, source):
    """`train` has the frames f/0 … a/1, and `val` g/0 and g/1."""
    arguments = {"dataset": script, "data_dir": tmp_path}
    if source == "parquet":
        write_parquet(parquet, tmp_path / "parquet")
        arguments = {"dataset": str(tmp_path / "parquet")}

    def ids(split, **options):
        return [frame["frame_id"] for frame in load_frames(split=split, **arguments, **options)]

    assert ids("train[:2]") == ids("train[:2]", streaming=True) == ["f/0", "f/1"]
    assert ids("train[75%:]") == ids("train[-3:]") == ["b/1", "a/0", "a/1"]
    assert ids("val+train[1:3]") == ["g/0", "g/1", "f/1", "e/0"]
    assert ids("train[:2]+train[1:3]") == ["f/0", "f/1", "e/0"]  # a frame comes once
    assert len(ids("train+val")) == len(ids("all")) == 14 and ids("train[3:3]") == []


def test_a_fraction_keeps_every_sth_sequence(script, tmp_path):
    def kept(fraction, **kwargs):
        frames = load_frames(script, "all", data_dir=tmp_path, data_fraction=fraction, **kwargs)
        return list(dict.fromkeys(frame["sequence_id"] for frame in frames))

    assert kept(1.0) == list("gfedcba")
    assert kept(0.5) == list("fdb")  # the 2nd, 4th and 6th
    assert kept(1 / 3) == kept(1 / 3, streaming=True) == list("eb")
    with pytest.raises(ValueError, match="needs at least 10 sequences, got 7"):
        kept(0.1)
    for wrong in (0.0, 0.3, 1.5, -1.0):
        with pytest.raises(ValueError, match=f"1 / s.*got {wrong}"):
            kept(wrong)


def test_parquet_gives_the_same_frames(parquet, script, tmp_path):
    write_parquet(parquet, tmp_path / "parquet")
    for split, num_frames in [(None, 12), ("train", 12), ("val", 2), ("all", 14)]:
        written = load_frames(str(tmp_path / "parquet"), split)
        assert len(written) == num_frames and written.taxonomy == "nuscenes"
    raw = load_frames(script, data_dir=tmp_path)
    for index, frame in enumerate(load_frames(str(tmp_path / "parquet"))):
        assert_equal(frame, raw[index])
    streamed = load_frames(str(tmp_path / "parquet"), streaming=True)
    assert streamed.num_shards == 6
    for frame, expected in zip(streamed, raw, strict=True):
        assert_equal(frame, expected)


def test_datasets_reads_the_parquet_folder_too(parquet, tmp_path):
    write_parquet(parquet, tmp_path / "parquet")
    loaded = datasets.load_dataset(str(tmp_path / "parquet"), "v1", cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 12, "val": 2}
    assert loaded["train"].features == FRAME_FEATURES
    images = loaded["train"][0]["images"]
    assert [image["path"] for image in images] == ["0.png", "1.png"]
    assert decode_image(images[0]).getpixel((0, 0)) == (2, 2, 2)
    streamed = datasets.load_dataset(str(tmp_path / "parquet"), "v1", streaming=True)
    assert streamed["train"].num_shards == 6
    assert [row["frame_id"] for row in streamed["train"]] == list(loaded["train"]["frame_id"])


def test_a_second_config_is_added_to_the_card(parquet, tmp_path):
    write_parquet(parquet, tmp_path / "parquet")
    second = type(parquet)(data_dir=str(tmp_path), config_name="v2", splits=["val"], cache_dir=str(tmp_path / "cache"))
    write_parquet(second, tmp_path / "parquet")
    assert len(load_frames(str(tmp_path / "parquet"), dataset_config="v1")) == 12
    assert len(load_frames(str(tmp_path / "parquet"), dataset_config="v2")) == 2


def test_a_builder_streams_one_shard_per_sequence(parquet):
    stream = parquet.as_streaming_dataset("train")
    assert stream.num_shards == 6 and len(list(stream)) == 12


def test_what_is_not_there_is_named(script, parquet, tmp_path):
    with pytest.raises(ValueError, match="'nuscenes' reads a raw folder: expected it as `data_dir`"):
        load_frames("nuscenes")
    with pytest.raises(ValueError, match="none.py: expected a dataset script, got no file.*nuscenes"):
        load_frames(str(tmp_path / "none.py"), data_dir=tmp_path)
    (tmp_path / "empty.py").touch()
    with pytest.raises(ValueError, match="empty.py: expected one subclass of FrameBuilder in it, got 0"):
        load_frames(str(tmp_path / "empty.py"), data_dir=tmp_path)
    write_parquet(parquet, tmp_path / "parquet")
    for arguments in ({"dataset": script, "data_dir": tmp_path}, {"dataset": str(tmp_path / "parquet")}):
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
