"""The real samples, from the script through a stream and Parquet to `load_dataset`: the same bytes all the way."""

import runpy
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from same_frames import assert_same_frame, content_of

from uov_hf.data import load_frames
from uov_hf.vocabulary import load_vocabulary


SCRIPTS = Path(__file__).parents[2] / "dataset_scripts"
SAMPLES = {  # script: folder of the sample, and the split that it is
    "nuscenes": ("nuscenes", "mini_train"),
    "semantic_kitti": ("semantickitti/dataset", "val"),
    "kitti_object": ("kitti_object", "training"),
    "pandaset": ("pandaset", "train"),
}
GEOMETRY = ("lidar2cam", "intrinsics", "lidar2global")


@pytest.mark.parametrize("name", SAMPLES)
def test_the_same_bytes_come_back(name, shared_data, tmp_path, monkeypatch):
    folder, split = SAMPLES[name]
    raw = load_frames(name, split, data_dir=shared_data / folder)
    streamed = load_frames(name, split, data_dir=shared_data / folder, streaming=True)
    for frame, expected in zip(streamed, raw, strict=True):
        assert_same_frame(frame, expected)

    options = ["--data_dir", shared_data / folder, "--split", split, "--output_dir", tmp_path / "parquet"]
    monkeypatch.setattr(sys, "argv", [name, *map(str, options)])
    runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
    for frame, expected in zip(load_frames(str(tmp_path / "parquet"), split), raw, strict=True):
        assert_same_frame(frame, expected)

    loaded = datasets.load_dataset(str(tmp_path / "parquet"), split=split, cache_dir=str(tmp_path / "cache"))
    for index, expected in enumerate(raw):
        row = loaded.with_format("arrow")[index]
        assert bytes_of(row, "points", np.float32) == expected["points"].tobytes()
        for column in GEOMETRY:
            assert bytes_of(row, column, np.float64) == (
                b"" if expected[column] is None else expected[column].tobytes()
            )
        labels = row["labels"][0].as_py()
        assert labels == (None if expected["labels"] is None else expected["labels"].tolist())
        assert [image["bytes"] for image in loaded[index]["images"]] == list(map(content_of, expected["images"]))


def bytes_of(row: pa.Table, column: str, dtype) -> bytes:
    """What a column of nested lists holds, flat; nothing where it is null."""
    values = row[column].combine_chunks()
    values = values.storage if isinstance(values, pa.ExtensionArray) else values
    while pa.types.is_nested(values.type):
        values = values.flatten()
    return values.to_numpy().astype(dtype, casting="no").tobytes()


def test_labels_of_the_real_scan_are_those_counted_in_its_file(shared_data):
    """The genuine SemanticKITTI scan: classes by the ids of its label file, without this package's reader or map."""
    raw_ids_of = {  # semantic-kitti-api, config/semantic-kitti.yaml: learning_map
        "car": (10, 252),
        "bicycle": (11,),
        "person": (30, 254),
        "road": (40, 60),
        "parking": (44,),
        "sidewalk": (48,),
        "building": (50,),
        "fence": (51,),
        "vegetation": (70,),
        "trunk": (71,),
        "terrain": (72,),
        "pole": (80,),
        "traffic-sign": (81,),
    }
    root = shared_data / "semantickitti/dataset"
    words = np.fromfile(root / "sequences/08/labels/000000.label", np.uint32)
    frame = load_frames("semantic_kitti", "val", data_dir=root)[0]
    found = np.bincount(frame["labels"], minlength=256)
    for class_id, name in enumerate(load_vocabulary("semantic_kitti").class_names):
        assert found[class_id] == np.isin(words & 0xFFFF, raw_ids_of.get(name, ())).sum(), name
    assert found[255] == np.isin(words & 0xFFFF, (0, 1, 52, 99)).sum() == 6924
    assert (frame["labels"] != 255).sum() == 116465 and found[:19].max() == 30925  # terrain
    np.testing.assert_array_equal(frame["instances"].view(np.uint32), words * (words >> 16 > 0))
    assert frame["points"].tobytes() == (root / "sequences/08/velodyne/000000.bin").read_bytes()
