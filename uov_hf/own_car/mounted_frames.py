"""Frames of sensors that are mounted on one car: their columns from mounts, times and the car's trajectory."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from uov_hf.data.raw_folders import RawFrame
from uov_hf.geometry.trajectory import Trajectory, move_points
from uov_hf.own_car.calibration import MountedCamera


class MountedFrame(RawFrame):
    """A scan and the images of mounted cameras, each with its own time.

    Args:
        time (`int`): Microseconds of the scan.
        camera_times (mapping of `str` to `int`): Microseconds of the image of each camera.
        mounts (mapping of `str` to `MountedCamera`): The cameras of the frame by name, in the order of the columns.
        trajectory (`Trajectory`, *optional*): The car's poses; None where they are unknown.
        lidar2body (`np.ndarray` of shape `(4, 4)`): From the lidar to the part of the car that the poses are of.
    """

    def __init__(
        self,
        time: int,
        camera_times: Mapping[str, int],
        mounts: Mapping[str, MountedCamera],
        trajectory: Trajectory | None,
        lidar2body: NDArray[np.float64],
    ):
        self._time, self._camera_times, self._mounts = time, camera_times, mounts
        self._trajectory, self._lidar2body = trajectory, lidar2body
        self.camera_names = list(mounts)

    @property
    def timestamp(self) -> int | None:
        return self._time

    @property
    def camera_timestamps(self) -> NDArray[np.int64] | None:
        return np.array([self._camera_times[camera] for camera in self.camera_names], np.int64)

    @property
    def image_sizes(self) -> NDArray[np.int32]:
        return np.array([mount.camera.image_size for mount in self._mounts.values()], np.int32).reshape(-1, 2)

    @property
    def intrinsics(self) -> NDArray[np.float64]:
        return np.array([mount.camera.intrinsics for mount in self._mounts.values()]).reshape(-1, 3, 3)

    @property
    def lidar2global(self) -> NDArray[np.float64] | None:
        return self._lidar2global(self._time)

    @property
    def lidar2cam(self) -> NDArray[np.float64]:
        """Lidar → world → lidar at the time of the image → camera, composed once, in float64."""
        motions, here = {name: mount.camera.lidar2cam for name, mount in self._mounts.items()}, self.lidar2global
        for camera in self.camera_names:
            if (there := self._lidar2global(self._camera_times[camera])) is not None and here is not None:
                motions[camera] = motions[camera] @ np.linalg.inv(there) @ here
        return np.array(list(motions.values())).reshape(-1, 4, 4)

    def move_to_stamp(
        self,
        points: NDArray[np.float32],
        times: NDArray[np.float64],
        lidar2body: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float32]:
        """Points as the lidar would have measured them at the frame's time, from poses at `times` (microseconds).

        `lidar2body` is that of another lidar that measured them; by default it is the frame's own.
        """
        here = self.lidar2global
        if self._trajectory is None or here is None:
            return points
        mount = self._lidar2body if lidar2body is None else lidar2body
        return move_points(points, times, self._trajectory, mount, np.linalg.inv(here).astype(np.float64))

    def _lidar2global(self, time: int) -> NDArray[np.float64] | None:
        """The lidar's pose at a time; None without poses."""
        return None if self._trajectory is None else self._trajectory.at(time) @ self._lidar2body
