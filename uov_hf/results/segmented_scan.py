"""A scan with its result, and the same scan as a table of named fields."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uov_hf.array_checks import check_array, check_ids
from uov_hf.configuration_uov import IGNORED
from uov_hf.point_files import PointCloud


@dataclass(frozen=True)
class SegmentedScan:
    """A scan, its labels, and the folder of the results.

    Args:
        scan (`Path`): The file.
        folder (`Path`): Contains `classes.json`, the pictures, and `labels.npy` and `scores.npy`.
        points (`np.ndarray` of shape `(num_points, 3 or 4)`, float32):
            x, y, z in metres from `origin`, then the intensity as in the file.
        origin (`np.ndarray` of shape `(3,)`, float64): In the coordinates of the file; zero for a scan of a sensor.
        labels (`np.ndarray` of shape `(num_points,)`, uint8): Indices into `class_names`, or 255.
        scores (`np.ndarray` of shape `(num_points,)`, float32): Probability of the label.
        class_names (`list[str]`): The candidates, or the classes of the checkpoint.
        files (`tuple[Path, ...]`): The result in other formats than `"npy"`.

    Raises:
        ValueError: The arrays do not fit, or a label is no class.
    """

    scan: Path
    folder: Path
    points: np.ndarray
    origin: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    class_names: list[str]
    files: tuple[Path, ...] = ()

    def __post_init__(self):
        check_array("points", self.points, ("num_points", "3 or more"), "f")
        check_array("origin", self.origin, (3,))
        check_array("scores", self.scores, (len(self.points),), "f")
        if len(self.class_names) > IGNORED:
            raise ValueError(f"`class_names` must be at most {IGNORED}, got {len(self.class_names)}.")
        check_ids("labels", self.labels, len(self.points), len(self.class_names), IGNORED)

    @property
    def cloud(self) -> PointCloud:
        return PointCloud(self.points, self.origin)

    def points_per_class(self) -> dict[str, int]:
        counts = np.bincount(self.labels, minlength=IGNORED + 1)
        return {name: int(count) for name, count in zip(self.class_names, counts, strict=False)}

    def to_fields(self) -> np.ndarray:
        """Structured array of x, y, z in the coordinates of the file, and intensity; float64 in map coordinates."""
        is_map = bool(self.origin.any())
        names = ("x", "y", "z", "intensity")[: self.points.shape[1]]
        fields = np.empty(len(self.points), [(name, "<f8" if is_map and name in "xyz" else "<f4") for name in names])
        for column, name in enumerate(names):
            fields[name] = self.points[:, column] + (self.origin[column] if is_map and column < 3 else 0)
        return fields


def name_new_fields(taken: list[str]) -> tuple[str, str]:
    """Names of the class and the score that a file does not have yet: every original field is kept."""
    taken, prefix = [name.lower() for name in taken], ""
    while {f"{prefix}class", f"{prefix}score"} & set(taken):
        prefix += "predicted_"
    return f"{prefix}class", f"{prefix}score"
