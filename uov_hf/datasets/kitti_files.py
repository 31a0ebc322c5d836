"""The text files of KITTI (calibration, poses, times), and the two parts of a projection matrix."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uov_hf.geometry.rotation import rigid_motion


def read_calibration(path: Path, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """The matrices of a calibration file by name. A rotation (`R0_rect`) is `(3, 3)`, the other matrices are `(3, 4)`.

    Raises:
        ValueError: The file is missing, or has no such matrix of one of the `names`, or one without an inverse.
    """
    lines = (line.partition(":") for line in _read_text(path).splitlines())
    numbers = {name.strip(): values.split() for name, _, values in lines}
    if absent := [name for name in names if len(numbers.get(name, ())) != (9 if name.startswith("R") else 12)]:
        raise ValueError(
            f"{path}: expected lines of a name and 12 numbers (R0_rect: 9) for {', '.join(names)}, got none for "
            f"{', '.join(absent)}."
        )
    matrices = {name: _floats(path, numbers[name]).reshape(3, -1) for name in names}
    if flat := [name for name, matrix in matrices.items() if not np.linalg.det(matrix[:, :3])]:
        raise ValueError(f"{path}: expected matrices with an inverse, got {matrices[flat[0]].tolist()} for {flat[0]}.")
    return matrices


def split_projection(
    projection: NDArray[np.float64], lidar2rectified: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`lidar2cam` (4, 4) and `intrinsics` (3, 3) of one of KITTI's rectified cameras.

    Args:
        projection (`np.ndarray` of shape `(3, 4)`):
            K [I | t]: from the rectified frame of the left grey camera to pixels; t is this camera's offset.
        lidar2rectified (`np.ndarray` of shape `(4, 4)`):
            From the lidar to the frame of the left grey camera, rectified; metres.
    """
    intrinsics = projection[:, :3]
    return rigid_motion(np.eye(3), np.linalg.solve(intrinsics, projection[:, 3])) @ lidar2rectified, intrinsics


def read_table(path: Path, num_columns: int) -> NDArray[np.float64]:
    """Lines of numbers, `(num_lines, num_columns)`; a `ValueError` names the file that is anything else."""
    rows = [line.split() for line in _read_text(path).splitlines()]
    if wrong := [number for number, row in enumerate(rows, 1) if len(row) != num_columns]:
        raise ValueError(
            f"{path}: expected {num_columns} numbers in every line, got another count in line {wrong[0]}."
        )
    return _floats(path, rows).reshape(-1, num_columns)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a text file of KITTI, got: {error}") from error


def _floats(path: Path, words: Sequence[str] | Sequence[list[str]]) -> NDArray[np.float64]:
    try:
        numbers = np.array(words, np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: expected numbers, got: {error}") from error
    if not np.isfinite(numbers).all():
        raise ValueError(f"{path}: expected finite numbers, got NaN or infinity.")
    return numbers
