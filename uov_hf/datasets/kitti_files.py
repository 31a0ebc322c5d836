"""The files of KITTI beside scans and images: labels, calibration, poses, times; and what a projection matrix says."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def read_calibration(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """
    The matrices of a calibration file, by name, float64 of shape `(3, 4)` or, where a line has nine numbers, `(3, 3)`.

    Raises:
        ValueError: where the file, or a line of these names, is missing or not such a matrix; it names the file.
    """
    lines = (line.partition(":") for line in _read_text(path).splitlines())
    numbers = {name.strip(): values.split() for name, _, values in lines}
    if absent := [name for name in names if len(numbers.get(name, ())) not in (9, 12)]:
        raise ValueError(
            f"{path}: expected lines of a name and 9 or 12 numbers for {', '.join(names)}, got none for "
            f"{', '.join(absent)}."
        )
    return {name: _floats(path, numbers[name]).reshape(3, -1) for name in names}


def split_projection(projection: np.ndarray, lidar2rectified: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    `lidar2cam` (4, 4) and `intrinsics` (3, 3) of one of KITTI's rectified cameras.

    Args:
        projection (`np.ndarray` of shape `(3, 4)`):
            K [I | t]: from the rectified frame of the left grey camera to pixels; t is where this camera sits.
        lidar2rectified (`np.ndarray` of shape `(4, 4)`):
            From the lidar to the frame of the left grey camera, rectified; metres.
    """
    intrinsics, rectified2cam = projection[:, :3], np.eye(4)
    rectified2cam[:3, 3] = np.linalg.solve(intrinsics, projection[:, 3])
    return rectified2cam @ lidar2rectified, intrinsics


def read_table(path: Path, num_columns: int) -> np.ndarray:
    """Lines of numbers, float64 of shape `(num_lines, num_columns)`; an error names the file."""
    rows = [line.split() for line in _read_text(path).splitlines()]
    if wrong := [number for number, row in enumerate(rows, 1) if len(row) != num_columns]:
        raise ValueError(
            f"{path}: expected {num_columns} numbers in every line, got another count in line {wrong[0]}."
        )
    return _floats(path, rows).reshape(-1, num_columns)


def read_image_size(path: str | Path) -> tuple[int, int]:
    """Height and width, from the head of an image file; an error names the file."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except OSError as error:
        raise ValueError(f"{path}: expected an image file, got: {error}") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: expected a text file of KITTI, got: {error}") from error


def _floats(path: Path, words: Sequence) -> np.ndarray:
    try:
        return np.array(words, np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: expected numbers, got: {error}") from error


def is_synthetic(root: Path) -> bool:
    """
    Whether all sequences of a root are those that the generator of the synthetic street says it wrote.

    Raises:
        ValueError: what it says cannot be read; it names the file.
    """
    path = root / "synthetic" / "street.json"
    if not path.is_file():
        return False
    try:
        written = set(json.loads(path.read_text(encoding="utf-8"))["sequences"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path}: expected {{"sequences": [names]}}, got: {error!r}') from error
    return {folder.name for folder in root.glob("sequences/*")} <= written
