"""The street is a genuine, deterministic nuScenes root whose labels, boxes and images agree with each other."""

import json
import runpy
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from uov_hf.data import load_frames
from uov_hf.geometry.projection import Camera, pair_points_with_pixels, round_to_pixels
from uov_hf.geometry.rotation import quaternion_to_matrix, rigid_motion
from uov_hf.synthetic import generate_semantic_kitti, generate_street
from uov_hf.synthetic.layout import draw_street
from uov_hf.vocabulary import load_vocabulary


TINY = {"num_scenes": 2, "frames_per_scene": 2, "image_size": (64, 112), "azimuth_steps": 120}


def files_of(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def tables(tiny_street):
    return {path.stem: json.loads(path.read_text()) for path in (tiny_street / "v1.0-mini").glob("*.json")}


@pytest.fixture(scope="module")
def by_token(tables):
    return {name: {row["token"]: row for row in rows} for name, rows in tables.items()}


def test_the_same_arguments_give_the_same_bytes_on_any_number_of_workers(tiny_street, tmp_path):
    again = generate_street(tmp_path / "again", **TINY, splits={"train": 1, "test": 1}, num_workers=2)
    assert files_of(again) == files_of(tiny_street)


def test_other_seeds_make_other_towns(tiny_street, tmp_path):
    other = generate_street(tmp_path, **TINY | {"num_scenes": 1, "frames_per_scene": 1}, seed=1)
    shared = set(files_of(other)) & set(files_of(tiny_street))
    assert {path.suffix for path in shared} == {".json"}  # tables only: no sensor file has the same name
    scans = [root.glob("samples/LIDAR_TOP/*") for root in (tiny_street, other)]
    assert len({path.read_bytes() for paths in scans for path in paths}) == 5


def test_a_crossing_near_the_end_of_the_street_leaves_no_block_there():
    street = replace(draw_street(np.random.default_rng(0), 100.0), crossings=(15.0,), crossing=5.0)
    assert street.blocks() == [(23.0, 92.0)]


def test_splits_name_scenes_that_no_official_split_has(tiny_street, tables):
    splits = json.loads((tiny_street / "splits.json").read_text())
    assert splits == {"train": ["scene-9001"], "test": ["scene-9002"]}
    assert [scene["name"] for scene in tables["scene"]] == ["scene-9001", "scene-9002"]


def test_the_tables_are_those_of_nuscenes(tables):
    expected = "attribute calibrated_sensor category ego_pose instance lidarseg log map sample sample_annotation"
    assert set(tables) == set(expected.split()) | {"sample_data", "scene", "sensor", "visibility"}
    for name, rows in tables.items():
        tokens = [row["token"] for row in rows]
        assert len(set(tokens)) == len(tokens) > 0, name
        assert all(len(token) == 32 for token in tokens) or name == "visibility"


def test_every_reference_between_tables_is_there(tables, by_token):
    for name, rows in tables.items():
        for row in rows:
            for column, value in row.items():
                target = column.removesuffix("s").removesuffix("_token")
                for prefix in ("first_", "last_"):
                    target = target.removeprefix(prefix)
                target = {"annotation": "sample_annotation"}.get(target, target)
                if column.endswith(("_token", "_tokens")) and target in by_token:
                    values = value if isinstance(value, list) else [value]
                    assert set(values) <= set(by_token[target]), (name, column)


def test_prev_and_next_are_chains_in_the_order_of_time(tables, by_token):
    for name in ("sample", "sample_data", "sample_annotation"):
        for row in tables[name]:
            if row["next"]:
                after = by_token[name][row["next"]]
                assert after["prev"] == row["token"]
                if "timestamp" in row:
                    assert after["timestamp"] - row["timestamp"] == 500_000
    assert sum(not row["prev"] for row in tables["sample_data"]) == 2 * 7
    for instance in tables["instance"]:
        count, token = 0, instance["first_annotation_token"]
        while token:
            last, count = token, count + 1
            token = by_token["sample_annotation"][token]["next"]
        assert (last, count) == (instance["last_annotation_token"], instance["nbr_annotations"])


def test_every_file_is_there_and_of_the_size_it_should_have(tiny_street, tables):
    for row in tables["sample_data"]:
        path = tiny_street / row["filename"]
        if row["fileformat"] == "pcd":
            points = np.fromfile(path, np.float32).reshape(-1, 5)
            assert len(points) > 1500 and np.isfinite(points).all()
            assert set(np.unique(points[:, 4])) <= set(range(32))
            assert 0 <= points[:, 3].min() < points[:, 3].max() <= 255
        else:
            assert Image.open(path).size == (row["width"], row["height"]) == (112, 64)
            truth = Image.open(tiny_street / "synthetic" / "segmentation" / f"{row['token']}.png")
            assert truth.size == (112, 64) and truth.mode.startswith("I;16")
    for row in tables["map"]:
        assert set(np.unique(Image.open(tiny_street / row["filename"]))) == {0, 255}


def test_cameras_have_clocks_and_places_of_their_own(tables, by_token):
    for sample in tables["sample"]:
        rows = [row for row in tables["sample_data"] if row["sample_token"] == sample["token"]]
        assert len({row["timestamp"] for row in rows}) == 7
        places = {tuple(by_token["ego_pose"][row["ego_pose_token"]]["translation"]) for row in rows}
        assert len(places) == 7


def pose_of(row):
    return rigid_motion(quaternion_to_matrix(row["rotation"]), row["translation"])


def test_boxes_hold_all_points_of_their_thing(tiny_street, tables, by_token):
    names = load_vocabulary("nuscenes").raw_names
    for lidar in (row for row in tables["sample_data"] if row["fileformat"] == "pcd"):
        points = np.fromfile(tiny_street / lidar["filename"], np.float32).reshape(-1, 5)[:, :3]
        labels = np.fromfile(tiny_street / f"lidarseg/v1.0-mini/{lidar['token']}_lidarseg.bin", np.uint8)
        assert len(labels) == len(points)
        boxed = np.zeros(len(points), dtype=bool)
        sensor = by_token["calibrated_sensor"][lidar["calibrated_sensor_token"]]
        to_global = pose_of(by_token["ego_pose"][lidar["ego_pose_token"]]) @ pose_of(sensor)
        for row in (row for row in tables["sample_annotation"] if row["sample_token"] == lidar["sample_token"]):
            to_box = np.linalg.inv(pose_of(row)) @ to_global
            width, length, height = row["size"]
            local = points @ to_box[:3, :3].T + to_box[:3, 3]
            category = by_token["category"][by_token["instance"][row["instance_token"]]["category_token"]]["name"]
            inside = (np.abs(local) <= np.array([length, width, height]) / 2 + 1e-4).all(axis=1)
            inside &= labels == names.index(category)
            assert inside.sum() >= row["num_lidar_pts"] > 0
            boxed |= inside
        movable = labels < names.index("flat.driveable_surface")
        assert boxed[movable].all()


def test_labels_agree_with_the_true_segmentation_but_for_parallax(tiny_street):
    vocabulary = load_vocabulary("nuscenes")
    segments = json.loads((tiny_street / "synthetic" / "segments.json").read_text())
    agree = []
    for frame in load_frames("nuscenes", data_dir=str(tiny_street), split="all"):
        sizes = [tuple(size) for size in frame["image_sizes"]]
        cameras = [Camera(*c) for c in zip(frame["lidar2cam"], frame["intrinsics"], sizes, strict=True)]
        pairs = pair_points_with_pixels(frame["points"], cameras)
        for index, image_id in enumerate(frame["image_ids"]):
            truth = np.array(Image.open(tiny_street / "synthetic" / "segmentation" / f"{image_id}.png"))
            raw = np.array(segments["scenes"][segments["images"][image_id]]["raw_class"])
            classes = vocabulary.raw_to_class[raw][truth]
            mine = pairs.camera_index == index
            row, column = round_to_pixels(pairs.pixel_coords[mine])
            labels = frame["labels"][pairs.point_index[mine]]
            agree.append((classes[row, column] == labels)[labels != 255])
    agree = np.concatenate(agree)
    assert len(agree) > 2000
    assert 0.85 < agree.mean() < 0.995


@pytest.mark.parametrize("version", ["v1.0-mini", "v1.0-street"])
def test_a_street_is_not_rendered_into_a_root_with_tables(tiny_street, version):
    """Of any version: it would replace the splits and sensor files of the others."""
    before = (tiny_street / "splits.json").read_bytes()
    with pytest.raises(FileExistsError, match="v1.0-mini/scene.json exists, but a street needs a root of its own"):
        generate_street(tiny_street, version=version, **TINY)
    assert (tiny_street / "splits.json").read_bytes() == before and not (tiny_street / "v1.0-street").exists()


@pytest.mark.parametrize("generate", [generate_street, generate_semantic_kitti])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"splits": {"train": 1}}, "share out all 2 scenes"),
        ({"splits": {"train": 3, "test": -1}}, "share out all 2 scenes"),
        ({"num_scenes": 0}, "`num_scenes` must be at least 1"),
        ({"frames_per_scene": 0}, "`frames_per_scene` must be at least 1"),
        ({"image_size": (4, 4)}, "height, width"),
        ({"seed": -1}, "`seed` must not be negative"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, generate, arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(tmp_path, **TINY | arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ("--version v1.0-trainval", "v1.0-trainval/scene.json"),
        ("--format semantickitti", "sequences/00/image_2/000000.png"),
    ],
)
def test_the_command_writes_a_root(tmp_path, monkeypatch, capsys, options, written):
    tiny = "--num_scenes 1 --frames_per_scene 1 --image_size 16 28 --azimuth_steps 30"
    monkeypatch.setattr("sys.argv", f"street --output_dir {tmp_path}/root {tiny} {options}".split())
    runpy.run_module("uov_hf.synthetic", run_name="__main__")
    assert (tmp_path / "root" / written).is_file() and str(tmp_path / "root") in capsys.readouterr().out


def test_options_of_nuscenes_are_refused_for_another_format(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", f"street --output_dir {tmp_path} --format semantickitti --synchronised".split())
    with pytest.raises(SystemExit):
        runpy.run_module("uov_hf.synthetic", run_name="__main__")
    assert "--version and --synchronised require --format nuscenes" in capsys.readouterr().err
