"""Files of a stage: an edited one is named and changes the stage, one that it does not read does not."""

import json
import shutil

import pytest
import small_car
import yaml

from uov_hf.data.loading import find_builder
from uov_hf.recipe.recipes import Recipe, make_recipe
from uov_hf.recipe.stage import RECORD
from uov_hf.vocabulary import TEMPLATE


TEACHER = """
from uov_hf.teachers import Teacher

class Mine(Teacher):
    pass
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory: a car of two sequences, a vocabulary, a teacher, a folder of labels, a checkpoint."""
    monkeypatch.chdir(tmp_path)
    for sequence in ("monday", "tuesday"):
        small_car.write_car(tmp_path / "car", sequence=sequence)
        small_car.write_calibration(tmp_path / "car" / sequence, small_car.calibration())
    (tmp_path / "car" / "splits.json").write_text('{"train": ["monday"], "val": ["tuesday"]}')
    (tmp_path / "teacher.py").write_text(TEACHER)
    shutil.copy(TEMPLATE, tmp_path / "words.yaml")
    small_car.write_label_maps(tmp_path / "maps", sequence="monday")
    (tmp_path / "maps" / "b.json").write_text("[]")
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def recipe_of() -> Recipe:
    teacher = {"teacher": "teacher.py:Mine", "trust_teacher_code": True, "vocabulary": "words.yaml"}
    content = {
        "dataset": "point_cloud_folder",
        "data_dir": "car",
        "output_dir": "run",
        "generate_label_set": {
            "split": "all",
            **teacher,
            "teacher_model_name_or_path": "maps",
            "teacher_settings": ["a=maps/b.json"],
        },
        "distill": {"split": "train", "model_name_or_path": "start"},
    }
    return make_recipe(content, "recipe.yaml")


def changes_after(edit) -> dict[str, list[str]]:
    """What each stage names as changed after an edit of files."""
    for made in recipe_of().stages:
        record = {"settings": dict(made.stage.settings), "inputs": dict(made.stage.inputs)}
        cost = dict.fromkeys(("seconds", "cpu_seconds", "gigabytes"), 1.0)
        made.stage.output_dir.mkdir(parents=True, exist_ok=True)
        (made.stage.output_dir / RECORD).write_text(json.dumps(record | {"cost": cost}))
    edit()
    return {made.stage.name: made.stage.changes for made in recipe_of().stages}


# Edits that leave the size as it is.
OF_DATASET = {
    "car/splits.json": ('"train": ["monday"], "val": ["tuesday"]', '"val": ["tuesday"], "train": ["monday"]'),
    "car/monday/calibration.yaml": ("40.0", "41.0"),
    "car/monday/timestamps.csv": (",20000", ",20001"),
    "car/monday/poses.txt": ("-1.0", "-1.1"),
}
OF_TEACHER = {
    "words.yaml": ("barrier", "barrieR"),
    "teacher.py": ("pass", "..."),
    "maps/classes.json": ("road", "tree"),
    "maps/b.json": ("[]", "{}"),
}
OF_START = {"start/model.safetensors": ("weights", "WEIGHTS")}


def test_each_edited_file_is_named(folder):
    def edit():
        for name, (old, new) in (OF_DATASET | OF_TEACHER | OF_START).items():
            content = (folder / name).read_text()
            assert old in content
            (folder / name).write_text(content.replace(old, new))

    changes = changes_after(edit)
    assert sorted(changes["generate_label_set"]) == sorted(f"{name} changed" for name in OF_DATASET | OF_TEACHER)
    read = [*OF_DATASET, *OF_START, "generate_label_set"]
    assert sorted(changes["distill"]) == sorted(f"{name} changed" for name in read)


def test_images_and_scans_of_another_size_are_named_by_their_folder(folder):
    def edit():
        small_car.points_of(0)[:40].tofile(folder / "car/monday/points/0.bin")
        small_car.picture(0).convert("1").convert("RGB").save(folder / "car/monday/images/left/0.png")
        small_car.picture(0).save(folder / "maps/monday/left/0_labels.png")

    changes = changes_after(edit)
    images = ["car/monday/images/left/*.png changed", "maps/monday/left/*.png changed"]
    assert sorted(changes["generate_label_set"]) == images
    assert sorted(changes["distill"]) == ["car/monday/points/*.bin changed", "generate_label_set changed"]


def test_files_that_a_stage_does_not_read_change_nothing(folder):
    def edit():
        calibration = folder / "car/tuesday/calibration.yaml"
        calibration.write_text(yaml.safe_dump(small_car.calibration() | {"intensity_max": 100}))
        (folder / "car/notes.txt").write_text("sunny")
        (folder / "start/README.md").write_text("A card with the scores of an evaluation.")
        (folder / "car/monday/._calibration.yaml").write_text("a leftover")

    assert changes_after(edit)["distill"] == ["generate_label_set changed"]  # which reads both sequences


OF_READERS = {
    "nuscenes": (["v1.0-mini/sample.json", "splits.json"], ["v1.0-test/sample.json", "samples/LIDAR_TOP/a.bin"]),
    "semantic_kitti": ([f"sequences/00/{name}.txt" for name in ("calib", "times", "poses")], ["sequences/a.txt"]),
    "kitti_object": (["training/calib/000000.txt"], ["training/label_2/000000.txt"]),
    "pandaset": (["001/calib.json"], ["001/lidar/00.bin"]),
    "argoverse2": (["val/log/calibration/a.feather", "val/log/city_SE3_egovehicle.feather"], ["log/a.feather"]),
    "rosbag": (["rosbag.yaml", "monday.bag", "tuesday/metadata.yaml", "tuesday/a.mcap"], ["notes.txt"]),
}


@pytest.mark.parametrize("kind", OF_READERS)
def test_a_reader_has_the_files_that_describe_its_frames(tmp_path, kind):
    named, others = OF_READERS[kind]
    for name in (*named, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("intensity_max: 255" if name == "rosbag.yaml" else "")
    builder = find_builder(kind)(data_dir=str(tmp_path), config_name="v1.0-mini" if kind == "nuscenes" else None)
    assert sorted(builder.settings_files()) == sorted(tmp_path / name for name in named)


def test_settings_beside_a_single_bag_are_among_its_files(tmp_path):
    for name in ("drive.mcap", "other.mcap"):
        (tmp_path / name).touch()
    (tmp_path / "rosbag.yaml").write_text("intensity_max: 255")
    files = find_builder("rosbag")(data_dir=str(tmp_path / "drive.mcap")).settings_files()
    assert files == [tmp_path / "drive.mcap", tmp_path / "rosbag.yaml"]
