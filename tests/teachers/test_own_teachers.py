"""Teachers from outside the package: a class in a Python file, and an entry point of an installed package."""

import os
import sys
from pathlib import Path

import pytest

from uov_hf.teachers import TEACHERS, Teacher, find_teacher, load_teacher


MINE = '''\
from dataclasses import dataclass

import numpy as np

from uov_hf.teachers import ImageSegments, Teacher
from uov_hf.teachers.config import TeacherConfig


@dataclass(frozen=True, kw_only=True)
class MyConfig(TeacherConfig):
    label: int = 0


class MyTeacher(Teacher):
    """Everything is one segment."""

    config_class = MyConfig
    embed_dim = 4

    def encode_prompts(self, prompts):
        return np.eye(4, dtype=np.float32)[np.arange(len(prompts)) % 4]

    def segment(self, frame):
        label = np.array([self.config.label])
        sizes = [tuple(size) for size in frame["image_sizes"]]
        return [ImageSegments(np.ones(size, int), label, np.ones(1), np.eye(1, 4)) for size in sizes]


NOT_A_TEACHER = 3
'''


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "my_teacher.py"
    path.write_text(MINE)
    return path


def test_a_trusted_file_becomes_a_teacher_with_its_own_settings(file):
    teacher = load_teacher(find_teacher(f"{file}:MyTeacher", trust_code=True), prompts=["car", "road"], label=1)
    [segments] = teacher.segment({"image_sizes": [(2, 3)]})
    assert segments.segmentation.shape == (2, 3) and segments.labels.tolist() == [1]
    assert teacher.settings == {"label": 1}
    with pytest.raises(ValueError, match=r"'my_teacher.py:MyTeacher@\w+' has no setting size; it has: label"):
        load_teacher(type(teacher), prompts=["car"], size=3)


def test_the_name_of_a_file_teacher_changes_with_the_file_and_has_no_folder(file, tmp_path):
    name = find_teacher(f"{file}:MyTeacher", trust_code=True).name
    assert name.startswith("my_teacher.py:MyTeacher@") and str(tmp_path) not in name
    assert find_teacher(f"{file}:MyTeacher", trust_code=True).name == name
    file.write_text(MINE.replace("label: int = 0", "label: int = 2"))
    assert find_teacher(f"{file}:MyTeacher", trust_code=True).name != name


def test_the_code_that_runs_is_the_code_of_the_digest(file, monkeypatch):
    """Python takes its bytecode for current if the file has the same size and second."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    dims = []
    for dim in (4, 5):
        file.write_text(MINE.replace("embed_dim = 4", f"embed_dim = {dim}"))
        os.utime(file, (0, 0))
        dims.append(find_teacher(f"{file}:MyTeacher", trust_code=True).embed_dim)
    assert dims == [4, 5]


def test_a_teacher_of_the_package_keeps_its_name(file):
    file.write_text("from uov_hf.teachers.synthetic import SyntheticTeacher\n")
    assert find_teacher(f"{file}:SyntheticTeacher", trust_code=True).name.startswith("my_teacher.py:SyntheticTeacher@")
    assert find_teacher("synthetic").name == "synthetic"


def test_a_file_runs_only_if_it_is_trusted(file, tmp_path):
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{MINE}")
    for find in (find_teacher, lambda name: load_teacher(name, prompts=["car"])):
        with pytest.raises(ValueError, match=r"runs the Python code of .*with your rights.*give --trust_teacher_code"):
            find(f"{file}:MyTeacher")
    assert not (tmp_path / "ran").exists()
    find_teacher(f"{file}:MyTeacher", trust_code=True)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("", r"path/to/file\.py:ClassName, got .*--teacher my_teacher\.py:MyTeacher"),
        (":", r"path/to/file\.py:ClassName"),
        (":NOT_A_TEACHER", r"`NOT_A_TEACHER` of .*my_teacher\.py is no teacher: expected a subclass of .*, got 3"),
        (":Missing", r"`Missing` of .* is no teacher: .*, got None"),
    ],
)
def test_a_wrong_name_of_a_file_teacher_is_refused_with_its_form(file, end, message):
    with pytest.raises(ValueError, match=message):
        find_teacher(f"{file}{end}", trust_code=True)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.py: expected the Python file of the teacher"):
        find_teacher(f"{tmp_path / 'missing.py'}:MyTeacher", trust_code=True)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """`installed("name = module:Class", …)`: a package with these entry points; its module is MINE."""

    def install(*lines: str) -> None:
        (tmp_path / "plugin_of_a_test.py").write_text(MINE)
        about = tmp_path / "plugin_of_a_test-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-a-test\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("\n".join(["[uov_hf.teachers]", *lines, ""]))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "plugin_of_a_test", raising=False)

    return install


def test_an_entry_point_of_an_installed_package_is_a_teacher(installed):
    installed("mine = plugin_of_a_test:MyTeacher", "broken = plugin_of_a_test:NOT_A_TEACHER")
    assert issubclass(find_teacher("mine"), Teacher)
    assert load_teacher("mine", prompts=["car"]).name == "mine"
    with pytest.raises(ValueError, match=r"The entry point broken = plugin_of_a_test:NOT_A_TEACHER is no teacher"):
        find_teacher("broken")
    with pytest.raises(ValueError, match=r"no teacher 'other'; there are: clip, .*tipsv2, .*mine"):
        find_teacher("other")


def test_an_entry_point_cannot_take_the_name_of_a_teacher_of_the_package(installed):
    installed("clip = plugin_of_a_test:MyTeacher")
    assert find_teacher("clip").__module__ == f"uov_hf.teachers.{TEACHERS['clip'][0]}"
