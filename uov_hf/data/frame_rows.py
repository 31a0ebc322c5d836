"""Checks of a row of a Parquet file from anybody: it must have what a frame has."""

from collections.abc import Mapping
from typing import Any

import numpy as np


DIMENSIONS = {  # of the arrays of a frame
    "points": 2,
    "labels": 1,
    "instances": 1,
    "camera_timestamps": 1,
    "lidar2cam": 3,
    "intrinsics": 3,
    "image_sizes": 2,
    "lidar2global": 2,
}

NAMES = ("camera_names", "image_ids")  # columns with a text for each camera


def check_row(row: Mapping[str, Any], file: str) -> None:
    """Check the columns of a row that are there.

    Raises:
        ValueError: A column has values of another type or of other dimensions, or an image is the path of a file.
    """
    _check_contents(row, file)
    _check_dimensions(row, file)


def _check_dimensions(row: Mapping[str, Any], file: str) -> None:
    """Check that the arrays of a row have the dimensions of a frame's."""
    for name, num_dimensions in DIMENSIONS.items():
        if (value := row.get(name)) is None:
            continue
        found: tuple[object, ...] = value.shape if isinstance(value, np.ndarray) else (type(value).__name__,)
        if not isinstance(value, np.ndarray) or value.ndim != num_dimensions or (name == "points" and found[1] != 4):
            raise ValueError(
                f"{file}: expected {name!r} of {num_dimensions} dimensions (points: 4 columns), got {found}, which is "
                "no frame. `uov_hf.data.writing.write_parquet` writes frames."
            )


def _check_contents(row: Mapping[str, Any], file: str) -> None:
    """Check names, and that images are in the file: a foreign row could name any file of this machine as its image."""
    for name in NAMES:
        if not _is_list_of(str, row.get(name)):
            raise ValueError(f"{file}: expected a list of text as {name!r}, got {row[name]!r:.80}.")
    images = row.get("images")
    if not _is_list_of(dict, images):
        raise ValueError(f"{file}: expected a list of images, each with `bytes` and `path`, got {images!r:.80}.")
    for image in images or []:
        if not isinstance(image.get("bytes"), bytes):
            raise ValueError(
                f"{file}: expected the content of every image, got the path {image.get('path')!r} alone, which is not "
                "read. `uov_hf.data.writing.write_parquet` writes the content."
            )


def _is_list_of(kind: type, values: object) -> bool:
    return values is None or (isinstance(values, list) and all(isinstance(one, kind) for one in values))
