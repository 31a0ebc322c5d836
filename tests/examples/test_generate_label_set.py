"""generate_label_set.py through its command line, on the tiny street."""

import shutil
from pathlib import Path

import pytest
from runs import contents

from uov_hf.data import load_frames
from uov_hf.labels import LabelSet


CAMERAS = "CAM_FRONT,CAM_BACK"


@pytest.fixture(scope="module")
def label_set(tiny_street, run_script, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("labels") / "labels"
    output = run_script(*generation(tiny_street, folder))
    assert "4 frames" in output and "MB" in output
    return folder


def generation(root: Path, folder: Path) -> list:
    teacher = ["--teacher", "synthetic", "--teacher_settings", "seed=3"]
    data = ["--dataset", "nuscenes", "--data_dir", root, "--split", "all", "--cameras", CAMERAS]
    return ["generate_label_set.py", *teacher, *data, "--augmentations", "flip", "--output_dir", folder]


def test_the_label_set_has_every_frame_and_its_teacher(tiny_street, label_set):
    made = LabelSet(label_set)
    assert sorted(made.frame_ids) == sorted(load_frames("nuscenes", split="all", data_dir=tiny_street).frame_ids)
    assert made.teacher["name"] == "synthetic" and made.teacher["seed"] == 3
    row = made.read(made.frame_ids[0])
    labelled = [camera for camera, png in zip(row["camera_names"], row["segmentation"], strict=True) if png]
    assert ",".join(labelled) == CAMERAS
    assert made.augmentations == ["flip"] and sum(png is not None for png in row["augmented_segmentation"]) == 2


def test_two_processes_finish_what_was_begun_in_the_same_bytes(tiny_street, label_set, run_script, tmp_path):
    """Begun: the first shard is whole, the second was killed."""
    begun = tmp_path / "labels"
    shutil.copytree(label_set, begun)
    first, second = sorted((begun / "images").iterdir())
    second.rename(second.with_name(f"{second.name}.tmp"))
    output = run_script(*generation(tiny_street, begun), num_processes=2)
    assert "2 frames" in output and "2 were there already" in output
    without_records = [
        {name: content for name, content in contents(folder).items() if name != "run.json"}
        for folder in (begun, label_set)
    ]
    assert without_records[0] == without_records[1]


MINE = """
import numpy as np

from uov_hf.teachers import ImageSegments, Teacher


class Mine(Teacher):
    embed_dim = 4

    def encode_prompts(self, prompts):
        return np.eye(4)[np.arange(len(prompts)) % 4]

    def segment(self, frame):
        sizes = [tuple(size) for size in frame["image_sizes"]]
        return [ImageSegments(np.ones(size, int), np.array([7]), np.ones(1), np.eye(1, 4)) for size in sizes]
"""


def test_a_teacher_of_the_users_own_file_makes_a_label_set_without_a_path_of_this_machine(
    tiny_street, run_script, tmp_path
):
    (tmp_path / "mine.py").write_text(MINE)
    data = ["--dataset", "nuscenes", "--data_dir", tiny_street, "--split", "all", "--output_dir", tmp_path / "labels"]
    run_script("generate_label_set.py", "--teacher", f"{tmp_path / 'mine.py'}:Mine", "--trust_teacher_code", *data)
    made = LabelSet(tmp_path / "labels")
    assert made.teacher["name"].startswith("mine.py:Mine@") and made.teacher_id == made.teacher["name"]
    assert str(tmp_path) not in (tmp_path / "labels" / "label_set.json").read_text()
    assert set(made.read(made.frame_ids[0])["segment_labels"].tolist()) == {7}


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("mine.py:Mine", "runs the Python code of mine.py"),
        ("mine.py", "form path/to/file.py:ClassName"),
        ("sam", "no teacher 'sam'; there are: clip,"),
    ],
)
def test_a_wrong_or_untrusted_teacher_is_refused_before_anything_is_read(script, capsys, teacher, message):
    with pytest.raises(SystemExit):
        script("generate_label_set.py").parse("--teacher", teacher)
    assert message in " ".join(capsys.readouterr().err.split())
