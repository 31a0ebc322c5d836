"""Read PLY files, after a check of their headers against the size of the file."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .point_fields import check_size, check_whole, errors_of_library, load_library, stack_fields


MAX_HEADER = 1 << 16  # bytes


def read_ply(path: Path, max_points: int | None) -> NDArray[np.floating]:
    """x, y, z and, if there is one, the intensity: `(num_points, 3 or 4)`."""
    return stack_fields(path, read_ply_fields(path, max_points))


def read_ply_fields(path: Path, max_points: int | None = None) -> dict[str, NDArray[Any]]:
    """The fields of the vertices by name, `(num_points,)` each.

    Raises:
        ValueError: The file is damaged, or an element has more than `max_points` rows.
    """
    vertices = read_ply_elements(path, max_points)["vertex"]
    return {field.name: vertices[field.name] for field in vertices.properties}


def read_ply_elements(path: Path, max_points: int | None = None) -> Any:
    """The whole file as plyfile's `PlyData`, with vertices. Raises as `read_ply_fields`."""
    library = load_library(path, "plyfile", "plyfile")
    _check_header(path, max_points)
    with errors_of_library(path):
        try:
            content = library.PlyData.read(path)
        except library.PlyElementParseError as error:
            if error.element is not None and error.element.name == "vertex" and error.row is not None:
                check_whole(path, error.element.count, error.row)
            raise
        if "vertex" not in content:
            raise ValueError(f"expected an element `vertex`, got {[own.name for own in content.elements]}")
        return content


def _check_header(path: Path, max_points: int | None) -> None:
    """Check the count of each element of a PLY file, in the lines that the library reads as its header."""
    with path.open("rb") as file:
        content = file.read(MAX_HEADER).decode("ascii", "replace")
    if not (newline := re.match("ply(\r\n|\r|\n)", content)):
        return  # without such a line, the library refuses it
    lines = content.split(newline[1])
    if "end_header" not in lines:
        raise ValueError(f"{path}: expected a header of at most {MAX_HEADER:,} bytes, got a longer one.")
    for fields in map(str.split, lines[: lines.index("end_header")]):
        if fields[:1] == ["element"] and len(fields) == 3:
            with errors_of_library(path):
                count = int(fields[2])
            check_size(path, count, 0, max_points)
            check_whole(path, count, path.stat().st_size)  # each row has a byte at least; the library allocates them
