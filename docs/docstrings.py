"""Griffe extension: docstrings in the style of transformers, readable on the site."""

import re
from typing import Any

import griffe


class TransformersDocstrings(griffe.Extension):
    """Shows [`Name`] as `Name`, and the type in "name (`type`, *optional*):" without its marks."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            text = re.sub(r"\[(`[^`\]]+`)\](?![(\[])", r"\1", obj.docstring.value)
            obj.docstring.value = re.sub(r"^(\s+[\w, *]+\()(.+)(\):)", _without_marks, text, flags=re.MULTILINE)


def _without_marks(header: re.Match[str]) -> str:
    return header[1] + re.sub("[`*]", "", header[2]) + header[3]
