"""Checks of a row of a Parquet file from anybody: it must have what a frame has."""

from collections.abc import Mapping
from typing import Any

import numpy as np


WAY_OUT = "This is no frame: `uov_hf.data.writing.write_parquet` writes frames."

# Of each array of a frame: the kinds of its numbers, and its shape; None is any number, "K" that of the cameras.
ARRAYS: dict[str, tuple[str, tuple[int | str | None, ...]]] = {
    "points": ("iuf", (None, 4)),
    "labels": ("iu", (None,)),
    "instances": ("iu", (None,)),
    "camera_timestamps": ("iu", ("K",)),
    "lidar2cam": ("iuf", ("K", 4, 4)),
    "intrinsics": ("iuf", ("K", 3, 3)),
    "image_sizes": ("iu", ("K", 2)),
    "lidar2global": ("iuf", (4, 4)),
}
MAY_BE_NULL = ("timestamp", "labels", "instances", "camera_timestamps", "lidar2global")
TEXTS = ("frame_id", "sequence_id")
NAMES = ("camera_names", "image_ids")  # columns with a text for each camera


def check_row(row: Mapping[str, Any], file: str) -> None:
    """Check the columns of a row that are there.

    Raises:
        ValueError: A column has values of another type or of another shape, or is null, or the columns of the cameras
            have different lengths, or an image is the path of a file.
    """
    for name, value in row.items():
        if value is None and name not in MAY_BE_NULL:
            raise ValueError(f"{file}: expected a value as {name!r}, got null. {WAY_OUT}")
    _check_contents(row, file)
    _check_scalars(row, file)
    _check_arrays(row, file)
    per_camera = [*NAMES, "images", *(name for name, (_, shape) in ARRAYS.items() if shape[0] == "K")]
    lengths = {name: len(row[name]) for name in per_camera if row.get(name) is not None}
    if len({*lengths.values()}) > 1:
        raise ValueError(f"{file}: expected as many values as cameras in each column, got {lengths}. {WAY_OUT}")


def _check_scalars(row: Mapping[str, Any], file: str) -> None:
    for name in TEXTS:
        if name in row and not isinstance(row[name], str):
            raise ValueError(f"{file}: expected text as {name!r}, got {row[name]!r:.80}. {WAY_OUT}")
    timestamp, intensity_max = row.get("timestamp"), row.get("intensity_max")
    if timestamp is not None and type(timestamp) is not int:
        raise ValueError(f"{file}: expected microseconds as 'timestamp', got {timestamp!r:.80}. {WAY_OUT}")
    if intensity_max is not None and not (type(intensity_max) in (int, float) and 0 < intensity_max < np.inf):
        raise ValueError(f"{file}: expected a number above 0 as 'intensity_max', got {intensity_max!r:.80}. {WAY_OUT}")


def _check_arrays(row: Mapping[str, Any], file: str) -> None:
    for name, (kinds, shape) in ARRAYS.items():
        if (value := row.get(name)) is None:
            continue
        fits = isinstance(value, np.ndarray) and value.dtype.kind in kinds and value.ndim == len(shape)
        if not fits or any(type(own) is int and own != size for own, size in zip(shape, value.shape, strict=True)):
            found = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else f"{value!r:.80}"
            kind = "numbers" if "f" in kinds else "integers"
            expected = ", ".join("any" if own is None else str(own) for own in shape)
            raise ValueError(f"{file}: expected {name!r} of {kind} and of shape ({expected}), got {found}. {WAY_OUT}")


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
