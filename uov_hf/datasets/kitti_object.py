"""KITTI's 3D object benchmark: single scans with the left colour camera, without a label on points.

`python dataset_scripts/kitti_object.py --data_dir data/kitti_object --output_dir data/kitti-parquet` writes Parquet.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uov_hf.data.frames import FrameBuilder
from uov_hf.datasets.kitti_files import read_calibration, read_image_size, split_projection
from uov_hf.point_files import check_finite, read_points


SPLITS = ("training", "testing")
CAMERA, PROJECTION = "image_2", "P2"


class KittiObject(FrameBuilder):
    """
    `KittiObject(data_dir=root).as_frames("training")`; the root is the folder that holds `training`.

    Splits: `training` and `testing`, as far as they are here, and `all`.
    """

    licence = "CC BY-NC-SA 3.0 (https://www.cvlibs.net/datasets/kitti)."
    may_be_published = False

    def open(self) -> "Scans":
        return Scans(Path(self.config.data_dir))

    def default_splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if split in self.split_sequences())

    def split_sequences(self) -> dict[str, list[str]]:
        sequences = list(dict.fromkeys(self.source.sequence_ids))
        splits = {split: [name for name in sequences if name.startswith(split)] for split in SPLITS}
        return {split: members for split, members in splits.items() if members} | {"all": sequences}


class Scans:
    """
    The scans of a root, as a `FrameSource`.

    They were drawn from many drives, and nothing says when or where: there is no pose, and the time is 0. A hundred
    of them, by number, make up a sequence, so that a file of a label set or of Parquet has a fair size.

    Raises:
        ValueError: where a file is missing, cut short, or no such file; it names the file.
    """

    taxonomy = None
    fraction_of = "frames"

    def __init__(self, root: Path):
        self._files = [file for split in SPLITS for file in sorted((root / split / "velodyne").glob("*.bin"))]
        if not self._files:
            raise ValueError(
                f"{root}: expected scans (training/velodyne/000000.bin, …), got none; `data_dir` is the folder that "
                "holds `training`."
            )
        self.frame_ids = [f"{file.parents[1].name}/{file.stem}" for file in self._files]
        self.sequence_ids = [frame_id[:-2] + "00" for frame_id in self.frame_ids]

    def read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        frame_id, file = self.frame_ids[index], self._files[index]
        frame: dict[str, Any] = {
            "frame_id": frame_id,
            "sequence_id": self.sequence_ids[index],
            "timestamp": 0,
            "intensity_max": 1.0,
            "labels": None,
            "instances": None,
            "camera_names": [CAMERA],
            "image_ids": [frame_id],
            "camera_timestamps": np.zeros(1, np.int64),
            "lidar2global": None,
        }
        if "points" in columns:
            frame["points"] = read_points(file, num_columns=4)
            check_finite(frame["points"], file)
        if "images" in columns or "image_sizes" in columns:
            image = _beside(file, CAMERA, "png")
            frame["images"] = [{"bytes": None, "path": str(image)}]
            frame["image_sizes"] = np.array([read_image_size(image)], np.int32)
        if "lidar2cam" in columns or "intrinsics" in columns:
            lidar2cam, intrinsics = _camera_geometry(_beside(file, "calib", "txt"))
            frame |= {"lidar2cam": lidar2cam[None], "intrinsics": intrinsics[None]}
        return {column: frame[column] for column in columns}


def _camera_geometry(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """`lidar2cam` (4, 4) and `intrinsics` (3, 3): lidar → grey camera → its rectified frame → the colour camera."""
    matrices = read_calibration(path, (PROJECTION, "R0_rect", "Tr_velo_to_cam"))
    lidar2rectified = np.eye(4)
    lidar2rectified[:3] = matrices["R0_rect"] @ matrices["Tr_velo_to_cam"]
    return split_projection(matrices[PROJECTION], lidar2rectified)


def _beside(file: Path, folder: str, extension: str) -> Path:
    path = file.parents[1] / folder / f"{file.stem}.{extension}"
    if not path.is_file():
        raise ValueError(f"{path}: expected the file of scan {file.stem}, got none.")
    return path
