"""Argoverse 2's sensor logs: sweeps of two lidars and seven ring cameras, from the official layout.

The boxes of `annotations.feather` are not read: Argoverse 2 has no labels of points.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from uov_hf.data.frames import EncodedImage, FrameBuilder, disjoint_splits
from uov_hf.data.raw_folders import RawFrames, encoded_image, splits_in
from uov_hf.datasets.feather_tables import read_columns
from uov_hf.geometry.rotation import inverse_motion, rigid_motion
from uov_hf.geometry.trajectory import Trajectory
from uov_hf.own_car.calibration import MountedCamera, Optics
from uov_hf.own_car.mounted_frames import MountedFrame


LIDAR = "up_lidar"  # the frame of the points; files have both lidars in the vehicle's frame
CAMERAS = tuple(
    f"ring_{name}"
    for name in ("front_center", "front_right", "side_right", "rear_right", "rear_left", "side_left", "front_left")
)
SPLITS = ("train", "val", "test")
FARTHEST = 50_000  # microseconds between a sweep (10 Hz) and its image (20 Hz)
OPTICS = ("fx_px", "fy_px", "cx_px", "cy_px", "height_px", "width_px")
POSE = ("qx", "qy", "qz", "qw", "tx_m", "ty_m", "tz_m")


class Argoverse2(FrameBuilder):
    """`Argoverse2(data_dir=root).as_frames("train")`; the root contains `train`, `val` or `test`, or logs themselves.

    Splits: the official ones by folder, and `all`.
    """

    pretty_name = "Argoverse 2 Sensor"
    licence = "CC BY-NC-SA 4.0 with the Argoverse terms of use (https://www.argoverse.org/about.html#terms-of-use)."
    may_be_published = False
    settings_patterns = tuple(
        folder + name
        for folder in ("", "*/", "*/*/")
        for name in ("calibration/*.feather", "city_SE3_egovehicle.feather")
    )

    def open(self) -> RawFrames:
        frames = [Sweep(log, file) for log in map(Log, self._folders()) for file in log.sweeps]
        return RawFrames(frames, None)

    def _folders(self) -> list[Path]:
        root = Path(self.config.data_dir)
        found = [root, *root.glob("*"), *root.glob("*/*")]
        folders = sorted(folder for folder in found if (folder / "sensors" / "lidar").is_dir())
        if not folders:
            raise ValueError(
                f"{root}: expected logs (train/<log>/sensors/lidar/<time>.feather, …), got none; `data_dir` is the "
                "folder that contains `train`."
            )
        return folders

    def default_splits(self) -> tuple[str, ...]:
        return disjoint_splits(self.split_members())

    def split_members(self) -> dict[str, list[str]]:
        by_split = {split: [log.name for log in self._folders() if log.parent.name == split] for split in SPLITS}
        return splits_in(self.source, by_split)


class Log:
    """A log: its sweeps, its images by time, its calibration and its poses."""

    def __init__(self, folder: Path):
        self.folder, self.name = folder, folder.name
        self.sweeps = _files_by_time(folder / "sensors" / "lidar", "feather")
        places = folder / "calibration" / "egovehicle_SE3_sensor.feather"
        names, motions = _poses(places, "sensor_name", pa.string())
        self.mounts = dict(zip(names, motions, strict=True))
        if LIDAR not in self.mounts:
            raise ValueError(f"{places}: expected the sensor {LIDAR}, got {', '.join(names)}.")
        optics = folder / "calibration" / "intrinsics.feather"
        names, rows = read_columns(optics, "sensor_name", pa.string(), OPTICS)
        self.cameras = {
            name: self._mount(name, row, optics) for name, row in zip(names, rows, strict=True) if name in CAMERAS
        }
        images = {name: _files_by_time(folder / "sensors" / "cameras" / name, "jpg") for name in CAMERAS}
        self.images = {name: files for name, files in images.items() if files and name in self.cameras}
        path = folder / "city_SE3_egovehicle.feather"
        times, poses = _poses(path, "timestamp_ns", pa.int64())
        micros, first = np.unique(_to_micros(times), return_index=True)
        self.trajectory = Trajectory(str(path), micros, poses[first])

    def _mount(self, name: str, row: NDArray[np.float64], path: Path) -> MountedCamera:
        """The official API uses no distortion either: k1 to k3 are not read."""
        focal_x, focal_y, center_x, center_y, height, width = row.tolist()
        if name not in self.mounts:
            raise ValueError(f"{path}: expected cameras with a pose in egovehicle_SE3_sensor.feather, got {name}.")
        if not (0 < height < 2**31 and 0 < width < 2**31):
            raise ValueError(f"{path}: expected a number of pixels, got {height} x {width} for {name}.")
        intrinsics = np.array([[focal_x, 0, center_x], [0, focal_y, center_y], [0, 0, 1]])
        lidar2cam = inverse_motion(self.mounts[name]) @ self.mounts[LIDAR]
        try:
            return Optics(intrinsics, (int(height), int(width)), None).mount(lidar2cam)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


class Sweep(MountedFrame):
    """A sweep of both lidars, with the images nearest in time."""

    intensity_max = 255.0

    def __init__(self, log: Log, file: Path):
        self.scan_file, self._log = file, log
        (time,) = _microseconds([file]).tolist()
        times: dict[str, int] = {}
        self._files: dict[str, Path] = {}
        for name, images in log.images.items():
            of_camera = _microseconds(images)
            place = int(np.abs(of_camera - time).argmin())
            if abs(of_camera[place] - time) <= FARTHEST:
                times[name], self._files[name] = int(of_camera[place]), images[place]
        mounts = {name: log.cameras[name] for name in self._files}
        super().__init__(time, times, mounts, log.trajectory, log.mounts[LIDAR])
        self.sequence_id, self.frame_id = log.name, f"{log.name}/{file.stem}"
        self.image_ids = [f"{log.name}/{name}/{image.stem}" for name, image in self._files.items()]

    @property
    def points(self) -> NDArray[np.float32]:
        """In the frame of the upper lidar. Sweeps are corrected for the vehicle's motion already."""
        _, points = read_columns(self.scan_file, None, None, ("x", "y", "z", "intensity"))
        to_lidar = inverse_motion(self._log.mounts[LIDAR])
        points[:, :3] = points[:, :3] @ to_lidar[:3, :3].T + to_lidar[:3, 3]
        return points.astype(np.float32)

    @property
    def images(self) -> list[EncodedImage]:
        return [encoded_image(file, f"the {name} image of {self.frame_id}") for name, file in self._files.items()]


