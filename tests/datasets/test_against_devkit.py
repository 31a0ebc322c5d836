"""nuscenes-devkit reads the same roots: pixel coordinates, lidarseg labels, and a picture that it draws.

The devkit needs numpy < 2, so it runs in an interpreter of its own:

    python -m venv devkit && devkit/bin/pip install nuscenes-devkit
    NUSCENES_DEVKIT_PYTHON=devkit/bin/python python -m pytest tests/datasets/test_against_devkit.py
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from uov_hf.data import load_frames
from uov_hf.geometry.projection import Camera, project_points
from uov_hf.synthetic import generate_street
from uov_hf.vocabulary import load_vocabulary


# The devkit keeps points in float32 while they are in city coordinates: steps of 0.12 mm, up to 0.03 pixels in all.
# "exact" is the same function of the devkit, given the same points in float64.
DEVKIT = """
import sys
import numpy as np
import nuscenes.nuscenes as devkit

root, version, output = sys.argv[1:]
nusc = devkit.NuScenes(version=version, dataroot=root, verbose=False)
from_file = devkit.LidarPointCloud.from_file
results = {}

class Exact(devkit.LidarPointCloud):
    @classmethod
    def from_file(cls, path):
        return cls(from_file(path).points.astype(np.float64))

for cloud, mode in ((devkit.LidarPointCloud, "devkit"), (Exact, "exact")):
    devkit.LidarPointCloud = cloud
    for sample in nusc.sample:
        lidar = sample["data"]["LIDAR_TOP"]
        for channel, camera in sample["data"].items():
            if channel.startswith("CAM"):
                pixels, depths, image = nusc.explorer.map_pointcloud_to_image(lidar, camera)
                results[f"{mode}/{lidar}/{channel}"] = pixels[:2].T

for sample in nusc.sample:
    lidar = sample["data"]["LIDAR_TOP"]
    path = f"{root}/{nusc.get('lidarseg', lidar)['filename']}"
    results[f"labels/{lidar}"] = devkit.load_bin_file(path)
nusc.render_pointcloud_in_image(
    nusc.sample[0]["token"], show_lidarseg=True, show_lidarseg_legend=True, out_path=output + ".png", verbose=False
)
results["names"] = np.array([nusc.lidarseg_idx2name_mapping[index] for index in range(32)])
np.savez(output, **results)
"""


@pytest.fixture(scope="module")
def devkit_python() -> str:
    python = os.environ.get("NUSCENES_DEVKIT_PYTHON")
    if not python:
        pytest.skip("NUSCENES_DEVKIT_PYTHON does not name the Python of an environment with nuscenes-devkit")
    return python


@pytest.fixture(scope="module", params=["real", "street"])
def root(request, tmp_path_factory) -> Path:
    if request.param == "real":
        return request.getfixturevalue("shared_data") / "nuscenes"
    return generate_street(tmp_path_factory.mktemp("devkit") / "street", num_scenes=1, frames_per_scene=2)


@pytest.fixture(scope="module")
def devkit(devkit_python, root, tmp_path_factory) -> dict[str, np.ndarray]:
    """The devkit's results for a root, and the picture it draws."""
    output = tmp_path_factory.mktemp("output") / "devkit"
    command = [devkit_python, "-c", DEVKIT, str(root), "v1.0-mini", str(output)]
    subprocess.run(command, check=True, env=os.environ | {"MPLBACKEND": "Agg"})
    return dict(np.load(output.with_suffix(".npz"))) | {"picture": output.with_suffix(".png").read_bytes()}


@pytest.mark.parametrize(("mode", "tolerance"), [("exact", 1e-6), ("devkit", 0.1)])
def test_pixel_coordinates_agree(devkit, root, mode, tolerance):
    for frame in load_frames("nuscenes", "all", data_dir=root):
        for index, name in enumerate(frame["camera_names"]):
            height, width = frame["image_sizes"][index]
            camera = Camera(frame["lidar2cam"][index], frame["intrinsics"][index], (height, width))
            column, row = project_points(frame["points"], camera)[0].T
            # The devkit leaves out a border of one pixel on all sides, the paper only of the last row and column.
            inside = (column > 1) & (column < width - 1) & (row > 1) & (row < height - 1)
            theirs = devkit[f"{mode}/{frame['frame_id']}/{name}"]
            assert inside.sum() == len(theirs) > 100
            np.testing.assert_allclose(np.stack([column, row], axis=1)[inside], theirs, rtol=0, atol=tolerance)


def test_labels_agree(devkit, root):
    vocabulary = load_vocabulary("nuscenes")
    assert vocabulary.raw_names == devkit["names"].tolist()
    for frame in load_frames("nuscenes", "all", data_dir=root):
        np.testing.assert_array_equal(frame["labels"], vocabulary.raw_to_class[devkit[f"labels/{frame['frame_id']}"]])


def test_the_devkit_draws_the_root(devkit):
    assert devkit["picture"].startswith(b"\x89PNG") and len(devkit["picture"]) > 20_000
