"""The tree of coordinate frames of `/tf` and `/tf_static`, and the motion from one frame to another."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from uov_hf.bags.messages import Pose, Quaternion, TFMessage, Transform, Vector3, frame_of, microseconds
from uov_hf.geometry.rotation import inverse_motion, rigid_motion
from uov_hf.geometry.trajectory import Trajectory


logger = logging.getLogger(__name__)

# Of a publisher that has not been started or calibrated yet.
NO_ROTATION = "their rotation is a quaternion of length 0"


class Transforms:
    """Which frame each frame is attached to, and the motion between both.

    A transform that never changes is static, on whichever topic it was published.

    Args:
        messages (iterable of `TFMessage`): Of `/tf` and `/tf_static`.
        source (`str`): The bag, for messages.
    """

    def __init__(self, messages: Iterable[TFMessage], source: str):
        self.source = source
        poses: dict[str, dict[int, NDArray[np.float64]]] = defaultdict(dict)
        self.parents: dict[str, str] = {}
        without_rotation: Counter[str] = Counter()
        for transform in (transform for message in messages for transform in message.transforms):
            child, motion = transform.child_frame_id.lstrip("/"), motion_of(transform.transform)
            if motion is None:
                without_rotation[child] += 1
            elif child and frame_of(transform) != child:
                self.parents[child] = frame_of(transform)
                poses[child][microseconds(transform)] = motion
        for child, count in without_rotation.items():
            logger.warning("%s: %d transforms of frame %r are left out: %s.", source, count, child, NO_ROTATION)
        self._to_parent = {child: _steady(f"{source}, tf of {child}", given) for child, given in poses.items()}

    def chain(self, frame: str) -> list[str]:
        """A frame, the frame that it is attached to, and so on to the root."""
        chain = [frame]
        while (parent := self.parents.get(chain[-1])) is not None:
            if parent in chain:
                raise ValueError(f"{self.source}: the tf frames {', '.join(chain)} form a circle.")
            chain.append(parent)
        return chain

    def motion(self, start: str, end: str, time: int) -> NDArray[np.float64]:
        """The motion (4, 4) from coordinates in one frame to coordinates in another, at a time in microseconds.

        Raises:
            ValueError: No chain of transforms joins both frames, or one has no sample near that time.
        """
        up, down = self.chain(start), self.chain(end)
        shared = next((frame for frame in up if frame in down), None)
        if shared is None:
            raise ValueError(
                f"{self.source}: expected a chain of transforms (`/tf`, `/tf_static`) from {start!r} to {end!r}, got "
                f"{' → '.join(up)} and {' → '.join(down)}."
            )
        return inverse_motion(self._up(down[: down.index(shared)], time)) @ self._up(up[: up.index(shared)], time)

    def moving_part(self, frame: str) -> str | None:
        """The nearest frame up the chain whose transform changes: the car's body. None if nothing moves."""
        return next((part for part in self.chain(frame) if self.trajectory_of(part) is not None), None)

    def trajectory_of(self, frame: str) -> Trajectory | None:
        """The poses of a frame in its parent; None if they do not change."""
        motion = self._to_parent.get(frame)
        return motion if isinstance(motion, Trajectory) else None

    def _up(self, frames: list[str], time: int) -> NDArray[np.float64]:
        """From the first frame to the parent of the last."""
        motion = np.eye(4)
        for frame in frames:
            step = self._to_parent[frame]
            motion = (step.at(time) if isinstance(step, Trajectory) else step) @ motion
        return motion


def motion_of(transform: Transform) -> NDArray[np.float64] | None:
    """A transform as a motion (4, 4); None without a rotation."""
    return _motion(transform.translation, transform.rotation)


def pose_of(pose: Pose) -> NDArray[np.float64] | None:
    """A pose as a motion (4, 4); None without a rotation."""
    return _motion(pose.position, pose.orientation)


def make_trajectory(source: str, poses: dict[int, NDArray[np.float64]]) -> Trajectory:
    """A trajectory of poses by time, sorted."""
    times = sorted(poses)
    return Trajectory(source, np.array(times, np.int64), np.array([poses[time] for time in times]))


def _steady(source: str, poses: dict[int, NDArray[np.float64]]) -> Trajectory | NDArray[np.float64]:
    first, *others = poses.values()
    return make_trajectory(source, poses) if any((other != first).any() for other in others) else first


def _motion(position: Vector3, orientation: Quaternion) -> NDArray[np.float64] | None:
    quaternion = np.array([orientation.x, orientation.y, orientation.z, orientation.w])
    if not np.linalg.norm(quaternion) > 0:  # NaN, too
        return None
    rotation = Rotation.from_quat(quaternion).as_matrix()
    return rigid_motion(rotation, np.array([position.x, position.y, position.z]))
