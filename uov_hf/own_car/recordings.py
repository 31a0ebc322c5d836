"""One sequence of your own car: clouds with their images, labels and poses."""

import logging
import os
import re
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uov_hf.data.raw_folders import encoded_image, instances_of
from uov_hf.geometry.trajectory import Trajectory
from uov_hf.image_files import EncodedImage, decode_image, encode_pixels, read_image_size
from uov_hf.leftovers import data_files
from uov_hf.numpy_files import load_npy
from uov_hf.own_car.calibration import MountedCamera, find_calibration, read_calibration
from uov_hf.own_car.mounted_frames import MountedFrame
from uov_hf.own_car.point_times import TIME_NAMES, read_point_times, times_of_points
from uov_hf.own_car.pose_files import read_poses, read_timestamps
from uov_hf.point_fields import errors_of_library
from uov_hf.point_files import SCAN_SUFFIXES, check_finite, read_points
from uov_hf.vocabulary import load_vocabulary


logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
LABEL_SUFFIXES = (".label", ".npy")


class Recording:
    """A folder with `points` and, optionally, `images`, `labels`, `poses.txt` and `timestamps.csv`.

    A cloud, its images and its labels are the files of the same name, with any suffix.

    Args:
        folder (`Path`): The folder of the sequence, which gives the sequence its name.
        root (`Path`): The folder whose calibration file counts if `folder` has none.

    Raises:
        ValueError: A file is missing or broken, or two files contradict each other; the message names the file.
    """

    def __init__(self, folder: Path, root: Path):
        self.folder, self.name = folder, os.path.basename(os.path.abspath(folder))  # of a link, not of its target
        self.calibration = read_calibration(find_calibration(folder, root))
        self.clouds = _files_by_name(folder / "points", SCAN_SUFFIXES)
        self.labels = _files_by_name(folder / "labels", LABEL_SUFFIXES)
        cameras = [path.name for path in data_files(folder, "images/*") if path.is_dir()]
        self.images = {name: _files_by_name(folder / "images" / name, IMAGE_SUFFIXES) for name in cameras}
        self._check_files()
        self.has_times = (folder / "timestamps.csv").is_file()
        self.times = self._read_times() if self.has_times else self._count_frames()
        self._check_offsets()
        self.frame_names = sorted(self.clouds, key=lambda name: self.times[name]["lidar"])
        self.trajectory = self._read_trajectory(folder / "poses.txt")
        # Frame numbers in place of times relate to no time of a point.
        self.compensates_motion = (
            self.calibration.motion_compensation and self.has_times and self.trajectory is not None
        )
        self.vocabulary = load_vocabulary(self.calibration.taxonomy) if self.calibration.taxonomy else None

    def frames(self) -> list["RecordedFrame"]:
        """The frames in the order of time."""
        return [RecordedFrame(self, name) for name in self.frame_names]

    def _check_files(self) -> None:
        """Images need a calibration, labels a taxonomy, and both the names of clouds."""
        calibration = self.calibration
        if not self.clouds:
            raise ValueError(f"{self.folder / 'points'}: expected clouds ({', '.join(SCAN_SUFFIXES)}), got none.")
        for camera, files in self.images.items():
            folder = self.folder / "images" / camera
            if camera not in calibration.cameras:
                known = ", ".join(calibration.cameras) or "none"
                raise ValueError(f"{folder}: expected one of the cameras in {calibration.path}, which are: {known}.")
            self._check_names(folder, files)
            first = next(iter(files.values()))
            _check_image_size(first, read_image_size(first), calibration.cameras[camera])
        if (self.folder / "labels").is_dir():
            self._check_names(self.folder / "labels", self.labels)
            if calibration.taxonomy is None:
                raise ValueError(
                    f"{calibration.path}: there are labels in {self.folder / 'labels'}, so expected a line "
                    "`taxonomy: …` with the vocabulary of their ids (one of `uov-hf vocabulary`, or your own .yaml)."
                )

    def _check_offsets(self) -> None:
        for camera in self.images:
            offset = self.calibration.cameras[camera].time_offset
            if offset and not self.has_times:
                raise ValueError(
                    f"{self.calibration.path}: camera {camera!r} has `time_offset: {offset}`, but there is no "
                    f"{self.folder / 'timestamps.csv'} with times to add it to. Give one, or leave the offset out."
                )

    def _check_names(self, folder: Path, files: dict[str, Path]) -> None:
        without_cloud = sorted(set(files) - set(self.clouds))
        if not files or without_cloud:
            raise ValueError(
                f"{folder}: expected files with the names of clouds (such as {next(iter(self.clouds))}), got "
                f"{files[without_cloud[0]].name if without_cloud else 'none'}."
            )

    def _count_frames(self) -> dict[str, dict[str, int]]:
        """Frame numbers in the order of the names, in place of times."""
        names = sorted(self.clouds, key=_natural)
        return {name: dict.fromkeys(["lidar", *self.images], number) for number, name in enumerate(names)}

    def _read_times(self) -> dict[str, dict[str, int]]:
        path = self.folder / "timestamps.csv"
        times = read_timestamps(path, list(self.images))
        for sensor, files in {"lidar": self.clouds, **self.images}.items():
            if untimed := [name for name in files if sensor not in times.get(name, {})]:
                raise ValueError(f"{path}: expected a time of {sensor} for frame {untimed[0]!r}, got none.")
        offsets = {camera: self.calibration.cameras[camera].time_offset for camera in self.images} | {"lidar": 0}
        return {
            name: {sensor: time + offsets[sensor] for sensor, time in row.items()}
            for name, row in times.items()
            if name in self.clouds
        }

    def _read_trajectory(self, path: Path) -> Trajectory | None:
        if not path.is_file():
            return None
        times, poses = read_poses(path)
        if times is not None and not self.has_times:
            raise ValueError(f"{path}: poses with times need {self.folder / 'timestamps.csv'}, which is not there.")
        if times is None:
            if len(poses) != len(self.clouds):
                raise ValueError(f"{path}: expected {len(self.clouds)} lines, one for each cloud, got {len(poses)}.")
            times = np.array([self.times[name]["lidar"] for name in self.frame_names])
        return Trajectory(str(path), times, poses)


