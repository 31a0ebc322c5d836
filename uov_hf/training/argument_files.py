"""Files of arguments: YAML or JSON in the place of flags, checked against the dataclass of a script."""

import difflib
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from uov_hf.setting_files import read_json, read_yaml_values


ONE_VALUE = "The argument takes one value here. Only trainings take several datasets."
# The arguments that every dataset of a training has its own value of.
DATASET_FIELDS = ("dataset", "data_dir", "dataset_config", "split", "validation_split", "label_set")


def read_settings(path: str, arguments: type[Any]) -> dict[str, object]:
    """The arguments in a YAML or JSON file, with the types of the dataclass's fields.

    Args:
        path (`str`): The file.
        arguments (`type`): The dataclass of a script.

    Raises:
        ValueError: The file is not a mapping, has an unknown key, or a value of the wrong type.
    """
    return convert_settings(read_mapping(path), arguments, path)


def read_mapping(path: str) -> dict[str, object]:
    """The content of a YAML or JSON file, whose keys are not checked.

    Raises:
        ValueError: The file is not a mapping.
    """
    content = read_json(Path(path)) if path.endswith(".json") else read_yaml_values(Path(path))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected `name: value` for each argument, got {type(content).__name__}.")
    return content


def convert_settings(content: dict[str, object], arguments: type[Any], place: str) -> dict[str, object]:
    """The settings of a mapping, with the types of the dataclass's fields.

    Args:
        content (`dict[str, object]`): Name to value; `datasets` may be a list with a mapping for each dataset.
        arguments (`type`): The dataclass of a script.
        place (`str`): Where the mapping is, for the messages.

    Raises:
        ValueError: There is an unknown name, or a value of the wrong type.
    """
    hints, names = get_type_hints(arguments), [own.name for own in fields(arguments)]
    if "datasets" in content and hasattr(arguments, "datasets"):  # a training
        content = _spread_datasets(content, f"{place}: `datasets`")
    for name in content:
        if name not in names:
            raise ValueError(f"{place}: there is no argument `{name}`. {did_you_mean(str(name), names)}")
    return {name: _convert(value, hints[name], f"{place}: `{name}`") for name, value in content.items()}


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`Did you mean learning_rate?`: the names that are close to a wrong one or, if none is, all."""
    near = difflib.get_close_matches(name, names := sorted(names)) or names
    return f"Did you mean {' or '.join(near)}?"


def _spread_datasets(content: dict[str, object], place: str) -> dict[str, object]:
    """Replace the list `datasets`, which has a mapping for each dataset, by the lists of the arguments."""
    entries = content["datasets"]
    if not isinstance(entries, list) or not all(isinstance(one, dict) and one.get("dataset") for one in entries):
        raise ValueError(f"{place} must be a list with `dataset: …` in each entry, got {entries!r}.")
    given = dict.fromkeys(name for one in entries for name in one)
    if wrong := [name for name in given if name not in DATASET_FIELDS or name in content]:
        raise ValueError(
            f"{place}: expected {', '.join(DATASET_FIELDS)} in an entry, and none of them outside, got `{wrong[0]}`."
        )
    others = {name: value for name, value in content.items() if name != "datasets"}
    return others | {name: [one.get(name) for one in entries] for name in given}


def _convert(value: object, hint: object, place: str) -> object:
    for option in get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,):
        if get_origin(option) is list and value is not None:
            items = value if isinstance(value, list) else [value]
            return [_convert("" if item is None else item, get_args(option)[0], place) for item in items]
        if type(value) is option or (get_origin(option) is Literal and value in get_args(option)):
            return value
        if option is float and type(value) in (int, str):  # YAML reads 1e-4 as text
            try:
                return float(str(value))
            except ValueError:
                pass
    expected = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    ways_out = {bool: " YAML reads an unquoted yes, no, on or off as a truth value.", list: f" {ONE_VALUE}"}
    raise ValueError(f"{place} must be {expected}, got {value!r}.{ways_out.get(type(value), '')}")
