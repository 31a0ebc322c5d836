"""KITTI's 3D object benchmark: single scans with the left colour camera, without labels on points."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uov_hf.data.frames import EncodedImage, FrameBuilder
from uov_hf.data.raw_folders import RawFrame, RawFrames, encoded_image, splits_in
from uov_hf.datasets.kitti_files import read_calibration, split_projection
from uov_hf.geometry.rotation import rigid_motion
from uov_hf.image_files import read_image_size
from uov_hf.leftovers import data_files


SPLITS = ("training", "testing")
CAMERA, PROJECTION = "image_2", "P2"


class KittiObject(FrameBuilder):
    """`KittiObject(data_dir=root).as_frames("training")`; the root is the folder that contains `training`.

    Splits: `training` and `testing`, if they are present, and `all`.
    """

    pretty_name = "KITTI 3D object detection"
    licence = "CC BY-NC-SA 3.0 (https://www.cvlibs.net/datasets/kitti)."
    may_be_published = False
    settings_patterns = ("*/calib/*.txt",)

    def open(self) -> RawFrames:
        root = Path(self.config.data_dir)
        files = [file for split in SPLITS for file in data_files(root / split / "velodyne", "*.bin")]
        if not files:
            raise ValueError(
                f"{root}: expected scans (training/velodyne/000000.bin, …), got none; `data_dir` is the folder that "
                "contains `training`."
            )
        return RawFrames([Scan(file) for file in files], taxonomy=None, fraction_of="frames")

    def default_splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if split in self.split_members())

    def split_members(self) -> dict[str, list[str]]:
        sequences = self.source.sequence_ids
        return splits_in(self.source, {split: [s for s in sequences if s.startswith(split)] for split in SPLITS})


class Scan(RawFrame):
    """A scan with its image and its calibration.

    The scans come from many drives, without times or poses. A hundred of them, by number, form a sequence, so that a
    shard of a label set or of Parquet has a reasonable size.
    """

    timestamp = 0
    intensity_max = 1.0
    lidar2global = None

    def __init__(self, file: Path):
        self.scan_file = file
        self.frame_id = f"{file.parents[1].name}/{file.stem}"
        self.sequence_id = self.frame_id[:-2] + "00"
        self.camera_names, self.image_ids, self.camera_timestamps = [CAMERA], [self.frame_id], np.zeros(1, np.int64)

    @property
    def images(self) -> list[EncodedImage]:
        return [encoded_image(self._beside(CAMERA, "png"), f"the image of scan {self.frame_id}")]

    @property
    def image_sizes(self) -> NDArray[np.int32]:
        return np.array([read_image_size(self._beside(CAMERA, "png"))], np.int32)

    @property
    def lidar2cam(self) -> NDArray[np.float64]:
        return self._camera_geometry()[0][None]

    @property
    def intrinsics(self) -> NDArray[np.float64]:
        return self._camera_geometry()[1][None]

    def _camera_geometry(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lidar → grey camera → its rectified frame → the colour camera."""
        matrices = read_calibration(self._beside("calib", "txt"), (PROJECTION, "R0_rect", "Tr_velo_to_cam"))
        lidar2rectified = matrices["R0_rect"] @ matrices["Tr_velo_to_cam"]
        return split_projection(matrices[PROJECTION], rigid_motion(lidar2rectified[:, :3], lidar2rectified[:, 3]))

    def _beside(self, folder: str, extension: str) -> Path:
        return self.scan_file.parents[1] / folder / f"{self.scan_file.stem}.{extension}"
