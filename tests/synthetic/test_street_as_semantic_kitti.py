"""One drive written as nuScenes and as SemanticKITTI: the same points, front camera, poses, and labels by a map."""

import json

import numpy as np
import pytest

from uov_hf.data import decode_image, load_frames
from uov_hf.synthetic import generate_semantic_kitti, generate_street
from uov_hf.synthetic.semantic_kitti import COUNTERPARTS, MOVING, counterpart
from uov_hf.vocabulary import load_vocabulary


TINY = {"num_scenes": 1, "frames_per_scene": 2, "image_size": (64, 112), "azimuth_steps": 120}


@pytest.fixture(scope="module")
def nuscenes_root(tmp_path_factory):
    return generate_street(tmp_path_factory.mktemp("nuscenes"), **TINY, synchronised=True)


@pytest.fixture(scope="module")
def kitti_root(tmp_path_factory):
    return generate_semantic_kitti(tmp_path_factory.mktemp("kitti"), **TINY)


@pytest.fixture(scope="module")
def both(nuscenes_root, kitti_root):
    """The frames of both, in pairs."""
    pair = (
        load_frames("nuscenes", "all", data_dir=nuscenes_root),
        load_frames("semantic_kitti", "all", data_dir=kitti_root),
    )
    return list(zip(*pair, strict=True))


def test_points_are_the_same_to_the_bit(both, tiny_street):
    """Also those of a drive whose cameras have delays; intensities on the scale that the network reads."""
    delayed = load_frames("nuscenes", "train", data_dir=tiny_street)
    for (nuscenes, kitti), other in zip(both, delayed, strict=True):
        assert kitti["points"][:, :3].tobytes() == nuscenes["points"][:, :3].tobytes()
        assert other["points"].tobytes() == nuscenes["points"].tobytes()
        scaled = [frame["points"][:, 3] / np.float32(frame["intensity_max"]) for frame in (nuscenes, kitti)]
        assert scaled[0].tobytes() == scaled[1].tobytes() and 0 < scaled[1].max() <= 1


def test_the_front_camera_and_the_poses_are_the_same(both):
    for nuscenes, kitti in both:
        assert kitti["camera_names"] == ["image_2"] and nuscenes["camera_names"][0] == "CAM_FRONT"
        for column in ("lidar2cam", "intrinsics", "image_sizes"):
            np.testing.assert_allclose(kitti[column], nuscenes[column][:1], rtol=0, atol=1e-6)
        np.testing.assert_allclose(kitti["lidar2global"], nuscenes["lidar2global"], rtol=0, atol=1e-6)
    moved = np.linalg.inv(both[0][1]["lidar2global"]) @ both[1][1]["lidar2global"]
    assert 2 < np.linalg.norm(moved[:3, 3]) < 5  # 5 to 9 m/s, half a second apart
    assert [kitti["timestamp"] for _, kitti in both] == [0, 500_000]


def test_the_front_picture_is_the_same_but_for_the_losses_of_jpeg(both):
    for nuscenes, kitti in both:
        pictures = [np.asarray(decode_image(frame["images"][0]), float) for frame in (nuscenes, kitti)]
        assert np.abs(pictures[0] - pictures[1]).mean() < 5


def test_labels_are_those_of_the_stated_map(both, nuscenes_root, kitti_root):
    """A raw class becomes its counterpart or, on a thing that moves, the moving one."""
    kitti_classes = load_vocabulary("semantic_kitti")
    ids = dict(zip(kitti_classes.raw_names, kitti_classes.raw_ids.tolist(), strict=True))
    for index, (nuscenes, kitti) in enumerate(both):
        words = np.fromfile(kitti_root / f"sequences/00/labels/{index:06d}.label", np.uint32)
        path = nuscenes_root / f"lidarseg/v1.0-mini/{nuscenes['frame_id']}_lidarseg.bin"
        raw_labels = np.fromfile(path, np.uint8)
        for raw_label, category in enumerate(load_vocabulary("nuscenes").raw_names):
            allowed = {ids[counterpart(category)], ids[counterpart(category, moves=True)]}
            assert set(words[raw_labels == raw_label] & 0xFFFF) <= allowed, category
        np.testing.assert_array_equal(kitti["labels"], kitti_classes.classes_of(words & 0xFFFF))
        assert len(np.unique(kitti["labels"])) > 8


def test_instances_are_the_things_that_have_boxes(both, nuscenes_root):
    """An object of a thing class has as many points as its box in the nuScenes root."""
    read = {name: json.loads((nuscenes_root / f"v1.0-mini/{name}.json").read_text()) for name in TABLES}
    category = {row["token"]: row["name"] for row in read["category"]}
    category = {row["token"]: category[row["category_token"]] for row in read["instance"]}
    vocabulary = load_vocabulary("semantic_kitti")
    for sample, (_, kitti) in zip(read["sample"], both, strict=True):
        boxes = [row for row in read["sample_annotation"] if row["sample_token"] == sample["token"]]
        counted = [row for row in boxes if is_thing(vocabulary, counterpart(category[row["instance_token"]]))]
        sizes = np.unique(kitti["instances"][kitti["instances"] > 0], return_counts=True)[1]
        assert sorted(sizes) == sorted(row["num_lidar_pts"] for row in counted) and len(sizes) > 5
        assert vocabulary.is_thing[np.unique(kitti["labels"][kitti["instances"] > 0])].all()


TABLES = ("category", "instance", "sample", "sample_annotation")


def is_thing(vocabulary, raw_name):
    class_id = vocabulary.raw_to_class[vocabulary.raw_ids[vocabulary.raw_names.index(raw_name)]]
    return class_id != 255 and vocabulary.is_thing[class_id]


def test_every_class_of_nuscenes_has_a_counterpart():
    raw_names = load_vocabulary("semantic_kitti").raw_names
    assert {*COUNTERPARTS.values(), *MOVING.values()} <= set(raw_names)
    for category in load_vocabulary("nuscenes").raw_names:
        assert counterpart(category) in raw_names and counterpart(category, moves=True) in raw_names
    assert counterpart("vehicle.bus.rigid", moves=True) == "moving-bus"
    assert counterpart("human.pedestrian.stroller") == "other-object"


def test_splits_are_those_of_semantic_kitti(tmp_path):
    tiny = TINY | {"frames_per_scene": 1, "image_size": (8, 14), "azimuth_steps": 8}
    root = generate_semantic_kitti(tmp_path, **tiny | {"num_scenes": 2}, splits={"test": 1, "val": 1}, num_workers=2)
    assert load_frames("semantic_kitti", "val", data_dir=root).sequence_ids == ["08"]
    assert load_frames("semantic_kitti", "test", data_dir=root).sequence_ids == ["11"]
    with pytest.raises(FileExistsError, match="sequences exists"):
        generate_semantic_kitti(tmp_path, **tiny)
    with pytest.raises(ValueError, match="room for .*'val': 1"):
        generate_semantic_kitti(tmp_path / "val", **tiny | {"num_scenes": 2}, splits={"val": 2})
    with pytest.raises(ValueError, match="got .*'night': 0"):
        generate_semantic_kitti(tmp_path / "night", **tiny, splits={"train": 1, "night": 0})
