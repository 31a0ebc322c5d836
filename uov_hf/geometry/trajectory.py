"""The car's poses over time, steady motion between them, and scans without the car's motion."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from uov_hf.array_checks import check_array
from uov_hf.geometry.rotation import rigid_motion


# Microseconds beyond the first and the last pose: a scan takes up to 0.2 s, and its stamp is its start or its end.
EXTRAPOLATED = 250_000


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Poses of the car, and between them a steady motion.

    Args:
        source (`str`): The file or topic of the poses, for messages.
        times (`np.ndarray` of shape `(num_poses,)`): int64, microseconds, rising.
        poses (`np.ndarray` of shape `(num_poses, 4, 4)`): float64, from the body to the world, metres.

    Raises:
        ValueError: There are no poses, times do not rise, or the arrays do not fit.
    """

    source: str
    times: NDArray[np.int64]
    poses: NDArray[np.float64]

    def __post_init__(self):
        check_array("times", self.times, ("num_poses",), "iu")
        check_array("poses", self.poses, (len(self.times), 4, 4), "f")
        if not len(self.times) or (np.diff(self.times) <= 0).any() or not np.isfinite(self.poses).all():
            raise ValueError(
                f"{self.source}: expected one or more finite `poses` at `times` that rise, got {len(self.times)}."
            )

    @property
    def limits(self) -> tuple[float, float]:
        """The times between which poses are known: extrapolated by one interval, or 0.25 s if that is longer."""
        if len(self.times) == 1:
            return float(self.times[0]), float(self.times[0])
        first, second, before, last = self.times[[0, 1, -2, -1]].astype(float)
        return first - max(second - first, EXTRAPOLATED), last + max(last - before, EXTRAPOLATED)

    def at(self, time: float) -> NDArray[np.float64]:
        """The pose (4, 4) at a time in microseconds.

        Raises:
            ValueError: There are no poses near that time.
        """
        return self.at_times(np.array([time]))[0]

    def at_times(self, times: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.float64]:
        """The poses (num_times, 4, 4) at times in microseconds: positions on a line, rotations on a great circle.

        Raises:
            ValueError: There are no poses near one of the times.
        """
        check_array("times", times, ("num_times",))
        if not len(times):
            return np.empty((0, 4, 4))
        first, last = self.limits
        if wrong := [time for time in (times.min(), times.max()) if not first <= time <= last]:
            raise ValueError(
                f"{self.source}: expected poses around {wrong[0]:.0f} µs, got {len(self.times)} from {self.times[0]} "
                f"to {self.times[-1]} µs. Are both clocks the same, and the poses' times seconds?"
            )
        place = np.searchsorted(self.times, times, side="right") - 1
        before = np.clip(place, 0, max(len(self.times) - 2, 0))
        after = np.minimum(before + 1, len(self.times) - 1)
        interval = np.maximum(self.times[after] - self.times[before], 1)
        share = ((times - self.times[before]) / interval)[:, None]
        start, end = self.poses[before], self.poses[after]
        turn = Rotation.from_matrix(start[:, :3, :3]).inv() * Rotation.from_matrix(end[:, :3, :3])
        rotation = start[:, :3, :3] @ Rotation.from_rotvec(share * turn.as_rotvec()).as_matrix()
        poses = rigid_motion(rotation, start[:, :3, 3] + share * (end[:, :3, 3] - start[:, :3, 3]))
        place = np.maximum(place, 0)
        is_exact = self.times[place] == times  # a given pose stays the same to the bit
        poses[is_exact] = self.poses[place[is_exact]]
        return poses


def move_points(
    points: NDArray[np.float32],
    times: NDArray[np.float64],
    trajectory: Trajectory,
    lidar2body: NDArray[np.float64],
    world2lidar: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Points as if the lidar had measured all of them from one pose (motion compensation).

    Args:
        points (`np.ndarray` of shape `(num_points, >=3)`):
            float32, each in the frame that the lidar had when it measured the point. Points that are not finite stay,
            and so do further columns.
        times (`np.ndarray` of shape `(num_points,)`): Microseconds of each point, on the trajectory's clock.
        trajectory (`Trajectory`): Poses of the car.
        lidar2body (`np.ndarray` of shape `(4, 4)`): From the lidar to the part of the car that the poses are of.
        world2lidar (`np.ndarray` of shape `(4, 4)`): The inverse of the pose to move the points to.

    Returns:
        float32 of the shape of `points`; the arithmetic is float64.

    Raises:
        ValueError: A time is not finite, there are no poses near it, or an array has another shape.
    """
    check_array("points", points, ("num_points", "3 or more"), "f")
    check_array("times", times, (len(points),))
    check_array("lidar2body", lidar2body, (4, 4))
    check_array("world2lidar", world2lidar, (4, 4))
    is_echo = np.isfinite(points[:, :3]).all(axis=1)
    if not np.isfinite(times[is_echo]).all():
        raise ValueError("`times` must have a time of every point of the scan, got some that are not finite.")
    moments, of_point = np.unique(times[is_echo], return_inverse=True)  # the beams of one firing share a time
    if not len(moments):
        return points
    motions = (world2lidar @ trajectory.at_times(moments) @ lidar2body)[of_point]
    xyz = points[is_echo, :3].astype(np.float64)
    moved = points.copy()
    moved[is_echo, :3] = np.einsum("nij,nj->ni", motions[:, :3, :3], xyz) + motions[:, :3, 3]
    return moved


def travel(velocity: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """The motion (..., 4, 4) at a steady `velocity` (..., 6), metres and radians per second in its own axes."""
    turn = velocity[..., 3:] * seconds
    rotation = Rotation.from_rotvec(turn).as_matrix()
    # The path is an arc; its chord points half the turn aside.
    return rigid_motion(rotation, Rotation.from_rotvec(turn / 2).apply(velocity[..., :3] * seconds))


def velocity_between(before: NDArray[np.float64], after: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """The velocity (6,) with which [`travel`] moves one pose (4, 4) to the other."""
    motion = np.linalg.inv(before) @ after
    turn = Rotation.from_matrix(motion[:3, :3]).as_rotvec()
    return np.concatenate([Rotation.from_rotvec(-turn / 2).apply(motion[:3, 3]), turn]) / seconds
