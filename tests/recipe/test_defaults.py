"""The recipe of a run without a file: by the kind of the dataset and its cameras."""

from pathlib import Path

import pytest
import small_car
import yaml

from uov_hf.recipe.defaults import default_recipe, find_kind
from uov_hf.recipe.recipes import make_recipe


REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_default_recipe_depends_on_the_number_of_cameras(tiny_street, tmp_path):
    paper = default_recipe(None, str(tiny_street))
    assert paper.content["dataset"] == "nuscenes" and paper.content["pretrain"] == {}
    assert paper.content["evaluate"] == {"split": "test", "refine": "afi"}
    assert "The paper's recipe; a frame has 6 cameras" in paper.reason
    small_car.write_car(tmp_path / "car")
    few = default_recipe(None, str(tmp_path / "car"))
    file = yaml.safe_load((REPOSITORY / "examples" / "configs" / "one_camera" / "distill.yaml").read_text())
    assert few.content["dataset"] == "point_cloud_folder"
    assert {name: file[name] for name in few.content["distill"] if name != "num_processes"} == {
        name: value for name, value in few.content["distill"].items() if name != "num_processes"
    }
    assert not {"pretrain", "evaluate"} & few.content.keys() and "one camera or a few" in few.reason
    for default in (paper, few):
        default.content["generate_label_set"]["teacher"] = "synthetic"
        make_recipe(default.content | {"output_dir": str(tmp_path / "run")}, "the default recipe")


def test_the_default_recipe_trains_on_other_frames_than_it_evaluates_on(tmp_path):
    for sequence in ("a", "b"):
        drive = small_car.write_car(tmp_path / "car", sequence=sequence)
        for camera in ("left", "right"):
            (drive / "images" / camera / "0.png").unlink()  # the first scan precedes the first image
    splits = tmp_path / "car" / "splits.json"
    splits.write_text('{"val": ["a"], "train": ["b"]}')
    content = default_recipe(None, str(tmp_path / "car")).content
    assert content["evaluate"]["split"] == "val" and content["distill"]["split"] == "train"
    splits.write_text('{"val": ["a"]}')
    assert "evaluate" not in default_recipe(None, str(tmp_path / "car")).content


def test_the_kind_of_a_folder_is_found_by_its_files(tmp_path):
    for kind, file in {
        "semantic_kitti": "sequences/00/velodyne",
        "pandaset": "001/lidar/poses.json",
        "argoverse2": "val/log/sensors/lidar",
        "rosbag": "drive.mcap",
        "point_cloud_folder": "monday/points",
    }.items():
        path = tmp_path / kind / file
        path.parent.mkdir(parents=True)
        path.touch()
        assert find_kind(str(tmp_path / kind)) == kind
    assert find_kind(str(tmp_path / "rosbag" / "drive.mcap")) == "rosbag"
    with pytest.raises(ValueError, match="expected the files of nuscenes or .* Give --dataset."):
        find_kind(str(tmp_path))
