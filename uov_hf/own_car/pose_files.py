"""The car's poses and the times of its sensors: `poses.txt` and `timestamps.csv`."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from uov_hf.geometry.rotation import is_rigid, rigid_motion
from uov_hf.text_points import decode_text, find_separator


KITTI_COLUMNS, TUM_COLUMNS = 12, 8


def read_poses(path: Path) -> tuple[NDArray[np.int64] | None, NDArray[np.float64]]:
    """Times in microseconds (None where the file has none) and poses (num_poses, 4, 4) of a text file.

    A line is 12 numbers (KITTI: the first three rows of the pose) or 8 (TUM: seconds, x, y, z, and the quaternion
    x, y, z, w).

    Raises:
        ValueError: The file has neither form, a pose is no rigid motion, or times do not rise.
    """
    lines = [line for line in decode_text(path.read_bytes()).splitlines() if line.strip() and line[0] != "#"]
    separator = find_separator(lines[0]) if lines else None
    if separator != ",":
        lines = [line.replace(",", ".") for line in lines]  # decimal commas
    try:
        table = np.array([line.split(separator) for line in lines], np.float64)
    except ValueError:
        table = np.empty(0)
    if table.ndim != 2 or table.shape[1] not in (KITTI_COLUMNS, TUM_COLUMNS) or not np.isfinite(table).all():
        raise ValueError(
            f"{path}: expected lines of {KITTI_COLUMNS} numbers (KITTI), or of {TUM_COLUMNS} (TUM: seconds x y z qx "
            "qy qz qw), got others."
        )
    if table.shape[1] == KITTI_COLUMNS:
        upper = table.reshape(-1, 3, 4)
        poses = rigid_motion(upper[..., :3], upper[..., 3])
        if wrong := [number for number, pose in enumerate(poses, 1) if not is_rigid(pose)]:
            raise ValueError(
                f"{path}: expected poses that rotate and translate only, got {upper[wrong[0] - 1].tolist()} as pose "
                f"{wrong[0]}."
            )
        return None, poses
    if not np.linalg.norm(table[:, 4:], axis=1).all():
        raise ValueError(f"{path}: expected quaternions qx qy qz qw of a length above 0, got 0 0 0 0.")
    poses = rigid_motion(Rotation.from_quat(table[:, 4:]).as_matrix(), table[:, 1:4])
    times = np.rint(table[:, 0] * 1e6).astype(np.int64)
    if (np.diff(times) <= 0).any():
        raise ValueError(f"{path}: expected times that rise from line to line.")
    return times, poses


def read_timestamps(path: Path, cameras: list[str]) -> dict[str, dict[str, int]]:
    """Microseconds of every frame, by `lidar` and by camera: `{"000000": {"lidar": …, "front": …}, …}`.

    The file is a CSV table with the columns `frame`, `lidar` and one for each camera. A cell is empty if the
    frame has no such image. Commas, semicolons or tabs separate the cells.

    Raises:
        ValueError: A column is missing, a frame or a time of the lidar occurs twice, or a time is no whole number.
    """
    reader = _open_table(path)
    columns = ["lidar", *cameras]
    if absent := [name for name in ("frame", *columns) if name not in (reader.fieldnames or [])]:
        raise ValueError(f"{path}: expected the columns frame, {', '.join(columns)}, got none named {absent[0]!r}.")
    times: dict[str, dict[str, int]] = {}
    frames_by_time: dict[int | str, str] = {}
    for row in reader:
        if not any(row.values()):
            continue  # spreadsheets save rows of empty cells
        place = f"{path}, line {reader.line_num}"
        if row["frame"] in times:
            raise ValueError(f"{place}: frame {row['frame']!r} occurs twice.")
        try:
            times[row["frame"]] = {name: int(row[name]) for name in columns if row[name]}
        except ValueError as error:
            raise ValueError(f"{place}: expected whole microseconds, got {error}.") from error
        earlier = frames_by_time.setdefault(times[row["frame"]].get("lidar", row["frame"]), row["frame"])
        if earlier != row["frame"]:
            raise ValueError(f"{place}: expected another lidar time than that of frame {earlier!r}.")
    return times


def _open_table(path: Path) -> "csv.DictReader[str]":
    """A table as spreadsheets save it: Excel separates by semicolons where numbers have decimal commas."""
    lines = decode_text(path.read_bytes()).splitlines()
    separator = next((mark for mark in (";", "\t") if lines and mark in lines[0]), ",")
    return csv.DictReader(lines, delimiter=separator, skipinitialspace=True)