def _files_by_time(folder: Path, suffix: str) -> list[Path]:
    """The files of a sensor, whose names are nanoseconds."""
    return sorted(folder.glob(f"[0-9]*.{suffix}"), key=lambda file: int(file.stem))


def _microseconds(files: list[Path]) -> NDArray[np.int64]:
    return _to_micros([int(file.stem) for file in files])


def _to_micros(nanoseconds: list[int]) -> NDArray[np.int64]:
    return (np.array(nanoseconds, np.int64) + 500) // 1000


def _poses(path: Path, key: str, key_type: pa.DataType) -> tuple[list[Any], NDArray[np.float64]]:
    """A column of a table, and the motions (num_rows, 4, 4) of its rows."""
    keys, values = read_columns(path, key, key_type, POSE)
    lengths = np.linalg.norm(values[:, :4].clip(-2, 2), axis=1)  # clipped, as large numbers overflow
    wrong = np.flatnonzero(~(np.isfinite(values).all(axis=1) & (abs(lengths - 1) < 0.01)))
    if len(wrong):
        raise ValueError(
            f"{path}: expected finite poses with quaternions of length 1, got {values[wrong[0]].tolist()} in row "
            f"{wrong[0]} ({', '.join(POSE)})."
        )
    return keys, rigid_motion(Rotation.from_quat(values[:, :4]).as_matrix(), values[:, 4:])