class RecordedFrame(MountedFrame):
    """A cloud of a recording with the images, labels and times of the same name."""

    def __init__(self, recording: Recording, name: str):
        calibration = recording.calibration
        mounts = {camera: calibration.cameras[camera] for camera, files in recording.images.items() if name in files}
        times = recording.times[name]
        super().__init__(times["lidar"], times, mounts, recording.trajectory, calibration.lidar2body)
        self._recording, self._name = recording, name
        self.scan_file = recording.clouds[name]
        self.label_file, self.vocabulary = recording.labels.get(name), recording.vocabulary
        self.frame_id, self.sequence_id = f"{recording.name}/{name}", recording.name
        self.intensity_max = calibration.intensity_max
        self.image_ids = [f"{recording.name}/{camera}/{name}" for camera in self.camera_names]

    @property
    def timestamp(self) -> int | None:
        return super().timestamp if self._recording.has_times else None

    @property
    def camera_timestamps(self) -> NDArray[np.int64] | None:
        return super().camera_timestamps if self._recording.has_times else None

    @property
    def images(self) -> list[EncodedImage]:
        files = self.files_of("images")
        return [_read_image(path, mount) for path, mount in zip(files, self._mounts.values(), strict=True)]

    def files_of(self, column: str) -> list[Path]:
        if column == "images":
            return [self._recording.images[camera][self._name] for camera in self.camera_names]
        return super().files_of(column)

    @cached_property
    def points(self) -> NDArray[np.float32]:
        """x, y, z and intensity (0 where the file has none), without the car's motion during the scan."""
        points = read_points(self.scan_file, self._recording.calibration.num_columns)
        check_finite(points, self.scan_file)
        points = np.pad(points, ((0, 0), (0, 4 - points.shape[1])))
        if not self._recording.compensates_motion:
            return points
        if (values := read_point_times(self.scan_file, len(points))) is None:
            _warn_of_missing_times(self._recording.folder, self.scan_file.suffix)
            return points
        # Drivers put firings without an echo at x = y = z = 0, with a time of 0 perhaps.
        is_echo = np.isfinite(points[:, :3]).all(axis=1) & points[:, :3].any(axis=1)
        times = times_of_points(values, is_echo, self._time, str(self.scan_file))
        return points if times is None else self.move_to_stamp(points, np.where(is_echo, times, self._time))

    @property
    def labels(self) -> NDArray[np.uint8] | None:
        raw = self.raw_labels
        return self.classes_of(raw & 0xFFFF if raw is not None and self._has_instances else raw)

    @property
    def instances(self) -> NDArray[np.int32] | None:
        raw = self.raw_labels
        return instances_of(raw) if raw is not None and self._has_instances else None

    @property
    def _has_instances(self) -> bool:
        """Whether the labels are SemanticKITTI's words, with the class in the lower 16 bits."""
        return self.label_file is not None and self.label_file.suffix == ".label"

    @cached_property
    def raw_labels(self) -> NDArray[Any] | None:
        if self.label_file is None:
            return None
        raw = _read_raw_labels(self.label_file)
        if raw.shape != (len(self.points),) or raw.dtype.kind not in "iu":
            raise ValueError(
                f"{self.label_file}: expected {len(self.points)} whole numbers, one for each point of "
                f"{self._recording.clouds[self._name].name}, got {raw.dtype} of shape {raw.shape}."
            )
        return raw


@cache  # once for all scans of a recording
def _warn_of_missing_times(folder: Path, suffix: str) -> None:
    logger.warning(
        "%s: the %s scans have no field with a time of every point (%s), so they are not corrected for the car's "
        "motion. If they are corrected already, set `motion_compensation: false` in the calibration file.",
        *(folder, suffix, ", ".join(TIME_NAMES[:3]) + ", …"),
    )


def _files_by_name(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """The files with one of these suffixes, by name without suffix."""
    files: dict[str, Path] = {}
    for path in data_files(folder, "*"):
        if path.suffix.lower() in suffixes and path.is_file():
            name = path.name[: -len(path.suffix)].removesuffix(".pcd")  # of .pcd.bin
            if name in files:
                raise ValueError(f"{path}: expected one file for frame {name!r}, got {files[name].name} too.")
            files[name] = path
    return files


def _natural(name: str) -> list[str | int]:
    """A sort key by which 10 comes after 9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _read_raw_labels(path: Path) -> NDArray[Any]:
    if path.suffix == ".npy":
        return load_npy(path)
    with errors_of_library(path):
        return np.frombuffer(path.read_bytes(), np.uint32)  # raises where bytes are left over


def _read_image(path: Path, mount: MountedCamera) -> EncodedImage:
    if mount.lens is None:
        _check_image_size(path, read_image_size(path), mount)
        return encoded_image(path, "an image")
    pixels = np.asarray(decode_image({"path": str(path), "bytes": None}))
    _check_image_size(path, pixels.shape[:2], mount)
    kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
    return {"bytes": encode_pixels(mount.lens.straighten(pixels), kind), "path": str(path)}


def _check_image_size(path: Path, size: tuple[int, ...], mount: MountedCamera) -> None:
    if size != mount.camera.image_size:
        raise ValueError(f"{path}: calibrated for (height, width) {mount.camera.image_size}, the image has {size}.")
