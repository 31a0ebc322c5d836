"""Bags written by `rosbags`: messages by their fields, and all three kinds of file."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from scipy.spatial.transform import Rotation


KINDS = ("mcap", "db3", "bag")
NUMBERS = {np.dtype(form): number for number, form in enumerate(("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"), 1)}


class BagWriter:
    """Writes messages to an open bag; times are microseconds."""

    def __init__(self, kind: str, writer: Any):
        self.is_ros2, self.writer, self.connections = kind != "bag", writer, {}
        self.store = get_typestore(Stores.LATEST if self.is_ros2 else Stores.ROS1_NOETIC)
        if not self.is_ros2:  # rosbags has only the messages of ROS 1's core
            text = "geometry_msgs/TransformStamped[] transforms"
            self.store.register(get_types_from_msg(text, "tf2_msgs/msg/TFMessage"))

    def make(self, msgtype: str, /, **fields: Any) -> Any:
        return self.store.types[msgtype](**fields)

    def header(self, time: int, frame: str) -> Any:
        stamp = self.make("builtin_interfaces/msg/Time", sec=time // 1_000_000, nanosec=time % 1_000_000 * 1000)
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame, **({} if self.is_ros2 else {"seq": 0}))

    def write(self, topic: str, message: Any, time: int) -> None:
        """The message is recorded 3 ms after its time."""
        name = message.__msgtype__
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, name, typestore=self.store)
        serialize = self.store.serialize_cdr if self.is_ros2 else self.store.serialize_ros1
        self.writer.write(self.connections[topic], (time + 3000) * 1000, serialize(message, name))

    def cloud(self, topic: str, time: int, frame: str, points: np.ndarray, **changes: Any) -> None:
        """A structured array, with its offsets and padding."""
        big = [points.dtype[name].base.str.startswith(">") for name in points.dtype.names]
        fields = [
            self.make(
                "sensor_msgs/msg/PointField",
                name=name,
                offset=points.dtype.fields[name][1],
                datatype=NUMBERS[points.dtype[name].base.newbyteorder("=")],
                count=int(np.prod(points.dtype[name].shape)),
            )
            for name in points.dtype.names
        ]
        step = points.dtype.itemsize
        content = {
            "header": self.header(time, frame),
            "height": 1,
            "width": len(points),
            "fields": fields,
            "is_bigendian": any(big),
            "point_step": step,
            "row_step": step * len(points),
            "data": np.frombuffer(points.tobytes(), np.uint8),
            "is_dense": True,
        }
        self.write(topic, self.make("sensor_msgs/msg/PointCloud2", **(content | changes)), time)

    def image(self, topic: str, time: int, frame: str, pixels: np.ndarray, encoding: str) -> None:
        height, width = pixels.shape[:2]
        message = self.make(
            "sensor_msgs/msg/Image",
            header=self.header(time, frame),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=pixels.strides[0],
            data=np.frombuffer(pixels.tobytes(), np.uint8),
        )
        self.write(topic, message, time)

    def compressed(self, topic: str, time: int, frame: str, content: bytes) -> None:
        fields = {"header": self.header(time, frame), "format": "jpeg", "data": np.frombuffer(content, np.uint8)}
        self.write(topic, self.make("sensor_msgs/msg/CompressedImage", **fields), time)

    def camera_info(
        self, topic: str, time: int, frame: str, size, intrinsics, model="plumb_bob", d=(), r=None, p=None
    ) -> None:
        projection = np.column_stack([intrinsics, np.zeros(3)]) if p is None else p
        matrices = {
            "d": np.array(d, float),
            "k": np.ravel(intrinsics),
            "r": np.ravel(np.eye(3) if r is None else r),
            "p": projection.ravel(),
        }
        roi = dict.fromkeys(("x_offset", "y_offset", "height", "width"), 0)
        message = self.make(
            "sensor_msgs/msg/CameraInfo",
            header=self.header(time, frame),
            height=size[0],
            width=size[1],
            distortion_model=model,
            binning_x=0,
            binning_y=0,
            roi=self.make("sensor_msgs/msg/RegionOfInterest", **roi, do_rectify=False),
            **{name if self.is_ros2 else name.upper(): values for name, values in matrices.items()},
        )
        self.write(topic, message, time)

    def transforms(self, topic: str, time: int, *edges: tuple[str, str, np.ndarray]) -> None:
        """(parent, child, pose of the child in the parent)."""
        messages = [
            self.make(
                "geometry_msgs/msg/TransformStamped",
                header=self.header(time, parent),
                child_frame_id=child,
                transform=self.make(
                    "geometry_msgs/msg/Transform",
                    translation=self.make("geometry_msgs/msg/Vector3", **xyz_of(pose)),
                    rotation=self.quaternion(pose),
                ),
            )
            for parent, child, pose in edges
        ]
        self.write(topic, self.make("tf2_msgs/msg/TFMessage", transforms=messages), time)

    def odometry(self, topic: str, time: int, frame: str, body: str, pose: np.ndarray) -> None:
        place = self.make("geometry_msgs/msg/Point", **xyz_of(pose))
        posed = self.make("geometry_msgs/msg/Pose", position=place, orientation=self.quaternion(pose))
        zero = self.make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        still = self.make("geometry_msgs/msg/Twist", linear=zero, angular=zero)
        message = self.make(
            "nav_msgs/msg/Odometry",
            header=self.header(time, frame),
            child_frame_id=body,
            pose=self.make("geometry_msgs/msg/PoseWithCovariance", pose=posed, covariance=np.zeros(36)),
            twist=self.make("geometry_msgs/msg/TwistWithCovariance", twist=still, covariance=np.zeros(36)),
        )
        self.write(topic, message, time)

    def quaternion(self, pose: np.ndarray) -> Any:
        parts = Rotation.from_matrix(pose[:3, :3]).as_quat().tolist()
        return self.make("geometry_msgs/msg/Quaternion", **dict(zip("xyzw", parts, strict=True)))


def jpeg_of(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def xyz_of(pose: np.ndarray) -> dict[str, float]:
    return dict(zip("xyz", pose[:3, 3].tolist(), strict=True))


@contextmanager
def open_bag(folder: Path, kind: str, name: str = "drive") -> Iterator[BagWriter]:
    """A bag to write, at `path_of(folder, kind)`."""
    if kind == "bag":
        with Ros1Writer(folder / f"{name}.bag") as writer:
            yield BagWriter(kind, writer)
    else:
        plugin = StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
        with Ros2Writer(folder / name, version=9, storage_plugin=plugin) as writer:
            yield BagWriter(kind, writer)


def path_of(folder: Path, kind: str, name: str = "drive") -> Path:
    return folder / f"{name}.bag" if kind == "bag" else folder / name
