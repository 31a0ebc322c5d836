"""Taxonomies as validated data files: classes, colours, raw label ids, and the prompts that stand for them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml


IGNORED = 255
TEMPLATE = Path(__file__).with_name("nuscenes.yaml")


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """
    One taxonomy. A training id is the place of a class in `class_names`; 255 stands for "ignored".

    Args:
        name (`str`): Of the taxonomy, such as `"nuscenes"`.
        class_names (`list[str]` of length `num_classes`): The classes to tell apart.
        colors (`np.ndarray` of shape `(num_classes, 3)`): uint8 RGB.
        is_thing (`np.ndarray` of shape `(num_classes,)`): bool; things can be counted, stuff cannot.
        raw_names (`list[str]` of length `num_raw`): The classes of the label files.
        raw_to_class (`np.ndarray` of shape `(num_raw,)`): uint8, training id of a raw label id, or 255.
        prompts (`list[str]` of length `num_prompts`): Phrases for a text encoder; the same phrase may come twice.
        prompt_groups (`np.ndarray` of shape `(num_prompts,)`): int64; prompts of a group mean the same raw class.
        prompt_to_raw (`np.ndarray` of shape `(num_prompts,)`): int64, the raw label id a prompt means.
        prompt_to_class (`np.ndarray` of shape `(num_prompts,)`): int64, its training id, or 255 (background).
    """

    name: str
    class_names: list[str]
    colors: np.ndarray
    is_thing: np.ndarray
    raw_names: list[str]
    raw_to_class: np.ndarray
    prompts: list[str]
    prompt_groups: np.ndarray
    prompt_to_raw: np.ndarray
    prompt_to_class: np.ndarray


def available_vocabularies() -> list[str]:
    """The names that `load_vocabulary` knows."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.yaml"))


def load_vocabulary(name: str) -> Vocabulary:
    """
    Read and check a taxonomy.

    Args:
        name (`str`): One of `available_vocabularies()`, or the path of a YAML file of the form of `nuscenes.yaml`.

    Raises:
        ValueError: where the name is unknown, or the file contradicts itself; it names the file and the entry.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else Path(__file__).with_name(f"{name}.yaml")
    if not path.is_file():
        known = ", ".join(available_vocabularies())
        raise ValueError(f"There is no vocabulary {name!r}: expected one of {known}, or the path of a .yaml file.")
    try:
        return _build(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: a vocabulary has the form of {TEMPLATE} ({error!r}).") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _build(content: dict[str, Any]) -> Vocabulary:
    classes, raw_classes, groups = content["classes"], content["raw_classes"], content["prompt_groups"]
    class_ids = _ids("classes", (entry["name"] for entry in classes))
    raw_ids = _ids("raw_classes", (entry["name"] for entry in raw_classes))
    raw_to_class = np.array([_class_of(entry, class_ids) for entry in raw_classes], dtype=np.uint8)
    prompts = [(prompt, group) for group, entry in enumerate(groups) for prompt in _prompts_of(entry, raw_ids)]
    prompt_groups = np.array([group for _, group in prompts], dtype=np.int64)
    group_to_raw = np.array([raw_ids[entry["raw_class"]] for entry in groups], dtype=np.int64)
    prompt_to_raw = group_to_raw[prompt_groups]
    return Vocabulary(
        name=content["name"],
        class_names=list(class_ids),
        colors=np.array([_color_of(entry) for entry in classes], dtype=np.uint8),
        is_thing=np.array([entry["is_thing"] for entry in classes], dtype=bool),
        raw_names=list(raw_ids),
        raw_to_class=raw_to_class,
        prompts=[prompt for prompt, _ in prompts],
        prompt_groups=prompt_groups,
        prompt_to_raw=prompt_to_raw,
        prompt_to_class=raw_to_class[prompt_to_raw].astype(np.int64),
    )


def _ids(section: str, names: Iterable[str]) -> dict[str, int]:
    names = list(names)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or not 0 < len(names) < IGNORED:
        raise ValueError(f"`{section}` must be 1 to 254 different names, got {len(names)} with {repeated} repeated.")
    return {name: index for index, name in enumerate(names)}


def _class_of(raw_class: dict[str, Any], class_ids: dict[str, int]) -> int:
    name = raw_class["class"]
    if name is not None and name not in class_ids:
        raise ValueError(f"raw class {raw_class['name']!r} asks for class {name!r}, which `classes` does not have.")
    return IGNORED if name is None else class_ids[name]


def _color_of(entry: dict[str, Any]) -> list[int]:
    color = entry["color"]
    if len(color) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in color):
        raise ValueError(f"class {entry['name']!r} must have a color of three numbers 0-255, got {color}.")
    return color


def _prompts_of(group: dict[str, Any], raw_ids: dict[str, int]) -> list[str]:
    if group["raw_class"] not in raw_ids:
        raise ValueError(f"a prompt group means {group['raw_class']!r}, which `raw_classes` does not have.")
    prompts = group["prompts"]
    if not prompts or not all(isinstance(prompt, str) and prompt.strip() for prompt in prompts):
        raise ValueError(f"the prompts of {group['raw_class']!r} must be one or more phrases, got {prompts}.")
    return prompts
