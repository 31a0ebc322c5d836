"""One sequence of your own car: clouds with the images, labels and poses that go with them."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uov_hf.data.label_words import instances_of
from uov_hf.own_car.calibration import MountedCamera, find_calibration, read_calibration
from uov_hf.own_car.trajectory import Trajectory, read_poses, read_timestamps
from uov_hf.point_files import READERS, check_finite, read_points
from uov_hf.vocabulary import load_vocabulary


IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
LABEL_SUFFIXES = (".label", ".npy")


class Recording:
    """
    A folder with `points` and, where there are any, `images`, `labels`, `poses.txt` and `timestamps.csv`.

    A cloud, its images and its labels are the files of the same name, whatever their suffix.

    Args:
        folder (`Path`): The folder of the sequence; its name is the sequence's.
        root (`Path`): The folder whose calibration file counts where `folder` has none.

    Raises:
        ValueError: something is missing, broken, or does not fit together; the message names the file.
    """

    def __init__(self, folder: Path, root: Path):
        self.folder, self.name = folder, os.path.basename(os.path.abspath(folder))  # not what it links to
        self.calibration = read_calibration(find_calibration(folder, root))
        self._clouds = _files_by_name(folder / "points", tuple(READERS))
        self._labels = _files_by_name(folder / "labels", LABEL_SUFFIXES)
        cameras = sorted(path.name for path in folder.glob("images/*") if path.is_dir())
        self._images = {name: _files_by_name(folder / "images" / name, IMAGE_SUFFIXES) for name in cameras}
        self._check_files()
        self._has_times = (folder / "timestamps.csv").is_file()
        self._times = self._read_times() if self._has_times else self._count_frames()
        self._check_offsets()
        self.frame_names = sorted(self._clouds, key=lambda name: self._times[name]["lidar"])
        self._trajectory = self._read_trajectory(folder / "poses.txt")
        self._vocabulary = load_vocabulary(self.calibration.taxonomy) if self._labels else None

    def read(self, name: str, columns: Sequence[str]) -> dict[str, Any]:
        """The columns of `FRAME_FEATURES` that are asked for, of the frame of this name."""
        cameras = {camera: self.calibration.cameras[camera] for camera, files in self._images.items() if name in files}
        frame = {
            "frame_id": f"{self.name}/{name}",
            "sequence_id": self.name,
            "timestamp": self._times[name]["lidar"] if self._has_times else None,
            "intensity_max": self.calibration.intensity_max,
            "camera_names": list(cameras),
            "image_ids": [f"{self.name}/{camera}/{name}" for camera in cameras],
            "camera_timestamps": self._camera_times(name, cameras) if self._has_times else None,
            "image_sizes": np.array([mount.camera.image_size for mount in cameras.values()], np.int32).reshape(-1, 2),
            "intrinsics": np.array([mount.camera.intrinsics for mount in cameras.values()]).reshape(-1, 3, 3),
            "lidar2global": None,
        }
        if self._trajectory and "lidar2global" in columns:
            frame["lidar2global"] = self._lidar2global(name, "lidar")
        if "lidar2cam" in columns:
            frame["lidar2cam"] = np.array([self._lidar2cam(name, camera) for camera in cameras]).reshape(-1, 4, 4)
        if {"points", "labels", "instances"} & set(columns):
            frame["points"] = self._read_points(name)
            frame["labels"], frame["instances"] = self._read_labels(name, len(frame["points"]))
        if "images" in columns:
            frame["images"] = [_read_image(self._images[camera][name], mount) for camera, mount in cameras.items()]
        return {column: frame[column] for column in columns}

    def _camera_times(self, name: str, cameras: Sequence[str]) -> np.ndarray:
        return np.array([self._times[name][camera] for camera in cameras], np.int64)

    def _lidar2cam(self, name: str, camera: str) -> np.ndarray:
        """Lidar → world → lidar at the time of the image → camera, composed once, in float64."""
        lidar2cam = self.calibration.cameras[camera].camera.lidar2cam
        if self._trajectory is None:
            return lidar2cam
        return lidar2cam @ np.linalg.inv(self._lidar2global(name, camera)) @ self._lidar2global(name, "lidar")

    def _lidar2global(self, name: str, sensor: str) -> np.ndarray:
        """Where the lidar was when the sensor fired."""
        return self._trajectory.at(self._times[name][sensor]) @ self.calibration.lidar2body

    def _read_points(self, name: str) -> np.ndarray:
        """x, y, z and intensity, which is 0 where the file has none."""
        path = self._clouds[name]
        try:
            points = read_points(path, self.calibration.num_columns)
        except ImportError:
            raise
        except Exception as error:  # libraries have many ways to say that a file is broken, most without its name
            raise ValueError(f"{path}: expected a whole cloud, got: {error}") from error
        check_finite(points, path)
        return np.pad(points, ((0, 0), (0, 4 - points.shape[1])))

    def _read_labels(self, name: str, num_points: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Training ids, and instances where the file has them."""
        if name not in self._labels:
            return None, None
        path, instances = self._labels[name], None
        raw = _read_raw_labels(path)
        if raw.shape != (num_points,) or raw.dtype.kind not in "iu":
            raise ValueError(
                f"{path}: expected {num_points} whole numbers, one for each point of {self._clouds[name].name}, got "
                f"{raw.dtype} of shape {raw.shape}."
            )
        if path.suffix == ".label":  # as SemanticKITTI's: the class in the low 16 bits
            raw, instances = raw & 0xFFFF, instances_of(raw)
        try:
            return self._vocabulary.classes_of(raw), instances
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def _check_files(self) -> None:
        """That images have a calibration, labels a taxonomy, and that both are named as the clouds are."""
        calibration = self.calibration
        if not self._clouds:
            raise ValueError(f"{self.folder / 'points'}: expected clouds ({', '.join(READERS)}), got none.")
        for camera, files in self._images.items():
            folder = self.folder / "images" / camera
            if camera not in calibration.cameras:
                known = ", ".join(calibration.cameras) or "none"
                raise ValueError(f"{folder}: expected one of the cameras in {calibration.path}, which are: {known}.")
            self._check_names(folder, files)
            _check_image_size(next(iter(files.values())), calibration.cameras[camera])
        if (self.folder / "labels").is_dir():
            self._check_names(self.folder / "labels", self._labels)
            if calibration.taxonomy is None:
                raise ValueError(
                    f"{calibration.path}: there are labels in {self.folder / 'labels'}, so expected a line "
                    "`taxonomy: …` with the vocabulary of their ids (one of `uov-hf vocabulary`, or your own .yaml)."
                )

    def _check_offsets(self) -> None:
        """That a time offset has a time to be added to."""
        if self._has_times:
            return
        for camera in self._images:
            if offset := self.calibration.cameras[camera].time_offset:
                raise ValueError(
                    f"{self.calibration.path}: camera {camera!r} has `time_offset: {offset}`, but there is no "
                    f"{self.folder / 'timestamps.csv'} with times to add it to. Give one, or leave the offset out."
                )

    def _check_names(self, folder: Path, files: dict[str, Path]) -> None:
        strangers = sorted(set(files) - set(self._clouds))
        if not files or strangers:
            raise ValueError(
                f"{folder}: expected files named as the clouds are (such as {next(iter(self._clouds))}), got "
                f"{files[strangers[0]].name if strangers else 'none'}."
            )

    def _count_frames(self) -> dict[str, dict[str, int]]:
        """The numbers of the frames, in the order of their names, stand in for times where there are none."""
        names = sorted(self._clouds, key=_natural)
        return {name: dict.fromkeys(["lidar", *self._images], number) for number, name in enumerate(names)}

    def _read_times(self) -> dict[str, dict[str, int]]:
        path = self.folder / "timestamps.csv"
        times = read_timestamps(path, list(self._images))
        for sensor, files in {"lidar": self._clouds, **self._images}.items():
            if untimed := [name for name in files if sensor not in times.get(name, {})]:
                raise ValueError(f"{path}: expected a time of {sensor} for frame {untimed[0]!r}, got none.")
        offsets = {camera: self.calibration.cameras[camera].time_offset for camera in self._images} | {"lidar": 0}
        return {
            name: {sensor: time + offsets[sensor] for sensor, time in row.items()}
            for name, row in times.items()
            if name in self._clouds
        }

    def _read_trajectory(self, path: Path) -> Trajectory | None:
        if not path.is_file():
            return None
        times, poses = read_poses(path)
        if times is not None and not self._has_times:
            raise ValueError(f"{path}: poses with times need {self.folder / 'timestamps.csv'}, which is not there.")
        if times is None:
            if len(poses) != len(self._clouds):
                raise ValueError(f"{path}: expected {len(self._clouds)} lines, one for each cloud, got {len(poses)}.")
            times = np.array([self._times[name]["lidar"] for name in self.frame_names])
        return Trajectory(path, times, poses)


