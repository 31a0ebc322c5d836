"""`label_set.json`, with checksums: of its own content, and of the embeddings in the file beside it."""

import hashlib
import json
from pathlib import Path
from typing import Any


FORMAT_VERSION = 4
WAY_OUT = (
    "If it was downloaded, delete it and download it again. If it was made here, restore it from a copy, or generate "
    "the label set again in another folder. The file must not be edited by hand."
)


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
    return description


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; a `ValueError` names the file."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, got: {error}. {WAY_OUT}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}. {WAY_OUT}")
    return content


def read_verified(path: Path, sha256: str | None) -> bytes:
    """The content of a file; a `ValueError` names the file if its SHA-256 is another."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path}: expected content with the SHA-256 {sha256}, got another. {WAY_OUT}")
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
