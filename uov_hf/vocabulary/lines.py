"""YAML whose errors have the file and the line."""

from pathlib import Path
from typing import Any

import yaml

from uov_hf.setting_files import check_aliases


MAX_REPEATED = 100_000  # values of a file with aliases; without them, a file has fewer values than bytes
MAX_DIGITS = 1000  # of a whole number: PyYAML takes a time quadratic in the digits of 1:2:3, a number to the base 60


class Entry:
    """A part of a YAML file. Each method returns its value as one type, or raises a `ValueError` with its line.

    `path` and `name` are the file and the name of the part in messages.
    """

    def __init__(self, path: Path, node: yaml.Node, name: str):
        self.path, self.node, self.name = path, node, name

    def error(self, message: str) -> ValueError:
        """An error whose message begins with the file and the line of this entry."""
        return ValueError(f"{self.path}, line {self.node.start_mark.line + 1}: {message}")

    def mapping(self, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> dict[str, "Entry"]:
        """The entries by key: all of `required`, any of `optional`, no others; without both, any keys."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"expected {self.name} with {_keys(required, optional)}, got {self._shown}.")
        entries: dict[str, Entry] = {}
        for key_node, node in self.node.value:
            key = Entry(self.path, key_node, f"a key of {self.name}")
            name = key.text()
            if name in entries:
                raise key.error(f"{name!r} occurs twice in {self.name}.")
            if required and name not in required + optional:
                raise key.error(f"{self.name} has {_keys(required, optional)}, got {name!r}.")
            entries[name] = Entry(self.path, node, f"`{name}`")
        if missing := [key for key in required if key not in entries]:
            raise self.error(f"{self.name} has {_keys(required, optional)}; `{missing[0]}` is missing.")
        return entries

    def items(self, name: str) -> list["Entry"]:
        """The entries of a list that is not empty; `name` is the name of each in messages."""
        if not isinstance(self.node, yaml.SequenceNode) or not self.node.value:
            raise self.error(f"expected {self.name} to be a list of one or more entries, got {self._shown}.")
        return [Entry(self.path, node, name) for node in self.node.value]

    def text(self) -> str:
        """A phrase."""
        value: str = self._value(str, "a phrase (numbers, true, false, yes, no, on and off need quotes)")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise self.error(f"expected {self.name} to be text, got half of a surrogate pair in {self._shown}.")
        return value

    def integer(self) -> int:
        """A whole number."""
        value: int = self._value(int, "a whole number")
        if abs(value) >= 2**63:
            raise self.error(f"expected {self.name} to be a whole number of 64 bits, got {self._shown}.")
        return value

    def boolean(self) -> bool:
        """True or false."""
        return self._value(bool, "true or false")

    @property
    def is_null(self) -> bool:
        """Whether the value is `null`."""
        return self.node.tag == "tag:yaml.org,2002:null"

    def _value(self, kind: type, expected: str) -> Any:
        value = _construct(self.node) if isinstance(self.node, yaml.ScalarNode) else None
        if type(value) is not kind or (isinstance(value, str) and not value.strip()):
            raise self.error(f"expected {self.name} to be {expected}, got {self._shown}.")
        return value

    @property
    def _shown(self) -> str:
        if isinstance(self.node, yaml.ScalarNode):
            return repr(self.node.value) if self.node.value else "nothing"
        kind = "a mapping" if isinstance(self.node, yaml.MappingNode) else "a list"
        return kind if self.node.value else f"an empty {kind[2:]}"


def read_yaml(path: Path, name: str) -> Entry:
    """The content of a YAML file; `name` is its name in messages.

    Raises:
        ValueError: The file is not YAML, is empty, or has aliases that repeat too many values.
    """
    content = path.read_bytes()
    try:
        node = yaml.compose(content, Loader=yaml.SafeLoader)
        if node is not None:
            check_aliases(node, max(MAX_REPEATED, len(content)))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{path}, line {line}: this is not YAML: {error.problem}.") from error
    except Exception as error:  # PyYAML raises errors of Python for escapes and versions that no text has
        raise ValueError(f"{path} is not a YAML file: {error}") from error
    if node is None:
        raise ValueError(f"{path}, line 1: expected {name}, got an empty file.")
    return Entry(path, node, name)


def _construct(node: yaml.ScalarNode) -> Any:
    """The value of a scalar; None if it does not fit its tag."""
    if node.tag == "tag:yaml.org,2002:int" and len(node.value) > MAX_DIGITS:
        return None
    try:
        return yaml.SafeLoader("").construct_object(node)
    except Exception:  # the constructor of each tag raises errors of its own
        return None


def _keys(required: tuple[str, ...], optional: tuple[str, ...]) -> str:
    if not required:
        return "keys and values"
    may = f" and may have {', '.join(f'`{key}`' for key in optional)}" if optional else ""
    return ", ".join(f"`{key}`" for key in required) + may
