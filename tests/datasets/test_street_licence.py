"""A street counts as synthetic by the tables or scans that are read, not by what lies beside them."""

import json
import shutil

import pytest
from tiny_roots import write_nuscenes, write_semantic_kitti

from uov_hf.data.publishing import check_may_be_pushed
from uov_hf.datasets.nuscenes import NuScenes
from uov_hf.datasets.semantic_kitti import SemanticKitti
from uov_hf.synthetic import generate_semantic_kitti
from uov_hf.training.arguments import DataArguments


@pytest.fixture
def street(tiny_street, tmp_path):
    return shutil.copytree(tiny_street, tmp_path / "street")


@pytest.fixture(scope="module")
def kitti_street(tmp_path_factory):
    root = tmp_path_factory.mktemp("kitti") / "street"
    return generate_semantic_kitti(root, num_scenes=2, frames_per_scene=2, image_size=(8, 14), azimuth_steps=16)


@pytest.fixture
def check(tmp_path):
    """Check whether frames count as synthetic, in the licence of a public copy and in the card of a training."""

    def check(builder, root, expected, version=None):
        made = builder(data_dir=root, config_name=version, cache_dir=str(tmp_path / "cache"))
        assert made.may_be_published is expected and ("synthetic" in made.licence) is expected
        dataset = {NuScenes: "nuscenes", SemanticKitti: "semantic_kitti"}[builder]
        arguments = DataArguments(dataset=dataset, data_dir=str(root), dataset_config=version)
        assert arguments.is_street is expected
        if not expected:
            with pytest.raises(PermissionError, match="which its licence does not allow"):
                check_may_be_pushed(made, private=False)

    return check


def test_a_street_may_be_published(check, street, kitti_street):
    check(NuScenes, street, True)
    check(SemanticKitti, kitti_street, True)


def test_a_real_version_beside_a_street_is_real(check, street):
    write_nuscenes(street, {"scene-0061": 1}, version="v1.0-real")
    check(NuScenes, street, False, version="v1.0-real")
    check(NuScenes, street, True, version="v1.0-mini")


def test_a_street_with_a_scene_of_another_recording_is_not_one(check, street):
    path = street / "v1.0-mini" / "scene.json"
    rows = json.loads(path.read_text())
    for added in ({"description": "Many people"}, {"description": None}, {}):
        path.write_text(json.dumps([*rows, {"token": "real", "name": "scene-0061"} | added]))
        check(NuScenes, street, False)


def test_a_folder_with_the_name_of_the_streets_truth_makes_no_root_synthetic(check, street, tmp_path):
    for builder, root in (
        (NuScenes, write_nuscenes(tmp_path / "nuscenes", {"scene-0061": 1})),
        (SemanticKitti, write_semantic_kitti(tmp_path / "kitti", {"00": 1})),
    ):
        shutil.copytree(street / "synthetic", root / "synthetic")
        (root / "synthetic" / "street.json").write_text('{"sequences": ["00"]}')
        check(builder, root, False)


@pytest.mark.parametrize("sequence", ["00", "08"])
def test_a_recording_among_the_sequences_of_a_street_is_real(check, kitti_street, tmp_path, sequence):
    """Also where it was unpacked into the folder of a sequence of the street: it has other scans."""
    root = shutil.copytree(kitti_street, tmp_path / "street")
    write_semantic_kitti(root, {sequence: 1})
    check(SemanticKitti, root, False)


def test_a_scan_more_than_the_street_has_is_not_of_the_street(check, kitti_street, tmp_path):
    root = shutil.copytree(kitti_street, tmp_path / "street")
    scans = root / "sequences" / "00" / "velodyne"
    shutil.copy(scans / "000000.bin", scans / "000099.bin")
    check(SemanticKitti, root, False)
    for content in ("[]", '{"num_points": {"000000": null}}'):
        (root / "sequences" / "00" / "street.json").write_text(content)
        with pytest.raises(ValueError, match="street.json: expected"):
            SemanticKitti(data_dir=root, cache_dir=str(tmp_path))
