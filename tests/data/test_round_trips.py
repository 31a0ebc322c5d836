"""Genuine samples: raw folder, stream, Parquet and plain `datasets` give the same points, labels and calibration."""

from pathlib import Path

import datasets
import numpy as np
import pytest

from uov_hf.data import load_frames
from uov_hf.data.loading import find_builder
from uov_hf.data.writing import write_parquet


REAL = {
    "nuscenes": "nuscenes",
    "semantic_kitti": "semantickitti/dataset",
    "kitti_object": "kitti_object",
    "pandaset": "pandaset",
}


def assert_same(found, expected, bytes_of_images=False):
    for column, value in expected.items():
        if column == "images":
            if bytes_of_images:
                assert [image["bytes"] for image in found[column]] == [
                    Path(image["path"]).read_bytes() for image in value
                ]
        elif isinstance(value, np.ndarray):
            assert found[column].dtype == value.dtype, column
            np.testing.assert_array_equal(found[column], value, err_msg=column)
        else:
            assert found[column] == value, column


@pytest.mark.parametrize("name", list(REAL))
def test_real_frames_come_back_from_every_way_they_are_stored(name, shared_data, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = shared_data / REAL[name]
    raw = load_frames(name, "all", data_dir=folder)
    for streamed, frame in zip(raw.stream(), raw, strict=True):
        assert_same(streamed, frame)

    builder = find_builder(name)(data_dir=str(folder), splits=("all",), cache_dir=str(tmp_path / "cache"))
    write_parquet(builder, tmp_path / "out")
    for written, frame in zip(load_frames(str(tmp_path / "out"), "all"), raw, strict=True):
        assert_same(written, frame, bytes_of_images=True)

    stream = datasets.load_dataset(str(tmp_path / "out"), builder.config.name, split="all", streaming=True)
    for row, frame in zip(stream.with_format("arrow"), raw, strict=True):
        np.testing.assert_array_equal(row["points"].to_pylist()[0], frame["points"])
        np.testing.assert_array_equal(np.array(row["lidar2cam"].to_pylist()[0]).reshape(-1, 4, 4), frame["lidar2cam"])
        assert row["frame_id"].to_pylist() == [frame["frame_id"]]
        labels = row["labels"].to_pylist()[0]
        assert labels == (None if frame["labels"] is None else frame["labels"].tolist())
