"""Read scans from text files, as CloudCompare, spreadsheets and Windows programs save them."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .point_fields import check_size, stack_fields


NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE)
MAX_HEADER_LINES = 100
UNNAMED = ("x", "y", "z", "intensity")  # meaning of the columns without a line of names
COLORED = 6  # columns of x, y, z, red, green, blue


def read_text_points(path: Path, max_points: int | None = None) -> NDArray[np.floating]:
    """x, y, z and, if there is one, the intensity: `(num_points, 3 or 4)`.

    The text is UTF-8 or UTF-16, else Latin-1. Columns are separated by semicolons, tabs, commas or spaces. Numbers may
    have decimal commas where the separator is another one. A line of names gives the columns their meaning. Without it
    they are x, y, z and the intensity, or x, y, z, red, green, blue if there are six.

    Raises:
        ValueError: There are no lines of numbers, or a line has other columns than the first.
    """
    lines = [line.strip() for line in decode_text(path.read_bytes()).splitlines() if line.strip()]
    check_size(path, max(len(lines) - MAX_HEADER_LINES, 0), 0, max_points)
    separator = find_separator(lines[-1]) if lines else None
    start = next((row for row, line in enumerate(lines[:MAX_HEADER_LINES]) if _is_point(line, separator)), None)
    if start is None:
        raise ValueError(f"{path}: expected lines of at least 3 numbers (x, y, z), got none.")
    names = _column_names(path, lines[:start], lines[start], separator)
    lines = lines[start:]
    check_size(path, len(lines), 0, max_points)
    numeric = [place for place, cell in enumerate(_cells(lines[0], separator)) if NUMBER.fullmatch(cell)]
    plain = {ord('"'): None} | ({} if separator == "," else {ord(","): "."})
    lines = [line.translate(plain) for line in lines]
    table = np.loadtxt(lines, delimiter=separator, usecols=numeric, ndmin=2, comments=["#", "//"])
    return stack_fields(path, {names[place]: table[:, column] for column, place in enumerate(numeric)})


def decode_text(content: bytes) -> str:
    """The text of a file of any program: by its byte order mark, else UTF-8, else Latin-1."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def find_separator(line: str) -> str | None:
    """The separator of a line of numbers; None stands for spaces."""
    if separator := next((mark for mark in (";", "\t") if mark in line), None):
        return separator
    # A comma separates if no spaces do: "1,5 2,0" has two numbers, "1.5, 2.0" too.
    cells = [cell.strip() for cell in line.split(",")]
    return "," if len(cells) > 2 and all(NUMBER.fullmatch(cell) or " " not in cell for cell in cells) else None


def _cells(line: str, separator: str | None) -> list[str]:
    return [cell.strip(' "') for cell in line.split(separator)]


def _is_point(line: str, separator: str | None) -> bool:
    return sum(NUMBER.fullmatch(cell) is not None for cell in _cells(line, separator)) >= 3


def _column_names(path: Path, above: list[str], first: str, separator: str | None) -> list[str]:
    """Names of the columns, from the lines above the first point or by their number."""
    width = len(_cells(first, separator))
    rows = [_cells(line.lstrip("#/ "), separator) for line in above]
    if named := next((row for row in reversed(rows) if len(row) == width), None):
        return named
    if wrong := [line for line in above if any(map(str.isalpha, line)) and not line.startswith(("#", "/", "sep="))]:
        raise ValueError(f"{path}: expected names for {width} columns above the first point, got {wrong[-1]!r}.")
    known = UNNAMED[: 3 if width == COLORED else 4]
    return [*known, *(f"column {place + 1}" for place in range(len(known), width))]
