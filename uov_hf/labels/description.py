"""`label_set.json`, with checksums: of its own content, and of the embeddings in the file beside it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from uov_hf.configuration_uov import IGNORED
from uov_hf.setting_files import read_json as read_any_json


FORMAT_VERSION = 4
WAY_OUT = (
    "If it was downloaded, delete it and download it again. If it was made here, restore it from a copy, or generate "
    "the label set again in another folder. The file must not be edited by hand."
)
# The type of each field and, of a list, that of its items.
FIELDS: dict[str, tuple[type, type | None]] = {
    "teacher": (dict, None),
    "settings": (dict, None),
    "taxonomy": (str, None),
    "class_names": (list, str),
    "prompts": (list, str),
    "prompt_groups": (list, int),
    "prompt_to_class": (list, int),
    "is_thing": (list, bool),
}

TEXT_MODEL = ("embed_model_name_or_path", "embed_revision")  # of a teacher, both or none


def to_sealed_json(description: dict[str, Any]) -> bytes:
    """A description as JSON, with the SHA-256 of its content."""
    content = {name: value for name, value in description.items() if name != "sha256"}
    return json.dumps(content | {"sha256": _digest(content)}, indent=2, ensure_ascii=False).encode()


def read_description(path: Path) -> dict[str, Any]:
    """Read a `label_set.json`.

    Raises:
        ValueError: The file is damaged or was edited, or has another format version; the message names it.
    """
    description = read_json(path)
    if description.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {description.get('format_version')}, this code reads {FORMAT_VERSION}. "
            "Generate the label set again, or use the version of uov_hf that wrote it."
        )
    content = {name: value for name, value in description.items() if name != "sha256"}
    if description.get("sha256") != _digest(content):
        raise ValueError(f"{path}: expected content with the SHA-256 in its field `sha256`, got another. {WAY_OUT}")
    _check_fields(path, description)
    return description


def _check_fields(path: Path, description: dict[str, Any]) -> None:
    """Check the types of the fields, and that prompts and classes fit each other."""
    for name, (kind, item) in FIELDS.items():
        value = description.get(name)
        if not isinstance(value, kind) or (item and not all(type(own) is item for own in description[name])):
            raise ValueError(f"{path}: expected {name!r} to be {_name_of(kind, item)}, got {value!r:.80}. {WAY_OUT}")
    teacher = description["teacher"]
    optional = (str, type(None))
    kinds = {"name": (str,), "model_name_or_path": optional, "revision": optional, "embed_dim": (int,)}
    if teacher.keys() & TEXT_MODEL:
        kinds |= dict.fromkeys(TEXT_MODEL, optional)
    if not all(name in teacher and type(teacher[name]) in own for name, own in kinds.items()):
        raise ValueError(f"{path}: expected a teacher with {', '.join(kinds)}, got {teacher!r:.200}. {WAY_OUT}")
    if teacher["embed_dim"] not in range(2**31):
        raise ValueError(f"{path}: expected an embed_dim of 32 bits, got {teacher['embed_dim']!r:.40}. {WAY_OUT}")
    if any("\0" in (teacher[name] or "") for name, own in kinds.items() if str in own):
        raise ValueError(
            f"{path}: expected a teacher with names without the character 0, got {teacher!r:.200}. {WAY_OUT}"
        )
    dataset, augmentations = description.get("dataset") or {}, description["settings"].get("augmentations", [])
    if not isinstance(dataset, dict) or type(dataset.get("num_frames", 0)) is not int:
        raise ValueError(f"{path}: expected a dataset with num_frames, got {dataset!r:.80}. {WAY_OUT}")
    if not isinstance(augmentations, list) or not all(isinstance(own, str) for own in augmentations):
        raise ValueError(f"{path}: expected a list of names as augmentations, got {augmentations!r:.80}. {WAY_OUT}")
    if len(description["class_names"]) > IGNORED:
        num_classes = len(description["class_names"])
        raise ValueError(f"{path}: expected at most {IGNORED} class_names, got {num_classes}. {WAY_OUT}")
    num_prompts, classes = len(description["prompts"]), range(len(description["class_names"]))
    lengths = [len(description[name]) for name in ("prompt_groups", "prompt_to_class")]
    wrong = [own for own in description["prompt_to_class"] if own not in classes and own != IGNORED]
    wrong += [own for own in description["prompt_groups"] if own not in range(num_prompts)]
    if lengths != [num_prompts] * 2 or len(description["is_thing"]) != len(classes) or wrong:
        raise ValueError(
            f"{path}: expected a group and a class for each of {num_prompts} prompts, got others. {WAY_OUT}"
        )


def _name_of(kind: type, item: type | None) -> str:
    return f"a {kind.__name__} of {item.__name__}" if item else f"a {kind.__name__}"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; a `ValueError` names the file."""
    try:
        content = read_any_json(path)
    except ValueError as error:
        raise ValueError(f"{error} {WAY_OUT}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}. {WAY_OUT}")
    return content


def read_embeds(path: Path, sha256: str | None, shape: tuple[int, int]) -> np.ndarray:
    """The tensor `prompt_embeds` of a safetensors file, float32.

    Raises:
        ValueError: The file has another SHA-256, or another tensor; the message names it.
    """
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path}: expected content with the SHA-256 {sha256}, got another. {WAY_OUT}")
    try:
        embeds = load(content)["prompt_embeds"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: expected the tensor `prompt_embeds`, got: {error}.") from error
    if embeds.shape != shape or embeds.dtype != np.float32:
        raise ValueError(f"{path}: expected float32 of shape {shape}, got {embeds.dtype} of {embeds.shape}.")
    if not np.isfinite(embeds).all():
        raise ValueError(f"{path}: expected finite numbers, got others.")
    return embeds


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
