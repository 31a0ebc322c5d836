"""A raw folder names its own files only: its tables, calibrations and splits may come from anybody."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_roots import NUM_POINTS, write_nuscenes, write_pandaset

from uov_hf.data import load_frames


@pytest.fixture
def elsewhere(tmp_path):
    """A whole scan, label file and picture beside the root."""
    np.ones((NUM_POINTS, 5), np.float32).tofile(tmp_path / "elsewhere.bin")
    np.full(NUM_POINTS, 24, np.uint8).tofile(tmp_path / "elsewhere_lidarseg.bin")
    return tmp_path / "elsewhere.bin"


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def nuscenes(tmp_path, elsewhere):
    return write_nuscenes(tmp_path / "nuscenes", {"scene-0061": 1})


@pytest.mark.parametrize("name", ["../elsewhere.bin", "samples/../../elsewhere.bin", "{absolute}"])
@pytest.mark.parametrize("channel", ["LIDAR_TOP", "CAM_FRONT"])
def test_a_table_of_nuscenes_names_files_of_its_root_only(nuscenes, elsewhere, channel, name):
    def rename(rows):
        for row in rows:
            if row["filename"].startswith(f"samples/{channel}/"):
                row["filename"] = name.format(absolute=elsewhere)

    edit(nuscenes / "v1.0-mini" / "sample_data.json", rename)
    with pytest.raises(ValueError, match="sample_data.json: expected the name of a file in .*elsewhere.bin"):
        load_frames("nuscenes", "all", data_dir=nuscenes)[0]


def test_a_token_of_nuscenes_is_no_path(nuscenes):
    """Label files are named after tokens."""

    def rename(rows):
        for row in rows:
            if row["token"] == "scene-0061-0-LIDAR_TOP":
                row["token"] = "../../../elsewhere"

    edit(nuscenes / "v1.0-mini" / "sample_data.json", rename)
    with pytest.raises(ValueError, match="expected the name of a file in .*elsewhere_lidarseg.bin"):
        load_frames("nuscenes", "all", data_dir=nuscenes)[0]


def test_a_root_of_links_is_read(nuscenes, tmp_path):
    """A user's own root often has its sensor data on another disk."""
    expected = load_frames("nuscenes", "all", data_dir=nuscenes)[0]
    (nuscenes / "samples").rename(tmp_path / "disk")
    (nuscenes / "samples").symlink_to(tmp_path / "disk")
    (tmp_path / "link").symlink_to(nuscenes)
    found = load_frames("nuscenes", "all", data_dir=tmp_path / "link")[0]
    np.testing.assert_array_equal(found["points"], expected["points"])


def test_a_calibration_of_pandaset_names_a_camera_of_its_sequence_only(tmp_path):
    root = write_pandaset(tmp_path / "pandaset")
    (root / "001/camera/front_camera").rename(tmp_path / "camera")
    edit(root / "001" / "calib.json", lambda content: content.update(camera="../../../camera"))
    with pytest.raises(ValueError, match="calib.json: expected the name of a file in .*'../../../camera'"):
        load_frames("pandaset", data_dir=root)[0]


@pytest.mark.parametrize("split", ["../train", "a/b", "..", ""])
def test_a_split_is_no_path(nuscenes, split):
    """Parquet is written into a folder of this name."""
    (nuscenes / "splits.json").write_text(json.dumps({split: ["scene-0061"]}))
    with pytest.raises(ValueError, match="splits.json: expected .* cannot be the name of a folder"):
        load_frames("nuscenes", "all", data_dir=nuscenes)
