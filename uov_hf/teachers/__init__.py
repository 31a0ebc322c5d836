"""2D open-vocabulary models behind one protocol, one file each."""

import inspect
from importlib import import_module
from typing import Any

import torch

from uov_hf.teachers.pictures import embed_pictures
from uov_hf.teachers.protocol import ImageSegments, Teacher


__all__ = ["TEACHERS", "ImageSegments", "Teacher", "embed_pictures", "load_teacher"]

# name -> module and class, imported when asked for
TEACHERS = {
    "clip": ("uov_hf.teachers.clip", "CLIPTeacher"),
    "clipseg": ("uov_hf.teachers.clipseg", "CLIPSegTeacher"),
    "eomt": ("uov_hf.teachers.eomt", "EomtTeacher"),
    "files": ("uov_hf.teachers.files", "FilesTeacher"),
    "grounding_dino": ("uov_hf.teachers.grounding_dino", "GroundingDinoTeacher"),
    "groupvit": ("uov_hf.teachers.groupvit", "GroupViTTeacher"),
    "mask2former": ("uov_hf.teachers.mask2former", "Mask2FormerTeacher"),
    "owlv2": ("uov_hf.teachers.owlv2", "Owlv2Teacher"),
    "sam2": ("uov_hf.teachers.sam2", "Sam2Teacher"),
    "sam3": ("uov_hf.teachers.sam3", "Sam3Teacher"),
    "sam3_points": ("uov_hf.teachers.sam3_points", "Sam3PointsTeacher"),
    "synthetic": ("uov_hf.teachers.synthetic", "SyntheticTeacher"),
    "tipsv2": ("uov_hf.teachers.tipsv2", "TIPSv2Teacher"),
}


def load_teacher(
    name: str,
    model_name_or_path: str | None = None,
    *,
    prompts: list[str],
    revision: str | None = None,
    data_dir: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> Teacher:
    """The teacher called `name`, ready to segment.

    Args:
        name (`str`):
            A key of `TEACHERS`.
        settings:
            Arguments of this teacher beyond those of `Teacher`.

    Raises:
        ValueError: no such teacher, or it has no such setting.
    """
    if name not in TEACHERS:
        raise ValueError(f"There is no teacher {name!r}; there are: {', '.join(TEACHERS)}.")
    module, class_name = TEACHERS[name]
    teacher_class = getattr(import_module(module), class_name)
    own_settings = _own_settings(teacher_class)
    if unknown := sorted(set(settings) - set(own_settings)):
        raise ValueError(
            f"The teacher {name!r} has no setting {', '.join(unknown)}; it has: {', '.join(own_settings) or 'none'}."
        )
    return teacher_class(
        prompts,
        model_name_or_path=model_name_or_path,
        revision=revision,
        data_dir=data_dir,
        device=device,
        dtype=dtype,
        **settings,
    )


def _own_settings(teacher_class: type[Teacher]) -> list[str]:
    """Arguments of the class, and of those it derives from, beyond those that every teacher has."""
    constructors = [base.__init__ for base in teacher_class.__mro__ if "__init__" in vars(base) and base is not object]
    parameters = [p for function in constructors for p in inspect.signature(function).parameters.values()]
    shared = inspect.signature(Teacher.__init__).parameters
    return list(dict.fromkeys(p.name for p in parameters if p.name not in shared and p.kind is not p.VAR_KEYWORD))
