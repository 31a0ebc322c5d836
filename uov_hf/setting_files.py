"""Read JSON and YAML files as Python's own values: every error names the file."""

import json
import math
from pathlib import Path
from typing import Any

import yaml


MAX_VALUES = 1_000_000  # of a YAML file; its aliases can repeat values until they fill the memory


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: The file is missing, is not JSON, is nested too deeply, or has text that no file can contain.
    """
    try:
        content = path.read_bytes()
        text = content.decode(
            json.detect_encoding(content)
        )  # not as `json.loads`, which takes half of a surrogate pair
        value = json.loads(text)
        if "\\u" in text:  # half of a surrogate pair is no character; it would fail where the text is used
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, got: {error}.") from error


def read_yaml_values(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        ValueError: The file is missing or no YAML, a value does not fit its tag, or aliases would fill the memory.
    """
    try:
        loader = yaml.SafeLoader(path.read_bytes())
        node = loader.get_single_node()
        if node is None:
            return None
        check_aliases(node, MAX_VALUES)
        return loader.construct_document(node)
    except Exception as error:  # the constructor of each tag raises errors of its own
        raise ValueError(f"{path}: expected YAML or JSON, got: {error}") from error


def check_aliases(node: yaml.Node, max_values: int) -> None:
    """Raise a `ValueError` if a YAML file has more than `max_values`, with those of an alias each time."""
    if _num_values(node, {}) > max_values:
        raise ValueError(f"more than {max_values:,} values, because aliases repeat them")


def _num_values(node: yaml.Node, counts: dict[int, float]) -> float:
    """The number of values below a node, with those of an alias each time; infinite if an alias contains itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in counts:
        counts[id(node)] = math.inf  # until all below it are counted
        children = [child for item in node.value for child in (item if isinstance(item, tuple) else (item,))]
        counts[id(node)] = 1 + sum(_num_values(child, counts) for child in children)
    return counts[id(node)]
