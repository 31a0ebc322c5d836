"""2D open-vocabulary models behind one protocol, one file for each family."""

from dataclasses import fields
from importlib import import_module
from typing import Any

import torch

from uov_hf.teachers.own import find_entry_points, is_file_teacher, load_file_teacher, load_installed_teacher
from uov_hf.teachers.pictures import embed_pictures
from uov_hf.teachers.protocol import ImageSegments, Teacher, TeacherFrame, open_images


__all__ = [
    "TEACHERS",
    "ImageSegments",
    "Teacher",
    "TeacherFrame",
    "embed_pictures",
    "find_teacher",
    "load_teacher",
    "open_images",
]

# name -> module and class; the module is imported on first use, because each imports models of `transformers`
TEACHERS = {
    "clip": ("clip", "CLIPTeacher"),
    "clipseg": ("clipseg", "CLIPSegTeacher"),
    "eomt": ("queries", "EomtTeacher"),
    "files": ("files", "FilesTeacher"),
    "grounding_dino": ("grounding_dino", "GroundingDinoTeacher"),
    "groupvit": ("groupvit", "GroupViTTeacher"),
    "mask2former": ("queries", "Mask2FormerTeacher"),
    "owlv2": ("owlv2", "Owlv2Teacher"),
    "sam2": ("sam2", "Sam2Teacher"),
    "sam3": ("sam3", "Sam3Teacher"),
    "sam3_points": ("sam2", "Sam3PointsTeacher"),
    "semantic": ("semantic", "SemanticTeacher"),
    "synthetic": ("synthetic", "SyntheticTeacher"),
    "tipsv2": ("tipsv2", "TIPSv2Teacher"),
}


def find_teacher(name: str, trust_code: bool = False) -> type[Teacher]:
    """Import the class of a teacher.

    Args:
        name (`str`):
            A key of `TEACHERS`, an entry point of the group `uov_hf.teachers`, or `path/to/file.py:ClassName`.
        trust_code (`bool`, *optional*, defaults to `False`): Whether a file may be run.

    Raises:
        ValueError: there is no such teacher, or a file is not trusted.
        FileNotFoundError: there is no such file.
    """
    if name in TEACHERS:
        module, class_name = TEACHERS[name]
        return getattr(import_module(f"uov_hf.teachers.{module}"), class_name)
    if is_file_teacher(name):
        return load_file_teacher(name, trust_code)
    if name in (installed := find_entry_points()):
        return load_installed_teacher(installed[name])
    raise ValueError(
        f"There is no teacher {name!r}; there are: {', '.join([*TEACHERS, *installed])}. Your own is "
        "path/to/file.py:ClassName."
    )


def load_teacher(
    teacher: str | type[Teacher],
    model_name_or_path: str | None = None,
    *,
    prompts: list[str],
    revision: str | None = None,
    data_dir: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> Teacher:
    """Load a teacher, ready to segment.

    Args:
        teacher (`str` or a subclass of `Teacher`): The class, or its name for `find_teacher`.
        settings:
            Fields of the teacher's `config_class`.
        others:
            See `Teacher`.

    Raises:
        ValueError: there is no such teacher, or it has no such setting.
    """
    teacher_class = find_teacher(teacher) if isinstance(teacher, str) else teacher
    own = [field.name for field in fields(teacher_class.config_class)]
    if unknown := sorted(set(settings) - set(own)):
        raise ValueError(
            f"The teacher {teacher_class.name!r} has no setting {', '.join(unknown)}; it has: "
            f"{', '.join(own) or 'none'}."
        )
    return teacher_class(
        prompts,
        teacher_class.config_class(**settings),
        model_name_or_path=model_name_or_path,
        revision=revision,
        data_dir=data_dir,
        device=device,
        dtype=dtype,
    )
