"""The messages of ROS that are read here, as `rosbags` returns them; fields that are not read are left out."""

from operator import index
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


POINT_CLOUD, POINT_FIELD = "sensor_msgs/msg/PointCloud2", "sensor_msgs/msg/PointField"
IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
ODOMETRY = "nav_msgs/msg/Odometry"
TRANSFORMS = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")  # the second is of old ROS 1


class Stamp(Protocol):
    sec: int
    nanosec: int


class Header(Protocol):
    stamp: Stamp
    frame_id: str


class Stamped(Protocol):
    header: Header


class PointField(Protocol):
    name: str
    offset: int
    datatype: int
    count: int


class PointCloud2(Stamped, Protocol):
    height: int
    width: int
    fields: list[PointField]
    is_bigendian: bool
    point_step: int
    row_step: int
    data: NDArray[np.uint8]
    is_dense: bool


@runtime_checkable
class RawImage(Stamped, Protocol):
    height: int
    width: int
    encoding: str
    step: int
    data: NDArray[np.uint8]


class CompressedImage(Stamped, Protocol):
    format: str
    data: NDArray[np.uint8]


class CameraInfo(Stamped, Protocol):
    """Its matrices are `d`, `k`, `r` and `p` in ROS 2, and capitals in ROS 1: see `matrix_of`."""

    height: int
    width: int
    distortion_model: str


class Vector3(Protocol):
    x: float
    y: float
    z: float


class Quaternion(Vector3, Protocol):
    w: float


class Transform(Protocol):
    translation: Vector3
    rotation: Quaternion


class TransformStamped(Stamped, Protocol):
    child_frame_id: str
    transform: Transform


class TFMessage(Protocol):
    transforms: list[TransformStamped]


class Pose(Protocol):
    position: Vector3
    orientation: Quaternion


class PoseWithCovariance(Protocol):
    pose: Pose


class Odometry(Stamped, Protocol):
    child_frame_id: str
    pose: PoseWithCovariance


def matrix_of(info: CameraInfo, name: str) -> NDArray[np.float64]:
    """The numbers of a camera's `d`, `k`, `r` or `p`."""
    values = getattr(info, name) if hasattr(info, name) else getattr(info, name.upper())
    return np.asarray(values, np.float64)


def microseconds(message: Stamped) -> int:
    """The time of a message's header, rounded; 0 where the driver has set none.

    Raises:
        TypeError: It is no whole number; a bag defines the types of its fields itself.
        ValueError: It is beyond the numbers of ROS.
    """
    sec, nanosec = index(message.header.stamp.sec), index(message.header.stamp.nanosec)
    if not -(2**31) <= sec < 2**32 or not 0 <= nanosec < 2**32:
        raise ValueError(f"expected a time of seconds and nanoseconds in 32 bits, got {sec} s and {nanosec} ns.")
    return sec * 1_000_000 + (nanosec + 500) // 1000


def frame_of(message: Stamped) -> str:
    """The coordinate frame of a message; old ROS 1 puts a slash before it."""
    return message.header.frame_id.lstrip("/")