def _files_by_name(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """The files with one of these suffixes, by their name without it."""
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix.lower() in suffixes:
            name = path.name[: -len(path.suffix)].removesuffix(".pcd")  # of .pcd.bin
            if name in files:
                raise ValueError(f"{path}: expected one file for frame {name!r}, got {files[name].name} too.")
            files[name] = path
    return files


def _natural(name: str) -> list[str | int]:
    """So that 10 comes after 9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _read_raw_labels(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        return np.frombuffer(path.read_bytes(), np.uint32)  # which refuses bytes that are left over
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: expected a whole file of labels, got: {error}") from error


def _read_image(path: Path, mount: MountedCamera) -> dict[str, Any]:
    if mount.lens is not None:
        return {"bytes": mount.lens.straighten(path), "path": str(path)}
    _check_image_size(path, mount)
    return {"bytes": None, "path": str(path)}


def _check_image_size(path: Path, mount: MountedCamera) -> None:
    try:
        with Image.open(path) as picture:  # reads the head of the file only
            width, height = picture.size
    except OSError as error:
        raise ValueError(f"{path}: expected an image file, got: {error}") from error
    if (height, width) != mount.camera.image_size:
        raise ValueError(
            f"{path}: calibrated for (height, width) {mount.camera.image_size}, the image has {(height, width)}."
        )
