"""Read scans from text files, as CloudCompare, spreadsheets and Windows programs save them."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .point_fields import check_size, stack_fields


NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?|[+-]?(nan|inf)", re.IGNORECASE)
# A cell without a number, as spreadsheets and Windows programs write it.
MISSING = re.compile(r"|-|n/?a|#n/a|null|none|[+-]?nan\(.*\)|[+-]?1\.#\w+", re.IGNORECASE)
COMMENTS = ("#", "//")
COMMENT = re.compile(r"(^|\s)(#(?!n/a)|//).*", re.IGNORECASE)  # "1.#QNAN" and "#N/A" of Windows are none
MAX_HEADER_LINES, MAX_CHECKED_LINES = 100, 1000
UNNAMED = ("x", "y", "z", "intensity")  # meaning of the columns without a line of names
COLORED = 6  # columns of x, y, z, red, green, blue


def read_text_points(path: Path, max_points: int | None = None) -> NDArray[np.floating]:
    """x, y, z and, if there is one, the intensity: `(num_points, 3 or 4)`.

    The text is UTF-8 or UTF-16, else Latin-1. Columns are separated by semicolons, tabs, commas or spaces. Numbers may
    have decimal commas where the separator is another one. An empty cell is NaN, and so are N/A and the like.

    A line of names gives the columns their meaning. A first or last column that is empty in every line needs no name.
    Without names the columns are x, y, z and the intensity, or x, y, z, red, green, blue if there are six.

    Raises:
        ValueError: There are no lines of numbers, or a line has other columns than the first.
    """
    return stack_fields(path, read_text_fields(path, max_points))


def read_text_fields(path: Path, max_points: int | None = None) -> dict[str, NDArray[np.float64]]:
    """All columns of numbers by name, `(num_points,)` each. Raises as `read_text_points`."""
    # Tabs stay: at the ends of a line they separate empty cells.
    lines = [line.strip(" ") for line in decode_text(path.read_bytes()).splitlines() if line.strip()]
    check_size(path, max(len(lines) - MAX_HEADER_LINES, 0), 0, max_points)
    separator = find_separator(next(filter(None, map(str.strip, map(_without_comment, reversed(lines)))), ""))
    start = next((row for row, line in enumerate(lines[:MAX_HEADER_LINES]) if _is_point(line, separator)), None)
    if start is None:
        raise ValueError(f"{path}: expected lines of at least 3 numbers (x, y, z), got none.")
    above, lines = lines[:start], [line for line in map(_without_comment, lines[start:]) if line.strip()]
    if separator and not _find_names(above, lines[0], separator):
        lines = _without_empty_ends(lines, separator)
    names = _column_names(path, above, lines[0], separator)
    check_size(path, len(lines), 0, max_points)
    _check_widths(path, lines, separator)
    numeric = _numeric_columns(lines[:MAX_CHECKED_LINES], separator)
    plain = {ord('"'): None} | ({} if separator == "," else {ord(","): "."})
    table = _load([line.translate(plain) for line in lines], separator, numeric)
    return {names[place]: table[:, column] for column, place in enumerate(numeric)}


def _without_comment(line: str) -> str:
    return COMMENT.sub("", line).strip(" ") if any(mark in line for mark in COMMENTS) else line


def _without_empty_ends(lines: list[str], separator: str) -> list[str]:
    """The lines without a first and a last column that are empty in all of them."""
    if all(line.startswith(separator) for line in lines):
        lines = [line.removeprefix(separator) for line in lines]
    if all(line.endswith(separator) for line in lines):
        lines = [line.removesuffix(separator) for line in lines]
    return lines


def _check_widths(path: Path, lines: list[str], separator: str | None) -> None:
    """Check that all points have as many cells as the first."""
    width = len(lines[0].split(separator))
    for line in lines:
        if len(line.split(separator)) != width:
            raise ValueError(
                f"{path}: expected {width} columns in every line, as in the first point {lines[0]!r}, got {line!r}."
            )


def _numeric_columns(lines: list[str], separator: str | None) -> list[int]:
    """The columns of numbers. Others are words, such as classes and dates; a column without any cell is none."""
    rows = [_cells(line, separator) for line in lines]
    first = [next((cell for cell in column if not MISSING.fullmatch(cell)), "") for column in zip(*rows, strict=True)]
    return [place for place, cell in enumerate(first) if NUMBER.fullmatch(cell)]


def _load(lines: list[str], separator: str | None, columns: list[int]) -> NDArray[np.float64]:
    def load(lines: list[str]) -> NDArray[np.float64]:
        return np.loadtxt(lines, delimiter=separator, usecols=columns, ndmin=2, comments=None)

    try:
        return load(lines)
    except ValueError:  # a cell is missing: look at each one, which takes several times as long
        return load([_with_nan(line, separator) for line in lines])


def _with_nan(line: str, separator: str | None) -> str:
    cells = ["nan" if MISSING.fullmatch(cell) else cell for cell in _cells(line, separator)]
    return (separator or " ").join(cells)


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
    return [cell.strip(' \t"') for cell in line.split(separator)]


def _is_point(line: str, separator: str | None) -> bool:
    return sum(NUMBER.fullmatch(cell) is not None for cell in _cells(line, separator)) >= 3


def _find_names(above: list[str], first: str, separator: str | None) -> list[str] | None:
    """The last of the lines above the first point that has as many cells."""
    rows = [_cells(line.lstrip("#/ "), separator) for line in above]
    return next((row for row in reversed(rows) if len(row) == len(_cells(first, separator))), None)


def _column_names(path: Path, above: list[str], first: str, separator: str | None) -> list[str]:
    """Names of the columns, from the lines above the first point or by their number."""
    if named := _find_names(above, first, separator):
        return named
    width = len(_cells(first, separator))
    texts = [line for line in map(str.strip, above) if any(map(str.isalpha, line))]
    if wrong := [line for line in texts if not line.startswith(("#", "/", "sep="))]:
        raise ValueError(f"{path}: expected names for {width} columns above the first point, got {wrong[-1]!r}.")
    known = UNNAMED[: 3 if width == COLORED else 4]
    return [*known, *(f"column {place + 1}" for place in range(len(known), width))]
