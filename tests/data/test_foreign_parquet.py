"""Parquet from anybody names no files of this machine: neither as images of its rows nor as shards in its card."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_frames import OwnCar

from uov_hf.data import load_frames
from uov_hf.data.writing import write_parquet


@pytest.fixture
def folder(car, tmp_path):
    write_parquet(car, tmp_path / "parquet")
    return tmp_path / "parquet"


@pytest.mark.parametrize("streaming", [False, True])
def test_an_image_of_a_row_is_in_the_row(car, folder, streaming):
    """A path would be read on this machine, and its content copied into what the user writes and uploads."""
    secret = Path(car.config.data_dir) / "a 1" / "0.jpg"
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path)
        place = table.schema.get_field_index("images")
        images = [[{"bytes": None, "path": str(secret)} for _ in row] for row in table["images"].to_pylist()]
        column = pa.array(images, type=table.schema.field(place).type)
        pq.write_table(table.set_column(place, "images", column), path, row_group_size=1)
    frames = load_frames(str(folder), "train", streaming=streaming)
    with pytest.raises(ValueError, match=r"\.parquet: expected the content of every image, got the path .*0.jpg"):
        next(iter(frames))
    assert len(load_frames(str(folder), "train").select_columns(["points"])[0]["points"]) == 1000


@pytest.mark.parametrize("name", ["drive [1]", "what?", "a*b", "[train]"])
@pytest.mark.parametrize("has_card", [True, False])
def test_a_folder_whose_path_is_a_pattern_is_read_like_any_other(car, folder, tmp_path, name, has_card):
    expected = load_frames(str(folder), "train", dataset_config="default" if has_card else None)
    odd = tmp_path / name / "parquet"
    shutil.copytree(folder, odd)
    if not has_card:
        (odd / "README.md").unlink()
    frames = load_frames(str(odd), "train")
    assert frames.frame_ids == expected.frame_ids and len(frames[0]["points"]) == 1000
    if has_card:
        with pytest.raises(ValueError, match="expected one of its configs default, got other"):
            load_frames(str(odd), "train", dataset_config="other")


@pytest.mark.parametrize("pattern", ["../parquet/default/train/*.parquet", "{folder}/default/train/*.parquet"])
def test_a_card_lists_files_of_its_own_folder_only(folder, tmp_path, pattern):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    card = (folder / "README.md").read_text()
    (foreign / "README.md").write_text(card.replace("default/train/*.parquet", pattern.format(folder=folder)))
    with pytest.raises(ValueError, match="foreign/README.md: expected the name of a file in .*parquet"):
        load_frames(str(foreign), "train")


def test_a_folder_of_links_is_read(car, folder, tmp_path):
    shutil.move(folder / "default", tmp_path / "disk")
    (folder / "default").symlink_to(tmp_path / "disk")
    (tmp_path / "link").symlink_to(folder)
    assert load_frames(str(tmp_path / "link"), "train").frame_ids == OwnCar.as_frames(car).frame_ids


def test_a_file_with_other_arrays_than_those_of_frames_is_named(folder):
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path)
        place = table.schema.get_field_index("lidar2cam")
        column = pa.array([[1.0, 2.0]] * len(table))
        pq.write_table(table.set_column(place, "lidar2cam", column), path, row_group_size=1)
    with pytest.raises(ValueError, match=r"\.parquet: expected 'lidar2cam' of numbers and of shape .K, 4, 4."):
        load_frames(str(folder), "train")[0]


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("images", ["a"], "expected a list of images, each with `bytes` and `path`, got 'a'"),
        ("images", [[["a"]]], "expected a list of images, each with `bytes` and `path`, got "),
        ("images", [[{"path": "a.png"}]], "expected the content of every image, got the path 'a.png' alone"),
        ("images", [[{"bytes": 1, "path": "a.png"}]], "expected the content of every image"),
        ("camera_names", ["left"], "expected a list of text as 'camera_names', got 'left'"),
        ("image_ids", [[1]], "expected a list of text as 'image_ids', got"),
        ("intensity_max", ["a"], "expected a number above 0 as 'intensity_max', got 'a'"),
        ("intensity_max", [float("nan")], "expected a number above 0 as 'intensity_max', got nan"),
        ("timestamp", ["a"], "expected microseconds as 'timestamp', got 'a'"),
        ("labels", [[0.5] * 1000], "expected 'labels' of integers and of shape .any., got float"),
        ("points", ["a"], "expected 'points' of numbers and of shape .any, 4., got 'a'"),
    ],
)
def test_a_column_of_another_type_is_named(folder, column, values, expected):
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path)
        place = table.schema.get_field_index(column)
        pq.write_table(table.set_column(place, column, pa.array(values * len(table))), path, row_group_size=1)
    frames = load_frames(str(folder), "train")
    with pytest.raises(ValueError, match=rf"\.parquet: {expected}"):
        frames.select_columns([column])[0]


@pytest.mark.parametrize("column", ["frame_id", "sequence_id"])
def test_ids_that_are_no_text_are_named(folder, column):
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path).replace_schema_metadata(None)
        place = table.schema.get_field_index(column)
        pq.write_table(table.set_column(place, column, pa.array([[1]] * len(table))), path, row_group_size=1)
    with pytest.raises(ValueError, match=r"\.parquet: .* expected text in its columns frame_id and sequence_id"):
        load_frames(str(folder), "train")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("configs:", "configs: 3\nothers:"),
        ("config_name: default", "config_name: [a]"),
        ("data_files:", "data_files: 0.5 #"),
        ("\n---\n", "\nfraction_of: [all]\n---\n"),
        ("\n---\n", "\ntaxonomy: 7\n---\n"),
        ("---\n", "---\n: : :\n"),
        ("---\n", "---\n\x10\n"),
        ("---\n", None),
    ],
)
def test_a_damaged_card_is_named(folder, old, new):
    card = folder / "README.md"
    content = card.read_text()
    assert old in content
    card.write_bytes(b"---\n\xff\n---\n" if new is None else content.replace(old, new, 1).encode())
    with pytest.raises(ValueError, match="README.md: expected the card of a dataset, got: "):
        load_frames(str(folder), "train")


def test_a_whole_card_is_not_blamed_for_other_errors(folder, monkeypatch):
    with pytest.raises(ValueError, match="'other' not found. Available: ..default") as error:
        load_frames(str(folder), "train", dataset_config="other")
    assert "README.md" not in str(error.value)
    for path in folder.rglob("*.parquet"):
        path.unlink()
    monkeypatch.chdir(folder.parent)
    for name in ("./parquet", str(folder)):
        with pytest.raises(FileNotFoundError):
            load_frames(name, "train")


def replace_column(folder, column, values):
    for path in folder.rglob("*.parquet"):
        table = pq.read_table(path)
        place = table.schema.get_field_index(column)
        pq.write_table(table.set_column(place, column, values(len(table))), path, row_group_size=1)


@pytest.mark.parametrize(
    "column",
    ["points", "intensity_max", "camera_names", "image_ids", "images", "lidar2cam", "intrinsics", "image_sizes"],
)
def test_a_null_where_no_frame_has_one_is_named(folder, column):
    replace_column(folder, column, pa.nulls)
    with pytest.raises(ValueError, match=rf"\.parquet: expected a value as '{column}', got null"):
        load_frames(str(folder), "train")[0]


def test_a_frame_without_annotation_pose_and_times_is_read(folder):
    columns = ["timestamp", "labels", "instances", "camera_timestamps", "lidar2global"]
    for column in columns:
        replace_column(folder, column, pa.nulls)
    frame = load_frames(str(folder), "train")[0]
    assert [frame[column] for column in columns] == [None] * 5 and frame["points"].shape == (1000, 4)


def test_columns_of_different_numbers_of_cameras_are_named(folder):
    replace_column(folder, "camera_names", lambda num: pa.array([["a", "b", "c", "d"]] * num))
    with pytest.raises(ValueError, match=r"\.parquet: expected as many values as cameras in each column, got .*'came"):
        load_frames(str(folder), "train")[0]
