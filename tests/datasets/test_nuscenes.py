"""A nuScenes root becomes frames: geometry, labels, order, splits, and errors that name the table."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tiny_roots import NUM_POINTS
from tiny_roots import write_nuscenes as write_root

from uov_hf import UOVFeatureExtractor
from uov_hf.data import load_frames
from uov_hf.datasets import nuscenes_tables
from uov_hf.datasets.nuscenes import NuScenes
from uov_hf.datasets.nuscenes_tables import CAMERAS, read_official_splits
from uov_hf.geometry.projection import Camera, project_points
from uov_hf.vocabulary import load_vocabulary


SCENES = {"scene-1077": 2, "scene-0103": 1, "scene-0061": 3}  # train, val, train; not in the order of their names


@pytest.fixture
def root(tmp_path):
    return write_root(tmp_path / "nuscenes", SCENES)


def rotate(quaternion, points):
    """q p q*, by the two cross products that make it up; (w, x, y, z)."""
    w, axis = quaternion[0], np.array(quaternion[1:])
    return points + 2 * np.cross(axis, np.cross(axis, points) + w * points)


def rotate_back(quaternion, points):
    return rotate([quaternion[0], *(-np.array(quaternion[1:]))], points)


def step_by_step(tables: Path, frame: dict, camera_name: str, points: np.ndarray):
    """Section 1.4 of the method, a line at a time and in float64: pixel and depth of every point."""
    read = {
        name: json.loads((tables / f"{name}.json").read_text())
        for name in ("sample_data", "ego_pose", "calibrated_sensor")
    }
    table = {name: {row["token"]: row for row in rows} for name, rows in read.items()}

    def poses(sample_data_token):
        row = table["sample_data"][sample_data_token]
        return table["calibrated_sensor"][row["calibrated_sensor_token"]], table["ego_pose"][row["ego_pose_token"]]

    lidar, ego_then = poses(frame["frame_id"])
    camera, ego_now = poses(frame["image_ids"][frame["camera_names"].index(camera_name)])
    points = rotate(lidar["rotation"], points.astype(np.float64)) + lidar["translation"]
    points = rotate(ego_then["rotation"], points) + ego_then["translation"]
    points = rotate_back(ego_now["rotation"], points - ego_now["translation"])
    points = rotate_back(camera["rotation"], points - camera["translation"])
    u, v, depth = np.array(camera["camera_intrinsic"]) @ points.T
    return np.stack([u / depth, v / depth], axis=1), depth


def check_projection(tables: Path, frame: dict):
    for index, name in enumerate(frame["camera_names"]):
        expected, depth = step_by_step(tables, frame, name, frame["points"][:, :3])
        camera = Camera(frame["lidar2cam"][index], frame["intrinsics"][index], frame["image_sizes"][index])
        pixel_coords, in_view = project_points(frame["points"], camera)
        height, width = frame["image_sizes"][index]
        u, v = expected.T
        np.testing.assert_array_equal(in_view, (depth > 1) & (u > 0) & (u < width - 1) & (v > 0) & (v < height - 1))
        np.testing.assert_allclose(pixel_coords[in_view], expected[in_view], atol=1e-6)


def test_frames_come_scene_by_scene_in_the_order_of_time(root):
    frames = load_frames("nuscenes", "all", data_dir=root)
    assert frames.sequence_ids == ["scene-1077"] * 2 + ["scene-0103"] + ["scene-0061"] * 3
    assert frames.frame_ids[3:] == [f"scene-0061-{index}-LIDAR_TOP" for index in range(3)]
    assert [frame["timestamp"] for frame in frames] == [6000, 506_000, 6000, 6000, 506_000, 1_006_000]
    assert tuple(frames[0]["camera_names"]) == CAMERAS and frames[0]["intensity_max"] == 255.0


def test_labels_are_training_ids(root):
    frame = load_frames("nuscenes", data_dir=root)[0]
    raw = np.fromfile(root / f"lidarseg/v1.0-mini/{frame['frame_id']}_lidarseg.bin", np.uint8)
    names = load_vocabulary("nuscenes").class_names
    assert {names[label] for label in frame["labels"][raw == 26]} == {"sidewalk"}
    assert set(frame["labels"][raw == 25]) == {names.index("other_flat")} and set(frame["labels"][raw == 29]) == {255}


def test_projection_equals_the_chain_of_poses_step_by_step(root):
    for frame in load_frames("nuscenes", "all", data_dir=root):
        check_projection(root / "v1.0-mini", frame)


def test_a_camera_that_a_sample_lacks_is_left_out(root):
    rows = [row for row in read_table(root, "sample_data") if row["token"] != "scene-1077-0-CAM_BACK"]
    write_table(root, "sample_data", rows)
    frame = load_frames("nuscenes", data_dir=root)[0]
    assert "CAM_BACK" not in frame["camera_names"] and frame["lidar2cam"].shape == (5, 4, 4)


def test_official_splits_have_their_sizes():
    splits = read_official_splits()
    sizes = {"train": 700, "val": 150, "test": 150, "mini_train": 8, "mini_val": 2}
    assert {name: len(scenes) for name, scenes in splits.items()} == sizes | {"verifying": 100, "parametrizing": 600}
    assert splits["parametrizing"] | splits["verifying"] == splits["train"]
    assert not splits["train"] & splits["val"] and not splits["test"] & (splits["train"] | splits["val"])
    assert splits["mini_train"] | splits["mini_val"] <= splits["train"] | splits["val"]


def test_splits_hold_their_scenes(root, tmp_path):
    def scenes(split=None, data_dir=root, **kwargs):
        return list(dict.fromkeys(load_frames("nuscenes", split, data_dir=data_dir, **kwargs).sequence_ids))

    assert scenes() == scenes("mini_train") == ["scene-1077", "scene-0061"]
    assert scenes("mini_val") == ["scene-0103"]
    assert scenes("all") == list(SCENES)
    trainval = write_root(tmp_path / "trainval", {"scene-0001": 1, "scene-0003": 1, "scene-0008": 1}, "v1.0-trainval")
    assert scenes(data_dir=trainval) == ["scene-0001", "scene-0008"]
    assert scenes("parametrizing", trainval) == ["scene-0001"] and scenes("verifying", trainval) == ["scene-0008"]
    assert scenes(data_dir=trainval, data_fraction=0.5) == ["scene-0008"]


def test_a_root_may_name_more_splits(tmp_path):
    root = write_root(tmp_path, {"scene-9001": 1, "scene-9002": 1})
    (root / "splits.json").write_text(json.dumps({"train": ["scene-9002"], "night": [], "test": ["scene-9001"]}))
    builder = NuScenes(data_dir=root)
    assert builder.default_splits() == ("train", "test")
    assert load_frames("nuscenes", data_dir=root).sequence_ids == ["scene-9002"]
    (root / "splits.json").write_text(json.dumps({"train": ["scene-9003"]}))
    with pytest.raises(ValueError, match="splits.json: expected sequences or frames that .* has, got scene-9003"):
        load_frames("nuscenes", data_dir=root)


def test_the_version_is_the_only_one_or_named(root):
    write_root(root, {"scene-0077": 1}, "v1.0-test", lidarseg=False)
    frames = load_frames("nuscenes", data_dir=root, dataset_config="v1.0-test")
    assert frames.sequence_ids == ["scene-0077"] and frames[0]["labels"] is None  # it has no folder lidarseg
    with pytest.raises(ValueError, match="got v1.0-mini, v1.0-test; name the version"):
        load_frames("nuscenes", data_dir=root)


@pytest.mark.parametrize("folder, column", [("LIDAR_TOP", "points"), ("CAM_*", "images")])
def test_scenes_whose_archive_was_not_downloaded_are_named_before_a_run(root, folder, column):
    """With the way out, which works. A single missing file is an error of its frame."""
    files = sorted(root.glob(f"samples/{folder}/scene-0061-*"))
    files[0].unlink()
    load_frames("nuscenes", "mini_train", data_dir=root).select_columns(["points", "images"])
    for path in files[1:]:
        path.unlink()
    message = f'with the {column} of each sequence, got none of scene-0061 .1 of 2 sequences.*{{"here": .*--split here'
    with pytest.raises(ValueError, match=message) as error:
        load_frames("nuscenes", data_dir=root).select_columns(["frame_id", "images"])
    (root / "splits.json").write_text(re.search(r"\{.*\}", str(error.value))[0])
    assert set(load_frames("nuscenes", "here", data_dir=root).sequence_ids) == {"scene-1077"}
    for path in root.glob("samples/LIDAR_TOP/*"):
        path.unlink()
    with pytest.raises(ValueError, match="got none of scene-1077 .2 of 2 sequences.. Download the archives[^{]*$"):
        load_frames("nuscenes", data_dir=root)


def test_a_root_given_in_place_of_its_script_is_told_where_to_go(root):
    with pytest.raises(ValueError, match="expected a whole Parquet file.*--dataset nuscenes --data_dir"):
        load_frames(str(root), "train")


def read_table(root, name):
    return json.loads((root / "v1.0-mini" / f"{name}.json").read_text())


def write_table(root, name, rows):
    (root / "v1.0-mini" / f"{name}.json").write_text(json.dumps(rows))


def test_points_that_are_not_finite_are_in_no_voxel_and_no_image(root):
    path = root / "samples/LIDAR_TOP/scene-1077-0-LIDAR_TOP.pcd.bin"
    points = np.fromfile(path, np.float32).reshape(-1, 5)
    points[:7, 0], points[7, 2] = np.nan, np.inf
    points.tofile(path)
    frames = load_frames("nuscenes", data_dir=root)
    voxels = UOVFeatureExtractor()(frames[0]["points"])
    assert (voxels["point_to_voxel"] == -1).tolist() == [True] * 8 + [False] * (NUM_POINTS - 8)
    for camera in map(Camera, frames[0]["lidar2cam"], frames[0]["intrinsics"], frames[0]["image_sizes"]):
        assert not project_points(frames[0]["points"], camera)[1][:8].any()


def test_a_large_table_is_read_block_by_block_whatever_its_layout(root, monkeypatch):
    expected = load_frames("nuscenes", "all", data_dir=root)
    monkeypatch.setattr(nuscenes_tables, "BLOCK_SIZE", 700)  # less than two rows
    for layout in ({"indent": 0}, {"indent": 2, "sort_keys": True}, {"separators": (",", ":")}):
        for name in ("sample_data", "ego_pose"):
            rows = read_table(root, name)
            (root / "v1.0-mini" / f"{name}.json").write_text(json.dumps(rows, **layout) + "\n")
        found = load_frames("nuscenes", "all", data_dir=root)
        assert found.frame_ids == expected.frame_ids
        np.testing.assert_array_equal(found[0]["lidar2cam"], expected[0]["lidar2cam"])


@pytest.mark.parametrize("table", ["ego_pose", "calibrated_sensor"])
def test_a_token_that_leads_nowhere_is_named(root, table):
    rows = read_table(root, "sample_data")
    next(row for row in rows if row["token"] == "scene-1077-0-LIDAR_TOP")[f"{table}_token"] = "nowhere"
    write_table(root, "sample_data", rows)
    with pytest.raises(ValueError, match=f"{table}.json: expected a row with token 'nowhere'"):
        load_frames("nuscenes", data_dir=root)


def test_tables_that_are_broken_are_named(root):
    rows = read_table(root, "sample_data")
    lidar = next(row["token"] for row in rows if row["token"].endswith("LIDAR_TOP"))
    write_table(root, "sample_data", [row for row in rows if row["token"] != lidar])
    with pytest.raises(ValueError, match="sample_data.json: expected a LIDAR_TOP key frame for sample scene-0061-2"):
        load_frames("nuscenes", data_dir=root)
    write_table(root, "sample_data", [{key: row[key] for key in row if key != "filename"} for row in rows])
    with pytest.raises(ValueError, match="sample_data.json: expected rows with 'filename'"):
        load_frames("nuscenes", data_dir=root)
    write_table(root, "sample_data", rows)
    table = root / "v1.0-mini/sample_data.json"
    content = table.read_text()
    for wrong in ("[{", content[:-1], content[:-100], None):
        table.unlink() if wrong is None else table.write_text(wrong)
        expected = "Expecting" if wrong else ".*No such file"
        with pytest.raises(ValueError, match=f"sample_data.json: expected a table of nuScenes, got: {expected}"):
            load_frames("nuscenes", data_dir=root)


def test_categories_in_another_order_are_refused(root):
    """The devkit's instructions number the background classes in an order that is not that of the label files."""
    rows = read_table(root, "category")
    for row in rows:
        row["index"] = {25: 26, 26: 25}.get(row["index"], row["index"])
    write_table(root, "category", rows)
    with pytest.raises(ValueError, match="category.json: expected the 32 classes of .*, got 'flat.*index 2[56]"):
        load_frames("nuscenes", data_dir=root)


