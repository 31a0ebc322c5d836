"""Files of arguments: YAML or JSON in the place of flags, checked against the dataclass of a script."""

import difflib
import json
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml


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
    text, hints = Path(path).read_text(encoding="utf-8"), get_type_hints(arguments)
    names = [own.name for own in fields(arguments)]
    try:
        content = json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: expected YAML or JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected `name: value` for each argument, got {type(content).__name__}.")
    if "datasets" in content and hasattr(arguments, "datasets"):  # a training
        content = _spread_datasets(content, f"{path}: `datasets`")
    for name in content:
        if name not in names:
            near = difflib.get_close_matches(str(name), names) or sorted(names)
            raise ValueError(f"{path}: there is no argument `{name}`. Did you mean {' or '.join(near)}?")
    return {name: _convert(value, hints[name], f"{path}: `{name}`") for name, value in content.items()}


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