def test_the_real_key_frame(shared_data):
    root = shared_data / "nuscenes"
    frames = load_frames("nuscenes", data_dir=root)
    assert frames.frame_ids == ["9d9bf11fb0e144c8b446d54a8a00184f"] and frames.sequence_ids == ["scene-0061"]
    frame = frames[0]
    assert frame["points"].shape == (34688, 4) and frame["image_sizes"].tolist() == [[900, 1600]] * 6
    names = load_vocabulary("nuscenes").class_names
    counts = Counter(names[label] for label in frame["labels"][frame["labels"] != 255])
    rare = {"bicycle": 1, "bus": 3, "construction_vehicle": 4, "traffic_cone": 13}
    assert counts == rare | {"barrier": 288, "car": 79, "pedestrian": 107, "truck": 502}
    check_projection(root / "v1.0-mini", frame)


@pytest.mark.parametrize(
    ("table", "name", "value"),
    [
        ("scene", "name", ["a"]),
        ("sensor", "token", 5),
        ("ego_pose", "rotation", [1, [2], 3, 4]),
        ("calibrated_sensor", "rotation", [0, 0, 0, 0]),
        ("calibrated_sensor", "camera_intrinsic", [["a"]]),
        ("sample_data", "filename", 5),
        ("sample_data", "height", 2**70),
        ("category", "index", "0"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_table(root, table, name, value):
    rows = [{**row, name: value} for row in read_table(root, table)]
    write_table(root, table, rows)
    with pytest.raises(ValueError, match=f"{table}.json: expected"):
        load_frames("nuscenes", "all", data_dir=root)


def test_a_table_that_is_no_list_of_rows_is_named(root):
    for content in ('{"a": 1}', "[1]", "5", "[" * 10_000):
        (root / "v1.0-mini" / "sensor.json").write_text(content)
        with pytest.raises(ValueError, match="sensor.json: expected"):
            load_frames("nuscenes", "all", data_dir=root)
